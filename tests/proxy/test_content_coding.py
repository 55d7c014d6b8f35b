"""Encoded replies are decoded for the record, and a few bytes never unfold to many."""

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from proxy.content_coding import decoder_for

MAX_BYTES = 100_000
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "identity": bytes,
    "": bytes,
}


def decode(encoding: str, pieces: list[bytes]) -> bytes | None:
    decoder = decoder_for(encoding)
    assert decoder is not None
    decoded = [decoder.decode(piece, MAX_BYTES) for piece in pieces]
    return None if None in decoded else b"".join(piece or b"" for piece in decoded)


@pytest.mark.parametrize("encoding", ENCODERS)
@given(data=st.binary(max_size=300), size=st.integers(1, 50))
def test_a_body_decodes_however_it_is_cut(encoding: str, data: bytes, size: int) -> None:
    encoded = ENCODERS[encoding](data)
    assert decode(encoding, [encoded[at : at + size] for at in range(0, len(encoded), size)]) == data


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("end", [b"", bytes(10), b"garbage"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_body_that_was_compressed_piece_by_piece_is_whole(encoding: str, end: bytes, size: int) -> None:
    encoded = ENCODERS[encoding](b"one ") + ENCODERS[encoding](b"two") + end
    assert decode(encoding, [encoded[at : at + size] for at in range(0, len(encoded), size)]) == b"one two"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_what_would_unfold_to_more_than_is_kept_is_given_up(encoding: str) -> None:
    assert decode(encoding, [ENCODERS[encoding](bytes(50_000_000))]) is None


def test_a_row_of_bodies_that_would_unfold_to_more_together_is_given_up() -> None:
    assert decode("gzip", [gzip.compress(bytes(60_000)) * 2]) is None


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_what_is_damaged_is_given_up(encoding: str) -> None:
    assert decode(encoding, [b"\xff" * 100]) is None


def test_an_encoding_that_nobody_knows_has_no_decoder() -> None:
    assert decoder_for("compress") is None
    assert decoder_for("gzip, br") is None
