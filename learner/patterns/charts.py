"""Which chart or diagram a reply shows, or had a tool draw."""

import re
from typing import Final

from learner.patterns.reply_text import Read, has_any, span_of

_CHARTS: Final = (
    ("line", re.compile(r"\b(?:line|area|trend)[ -](?:chart|graph|plot)|\btime[ -]series (?:plot|chart|graph)")),
    ("bar", re.compile(r"\b(?:bar|column)[ -](?:chart|graph|plot)|\bhistogram")),
    ("pie", re.compile(r"\b(?:pie|donut|doughnut)[ -](?:chart|graph)")),
    ("scatter", re.compile(r"\bscatter[ -]?(?:chart|graph|plot)")),
    (
        "diagram",
        re.compile(r"\bflow ?charts?\b|\b(?:sequence|flow|architecture|class|state|entity[- ]relationship|er) diagram"),
    ),
)
_CHART_HINTS: Final = frozenset(("chart", "graph", "plot", "gram"))
_NO_CHART: Final = re.compile(r"\b(?:no|not|never|cannot|unable|without|instead of|rather than|avoid)\b|n't\b")
_DRAWN: Final = frozenset(("mermaid", "plantuml", "dot", "graphviz", "d2"))
_MARK: Final = re.compile(
    r"\"(?:mark|(?:chart_?|plot_?|graph_?)?type|kind)\"\s*:\s*(?:\{\s*\"type\"\s*:\s*)?\"(line|area|bar|arc|pie|doughnut|point|circle|scatter)\""
)
_MARKS: Final = {"area": "line", "arc": "pie", "doughnut": "pie", "point": "scatter", "circle": "scatter"}
_DRAWING: Final = ("chart", "graph", "plot", "visual", "draw")  # in the names of tools
_SPECS: Final = ("vega", "chart", "echarts", "plotly")


def chart(read: Read) -> tuple[str, ...] | None:
    """Return the kind of chart that the reply shows, empty without one; None for a reply without a text."""
    called = _called(read)
    if called or not read.reply.text:
        return called
    for language, body in read.blocks:
        if language in _DRAWN:
            return (_drawn(body),)
        if "vega" in body or has_any(language, _SPECS):
            mark = _MARK.search(body)
            if mark is not None:
                return (_MARKS.get(mark[1], mark[1]),)
    prose = read.prose
    span = span_of(prose, read.hints & _CHART_HINTS, 40, 20)
    if span is None:
        return ()
    for name, pattern in _CHARTS:
        if any(_is_shown(prose, match) for match in pattern.finditer(prose, *span)):
            return (name,)
    return ()


def _called(read: Read) -> tuple[str, ...] | None:
    """Return the kind of chart that a tool was asked for, or None."""
    for name, arguments in read.calls:
        mark = _MARK.search(arguments) if has_any(name, _DRAWING) else None
        if mark is not None:
            return (_MARKS.get(mark[1], mark[1]),)
    return None


def _drawn(body: str) -> str:
    kind = body.split(None, 1)[0] if body.strip() else ""
    if kind == "pie":
        return "pie"
    if kind.startswith("xychart"):
        return "line" if re.search(r"^\s*line\b", body, re.MULTILINE) else "bar"
    return "diagram"


def _is_shown(prose: str, match: re.Match[str]) -> bool:
    """Return whether a chart is part of the reply: not offered in a question, and not denied."""
    start = max(prose.rfind(end, 0, match.start()) for end in (". ", "! ", "? ", "\n"))
    ends = [at for at in (prose.find(end, match.end()) for end in ".!?\n") if at >= 0]
    stop = min(ends, default=len(prose) - 1)
    return prose[stop] != "?" and not _NO_CHART.search(prose, start + 1, match.start())
