"""What a reply was like: one extractor per dimension, each with the values that an instruction can ask for.

A characteristic is a pair (dimension, value). A reply for which a dimension means nothing (no query, no tools offered)
has none of its values and is not compared in it.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from store.vocabulary import PatternType

Booleans = NDArray[np.bool_]

VERSION: Final = 2  # of the extractors, terminology's too: raise it when one changes, and replies are read again
MAX_TOOLS: Final = 20  # different tools of a tenant that are looked at, most used first
THRESHOLDS: Final = (1, 2, 5, 10, 15, 20, 25, 30, 50)  # percent, that a reply's threshold is rounded to


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply as extractors see it."""

    text: str
    format: str  # as recorded: table, code, list, prose, json, tool_calls
    length_band: str
    offers_tools: bool
    tools: tuple[str, ...]  # called in this turn, in order


Extractor = Callable[[Reply], tuple[str, ...] | None]
"""Values that a reply has; empty: none of the named ones; None: the dimension means nothing for it."""


@dataclass(frozen=True, slots=True)
class Membership:
    """Which of n replies have one characteristic, and which have another value of the same dimension."""

    dimension: str
    type: PatternType
    value: str
    has: Booleans  # (n,)
    others: Booleans  # (n,) the dimension applies, the value does not


def reply_of(reply_json: str, messages_json: str, *, format: str, length_band: str, offers_tools: bool) -> Reply:  # noqa: A002
    """Return the reply in its recorded form; what cannot be read is empty."""
    message = _decoded(reply_json)
    added = _decoded(messages_json)
    earlier = added if isinstance(added, list) else []
    tools = [name for part in [*earlier, message] for name in _called(part)]
    return Reply(_text(message), format, length_band, offers_tools, tuple(dict.fromkeys(tools)))


def characterise(reply: Reply) -> dict[str, tuple[str, ...]]:
    """Return the reply's values by dimension, those left out that mean nothing for it."""
    return {name: found for name, _, values_of in EXTRACTORS if (found := values_of(reply)) is not None}


def memberships(characteristics: Sequence[str]) -> list[Membership]:
    """Return every characteristic that at least one of n replies has, in the order of ``EXTRACTORS``.

    *characteristics* are the values by dimension (n,) as JSON; few differ, so each form is decoded once.
    """
    forms = list(dict.fromkeys(characteristics))
    place = {form: index for index, form in enumerate(forms)}
    form_of = np.array([place[form] for form in characteristics], np.int64)
    decoded = [msgspec.json.decode(form, type=dict[str, list[str]]) for form in forms]
    found = []
    for name, type_, _ in EXTRACTORS:
        applies = np.array([name in values for values in decoded], np.bool_)
        for value in _named(value for values in decoded for value in values.get(name, ())):
            has = np.array([value in values.get(name, ()) for values in decoded], np.bool_)
            found.append(Membership(name, type_, value, has[form_of], (applies & ~has)[form_of]))
    return found


def _named(values: Iterable[str]) -> list[str]:
    counted = Counter(values)
    return sorted(counted, key=lambda name: (-counted[name], name))[:MAX_TOOLS]


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text) if text else None
    except (msgspec.DecodeError, RecursionError):  # kept as an app sent it, however deep
        return None


def _text(message: Any) -> str:
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _called(message: Any) -> list[str]:
    calls = message.get("tool_calls") if isinstance(message, Mapping) else None
    names = [
        call["function"].get("name")
        for call in (calls if isinstance(calls, list) else [])
        if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping)
    ]
    return [name for name in names if isinstance(name, str) and name]


def _format(reply: Reply) -> tuple[str, ...] | None:
    return None if reply.format in ("", "tool_calls") else (reply.format,)


def _length(reply: Reply) -> tuple[str, ...] | None:
    return (reply.length_band,) if reply.length_band and reply.format != "tool_calls" else None


_STEPS: Final = re.compile(r"^\s*(?:\d+[.)]\s+\S|step\s+\d+)", re.IGNORECASE | re.MULTILINE)
_SUMMARY: Final = re.compile(
    r"\A\W*(?:in short|in brief|in summary|summary|tl;?dr|short answer|bottom line)\b", re.IGNORECASE
)
_EXAMPLE: Final = re.compile(r"\b(?:for example|for instance|e\.g\.|here(?:'s| is) an example)", re.IGNORECASE)


