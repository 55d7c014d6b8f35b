"""How commands print: tables for people, JSON for scripts; progress and errors go to stderr."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from store.rows import encode

Row = TypeVar("Row")
PAGE = 1000  # rows fetched at a time


def say(text: str) -> None:
    """Print one line to stdout."""
    typer.echo(text)


def warn(text: str) -> None:
    """Print one line to stderr."""
    typer.echo(text, err=True)


def error_console() -> Console:
    """Return a console on stderr, for progress: stdout stays clean for what was asked for."""
    return Console(stderr=True)


def all_pages(fetch: Callable[[int, str | None], tuple[list[Row], str | None]], limit: int | None = None) -> list[Row]:
    """Return the rows of every page (at most *limit*) of a list that takes ``(limit, cursor)``."""
    return list(_pages(fetch, limit))


def _pages(fetch: Callable[[int, str | None], tuple[list[Row], str | None]], limit: int | None) -> Iterator[Row]:
    cursor: str | None = None
    n_left = limit if limit is not None else sys.maxsize
    while n_left > 0:
        rows, cursor = fetch(min(PAGE, n_left), cursor)
        yield from rows
        n_left -= len(rows)
        if cursor is None:
            return


def print_json(value: Any) -> None:
    """Print *value* as indented JSON."""
    typer.echo(msgspec.json.format(encode(value), indent=2).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print a table for people, or *empty* when there are no rows."""
    listed = list(rows)
    if not listed:
        warn(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in listed:
        table.add_row(*(Text(cell(value)) for value in row))
    console = Console()
    # In a pipe there is no width to keep to: cut lines would break what reads them.
    console.print(table, width=None if console.is_terminal else 400, soft_wrap=not console.is_terminal)


def cell(value: Any) -> str:
    """Return a value as one cell.

    >>> cell(None), cell(0.25), cell(True), cell(("a", "b"))
    ('-', '0.25', 'yes', 'a, b')
    """
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return str(value)
