"""What commands draw with rich: tables and progress. Loaded when something is drawn, for it takes 20 ms and 4 MB."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


def terminal_width() -> int:
    """Return the columns of the terminal."""
    return Console().width


def draw_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, gap: int, width: int) -> None:
    """Print a table to stdout, *gap* spaces between its columns."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, gap, 0, 0))
    for number, column in enumerate(columns):
        # The first column is an id to copy; a broken one cannot be.
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=width).print(table)


def error_console() -> Console:
    """Return a console on stderr, for progress: stdout stays clean for what was asked for."""
    return Console(stderr=True)


def file_progress() -> Progress:
    """Return a progress bar for a file that is read, on stderr, if that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = error_console()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