def _strategy(reply: Reply) -> tuple[str, ...] | None:
    if not reply.text:
        return None
    if _SUMMARY.search(reply.text):
        return ("summary_first",)
    if len(_STEPS.findall(reply.text)) >= 2:
        return ("step_by_step",)
    return ("example",) if _EXAMPLE.search(reply.text) else ()


_QUERY: Final = re.compile(r"\bselect\b.+?\bfrom\b", re.IGNORECASE | re.DOTALL)
_CODE: Final = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_CTE: Final = re.compile(r"\bwith\s+(?:recursive\s+)?\w+\s*(?:\([^)]*\)\s*)?as\s*\(", re.IGNORECASE)
_SUBQUERY: Final = re.compile(r"\(\s*select\b", re.IGNORECASE)
_JOIN: Final = re.compile(r"\bjoin\b", re.IGNORECASE)


def _query(reply: Reply) -> tuple[str, ...] | None:
    code = "\n".join(block for block in _CODE.findall(reply.text) if _QUERY.search(block))
    if not code:
        return None
    if _CTE.search(code):
        return ("cte",)
    if _SUBQUERY.search(code):
        return ("subquery",)
    return ("join",) if _JOIN.search(code) else ()


def _tools(reply: Reply) -> tuple[str, ...] | None:
    return reply.tools if reply.offers_tools else None


_THRESHOLD: Final = re.compile(
    r"(?:above|over|more than|at least|exceed\w*|greater than|higher than|>=?|≥)\s*(\d+(?:\.\d+)?)\s*(?:%|percent\b)",
    re.IGNORECASE,
)
_PERCENT: Final = re.compile(r"\d\s*(?:%|percent\b)", re.IGNORECASE)


def _threshold(reply: Reply) -> tuple[str, ...] | None:
    if "%" not in reply.text and "percent" not in reply.text.lower():
        return None
    match = _THRESHOLD.search(reply.text)
    if match is None:
        return () if _PERCENT.search(reply.text) else None
    percent = float(match[1])
    return (str(min(THRESHOLDS, key=lambda known: (abs(known - percent), known))),)


_OFFER: Final = re.compile(
    r"\b(?:would you like|do you want|shall i|should i|let me know if|want me to)\b[^\n]*\Z", re.IGNORECASE
)
_NEXT: Final = re.compile(
    r"\b(?:next steps?|you (?:could|can|may|might) also|related questions|follow-up questions)\b", re.IGNORECASE
)
_TAIL_CHARS: Final = 400  # of a reply, where it leads on


def _follow_up(reply: Reply) -> tuple[str, ...] | None:
    text = reply.text.rstrip()
    if not text:
        return None
    tail = text[-_TAIL_CHARS:]
    if _NEXT.search(tail):
        return ("suggestions",)
    if _OFFER.search(tail) or tail.endswith("?"):
        return ("question",)
    return ("none",)


_CHARTS: Final = {
    "line": re.compile(r"\bline (?:chart|graph|plot)|\btime series plot", re.IGNORECASE),
    "bar": re.compile(r"\bbar (?:chart|graph|plot)|\bhistogram", re.IGNORECASE),
    "pie": re.compile(r"\b(?:pie|donut|doughnut) chart", re.IGNORECASE),
    "scatter": re.compile(r"\bscatter ?(?:chart|graph|plot)", re.IGNORECASE),
    "diagram": re.compile(r"```mermaid|\b(?:flow ?chart|diagram)\b", re.IGNORECASE),
}

_CHART_HINTS: Final = ("chart", "graph", "plot", "histogram", "diagram", "mermaid")


def _chart(reply: Reply) -> tuple[str, ...] | None:
    if not reply.text:
        return None
    text = reply.text.lower()
    if not any(hint in text for hint in _CHART_HINTS):  # most replies: one pass each is far cheaper than five patterns
        return ()
    for name, pattern in _CHARTS.items():
        if pattern.search(reply.text):
            return (name,)
    return ()


EXTRACTORS: Final[tuple[tuple[str, PatternType, Extractor], ...]] = (
    # The plainest first: of two that always come together, the first one is tried.
    ("response_format", "response_format", _format),
    ("length", "response_format", _length),
    ("tools", "tool_preference", _tools),
    ("query", "query_style", _query),
    ("visualization", "visualization_preference", _chart),
    ("strategy", "prompt_strategy", _strategy),
    ("follow_up", "follow_up_style", _follow_up),
    ("threshold", "insight_threshold", _threshold),
)
