"""Vectors as the database holds them: float32, little-endian, one after the other."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

DIMENSIONS: Final = 256


def encode_vector(vector: NDArray[np.float32]) -> bytes:
    """Return the bytes of an ``embedding`` column."""
    return np.ascontiguousarray(vector, dtype="<f4").tobytes()


def decode_vector(blob: bytes) -> NDArray[np.float32]:
    """Return the vector (d,) in an ``embedding`` column; it cannot be written to."""
    return np.frombuffer(blob, dtype="<f4").astype(np.float32, copy=False)


def decode_vectors(blobs: Sequence[bytes]) -> NDArray[np.float32]:
    """Return the vectors (n, 256) in the ``embedding`` columns of n rows; they cannot be written to.

    Raises:
        ValueError: one of them has another length.
    """
    if any(len(blob) != 4 * DIMENSIONS for blob in blobs):
        raise ValueError(f"a stored vector has not {DIMENSIONS} dimensions")
    return decode_vector(b"".join(blobs)).reshape(len(blobs), DIMENSIONS)
