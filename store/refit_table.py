"""What turns the local word vectors into those of one tenant: an offset for each word that the tenant's people use.

A text's vector is the sum of its tokens' vectors and offsets, normalised. So a tenant has 1 KB for each of its words,
not a table of 32 MB, and what it never speaks of stays where it was.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from store.vectors import DIMENSIONS

SEPARATOR: Final = "+"  # between the local model's name and a refit's id

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class RefitTable:
    """One refit of the local table; immutable."""

    name: str
    """Stored with each vector that it makes."""
    token_ids: NDArray[np.int32]
    """(m,), ascending: the tokens with an offset."""
    offsets: Matrix
    """(m, 256)."""

    def vector(self, ids: list[int], vectors: Matrix) -> Matrix:
        """Return (256,), not normalised, for the tokens *ids* with the local *vectors* (n, 256); n is at least 1."""
        found: Matrix = np.add.reduce(vectors, axis=0)
        if len(self.token_ids):
            rows = self.token_ids.searchsorted(ids)
            rows[rows == len(self.token_ids)] = 0
            known = rows[self.token_ids[rows] == ids]
            found += np.add.reduce(self.offsets.take(known, axis=0), axis=0)
        return found

    def encode(self) -> tuple[bytes, bytes]:
        """Return the columns ``token_ids`` and ``offsets``; offsets in half precision."""
        return self.token_ids.astype("<i4").tobytes(), self.offsets.astype("<f2").tobytes()

    @classmethod
    def decode(cls, name: str, token_ids: bytes, offsets: bytes) -> Self:
        """Return the table in these columns.

        Raises:
            ValueError: their lengths do not fit together.
        """
        ids = np.frombuffer(token_ids, "<i4").astype(np.int32)
        return cls(name, ids, np.frombuffer(offsets, "<f2").astype(np.float32).reshape(len(ids), DIMENSIONS))


def refit_name(local_model: str, refit_id: str) -> str:
    """Return the name of vectors that a refit of *local_model* makes."""
    return f"{local_model}{SEPARATOR}{refit_id}"


def is_refit_of(name: str, local_model: str) -> bool:
    """Return whether *name* is of vectors that a refit of *local_model* makes."""
    return name.startswith(local_model + SEPARATOR)
