"""How an answer looks: chosen by the model, asked for by instructions, seen by the reader; pure functions."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Format = Literal["prose", "list", "table"]
Length = Literal["short", "medium", "long"]

SHORT_CHARS = 280  # characters up to which a reader calls an answer short
LONG_CHARS = 900  # characters above which a reader calls an answer long


@dataclass(frozen=True, slots=True)
class Style:
    """What a reader sees at a glance."""

    format: Format
    length: Length
    asks_back: bool  # the answer ends with a question


# The first that matches counts, so that "not a table" is not read as "a table".
_FORMATS: tuple[tuple[re.Pattern[str], Format], ...] = (
    (
        re.compile(
            r"\b(no|not|without|avoid|instead of|rather than)\b[^.;]*\b(tables?|lists?|bullets?)\b", re.IGNORECASE
        ),
        "prose",
    ),
    (re.compile(r"\btables?\b|\btabular\b", re.IGNORECASE), "table"),
    (re.compile(r"\bbullet(ed|s)?\b|\bnumbered\b|\blists?\b|\bsteps?\b", re.IGNORECASE), "list"),
    (re.compile(r"\bprose\b|\bparagraphs?\b|\brunning text\b|\bplain (text|sentences)\b", re.IGNORECASE), "prose"),
)
_LENGTHS: tuple[tuple[re.Pattern[str], Length], ...] = (
    (
        re.compile(r"\bmedium\b|\bmoderate\b|\bone or two (short )?paragraphs\b|\ba few paragraphs\b", re.IGNORECASE),
        "medium",
    ),
    (
        re.compile(
            r"\bthorough\b|\bdetail(ed|s)?\b|\blong(er)?\b|\bin depth\b|\bin full\b|\bcomprehensive\b", re.IGNORECASE
        ),
        "long",
    ),
    (
        re.compile(r"\bshort(er)?\b|\bconcise\b|\bbrief(ly)?\b|\bat most\b|\bunder \d+\b|\bterse\b", re.IGNORECASE),
        "short",
    ),
)
_NO_QUESTION = re.compile(
    r"\b(no|not|never|without|don't|avoid)\b[^.;]*\b(follow[- ]?up|closing question|question back|ask\w*)",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"\bfollow[- ]?up\b|\bclosing question\b|\b(ask|offer|suggest)\w*\b[^.;]*\b(next|question)", re.IGNORECASE
)


def obey(style: Style, rules: Iterable[str]) -> Style:
    """Return *style* changed to what *rules* ask for; a rule that speaks of nothing we know changes nothing.

    >>> obey(Style("prose", "medium", False), ["Answer as a Markdown table.", "Keep it short."])
    Style(format='table', length='short', asks_back=False)
    """
    for rule in rules:
        for pattern, wanted in _FORMATS:
            if pattern.search(rule):
                style = replace(style, format=wanted)
                break
        for pattern, length in _LENGTHS:
            if pattern.search(rule):
                style = replace(style, length=length)
                break
        if _NO_QUESTION.search(rule):
            style = replace(style, asks_back=False)
        elif _QUESTION.search(rule):
            style = replace(style, asks_back=True)
    return style


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
