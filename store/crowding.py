"""How near each entry is to its nearest others: those in a crowd are near to every question that is about the crowd.

A question about transfers is a little nearer to the entry that looks most like all the others about transfers than to
the one that answers it. What an entry's neighbours have in common with it says nothing about which of them was meant,
so some of it is taken off. Source: Conneau et al. 2018, "Word translation without parallel data" (CSLS), sec. 2.3.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

N_NEAREST: Final = 5  # others; 3 to 10 are as good on CLINC150
# Entries that each is compared with: the first ones of a larger tenant. With half of all entries of BANKING77 and
# CLINC150 a third to a half of the gain is left, and 100,000 entries are compared in two seconds.
MAX_COMPARED: Final = 1024
BLOCK: Final = 2_000  # rows compared at a time, some 50 MB
NOBODY: Final = -1

Matrix = NDArray[np.float32]
RowNumbers = NDArray[np.int64]


class Crowding:
    """Of rows that are only ever added; one thread adds and removes, any may ask."""

    def __init__(self) -> None:
        self._compared: list[int] = []
        self._near: Matrix = np.zeros((0, N_NEAREST), np.float32)
        """(rows, 5), cosine to the nearest others."""
        self._who = np.zeros((0, N_NEAREST), np.int32)
        """(rows, 5), which these are; NOBODY where there are fewer."""
        self._of: Matrix = np.zeros(0, np.float32)

    def of(self, rows: Sequence[int]) -> list[float]:
        """Return of each of *rows* the mean cosine to its nearest others; 0 of one that is alone."""
        found: list[float] = self._of.take(rows).tolist()
        return found

    def add(self, vectors: Matrix, start: int) -> None:
        """Count the rows of *vectors* (n, d) from *start* on in; those before are counted already."""
        end = len(vectors)
        self._make_room(end)
        joining = list(range(start, min(end, start + MAX_COMPARED - len(self._compared))))
        self._compared += joining
        if joining:
            self._merge(vectors, np.arange(start), np.array(joining))
        self._merge(vectors, np.arange(start, end), np.array(self._compared, np.int64))

    def remove(self, vectors: Matrix, gone: Sequence[int]) -> None:
        """Let the rows *gone* be nobody's neighbours any more."""
        if not gone:
            return
        left = set(gone)
        self._compared = [row for row in self._compared if row not in left]
        orphans = np.flatnonzero(np.isin(self._who, gone).any(axis=1))
        self._who[orphans] = NOBODY
        self._merge(vectors, orphans, np.array(self._compared, np.int64))

    def _make_room(self, n_rows: int) -> None:
        """Grow in copies: whoever asks meanwhile finds what was there."""
        if n_rows > len(self._of):
            n_more = n_rows + n_rows // 8 - len(self._of)
            self._near = np.concatenate([self._near, np.zeros((n_more, N_NEAREST), np.float32)])
            self._who = np.concatenate([self._who, np.full((n_more, N_NEAREST), NOBODY, np.int32)])
            self._of = np.concatenate([self._of, np.zeros(n_more, np.float32)])

    def _merge(self, vectors: Matrix, rows: RowNumbers, others: RowNumbers) -> None:
        """Let *others* be neighbours of *rows* where they are nearer than those that these have."""
        if len(others):
            for start in range(0, len(rows), BLOCK):
                self._merge_block(vectors, rows[start : start + BLOCK], others)

    def _merge_block(self, vectors: Matrix, rows: RowNumbers, others: RowNumbers) -> None:
        known = np.where(self._who[rows] == NOBODY, -np.inf, self._near[rows])
        cosines = vectors[rows] @ vectors[others].T
        cosines[rows[:, None] == others] = -np.inf
        cosines = np.concatenate([known, cosines], axis=1)
        names = np.concatenate([self._who[rows], np.broadcast_to(others, (len(rows), len(others)))], axis=1)
        best = np.argpartition(-cosines, N_NEAREST - 1, axis=1)[:, :N_NEAREST]
        near = np.take_along_axis(cosines, best, axis=1)
        is_one = near > -np.inf
        near[~is_one] = 0.0
        self._near[rows] = near
        self._who[rows] = np.where(is_one, np.take_along_axis(names, best, axis=1), NOBODY)
        self._of[rows] = near.sum(axis=1) / np.maximum(is_one.sum(axis=1), 1)
