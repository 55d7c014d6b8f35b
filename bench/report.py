"""The page of all figures: RESULTS.md. Its first table says of every bar whether it holds."""

from collections.abc import Mapping
from pathlib import Path

from bench.bars import Bar, Part, table

RESULTS = Path(__file__).parent / "RESULTS.md"
ORDER = (
    "gateway",
    "cache",
    "memory",
    "start",
    "workers",
    "selection",
    "retrieval",
    "refits",
    "teacher",
    "knowledge",
    "nlu",
    "budget",
    "simworld",
    "crash",
    "runs",
    "ingest",
    "pages",
)
INTRODUCTION = """# What a request costs

`make bench` measures all of this; `python -m bench PART` measures one part and leaves the other sections as they were.
Every figure stands beside something that ran in the same minutes on the same machine. The bars are computed from the
figures below them; where three figures stand, they are at 1, 16 and 64 connections, and all of them must hold.
"""
WORDS = {True: "yes", False: "**no**", None: "not measured"}


def page(parts: Mapping[str, Part]) -> str:
    """Return the page of all *parts*, in their order."""
    present = [parts[name] for name in ORDER if name in parts]
    rows = [_row(part, bar) for part in present for bar in part.bars]
    missing = [name for name in ORDER if name not in parts]
    n_met = sum(bar.is_met is True for part in present for bar in part.bars)
    lines = [INTRODUCTION, f"## Bars: {n_met} of {len(rows)} hold\n", table(("what", "bar", "measured", "holds"), rows)]
    if missing:
        lines.append(f"Not measured yet: {', '.join(missing)}.\n")
    return "\n".join([*lines, *(f"## {part.title}\n\n{part.text}" for part in present)])


def _row(_part: Part, bar: Bar) -> tuple[str, str, str, str]:
    return bar.what, bar.limit, bar.measured, WORDS[bar.is_met]
