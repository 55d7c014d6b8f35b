"""The words that entries are asked with, as numbers: how much of a question's rare words each of them shares.

A vector blurs names: two entries about transfers, one "by SWIFT" and one "by SEPA", are nearly equally near to a
question that says SWIFT. How rare a word is among a tenant's own entries tells which one was meant. Source of the
weighting: Robertson & Zaragoza 2009, The Probabilistic Relevance Framework (BM25), without counts of a word in an
entry: phrasings repeat what they ask about by chance.
"""

import math
import re
import zlib
from array import array
from collections.abc import Sequence
from typing import Final

STEM_CHARS: Final = 5  # of a word that count: "transfer", "transfers" and "transferred" are one
LENGTH_SHARE: Final = 0.3  # of an entry's length that its words are divided by; BM25's b
_WORD: Final = re.compile(r"\w+")


class EntryWords:
    """Words of rows that are only ever added; one thread adds and removes, any may ask.

    They take four bytes each: a row's are a stretch of one array.
    """

    def __init__(self) -> None:
        self._words = array("I")
        self._starts = array("Q", [0])  # of each row, and the end of the last
        self._n_rows_with: dict[int, int] = {}
        self._n_rows = 0
        self._n_words = 0

    def add(self, texts: Sequence[str]) -> None:
        """Add a row for each of *texts*: all phrasings of an entry."""
        for text in texts:
            words = stems(text)
            self._words.extend(words)
            self._starts.append(len(self._words))
            self._count(words, 1)

    def remove(self, row: int) -> None:
        """Let a row's words count no more for how rare they are."""
        self._count(self._of(row), -1)

    def shares(self, question: str, rows: Sequence[int]) -> list[float]:
        """Return how much of what is rare in *question* each of *rows* has, at least 0; about 4 a word that few have.

        >>> words = EntryWords()
        >>> words.add(["Can I pay by card?", "Can I pay by cheque?", "Who are you?"])
        >>> [round(share, 2) for share in words.shares("cheques", [0, 1, 2])]
        [0.0, 0.94, 0.0]
        """
        rarity = {
            word: math.log((self._n_rows + 1) / (n_rows + 0.5))
            for word in stems(question)
            if (n_rows := self._n_rows_with.get(word, 0))
        }
        if not rarity or not self._n_words:
            return [0.0] * len(rows)
        mean_words = self._n_words / self._n_rows
        rare, rarity_of = frozenset(rarity), rarity.__getitem__
        found = []
        for row in rows:
            words = self._of(row)
            # The set looks a row's words up without a step of Python for each: dozens of rows may be near.
            shared = sum(map(rarity_of, rare.intersection(words)))
            found.append(shared / (1 - LENGTH_SHARE + LENGTH_SHARE * len(words) / mean_words))
        return found

    def _of(self, row: int) -> "array[int]":
        return self._words[self._starts[row] : self._starts[row + 1]]

    def _count(self, words: Sequence[int], step: int) -> None:
        n_rows_with = self._n_rows_with
        for word in words:
            left = n_rows_with.get(word, 0) + step
            if left > 0:
                n_rows_with[word] = left
            else:
                n_rows_with.pop(word, None)
        self._n_rows += step
        self._n_words += step * len(words)


def stems(text: str) -> list[int]:
    """Return the distinct words of *text*, each cut to its beginning and as a number of 32 bits.

    >>> stems("Transfers, transferred") == stems("transfer")
    True
    """
    beginnings = {word[:STEM_CHARS] for word in _WORD.findall(text.casefold())}
    return sorted(zlib.crc32(word.encode("utf-8", "replace")) for word in beginnings)
