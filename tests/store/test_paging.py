"""Cursors come back as they were given out, or are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import InvalidError
from store.paging import decode_cursor, encode_cursor


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.integers(-(2**60), 2**60), min_size=1, max_size=3)
)
def test_a_cursor_comes_back_as_it_was(values: list[str | int]) -> None:
    assert decode_cursor(encode_cursor(*values), len(values)) == values


@pytest.mark.parametrize("cursor", ["x", "!!!", "bnVsbA", "\N{SNOWMAN}", "W10", encode_cursor("a", "b")])
def test_a_made_up_cursor_is_refused_by_name(cursor: str) -> None:
    with pytest.raises(InvalidError) as raised:
        decode_cursor(cursor, 1)
    assert raised.value.field == "cursor"
