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

VERSION: Final = 3  # of the extractors, terminology's too: raise it when one changes, and replies are read again
READ_CHARS: Final = 20_000  # of a reply, and its end
MAX_TOOLS: Final = 20  # different tools of a tenant that are looked at, most used first
THRESHOLDS: Final = (1, 2, 5, 10, 15, 20, 25, 30, 50, 75, 90)  # percent, that a reply's threshold is rounded to


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply as extractors see it."""

    text: str
    format: str  # as recorded: table, code, list, prose, json, tool_calls
    length_band: str
    offers_tools: bool
    tools: tuple[str, ...]  # called in this turn, in order


@dataclass(frozen=True, slots=True)
class Read:
    """A reply with what several extractors need of it."""

    reply: Reply
    lower: str
    blocks: tuple[tuple[str, str], ...]  # language and content of each block of code, in lower case
    prose: str  # what stands outside of blocks of code, in lower case
    tail: str  # the end of that


Extractor = Callable[[Read], tuple[str, ...] | None]
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
    read = _read(reply)
    return {name: found for name, _, values_of in EXTRACTORS if (found := values_of(read)) is not None}


def _read(reply: Reply) -> Read:
    text = reply.text
    if len(text) > READ_CHARS:  # the end is where a reply leads on
        text = f"{text[:READ_CHARS]}\n{text[-_TAIL_CHARS:]}"
    lower = text.replace("\u2019", "'").lower()
    if "```" not in lower and "~~~" not in lower:
        return Read(reply, lower, (), lower, lower.rstrip()[-_TAIL_CHARS:])
    blocks = tuple((match[1].strip(), match[2]) for match in _CODE.finditer(lower))
    prose = _CODE.sub("\n", lower)
    return Read(reply, lower, blocks, prose, prose.rstrip()[-_TAIL_CHARS:])


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


# A gate says cheaply whether a pattern can match at all: most replies have none of what is looked for, and one pass
# over the text in lower case is far cheaper than a pattern that stops at every word.


def _has_any(text: str, words: Iterable[str]) -> bool:
    for word in words:  # noqa: SIM110  # any() with a generator takes three times as long
        if word in text:
            return True
    return False


def _format(read: Read) -> tuple[str, ...] | None:
    reply = read.reply
    return None if reply.format in ("", "tool_calls") else (reply.format,)


def _length(read: Read) -> tuple[str, ...] | None:
    reply = read.reply
    return (reply.length_band,) if reply.length_band and reply.format != "tool_calls" else None


def _tools(read: Read) -> tuple[str, ...] | None:
    return read.reply.tools if read.reply.offers_tools else None


_SUMMARY: Final = re.compile(
    r"\W*(?:in short|in brief|in summary|(?:quick |executive )?summary|tl;?dr|(?:the )?short answer|bottom line"
    r"|key takeaways?)\b",
    re.IGNORECASE,
)
_NUMBERED: Final = re.compile(
    r"^\s{0,6}(?:\d{1,2}[.)]|[-*+]?\s*\**step\s+\d{1,2}\b[:.)*\s-]*)\s*\W{0,4}(\w*)", re.MULTILINE
)
_STEP: Final = re.compile(r"^\W{0,8}step\s+\d{1,2}\b", re.MULTILINE)
_FIRST_THEN: Final = re.compile(
    r"(?:^|[.!\n]\s*)first(?:ly)?,.{1,600}\b(?:then|next|second(?:ly)?)\b.{1,800}\bfinally\b", re.DOTALL
)
_ACTIONS: Final = frozenset(
    """add adjust allow apply ask attach boil bring build call change check choose clean click clone close combine
    compare complete configure confirm connect contact copy create cut decide define delete deploy determine disconnect
    download drag edit enable ensure enter export fill find follow gather get give go heat hold identify import
    insert install keep launch let locate log look make mix move navigate open pay pick place plug pour press
    provide pull push put read reboot remove repeat replace reset restart return review run save scan scroll
    search select send set sign start stir stop submit switch take tap test toggle try turn type uninstall
    unplug update upload use verify visit wait wipe write""".split()  # noqa: SIM905 - readable
)
_EXAMPLES: Final = ("for example", "for instance", " e.g.", "(e.g.", "here's an example", "here is an example")
_EXAMPLE: Final = re.compile(r"^\W{0,8}example\b[^\n]{0,40}:", re.MULTILINE)
_SOURCES: Final = re.compile(
    r"^\W{0,8}(?:sources?|references?)\b\W*:|^\W{0,8}#\s*(?:sources?|references?)\s*$"
    r"|\(source: |[ .,]\[\^?\d{1,2}\](?!\()"
    r"|\baccording to (?:the|our) (?:documentation|docs|manual|policy|handbook|guide|report|data)",
    re.MULTILINE,
)
_CAVEAT: Final = re.compile(
    r"\bnote that\b|\bplease note\b|^\W{0,8}note\W{0,4}:|\b(?:keep|bear) in mind\b|\bcaveats?\b"
    r"|\b(?:i'm|i am|this|we) assum|\bassuming that\b",
    re.MULTILINE,
)
_CAVEAT_HINTS: Final = ("note", "in mind", "caveat", "assum")
_CLARIFYING: Final = re.compile(
    r"\b(?:which|what|who|when|where|how many|how much|do you (?:mean|have|want|prefer)|are you|did you"
    r"|is (?:it|this|that)|(?:could|can|would) you (?:please )?(?:clarify|tell|specify|share|provide|say))\b"
    r"[^?]{0,200}\?\W*\Z"
)
_CLARIFYING_CHARS: Final = 300  # a reply that is hardly more than its question


def _strategy(read: Read) -> tuple[str, ...] | None:
    if not read.reply.text:
        return None
    lower, prose = read.lower, read.prose
    found = []
    if _SUMMARY.match(prose):
        found.append("summary_first")
    if _is_stepwise(prose):
        found.append("step_by_step")
    if _has_any(prose, _EXAMPLES) or ("example" in prose and _EXAMPLE.search(prose)):
        found.append("example")
    if (
        len(lower) <= _CLARIFYING_CHARS
        and lower.rstrip().endswith("?")
        and not _OFFER.search(lower)
        and _CLARIFYING.search(lower)
    ):
        found.append("clarify")
    if _has_any(prose, ("source", "reference", "according to", "]")) and _SOURCES.search(prose):
        found.append("sources")
    if _has_any(prose, _CAVEAT_HINTS) and _CAVEAT.search(prose):
        found.append("caveats")
    return tuple(found)


def _is_stepwise(prose: str) -> bool:
    if "finally" in prose and _FIRST_THEN.search(prose):
        return True
    if "2" not in prose or "1" not in prose:
        return False
    if "step" in prose and len(_STEP.findall(prose)) >= 2:
        return True
    numbered = _NUMBERED.findall(prose)
    return len(numbered) >= 2 and 2 * sum(word in _ACTIONS for word in numbered) > len(numbered)


_CODE: Final = re.compile(r"(?:```|~~~)([^\n]*)\n(.*?)(?:```|~~~|\Z)", re.DOTALL)
_NO_SQL: Final = re.compile(r"--[^\n]*|/\*.{0,2000}?\*/|'(?:[^'\n]|'')*'", re.DOTALL)
_QUERY: Final = re.compile(
    r"(?:^|[\"'`(;])\s{0,40}(?:select\s+(?:distinct\s+|top\s+\d+\s+)?[\w*\"`\[(.])"
    r"[^;]{0,4000}?\bfrom\s+[\w\"`\[(]",
    re.MULTILINE,
)
_CTE: Final = re.compile(
    r"\bwith\s+(?:recursive\s+)?[\w\"`]+\s*(?:\([^)]{0,400}\)\s*)?as\s*(?:not\s+)?(?:materialized\s*)?\("
)
_SUBQUERY: Final = re.compile(r"\(\s*select\b")
_CTE_BODY: Final = re.compile(r"\bas\s*(?:not\s+)?(?:materialized\s*)?\(\s*select\b")
_QUERY_FEATURES: Final = (
    ("join", re.compile(r"\bjoin\s+[\w\"`\[(]")),
    ("aggregation", re.compile(r"\bgroup\s+by\b|\b(?:count|sum|avg|min|max)\s*\(")),
    ("window", re.compile(r"\bover\s*\(|\bover\s+\w+\s*[,\n)]")),
    ("limit", re.compile(r"\blimit\s+\S|\bselect\s+top\s*\(?\d|\bfetch\s+(?:first|next)\b")),
    ("select_all", re.compile(r"\bselect\s+(?:distinct\s+)?(?:\w+\.)?\*")),
)
_QUERY_CHARS: Final = 20_000  # of code are read


def _query(read: Read) -> tuple[str, ...] | None:
    if not read.blocks or "select" not in read.lower:
        return None
    blocks = [
        (language, body)
        for language, body in read.blocks
        if "select" in body
        and "from" in body
        and (language in _PLAIN_LANGUAGES or "sql" in language or '"' in body or "'" in body)
    ]
    code = "\n;\n".join(body for _, body in blocks)[:_QUERY_CHARS]
    if not code or not _QUERY.search(code):
        return None
    code = _NO_SQL.sub(" ", code) if any("sql" in language or not language for language, _ in blocks) else code
    found = []
    if _CTE.search(code):
        found.append("cte")
    if len(_SUBQUERY.findall(code)) > len(_CTE_BODY.findall(code)):
        found.append("subquery")
    return (*found, *(name for name, pattern in _QUERY_FEATURES if pattern.search(code)))


_PLAIN_LANGUAGES: Final = frozenset(("", "text", "txt", "postgres", "postgresql", "bigquery", "snowflake", "duckdb"))

_COUNTS: Final = (2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)  # that a reply's least count is rounded to
_ABOVE: Final = (
    r"(?:above|over|beyond|more than|at least|exceed(?:s|ed|ing)?|greater than|larger than|higher than|>=?|≥)\s*"
)
_THRESHOLD: Final = re.compile(_ABOVE + r"(?:by\s+)?[+±]?(\d{1,4}(?:\.\d{1,4})?)\s*(?:%|percent\b)")
_PERCENT: Final = re.compile(r"\d\s*(?:%|percent\b)")
_MOVEMENT: Final = re.compile(
    r"\b(?:chang|increas|decreas|dropp?|fall|fell|ris(?:e|ing)|rose|gr[eo]w|spik|deviat|alert|notif|warn|flag|threshold|anomal"
    r"|exceed|differ|var(?:y|iat)|swing|declin|outlier|trigger|error rate|utili[sz]ation|usage)"
)
_COUNT: Final = re.compile(
    _ABOVE + r"(\d{1,6})\s+(?:failed\s+|new\s+|open\s+|consecutive\s+)?"
    r"(?:times|events?|errors?|failures|occurrences|incidents|tickets|alerts|requests|cases|complaints|attempts|logins|orders|records|rows)\b"
)
_ALERTING: Final = ("alert", "notif", "flag")
_NEAR_CHARS: Final = 80  # before and after a threshold, within which something must say what it is one of


def _threshold(read: Read) -> tuple[str, ...] | None:
    prose = read.prose
    if "%" not in prose and "percent" not in prose:
        return None
    for match in _THRESHOLD.finditer(prose):
        if _MOVEMENT.search(_around(prose, match)):
            percent = float(match[1])
            return (str(min(THRESHOLDS, key=lambda known: (abs(known - percent), known))),)
    return () if _PERCENT.search(prose) else None


def _min_count(read: Read) -> tuple[str, ...] | None:
    prose = read.prose
    if not _has_any(prose, _ALERTING):
        return None
    for match in _COUNT.finditer(prose):
        if _has_any(_around(prose, match), _ALERTING):
            count = float(match[1])
            return (str(min(_COUNTS, key=lambda known: (abs(known - count), known))),)
    return ()


def _around(text: str, match: re.Match[str]) -> str:
    """Return what stands around a match in its paragraph."""
    before = text[max(match.start() - _NEAR_CHARS, 0) : match.start()].rpartition("\n")[2]
    return f"{before}{match[0]}{text[match.end() : match.end() + _NEAR_CHARS].partition(chr(10))[0]}"


_SEVERITY: Final = re.compile(
    r"\b(low|minor|medium|moderate|high|critical|severe)[- ](?:severity|priority)\b"
    r"|\b(?:severity|priority)\b\W{1,8}(?:is\s+)?(low|minor|medium|moderate|high|critical|severe)\b"
)
_SEVERITIES: Final = {
    "low": "low", "minor": "low", "medium": "medium", "moderate": "medium",
    "high": "high", "critical": "high", "severe": "high",
}  # fmt: skip


def _severity(read: Read) -> tuple[str, ...] | None:
    """Return the least severity that the reply reports."""
    prose = read.prose
    if not _has_any(prose, ("severity", "priority")):
        return None
    found = {_SEVERITIES["".join(words)] for words in _SEVERITY.findall(prose)}
    return next(((name,) for name in ("low", "medium", "high") if name in found), None)


_OFFER: Final = re.compile(
    r"\b(?:would you like|do you want|do you need|shall i|should i|want me to|may i|can i help)\b[^\n]*\Z"
)
_CLOSING: Final = re.compile(
    r"\b(?:let me know|feel free to|hesitate to|(?:happy|glad|here) to help|hope (?:this|that) helps)\b[^\n?]*\Z"
)
_CLOSING_HINTS: Final = ("let me know", "feel free", "hesitate", "to help", "helps")
_NEXT: Final = re.compile(
    r"(?:^|\n)\W*(?:(?:suggested |recommended |possible )?next steps?|(?:related|follow-up|suggested) questions"
    r"|what you (?:can|could) do next|you (?:could|can|may|might) also (?:ask|try|explore|want))\b"
    r"|\byou (?:could|may|might) also (?:ask|try|want to|explore|consider|be interested)\b"
)
_NEXT_HINTS: Final = ("next step", "questions", "do next", " also ")
_QUESTIONS: Final = re.compile(r"^\s*(?:[-*+•]|\d{1,2}[.)])\s[^\n]*\?\W*$", re.MULTILINE)
_TAIL_CHARS: Final = 400  # of a reply, where it leads on


def _follow_up(read: Read) -> tuple[str, ...] | None:
    tail = read.tail
    if not tail:
        return None
    if _has_any(tail, _NEXT_HINTS) and _NEXT.search(tail):
        return ("suggestions",)
    if tail.count("?") >= 2 and len(_QUESTIONS.findall(tail)) >= 2:
        return ("suggestions",)
    end = tail.rstrip(")\"'*_ ")
    if end.endswith("?") or ("?" in tail and _OFFER.search(tail)):
        return ("question",)
    return ("offer",) if _has_any(tail, _CLOSING_HINTS) and _CLOSING.search(tail) else ("none",)


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
_CHART_HINTS: Final = ("chart", "graph", "plot", "gram")
_NO_CHART: Final = re.compile(r"\b(?:no|not|never|cannot|unable|without|instead of|rather than|avoid)\b|n't\b")
_DRAWN: Final = frozenset(("mermaid", "plantuml", "dot", "graphviz", "d2"))
_MARK: Final = re.compile(
    r"\"(?:mark|type)\"\s*:\s*(?:\{\s*\"type\"\s*:\s*)?\"(line|area|bar|arc|pie|doughnut|point|circle|scatter)\""
)
_MARKS: Final = {"area": "line", "arc": "pie", "doughnut": "pie", "point": "scatter", "circle": "scatter"}
_SPECS: Final = ("vega", "chart", "echarts", "plotly")


def _chart(read: Read) -> tuple[str, ...] | None:
    if not read.reply.text:
        return None
    for language, body in read.blocks:
        if language in _DRAWN:
            return (_drawn(body),)
        if "vega" in body or _has_any(language, _SPECS):
            mark = _MARK.search(body)
            if mark is not None:
                return (_MARKS.get(mark[1], mark[1]),)
    prose = read.prose
    if not _has_any(prose, _CHART_HINTS):
        return ()
    for name, pattern in _CHARTS:
        if any(_is_shown(prose, match) for match in pattern.finditer(prose)):
            return (name,)
    return ()


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
    ("min_count", "insight_threshold", _min_count),
    ("severity", "insight_threshold", _severity),
)
TERMINOLOGY: Final = "terminology"  # the tenant's own words, found over all of its replies
TYPES: Final[Mapping[str, PatternType]] = {
    **{name: type_ for name, type_, _ in EXTRACTORS},
    TERMINOLOGY: "domain_knowledge",
}


def type_of(dimension: str) -> PatternType:
    """Return the type of the patterns of a dimension that is read off replies.

    Raises:
        KeyError: no extractor has it: the type of a person's own rule is what the person said.

    >>> type_of("length"), type_of("terminology")
    ('response_format', 'domain_knowledge')
    """
    return TYPES[dimension]
