"""Rows as readers of the API and the command see them: plain values under the names of their columns.

A column that ends in ``_json`` is there twice: as the text that the table holds and, without the ending, as a value.
Vectors are left out: they say nothing to a reader.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

import msgspec

_JSON_COLUMNS: Final = ("conditions", "questions", "tags")
_LEFT_OUT: Final = "embedding"


def plain(value: Any) -> Any:
    """Return *value* (a row, or rows inside lists and objects) as JSON can hold it.

    >>> from store.plan import Conditions
    >>> plain({"conditions": Conditions(question_type=("refund",))})
    {'conditions': {'question_type': ['refund']}}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return _row(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return plain(msgspec.to_builtins(value))
    return msgspec.to_builtins(value)


def _row(row: Any) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for field in fields(row):
        if field.name == _LEFT_OUT:
            continue
        shown[field.name] = plain(getattr(row, field.name))
        if field.name in _JSON_COLUMNS:
            shown[f"{field.name}_json"] = msgspec.json.encode(shown[field.name]).decode()
    return shown


def encode(value: Any) -> bytes:
    """Return *value* as JSON text."""
    return msgspec.json.encode(plain(value))
