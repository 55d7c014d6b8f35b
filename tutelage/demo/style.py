"""How an answer looks: chosen by the model, asked for by instructions, seen by the reader; pure functions."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

Wanted = TypeVar("Wanted")

Format = Literal["prose", "list", "table"]
Length = Literal["short", "medium", "long"]

SHORT_CHARS = 600  # characters up to which a reader calls an answer short
LONG_CHARS = 2000  # characters above which a reader calls an answer long


@dataclass(frozen=True, slots=True)
class Style:
    """What a reader sees at a glance."""

    format: Format
    length: Length
    asks_back: bool  # the answer ends with a question


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_REFUSAL = r"\b(?:no|not|never|without|avoid|don't|instead of|rather than)\b[^.;]*"
# Of each tuple the first that matches counts, so that "not a table" is not read as "a table".
_FORMATS: tuple[tuple[re.Pattern[str], Format], ...] = (
    (_words(_REFUSAL + r"\b(tables?|lists?|bullets?)\b"), "prose"),
    (_words(r"\btables?\b|\btabular\b"), "table"),
    (_words(r"\bbullet(ed|s)?\b|\bnumbered\b|\blists?\b|\bstep[- ]by[- ]step\b"), "list"),
    (_words(r"\bprose\b|\brunning text\b|\bplain (text|sentences)\b"), "prose"),
)
_LENGTHS: tuple[tuple[re.Pattern[str], Length], ...] = (
    (_words(r"\bmedium\b|\bmoderate\b|\b(one|two|a few)( (or|to) (two|three))? (short )?paragraphs\b"), "medium"),
    (
        _words(
            r"\bthorough(ly)?\b|\bdetailed\b|\bin( full)? detail\b|\blong(er)?\b|\bin (depth|full)\b|\bcomprehensive\b"
        ),
        "long",
    ),
    (
        _words(
            r"\bshort(er)?\b(?! (bullet|paragraph|list))|\bconcise\b|\bbrief(ly)?\b|\bat most\b|\bunder \d+\b|\bterse\b"
        ),
        "short",
    ),
)
_NO_QUESTION = _words(_REFUSAL + r"(\bfollow[- ]?up\b|\bclosing questions?\b|\bquestion back\b|\bask)")
_QUESTION = _words(r"\bfollow[- ]?up\b|\bclosing question\b|\bend (by|with)\b[^.;]*\b(ask|offer|question)")


def obey(style: Style, rules: Iterable[str]) -> Style:
    """Return *style* changed to what *rules* ask for; a rule that speaks of nothing we know changes nothing.

    >>> obey(Style("prose", "medium", False), ["Answer as a Markdown table.", "Keep it short."])
    Style(format='table', length='short', asks_back=False)
    """
    for rule in rules:
        style = replace(style, format=_first(_FORMATS, rule, style.format))
        style = replace(style, length=_first(_LENGTHS, rule, style.length))
        if _NO_QUESTION.search(rule):
            style = replace(style, asks_back=False)
        elif _QUESTION.search(rule):
            style = replace(style, asks_back=True)
    return style


def _first(choices: Iterable[tuple[re.Pattern[str], Wanted]], rule: str, otherwise: Wanted) -> Wanted:
    return next((wanted for pattern, wanted in choices if pattern.search(rule)), otherwise)


_TABLE_LINE = re.compile(r"^\|.*\|$", re.MULTILINE)
_LIST_LINE = re.compile(r"^(- |\d+\. )", re.MULTILINE)


def read_style(text: str) -> Style:
    r"""Return how *text* looks to its reader.

    >>> read_style("1. Choose a seat.\n2. Pay.")
    Style(format='list', length='short', asks_back=False)
    """
    shape: Format = "table" if _TABLE_LINE.search(text) else "list" if _LIST_LINE.search(text) else "prose"
    length: Length = "short" if len(text) <= SHORT_CHARS else "long" if len(text) > LONG_CHARS else "medium"
    return Style(shape, length, text.rstrip().endswith("?"))
