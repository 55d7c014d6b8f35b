"""Fields of items that channels and files bring: each is what it may be, or an error names it."""

from collections.abc import Mapping
from typing import Any, Final

from store.clock import parse_iso
from store.datasets import MAX_LABEL_CHARS
from store.errors import InvalidError

MAX_TIMESTAMP_MS: Final = 253_402_300_799_999  # the last millisecond of the year 9999
MAX_TEXT_CHARS: Final = 20_000


def text_of(item: Mapping[str, Any], field: str) -> str:
    """Return a text that must be there.

    Raises:
        InvalidError: it is missing, empty, too long or no text.
    """
    return _required(item, field, MAX_TEXT_CHARS)


def required_label(item: Mapping[str, Any], field: str) -> str:
    """Return a short text that must be there.

    Raises:
        InvalidError: it is missing, empty, too long or no text.
    """
    return _required(item, field, MAX_LABEL_CHARS)


def label_of(item: Mapping[str, Any], field: str) -> str | None:
    """Return a short text, None when it is missing.

    Raises:
        InvalidError: it is too long or no text.
    """
    value = item.get(field)
    if value is not None and not isinstance(value, str):
        raise InvalidError(field, "must be a text")
    return value if value is None else _writable(value, field, MAX_LABEL_CHARS)


def flag_of(item: Mapping[str, Any], field: str) -> bool | None:
    """Return true or false, None when it is missing.

    Raises:
        InvalidError: it is something else.
    """
    value = item.get(field)
    if value is not None and not isinstance(value, bool):
        raise InvalidError(field, "must be true, false or null")
    return value


def confidence_of(value: Any, field: str) -> float:
    """Return a confidence.

    Raises:
        InvalidError: it is no number from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InvalidError(field, "must be a number from 0 to 1")
    return float(value)


def timestamp_ms(value: Any, field: str) -> int | None:
    """Return milliseconds since 1970, given as a number or as ISO 8601 text; None when it is missing.

    Raises:
        InvalidError: it is no moment from 1970 to 9999.
    """
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = round(parse_iso(value) * 1000)
        except (ValueError, OverflowError) as exc:
            raise InvalidError(field, "must be milliseconds since 1970, or ISO 8601") from exc
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= MAX_TIMESTAMP_MS:  # not a number is in no range either
        raise InvalidError(field, "must be milliseconds since 1970")
    return int(value)


def _required(item: Mapping[str, Any], field: str, max_chars: int) -> str:
    value = item.get(field)
    if not isinstance(value, str) or not value.strip():
        raise InvalidError(field, "must be a text that is not empty")
    return _writable(value, field, max_chars)


def _writable(value: str, field: str, max_chars: int) -> str:
    """Return *value*, which the database can hold."""
    if len(value) > max_chars:
        raise InvalidError(field, f"must have at most {max_chars} characters, not {len(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise InvalidError(field, "holds half of a surrogate pair, which is no text") from exc
    return value
