"""Cursors come back as they were given out, or are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import InvalidError
from store.paging import decode_cursor, decode_number, encode_cursor


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.integers(-(2**60), 2**60), min_size=1, max_size=3)
)
def test_a_cursor_comes_back_as_it_was(values: list[str | int]) -> None:
    assert decode_cursor(encode_cursor(*values), len(values)) == values


@pytest.mark.parametrize(
    "cursor", ["x", "!!!", "bnVsbA", "\N{SNOWMAN}", "W10", encode_cursor("a", "b"), encode_cursor(2**63)]
)
def test_a_made_up_cursor_is_refused_by_name(cursor: str) -> None:
    with pytest.raises(InvalidError) as raised:
        decode_cursor(cursor, 1)
    assert raised.value.field == "cursor"


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_list_in_the_order_of_numbers_takes_any_number_and_no_text(number: int) -> None:
    assert decode_number(encode_cursor(number)) == number
    with pytest.raises(InvalidError):
        decode_number(encode_cursor(str(number)))
