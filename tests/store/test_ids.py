"""Ids: unique, of one form, in order of time."""

import re

from hypothesis import given
from hypothesis import strategies as st

from store.ids import ALPHABET, new_id

MOMENTS = st.floats(0, 4e9, allow_nan=False)


@given(now_s=MOMENTS)
def test_an_id_is_its_prefix_and_25_characters_of_the_alphabet(now_s: float) -> None:
    assert re.fullmatch(rf"ctx_[{ALPHABET}]{{25}}", new_id("ctx", now_s))


@given(earlier=MOMENTS, later=MOMENTS)
def test_ids_sort_by_the_millisecond_in_which_they_were_made(earlier: float, later: float) -> None:
    first, second = sorted((int(earlier * 1000), int(later * 1000)))

    assert (new_id("x", (second + 0.5) / 1000) > new_id("x", (first + 0.5) / 1000)) >= (second > first)


def test_ids_of_the_same_moment_differ() -> None:
    assert len({new_id("x", 1.0) for _ in range(10_000)}) == 10_000
