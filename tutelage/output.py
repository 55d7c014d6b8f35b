"""How commands print: tables for people, JSON for scripts; progress and errors go to stderr."""

import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import msgspec
import typer

from store.rows import encode
from tutelage.dispatch import load

PIPE_WIDTH = 500  # columns of a table that no person looks at
GAP = 2  # spaces between columns
INDENT = "    "
NOTHING = "-"  # the cell of a value that is not there
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def say(text: str) -> None:
    """Print one line to stdout."""
    typer.echo(text)


def warn(text: str) -> None:
    """Print one line to stderr."""
    typer.echo(text, err=True)


def command_name() -> str:
    """Return what to type for ``tutelage`` here: its path where a shell would not find it."""
    program = Path(sys.argv[0])
    return str(program) if program.name == "tutelage" and shutil.which("tutelage") is None else "tutelage"


def print_json(value: Any) -> None:
    """Print *value* as indented JSON."""
    typer.echo(msgspec.json.format(encode(value), indent=2).decode())


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str, prose: Sequence[str] = ()
) -> None:
    """Print a table for people, or *empty* when there are no rows.

    On a terminal that is too narrow for it, the columns named in *prose* go under each row, on lines of their own.
    """
    listed = [[cell(value) for value in row] for row in rows]
    if not listed:
        warn(empty)
        return
    widths = [max(map(len, column)) for column in zip(columns, *listed, strict=True)]
    # In a pipe there is no width to keep to: broken lines would break what reads them.
    width = _width() if sys.stdout.isatty() else max(PIPE_WIDTH, sum(widths) + GAP * len(widths))
    if sum(widths) + GAP * (len(widths) - 1) > width and prose:
        say("\n".join(narrow_table(columns, listed, prose=prose, width=width)))
        return
    load("tutelage.drawing:draw_table")(columns, listed, gap=GAP, width=width)


def _width() -> int:
    width: int = load("tutelage.drawing:terminal_width")()
    return width


def narrow_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, prose: Sequence[str], width: int
) -> list[str]:
    """Return the lines of a table whose *prose* columns stand under each row.

    >>> narrow_table(["id", "rule", "n"], [["p1", "Keep it short.", "3"], ["p22", "-", "4"]], prose=["rule"], width=12)
    ['id   n', 'p1   3', '    Keep it', '    short.', 'p22  4']
    """
    kept = [number for number, column in enumerate(columns) if column not in prose]
    widths = [max(len(row[number]) for row in (columns, *rows)) for number in kept]

    def line(row: Sequence[str]) -> str:
        cells = (row[number].ljust(size) for number, size in zip(kept, widths, strict=True))
        return (" " * GAP).join(cells).rstrip()

    lines = [line(columns)]
    for row in rows:
        lines.append(line(row))
        for number, column in enumerate(columns):
            if column in prose and row[number] != NOTHING:
                lines += wrap(row[number], width, initial_indent=INDENT, subsequent_indent=INDENT)
    return lines


def cell(value: Any) -> str:
    """Return a value as one cell; moments to the minute.

    >>> cell(None), cell(0.25), cell(True), cell(("a", "b")), cell("2026-11-21T12:00:00.000Z")
    ('-', '0.25', 'yes', 'a, b', '2026-11-21 12:00')
    """
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    text = str(value)
    return text[:16].replace("T", " ") if MOMENT.fullmatch(text) else text
