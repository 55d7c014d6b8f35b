"""A reply as extractors see it: its text in lower case, its blocks of code, and the prose around them.

All of it is read a million times in a row, so whatever can be told by a plain search for words is: a regular expression
that begins with alternatives stops at every character, and is looked for between the words that it cannot do without.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from learner.patterns.hints import hints_in

READ_CHARS: Final = 20_000  # of a reply, and its end
READ_CALLS: Final = 50  # of a turn, the last ones, whose arguments are looked at
TAIL_CHARS: Final = 400  # of a reply, where it leads on


class Reply(msgspec.Struct, frozen=True):
    """One reply as extractors see it."""

    text: str
    format: str  # as recorded: table, code, list, prose, json, tool_calls
    length_band: str
    offers_tools: bool
    tools: tuple[str, ...]  # called since the user's message, as far as the record tells, in order
    calls: tuple[tuple[str, str], ...] = ()  # name and arguments of each of them, as text
    asked: tuple[str, ...] = ()  # ids of the calls that it waits for
    answered: tuple[str, ...] = ()  # ids of calls of an earlier reply whose results it goes on from


class Read(msgspec.Struct, frozen=True):
    """A reply with what several extractors need of it."""

    reply: Reply
    lower: str
    blocks: tuple[tuple[str, str], ...]  # language and content of each block of code, in lower case
    prose: str  # what stands outside of blocks of code, in lower case
    tail: str  # the end of that
    hints: frozenset[str]  # of HINTS, all that the text holds and perhaps others
    calls: tuple[tuple[str, str], ...]  # of tools: name and arguments, in lower case
    queries: tuple[str, ...]  # texts among the arguments that may be SQL, in lower case


def reply_of(reply_json: str, messages_json: str, *, format: str, length_band: str, offers_tools: bool) -> Reply:  # noqa: A002
    """Return the reply in its recorded form; what cannot be read is empty."""
    plain = _plain_text(reply_json) if not messages_json else None
    if plain is not None:
        return Reply(plain, format, length_band, offers_tools, tools=())
    message = _decoded(reply_json)
    added, is_begun = _since_user(_decoded(messages_json))
    own = _called(message)
    calls = [call for part in added for call in _called(part)] + own
    return Reply(
        text=_text(message),
        format=format,
        length_band=length_band,
        offers_tools=offers_tools,
        tools=tuple(dict.fromkeys(call.name for call in calls if call.name)),
        calls=tuple((call.name, call.arguments[:READ_CHARS]) for call in calls[-READ_CALLS:]),
        asked=tuple(call.id for call in own),
        answered=() if is_begun else tuple(map(_answered, filter(_is_result, added))),
    )


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
    if not reply.calls:  # as almost all: without a generator for nothing
        return Read(reply, lower, blocks, prose, prose.rstrip()[-TAIL_CHARS:], known, (), ())
    calls = tuple((name.lower(), arguments.lower()) for name, arguments in reply.calls)
    queries = tuple(text for _, arguments in calls for text in _queries(arguments))
    return Read(reply, lower, blocks, prose, prose.rstrip()[-TAIL_CHARS:], known, calls, queries)


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
    parts = lower.split("```")
    blocks = []
    for part in parts[1::2]:
        language, line_end, body = part.partition("\n")
        if not line_end:  # a fence within the line of another one: what is inside and outside is told by line breaks
            return tuple((match[1].strip(), match[2]) for match in _CODE.finditer(lower)), _CODE.sub("\n", lower)
        blocks.append((language.strip(), body))
    return tuple(blocks), "\n".join(parts[::2] if len(parts) % 2 else [*parts[::2], ""])


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
    function_call: None = None


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


class _Call(NamedTuple):
    id: str  # '' where the API names none
    name: str
    arguments: str


def _called(message: Any) -> list[_Call]:
    if not isinstance(message, Mapping):
        return []
    calls = message.get("tool_calls")
    found = [
        _call(one, one.get("id")) for one in (calls if isinstance(calls, list) else []) if isinstance(one, Mapping)
    ]
    if isinstance(message.get("function_call"), Mapping):
        found.append(_call({"function": message["function_call"]}, None))
    return [one for one in found if one is not None]


def _call(call: Mapping[str, Any], call_id: Any) -> _Call | None:
    function = call.get("function") or call.get("custom")
    if not isinstance(function, Mapping):
        return None
    arguments = function.get("arguments", function.get("input"))
    return _Call(_string(call_id), _string(function.get("name")), _string(arguments))


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _since_user(added: Any) -> tuple[list[Any], bool]:
    """Return the messages since the user's last one, and whether that is among them."""
    messages = added if isinstance(added, list) else []
    for index in range(len(messages) - 1, -1, -1):
        if isinstance(messages[index], Mapping) and messages[index].get("role") == "user":
            return messages[index + 1 :], True
    return messages, False


def _is_result(message: Any) -> bool:
    return isinstance(message, Mapping) and message.get("role") in ("tool", "function")


def _answered(message: Mapping[str, Any]) -> str:
    return _string(message.get("tool_call_id"))


def _queries(arguments: str) -> list[str]:
    """Return the texts among the arguments of a call that may be SQL."""
    if "select" not in arguments or "from" not in arguments:
        return []
    decoded = _decoded(arguments)
    if not isinstance(decoded, (Mapping, list)):
        return [arguments]
    values: list[Any] = [decoded]
    found: list[str] = []
    while values and len(found) < READ_CALLS:
        value = values.pop()
        if isinstance(value, Mapping):
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)
        elif isinstance(value, str) and "select" in value and "from" in value:
            found.append(value)
    return found
