"""Words found in many texts at once are those that a plain search finds in each."""

from hypothesis import given
from hypothesis import strategies as st

from learner.patterns.hints import HINTS, HintFinder, hints_in

FINDER = HintFinder()
PIECES = st.one_of(
    st.sampled_from([form for word in HINTS for form in (word, word.upper(), word.title(), word[:-1], word[1:])]),
    st.sampled_from([" ", "\n", "", "\u2019", "\u20ac", "\U0001f600", "\ud800", "\x00", "mindnote", "NOTIFLAG"]),
    st.text(max_size=5),
)
TEXTS = st.lists(st.lists(PIECES, max_size=8).map("".join), max_size=8)


def in_lower_case(text: str) -> str:
    """Return *text* with its ASCII letters in lower case: two other letters have an ASCII one in it."""
    return "".join(character.lower() if character.isascii() else character for character in text)


@given(TEXTS)
def test_the_words_of_many_texts_are_those_of_each(texts: list[str]) -> None:
    assert FINDER.find(texts) == [hints_in(in_lower_case(text)) for text in texts]


def test_a_word_is_not_found_across_two_texts() -> None:
    assert FINDER.find(["let me", "know", "no", "te"]) == [frozenset()] * 4


def test_words_are_of_a_length_that_is_looked_for() -> None:
    assert all(word.isascii() and (len(word) == 1 or 4 <= len(word) <= 16) for word in HINTS)
