"""Lists page by page: the cursor says where the next page begins, as text that the reader passes back unchanged."""

import base64
import binascii
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Protocol, TypeVar

import msgspec

from store.errors import InvalidError

PAGE: Final = 1000  # rows at a time, where all are read

Item = TypeVar("Item")
Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # what SQLite takes as a number
_KEYS: Final = msgspec.json.Decoder(list[str | Whole])


class ListPage(Protocol[Item]):
    """A list of the store, its other arguments given (``functools.partial``)."""

    def __call__(self, *, limit: int, cursor: str | None) -> tuple[list[Item], str | None]:
        """Return a page and the cursor of the next, None after the last."""
        ...


def all_rows(list_page: ListPage[Item], limit: int | None = None) -> Iterator[Item]:
    """Yield the rows of every page, at most *limit* where one is given."""
    cursor: str | None = None
    n_left = sys.maxsize if limit is None else limit
    while n_left > 0:
        rows, cursor = list_page(limit=min(PAGE, n_left), cursor=cursor)
        yield from rows
        n_left -= len(rows)
        if cursor is None:
            return


def encode_cursor(*values: str | int) -> str:
    """Return the cursor that stands for the sort key *values* of a page's last row.

    >>> decode_cursor(encode_cursor("2026-11-21", 7), 2)
    ['2026-11-21', 7]
    """
    return base64.urlsafe_b64encode(msgspec.json.encode(values)).decode().rstrip("=")


def decode_cursor(cursor: str, n_values: int) -> list[str | int]:
    """Return the sort key in *cursor*.

    Raises:
        InvalidError: *cursor* is not one that this list gave out.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        values = _KEYS.decode(base64.urlsafe_b64decode(padded))
    except (ValueError, binascii.Error) as exc:
        raise InvalidError("cursor", f"{cursor!r} is not a cursor of this list") from exc
    if len(values) != n_values:
        raise InvalidError("cursor", f"{cursor!r} is not a cursor of this list")
    return values


def decode_number(cursor: str) -> int:
    """Return the number that a list in the order of numbers goes on from.

    Raises:
        InvalidError: *cursor* is not one that such a list gave out.
    """
    (value,) = decode_cursor(cursor, 1)
    if not isinstance(value, int):
        raise InvalidError("cursor", f"{cursor!r} is not a cursor of this list")
    return value


def split_page(items: Sequence[Item], limit: int) -> tuple[list[Item], bool]:
    """Return the first *limit* of *items* and whether more follow; ask the database for ``limit + 1``.

    >>> split_page([1, 2, 3], 2)
    ([1, 2], True)
    """
    return list(items[:limit]), len(items) > limit
