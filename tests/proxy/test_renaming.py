"""The model's name as one upstream knows it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.renaming import rename_model

NAMES = {"gpt-5": 'my "deployment"', "ü": "plain"}


@pytest.mark.parametrize(
    ("body", "renamed"),
    [
        (
            b'{ "messages" : [ 1.50 ] , "model" : "gpt-5" }',
            rb'{ "messages" : [ 1.50 ] , "model" : "my \"deployment\"" }',
        ),
        ('{"model":"ü","x":"gpt-5"}'.encode(), b'{"model":"plain","x":"gpt-5"}'),
        (rb'{"model":"\u00fc"}', b'{"model":"plain"}'),
        (rb'{"x":"\ud83d","model":"gpt-5","y":NaN}', rb'{"x":"\ud83d","model":"my \"deployment\"","y":NaN}'),
        (b'{"x":{"model":"gpt-5"},"model":"gpt-5"}', rb'{"x":{"model":"gpt-5"},"model":"my \"deployment\""}'),
    ],
)
def test_the_name_alone_is_replaced(body: bytes, renamed: bytes) -> None:
    assert rename_model(body, NAMES) == renamed


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"model":5}', b'{"model":"gpt-4"}', b'{"model":"gpt-5', b'{"messages":["gpt-5"]}', b"\xff"],
)
def test_any_other_body_stays_as_it_is(body: bytes) -> None:
    assert rename_model(body, NAMES) is body


@given(st.dictionaries(st.text(), st.recursive(st.text() | st.integers(), st.lists)), st.booleans())
def test_the_other_fields_mean_what_they_meant(fields: dict[str, Any], is_ascii: bool) -> None:
    sent = {**fields, "model": "gpt-5"}

    renamed = rename_model(json.dumps(sent, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass"), NAMES)

    assert json.loads(renamed) == {**sent, "model": 'my "deployment"'}
