"""From where on a reply reports something: a change in percent, a count, a severity."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from learner.patterns.reply_text import Read, has_any, span_of

THRESHOLDS: Final = (1, 2, 5, 10, 15, 20, 25, 30, 50, 75, 90)  # percent, that a reply's threshold is rounded to
_ABOVE_HINTS: Final = frozenset(
    ("above", "over", "beyond", "more than", "at least", "exceed", "greater than", "larger than", "higher than", ">")
)
_COUNTS: Final = (2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)  # that a reply's least count is rounded to
_ABOVE: Final = (
    r"(?:above|over|beyond|more than|at least|exceed(?:s|ed|ing)?|greater than|larger than|higher than|>=?|≥)\s*"
)
_THRESHOLD: Final = re.compile(_ABOVE + r"(?:by\s+)?[+±]?(\d{1,4}(?:\.\d{1,4})?)\s*(?:%|percent\b)")
PERCENTS: Final = frozenset(("%", "percent"))
_PERCENT: Final = re.compile(r"\d\s*(?:%|percent\b)")
_MOVEMENT: Final = re.compile(
    r"\b(?:chang|increas|decreas|dropp?|fall|fell|ris(?:e|ing)|rose|gr[eo]w|spik|deviat|alert|notif|warn|flag|threshold|anomal"
    r"|exceed|differ|var(?:y|iat)|swing|declin|outlier|trigger|error rate|utili[sz]ation|usage)"
)
_COUNT: Final = re.compile(
    _ABOVE + r"(\d{1,6})\s+(?:failed\s+|new\s+|open\s+|consecutive\s+)?"
    r"(?:times|events?|errors?|failures|occurrences|incidents|tickets|alerts|requests|cases|complaints|attempts|logins|orders|records|rows)\b"
)
ALERTING: Final = frozenset(("alert", "notif", "flag"))
_NEAR_CHARS: Final = 80  # before and after a threshold, within which something must say what it is one of
_COUNT_REACH: Final = _NEAR_CHARS + 100  # from such a word to the far end of the longest count


def threshold(read: Read) -> tuple[str, ...] | None:
    """Return the change in percent from which on the reply reports one, None where nothing is in percent."""
    prose = read.prose
    places = [at for word in read.hints & PERCENTS if (at := prose.find(word)) >= 0]
    if not places:
        return None
    start = max(min(places) - 60, 0)
    if read.hints.isdisjoint(_ABOVE_HINTS) and "≥" not in prose:
        return () if _PERCENT.search(prose, start) else None
    for match in _after_above(_THRESHOLD, read, (start, len(prose))):
        if _MOVEMENT.search(_around(prose, match)):
            return (_nearest(THRESHOLDS, match[1]),)
    return () if _PERCENT.search(prose, start) else None


def min_count(read: Read) -> tuple[str, ...] | None:
    """Return the count from which on the reply reports something, None where nothing is reported."""
    prose = read.prose
    span = span_of(prose, read.hints & ALERTING, _COUNT_REACH, _COUNT_REACH)
    if span is None:
        return None
    for match in _after_above(_COUNT, read, span):
        if has_any(_around(prose, match), ALERTING):
            return (_nearest(_COUNTS, match[1]),)
    return ()


@lru_cache(maxsize=1000)
def _nearest(known: tuple[int, ...], number: str) -> str:
    """Return the one of *known* that is nearest to *number*, the lesser of two that are as near."""
    value = float(number)
    return str(min(known, key=lambda one: (abs(one - value), one)))


def _after_above(pattern: re.Pattern[str], read: Read, span: tuple[int, int]) -> Iterator[re.Match[str]]:
    """Yield what ``pattern.finditer(read.prose, *span)`` does; the pattern begins with ``_ABOVE``."""
    prose, (start, end) = read.prose, span
    words = read.hints & _ABOVE_HINTS
    places: list[int] = []
    for word in words if prose.isascii() else (*words, "≥"):
        at = prose.find(word, start, end)
        while at >= 0:
            places.append(at)
            at = prose.find(word, at + 1, end)
    for at in sorted(places):
        match = pattern.match(prose, at, end)
        if match is not None:
            yield match


def _around(text: str, match: re.Match[str]) -> str:
    """Return what stands around a match in its paragraph."""
    before = text[max(match.start() - _NEAR_CHARS, 0) : match.start()].rpartition("\n")[2]
    return f"{before}{match[0]}{text[match.end() : match.end() + _NEAR_CHARS].partition(chr(10))[0]}"


_SEVERITY: Final = re.compile(
    r"\b(?=[lmhcsp])(?:"  # most words begin otherwise
    r"(low|minor|medium|moderate|high|critical|severe)[- ](?:severity|priority)\b"
    r"|(?:severity|priority)\b\W{1,8}(?:is\s+)?(low|minor|medium|moderate|high|critical|severe)\b)"
)
SEVERITY_HINTS: Final = frozenset(("severity", "priority"))
_SEVERITIES: Final = {
    "low": "low", "minor": "low", "medium": "medium", "moderate": "medium",
    "high": "high", "critical": "high", "severe": "high",
}  # fmt: skip


def severity(read: Read) -> tuple[str, ...] | None:
    """Return the least severity that the reply reports, None without any."""
    prose = read.prose
    span = span_of(prose, read.hints & SEVERITY_HINTS, 20, 40)
    if span is None:
        return None
    found = {_SEVERITIES["".join(words)] for words in _SEVERITY.findall(prose, *span)}
    return next(((name,) for name in ("low", "medium", "high") if name in found), None)
