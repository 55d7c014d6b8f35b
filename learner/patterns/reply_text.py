"""A reply as extractors see it: its text in lower case, its blocks of code, and the prose around them.

All of it is read a million times in a row, so whatever can be told by a plain search for words is: a regular expression
that begins with alternatives stops at every character, and is looked for between the words that it cannot do without.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from learner.patterns.hints import hints_in

READ_CHARS: Final = 20_000  # of a reply, and its end
TAIL_CHARS: Final = 400  # of a reply, where it leads on


class Reply(msgspec.Struct, frozen=True):
    """One reply as extractors see it."""

    text: str
    format: str  # as recorded: table, code, list, prose, json, tool_calls
    length_band: str
    offers_tools: bool
    tools: tuple[str, ...]  # called in this turn, in order


class Read(msgspec.Struct, frozen=True):
    """A reply with what several extractors need of it."""

    reply: Reply
    lower: str
    blocks: tuple[tuple[str, str], ...]  # language and content of each block of code, in lower case
    prose: str  # what stands outside of blocks of code, in lower case
    tail: str  # the end of that
    hints: frozenset[str]  # of HINTS, all that the text holds and perhaps others


def reply_of(reply_json: str, messages_json: str, *, format: str, length_band: str, offers_tools: bool) -> Reply:  # noqa: A002
    """Return the reply in its recorded form; what cannot be read is empty."""
    plain = _plain_text(reply_json) if not messages_json else None
    if plain is not None:
        return Reply(plain, format, length_band, offers_tools, ())
    message = _decoded(reply_json)
    added = _decoded(messages_json)
    earlier = added if isinstance(added, list) else []
    tools = [name for part in [*earlier, message] for name in _called(part)]
    return Reply(_text(message), format, length_band, offers_tools, tuple(dict.fromkeys(tools)))


def read(reply: Reply, hints: frozenset[str] | None = None) -> Read:
    """Return the reply in the form in which extractors take it; *hints* when it is known which ones its text holds."""
    text = reply.text
    if len(text) > READ_CHARS:  # the end is where a reply leads on
        text = f"{text[:READ_CHARS]}\n{text[-TAIL_CHARS:]}"
    lower = _lower(text)
    if "~" in lower and "~~~" in lower:
        blocks = tuple((match[1].strip(), match[2]) for match in _CODE.finditer(lower))
        prose = _CODE.sub("\n", lower)
    elif "`" in lower and "```" in lower:
        blocks, prose = _fenced(lower)
    else:
        blocks, prose = (), lower
    known = hints_in(lower) if hints is None else hints
    return Read(reply, lower, blocks, prose, prose.rstrip()[-TAIL_CHARS:], known)


def _lower(text: str) -> str:
    """Return *text* with ASCII in lower case and plain apostrophes: patterns ask for no other letter."""
    if text.isascii():
        return text.lower()
    # As bytes it takes a third of the time, and every character stays one character.
    plain = text.replace("\u2019", "'").encode("utf-8", "surrogatepass").lower()
    return plain.decode("utf-8", "surrogatepass")


_CODE: Final = re.compile(r"(?:```|~~~)([^\n]*)\n(.*?)(?:```|~~~|\Z)", re.DOTALL)


def _fenced(lower: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """Return what ``_CODE`` finds in a text that has no other fences than three backticks, and what it leaves."""
    blocks, prose, at = [], [], 0
    while (start := lower.find("```", at)) >= 0 and (line := lower.find("\n", start + 3)) >= 0:
        end = lower.find("```", line + 1)
        blocks.append((lower[start + 3 : line].strip(), lower[line + 1 : end] if end >= 0 else lower[line + 1 :]))
        prose.append(lower[at:start])
        at = end + 3 if end >= 0 else len(lower)
    return tuple(blocks), "\n".join([*prose, lower[at:]])


def has_any(text: str, words: Iterable[str]) -> bool:
    """Return whether *text* holds one of *words*."""
    for word in words:  # noqa: SIM110  # any() with a generator takes three times as long
        if word in text:
            return True
    return False


def span_of(text: str, words: Iterable[str], before: int, after: int) -> tuple[int, int] | None:
    """Return the part of *text* from *before* characters before the first of *words* to *after* after the last begins.

    A pattern that holds one of *words* within that reach is found in this part if it is found at all.

    >>> span_of("I only note that it rained.", ("note", "caveat"), 3, 9), span_of("It rained.", ("note",), 3, 9)
    ((4, 16), None)
    """
    first, last = len(text), -1
    for word in words:
        at = text.find(word)
        if at >= 0:
            first, last = min(first, at), max(last, text.rfind(word))
    return None if last < 0 else (max(first - before, 0), last + after)


class _Plain(msgspec.Struct):
    """A message that is one text and calls no tool, as almost all are."""

    content: str
    tool_calls: None = None


_PLAIN: Final = msgspec.json.Decoder(_Plain)


def _plain_text(text: str) -> str | None:
    """Return the content of a message that is one text and nothing else, None for any other."""
    try:
        return _PLAIN.decode(text).content
    except (msgspec.DecodeError, RecursionError):
        return None


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
