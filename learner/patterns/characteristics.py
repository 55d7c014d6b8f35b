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

OTHER: Final = ""  # a reply that the dimension applies to and that has none of its named values
MAX_TOOLS: Final = 20  # different tools of a tenant that are looked at, most used first
MAX_TERMS: Final = 20  # of a tenant's vocabulary, most telling first
MIN_TERM_REPLIES: Final = 20  # replies that must hold a term
TERM_SHARE: Final = (0.02, 0.4)  # of replies that hold it: rarer is noise, commoner is language
THRESHOLDS: Final = (1, 2, 5, 10, 15, 20, 25, 30, 50)  # percent, that a reply's threshold is rounded to


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply as extractors see it."""

    text: str
    format: str  # as recorded: table, code, list, prose, json, tool_calls
    length_band: str
    offers_tools: bool
    tools: tuple[str, ...]  # called in this turn, in order


@dataclass(frozen=True, slots=True)
class Dimension:
    """What is looked at, the type of pattern that steers it, and how to read it off a reply."""

    name: str
    type: PatternType
    values_of: Callable[[Reply], tuple[str, ...] | None]
    """Values that the reply has; empty: none of the named; None: the dimension does not apply."""


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


def memberships(replies: Sequence[Reply]) -> list[Membership]:
    """Return every characteristic that at least one of the *replies* has, in the order of ``DIMENSIONS``."""
    found: list[Membership] = []
    for dimension in (*DIMENSIONS, _terminology(replies)):
        values = [dimension.values_of(reply) for reply in replies]
        applies = np.array([value is not None for value in values], np.bool_)
        for name in _named(value for own in values if own for value in own):
            has = np.array([own is not None and name in own for own in values], np.bool_)
            found.append(Membership(dimension.name, dimension.type, name, has, applies & ~has))
    return found


def _named(values: Iterable[str]) -> list[str]:
    counted = Counter(values)
    return sorted(counted, key=lambda name: (-counted[name], name))[: max(MAX_TOOLS, MAX_TERMS)]


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text) if text else None
    except msgspec.DecodeError:
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


def _chart(reply: Reply) -> tuple[str, ...] | None:
    if not reply.text:
        return None
    for name, pattern in _CHARTS.items():
        if pattern.search(reply.text):
            return (name,)
    return ()


DIMENSIONS: Final = (  # the plainest first: of two that always come together, the first one is tried
    Dimension("response_format", "response_format", _format),
    Dimension("length", "response_format", _length),
    Dimension("tools", "tool_preference", _tools),
    Dimension("query", "query_style", _query),
    Dimension("visualization", "visualization_preference", _chart),
    Dimension("strategy", "prompt_strategy", _strategy),
    Dimension("follow_up", "follow_up_style", _follow_up),
    Dimension("threshold", "insight_threshold", _threshold),
)

_WORD: Final = re.compile(r"[^\W\d_][\w-]{3,30}")


def _terminology(replies: Sequence[Reply]) -> Dimension:
    """Return the dimension of the tenant's own terms: capitalised within sentences, neither rare nor everywhere."""
    held: Counter[str] = Counter()
    for reply in replies:
        held.update(_terms_in(reply.text))
    low, high = (share * len(replies) for share in TERM_SHARE)
    known = [term for term, n in held.items() if max(low, MIN_TERM_REPLIES) <= n <= high]
    chosen = frozenset(sorted(known, key=lambda term: (-held[term], term))[:MAX_TERMS])
    return Dimension(
        "terminology",
        "domain_knowledge",
        lambda reply: tuple(sorted(_terms_in(reply.text) & chosen)) if reply.text else None,
    )


def _terms_in(text: str) -> frozenset[str]:
    return frozenset(
        match[0]
        for match in _WORD.finditer(text)
        if match[0][0].isupper() and text[: match.start()].rstrip(" \"'(")[-1:].isalnum()
    )
