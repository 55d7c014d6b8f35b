"""What turns the local word vectors into those of one tenant: a map of all of them, and what its own words get besides.

A text's vector is ``mean of its tokens' vectors @ map + mean of their offsets``, normalised. So a tenant has 256 KB and
1 KB for each of its words, not a table of 32 MB.
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
    map: Matrix
    """(256, 256)."""
    token_ids: NDArray[np.int32]
    """(m,), ascending: the tokens with an offset."""
    offsets: Matrix
    """(m, 256)."""

    def vector(self, ids: list[int], vectors: Matrix) -> Matrix:
        """Return (256,), not normalised, for the tokens *ids* with the local *vectors* (n, 256); n is at least 1."""
        found: Matrix = np.add.reduce(vectors, axis=0) @ self.map
        if len(self.token_ids):
            rows = self.token_ids.searchsorted(ids)
            rows[rows == len(self.token_ids)] = 0
            known = rows[self.token_ids[rows] == ids]
            found += np.add.reduce(self.offsets.take(known, axis=0), axis=0)
        return found

    def encode(self) -> tuple[bytes, bytes, bytes]:
        """Return the columns ``map``, ``token_ids`` and ``offsets``; offsets in half precision."""
        return (
            self.map.astype("<f4").tobytes(),
            self.token_ids.astype("<i4").tobytes(),
            self.offsets.astype("<f2").tobytes(),
        )

    @classmethod
    def decode(cls, name: str, columns: tuple[bytes, bytes, bytes]) -> Self:
        """Return the table in these columns.

        Raises:
            ValueError: their lengths do not fit together.
        """
        table_map, token_ids, offsets = columns
        ids = np.frombuffer(token_ids, "<i4").astype(np.int32)
        return cls(
            name,
            np.frombuffer(table_map, "<f4").astype(np.float32).reshape(DIMENSIONS, DIMENSIONS),
            ids,
            np.frombuffer(offsets, "<f2").astype(np.float32).reshape(len(ids), DIMENSIONS),
        )


def refit_name(local_model: str, refit_id: str) -> str:
    """Return the name of vectors that a refit of *local_model* makes."""
    return f"{local_model}{SEPARATOR}{refit_id}"
