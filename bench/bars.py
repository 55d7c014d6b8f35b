"""The bars that the figures are held against: a page says of each what it is, what was measured, and whether it holds.

What a part of the benchmark hands over is kept as JSON (results.json), so that one part can run alone and the page
still shows the others.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

BAR_PREFIX = "BAR "  # begins a line that a part in a process of its own prints: a bar as JSON
RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True)
class Bar:
    """One promise: what, its limit, and what was measured; ``is_met`` None: it could not be measured here."""

    what: str
    limit: str
    measured: str
    is_met: bool | None


@dataclass(frozen=True)
class Part:
    """What one part of the benchmark found: bars, and the page's section about it."""

    name: str
    title: str
    text: str
    bars: list[Bar] = field(default_factory=list)


def at_most(what: str, limit: str, largest: float, measured: Sequence[float], form: str = "{:,.2f}") -> Bar:
    """Return a bar that every measured figure must keep; it is not measured without any."""
    shown = " / ".join(form.format(figure) for figure in measured)
    return Bar(
        what, limit, shown or "not measured", all(figure <= largest for figure in measured) if measured else None
    )


def at_least(what: str, limit: str, smallest: float, measured: Sequence[float], form: str = "{:,.2f}") -> Bar:
    """Return a bar that every measured figure must reach; it is not measured without any."""
    shown = " / ".join(form.format(figure) for figure in measured)
    return Bar(
        what, limit, shown or "not measured", all(figure >= smallest for figure in measured) if measured else None
    )


def print_bar(bar: Bar) -> None:
    """Print *bar* for the process that started this one."""
    print(BAR_PREFIX + json.dumps(asdict(bar), ensure_ascii=False))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, ["---"] * len(header), *rows))


def load_parts(path: Path = RESULTS) -> dict[str, Part]:
    """Return the parts as they were last measured, by name."""
    if not path.exists():
        return {}
    return {
        name: Part(part["name"], part["title"], part["text"], [Bar(**bar) for bar in part["bars"]])
        for name, part in json.loads(path.read_text(encoding="utf-8")).items()
    }


def save_parts(parts: dict[str, Part], path: Path = RESULTS) -> None:
    path.write_text(
        json.dumps({name: asdict(part) for name, part in parts.items()}, indent=1, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )
