"""Undoes the ``content-encoding`` of a reply, piece by piece and bounded: what a few bytes may unfold to is limited."""

import zlib
from typing import Final, Protocol

import brotli
import zstandard

# Zstandard's streaming decoder takes no bound on what it returns. A block needs at least four bytes and unfolds to at
# most 128 KB, so that a slice of this many stays below 2 MB however it was made (RFC 8878, section 3.1.1.2).
ZSTD_SLICE_BYTES: Final = 64
ZSTD_WINDOW_BYTES: Final = 8 << 20  # all that a decoder must support (RFC 9659)


class Decoder(Protocol):
    """Decodes one body."""

    def decode(self, data: bytes, max_bytes: int) -> bytes | None:
        """Return what *data* unfolds to; None when it is damaged or would unfold to more than *max_bytes*."""
        ...


def decoder_for(encoding: str) -> Decoder | None:
    """Return the decoder of a ``content-encoding``, in lower case; None for one that is not known."""
    match encoding:
        case "" | "identity":
            return Identity()
        case "gzip" | "x-gzip" | "deflate":
            return Zlib()
        case "br":
            return Brotli()
        case "zstd":
            return Zstd()
    return None


class Identity:
    """No encoding at all."""

    def decode(self, data: bytes, max_bytes: int) -> bytes | None:
        del max_bytes
        return data


class Zlib:
    """Both gzip and deflate: they are told apart by themselves. Servers that compress piece by piece make a row of it.

    What follows on the last of a row, as padding does, says nothing (RFC 1952, section 2.2).
    """

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self._is_in_row = False  # one of them has ended
        self._is_over = False

    def decode(self, data: bytes, max_bytes: int) -> bytes | None:
        pieces, n_bytes = [], 0
        while data and not self._is_over:
            if self._inflate.eof:
                self._is_in_row = True
                self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
            try:
                piece = self._inflate.decompress(data, max_bytes - n_bytes + 1)
            except zlib.error:
                if not self._is_in_row:
                    return None
                self._is_over = True
                break
            pieces.append(piece)
            n_bytes += len(piece)
            if n_bytes > max_bytes:
                return None
            data = self._inflate.unused_data
        return b"".join(pieces)


class Brotli:
    def __init__(self) -> None:
        self._decompressor = brotli.Decompressor()

    def decode(self, data: bytes, max_bytes: int) -> bytes | None:
        try:
            decoded: bytes = self._decompressor.process(data, output_buffer_limit=max_bytes)
        except brotli.error:
            return None
        return decoded if self._decompressor.can_accept_more_data() else None


class Zstd:
    def __init__(self) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
        self._decompress = decompressor.decompressobj(read_across_frames=True).decompress

    def decode(self, data: bytes, max_bytes: int) -> bytes | None:
        pieces, n_bytes = [], 0
        for start in range(0, len(data), ZSTD_SLICE_BYTES):
            try:
                piece = self._decompress(data[start : start + ZSTD_SLICE_BYTES])
            except zstandard.ZstdError:
                return None
            pieces.append(piece)
            n_bytes += len(piece)
            if n_bytes > max_bytes:
                return None
        return b"".join(pieces)
