"""The bytes of the statistics: a msgpack header and numpy arrays, compressed, with a checksum."""

import io
import zlib
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

LEVEL: Final = 1  # of compression: most of what there is to gain are zeros
CHECKSUM_BYTES: Final = 4


class SavedAccount(msgspec.Struct, frozen=True):
    """A pattern's tally; its users are an array beside it."""

    pattern_id: str
    n_used: int
    last_used_s: float | None
    score: float
    remaining: float
    n_signals: int
    n_places: int  # on the user axis when the users were counted


class State(msgspec.Struct, frozen=True):
    """All that is no array."""

    version: int
    strata_field: Literal["segment", "data_source", "prompt_template"] | None
    question_types: list[str]
    groups: list[str]
    columns: list[tuple[str, str]]
    users: list[str]
    accounts: list[SavedAccount]
    signals_by_day: dict[int, float]
    configured: list[float]
    weights: list[float]
    weighed_s: float
    n_responses: int


def pack(state: State, arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return *state* and *arrays* as bytes."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, state=np.frombuffer(msgspec.msgpack.encode(state), np.uint8), **arrays)
    packed = zlib.compress(file.getvalue(), LEVEL)
    return zlib.crc32(packed).to_bytes(CHECKSUM_BYTES) + packed


def unpack(data: bytes) -> tuple[State, dict[str, NDArray[Any]]]:
    """Return what ``pack`` was given.

    Raises:
        ValueError: *data* is damaged.
    """
    packed = data[CHECKSUM_BYTES:]
    if zlib.crc32(packed).to_bytes(CHECKSUM_BYTES) != data[:CHECKSUM_BYTES]:
        raise ValueError(f"the saved state of {len(data)} bytes is damaged")
    try:
        with np.load(io.BytesIO(zlib.decompress(packed)), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        state = msgspec.msgpack.decode(arrays.pop("state").tobytes(), type=State)
    except (zlib.error, OSError, KeyError, msgspec.MsgspecError) as exc:
        raise ValueError(f"the saved state of {len(data)} bytes cannot be read") from exc
    return state, arrays
