"""Words without which whole groups of patterns cannot match, found in many texts at once.

A plain search for each word in each text takes longer than all that is then read off the text. So a page of texts is
looked at as one array: wherever four letters begin as one of the words does, the rest of the word is compared.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

HINTS: Final = (  # words, or parts of words, in lower case ASCII; 4 to 16 characters, or 1
    *("finally", "step", "example", "instance", "e.g.", "source", "reference", "according"),
    *("note", "mind", "caveat", "assum", "%", "percent", "alert", "notif", "flag", "severity", "priority"),
    *("chart", "graph", "plot", "gram"),
    *("let me know", "feel free", "hesitate", "to help", "helps"),
    *("next step", "questions", "do next", " also "),
    *("above", "over", "beyond", "more than", "at least", "exceed", "greater than", "larger than", "higher than", ">"),
)
HEAD: Final = 4  # characters that are looked for at every place
LONGEST: Final = 16
CACHED_SETS: Final = 10_000
TABLE_BITS: Final = 16  # of the table of heads: 64 KB, which stays in the processor's cache
FACTOR: Final = np.uint32(0x9E3779B1)  # spreads heads over the table. Source: Knuth, TAOCP 6.4: 2^32 / golden ratio

Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]


def hints_in(text: str) -> frozenset[str]:
    """Return which of ``HINTS`` a text in lower case holds.

    >>> sorted(hints_in("a footnote, for instance"))
    ['instance', 'note']
    """
    return frozenset(word for word in HINTS if word in text)


class HintFinder:
    """Finds ``HINTS`` in texts, in whatever case they are written."""

    def __init__(self) -> None:
        self._letters = [(place, ord(word)) for place, word in enumerate(HINTS) if len(word) == 1]
        self._by_head: dict[int, list[tuple[int, Bytes]]] = {}  # head -> places of its words, with what follows it
        for place, word in enumerate(HINTS):
            if len(word) > 1:
                head, rest = word[:HEAD].encode("ascii"), np.frombuffer(word[HEAD:].encode("ascii"), np.uint8)
                self._by_head.setdefault(int.from_bytes(head, "little"), []).append((place, rest))
        self._is_head = np.zeros(1 << TABLE_BITS, np.bool_)
        self._is_head[_slots(np.array(list(self._by_head), np.uint32))] = True
        self._words_of = lru_cache(maxsize=CACHED_SETS)(_words_of)

    def find(self, texts: Sequence[str]) -> list[frozenset[str]]:
        """Return for each of *texts* the same as ``hints_in(text.lower())``.

        >>> [sorted(found) for found in HintFinder().find(["Note that", "", "a Flowchart of 5 %"])]
        [['note'], [], ['%', 'chart']]
        """
        joined = "\n".join(texts)  # no hint holds a line break, so none is found across two texts
        # What is not ASCII is one byte too: everything stands where it stands in the text.
        data = joined.encode("ascii", "replace").lower() + b"\n" * (LONGEST + HEAD)
        starts = np.zeros(len(texts), np.int64)
        np.cumsum([len(text) + 1 for text in texts[:-1]], out=starts[1:])
        masks = np.zeros(len(texts), np.int64)
        for place, where in self._places(data, len(joined)):
            masks[np.searchsorted(starts, where, side="right") - 1] |= 1 << place
        return [self._words_of(mask) for mask in masks.tolist()]

    def _places(self, data: bytes, n: int) -> list[tuple[int, Integers]]:
        """Return each hint's place among all, with the places in the first *n* of *data* where it begins."""
        letters = np.frombuffer(data, np.uint8)
        found = [(place, np.flatnonzero(letters[:n] == letter)) for place, letter in self._letters]
        at, heads = self._candidates(data, n)
        windows = sliding_window_view(letters, LONGEST)
        for head, words in self._by_head.items():
            candidates = at[heads == head]
            for place, rest in words:
                is_word = (windows[candidates, HEAD : HEAD + len(rest)] == rest).all(1)
                found.append((place, candidates[is_word]))
        return found

    def _candidates(self, data: bytes, n: int) -> tuple[Integers, NDArray[np.uint32]]:
        """Return where the table of heads has an entry (k,), and the four bytes there (k,)."""
        places, heads = [], []
        for shift in range(HEAD):  # the bytes as whole numbers, four times, each time one byte further
            whole = np.frombuffer(data, "<u4", count=n // HEAD + 1, offset=shift)
            hit = np.flatnonzero(self._is_head[_slots(whole)])
            places.append(hit * HEAD + shift)
            heads.append(whole[hit])
        return np.concatenate(places), np.concatenate(heads)


def _words_of(mask: int) -> frozenset[str]:
    return frozenset(word for place, word in enumerate(HINTS) if mask >> place & 1)


def _slots(heads: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return (heads * FACTOR) >> np.uint32(32 - TABLE_BITS)
