"""How rare a word is counts as if only the rows that are there had ever been."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.entry_words import LENGTH_SHARE, EntryWords, stems

text = st.text(alphabet="abc ä-\n", max_size=20)


@given(kept=st.lists(text, min_size=1, max_size=8), gone=st.lists(text, max_size=8), question=text)
def test_rows_that_are_gone_leave_no_trace(kept: list[str], gone: list[str], question: str) -> None:
    words, anew = EntryWords(), EntryWords()
    words.add(gone)
    words.add(kept)
    for row in range(len(gone)):
        words.remove(row)
    anew.add(kept)
    rows = list(range(len(kept)))
    assert words.shares(question, [row + len(gone) for row in rows]) == anew.shares(question, rows)


def test_a_rare_word_counts_more_than_one_that_most_entries_have() -> None:
    words = EntryWords()
    words.add(["card lost", "card blocked", "card refund"])
    shares = words.shares("my card was blocked", [0, 1, 2])
    assert shares[0] == pytest.approx(shares[2])
    assert shares[1] > 3 * shares[0] > 0


def test_a_lone_surrogate_is_a_word_like_another() -> None:
    words = EntryWords()
    words.add(["a\ud800b c", "d"])
    assert words.shares("a\ud800b", [0, 1])[1] == 0.0


@given(rows=st.lists(text, min_size=1, max_size=8), question=text)
def test_a_share_is_the_sum_of_the_rarities_of_the_words_in_common(rows: list[str], question: str) -> None:
    words, found = EntryWords(), [set(stems(row)) for row in rows]
    words.add(rows)
    mean_words = sum(map(len, found)) / len(rows)
    for row, share in zip(found, words.shares(question, range(len(rows))), strict=True):
        rarities = (math.log((len(rows) + 1) / (sum(word in other for other in found) + 0.5)) for word in row)
        shared = sum(rarity for word, rarity in zip(row, rarities, strict=True) if word in stems(question))
        length = 1 - LENGTH_SHARE + LENGTH_SHARE * len(row) / mean_words if mean_words else 1.0
        assert share == pytest.approx(shared / length)
