"""The approved knowledge of one tenant in memory: rows that are only ever added, and views of them.

A change costs what changed: new and reworded entries become new rows, and a view says which rows are gone. Nothing
that a view shows is written again, so a request reads one while the next is made.
"""

from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from store.crowding import Crowding
from store.entry_words import EntryWords
from store.vectors import DIMENSIONS

SPARE_ROWS: Final = 64  # besides an eighth more than is needed; the system gives memory only to rows that are written
MAX_GONE_ROWS: Final = 1000  # besides a quarter of all; beyond, the rows are loaded anew without them


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries to serve, column by column."""

    ids: Sequence[str]
    vectors: NDArray[np.float32]
    """(n, 256), rows of unit length."""
    texts: Sequence[str]
    """As they stand in the block."""
    tokens: Sequence[int]
    """cl100k_base, of each text."""
    reviewed_s: Sequence[float]
    """When a person approved each, seconds since 1970."""
    asked: Sequence[str]
    """All phrasings of each; empty where their words shall not count."""


class ContextRows:
    """Rows in the order in which they came; one thread adds, any may read the rows of a view.

    Args:
        capacity: rows for which there is room without a copy.
    """

    def __init__(self, capacity: int = 0) -> None:
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.tokens: list[int] = []
        self.reviewed_s = array("d")
        self.words = EntryWords()
        self.crowding = Crowding()
        self.n_changes = 0
        self._vectors = np.empty((capacity, DIMENSIONS), np.float32)
        self._row_of: dict[str, int] = {}

    def add(self, entries: Entries) -> list[int]:
        """Add a row for each entry; return the rows of earlier wordings that they replace."""
        replaced = self.remove(entries.ids)  # first: an entry's earlier wording is no neighbour of it
        start, end = len(self.ids), len(self.ids) + len(entries.ids)
        if end > len(self._vectors):
            grown = np.empty((end + end // 8 + SPARE_ROWS, DIMENSIONS), np.float32)
            grown[:start] = self._vectors[:start]
            self._vectors = grown
        self._vectors[start:end] = entries.vectors
        self.texts.extend(entries.texts)
        self.tokens.extend(entries.tokens)
        self.reviewed_s.extend(entries.reviewed_s)
        self.words.add(entries.asked)
        self.crowding.add(self._vectors[:end], start)
        self.ids.extend(entries.ids)
        self._row_of.update(zip(entries.ids, range(start, end), strict=True))
        return replaced

    def remove(self, ids: Collection[str]) -> list[int]:
        """Forget which rows *ids* have; return these rows."""
        self.n_changes += 1
        gone = [row for context_id in ids if (row := self._row_of.pop(context_id, None)) is not None]
        for row in gone:
            self.words.remove(row)
        self.crowding.remove(self._vectors[: len(self.ids)], gone)
        return gone

    def view(self, gone: frozenset[int] = frozenset()) -> "ServedContexts":
        """Return what is there now, without the rows in *gone*."""
        n_rows = len(self.ids)
        return ServedContexts(self, self._vectors[:n_rows], gone, self.n_changes)


@dataclass(frozen=True, slots=True)
class ServedContexts:
    """What is served of some rows; immutable."""

    rows: ContextRows = field(default_factory=ContextRows)
    vectors: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, DIMENSIONS), np.float32))
    """(n, 256), contiguous, rows of unit length, those that are gone among them."""
    gone: frozenset[int] = frozenset()
    """Rows of entries that were reworded or are not served any more."""
    n_changes: int = 0

    def __len__(self) -> int:
        return len(self.vectors) - len(self.gone)

    @property
    def live_rows(self) -> NDArray[np.int64]:
        """Return the rows that are served, in their order."""
        is_live = np.ones(len(self.vectors), bool)
        is_live[list(self.gone)] = False
        return is_live.nonzero()[0]

    @property
    def ids(self) -> list[str]:
        """Return the ids of what is served, in order."""
        return sorted(self.rows.ids[row] for row in self.live_rows.tolist())

    @property
    def can_change(self) -> bool:
        """Whether ``changed`` may be called: nothing came after this view, and few of its rows are gone."""
        return self.n_changes == self.rows.n_changes and len(self.gone) <= max(MAX_GONE_ROWS, len(self.vectors) // 4)

    def changed(self, entries: Entries, removed: Collection[str]) -> "ServedContexts":
        """Return what is served once *entries* are added or reworded and those with the ids in *removed* are gone."""
        gone = self.gone.union(self.rows.remove(removed), self.rows.add(entries))
        return self.rows.view(gone)
