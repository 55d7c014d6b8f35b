"""What a request of any learned API comes down to: messages in the form of OpenAI's chat, over the client's own bytes.

Parts that are not needed stay raw. ``msgspec.Raw`` values are views into the body, so their place in it is known
exactly and a splice leaves every other byte as it was.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from proxy.splice import Edit, escaped

EMPTY: Final = msgspec.Raw()
LEADING_ROLES: Final = ("system", "developer")
SEARCHED_BYTES: Final = 4096  # of a body take as long to search as two addresses to read
TOOL_ROLES: Final = ("tool", "function")

_QUOTE: Final = ord('"')
_BRACKET: Final = ord("[")
_EMPTY_REST: Final = re.compile(rb"\s*\}")
_TEXT_TYPES: Final = (b'"text"', b'"input_text"', b'"output_text"', b"")


class Message(msgspec.Struct, gc=False):
    """One message; absent fields are empty."""

    role: str
    content: msgspec.Raw = EMPTY
    tool_calls: msgspec.Raw = EMPTY
    tool_call_id: msgspec.Raw = EMPTY
    function_call: msgspec.Raw = EMPTY

    @property
    def text(self) -> str:
        """Return the text: the content, or its text parts in order; other parts left out."""
        return content_text(self.content)


class ParsedRequest(ABC):
    """A valid body with its messages and where they lie in it; one subclass per API."""

    __slots__ = ("body", "is_stream", "last_user", "messages", "model", "n_leading", "source")

    def __init__(self, body: bytes, source: bytes, *, model: str, is_stream: bool, messages: list[Message]) -> None:
        self.body = body
        self.source = source
        """What was parsed: *body* itself, or a copy of equal length in which unusual characters are replaced."""
        self.model = model
        self.is_stream = is_stream
        self.messages = messages
        self.n_leading = leading_count(messages)
        """How many of the first messages are the app's own system or developer text."""
        self.last_user = last_user_index(messages)
        """The place of the message that holds the question, or None."""

    @property
    def previous_id(self) -> str:
        """Return the id of the reply that this request goes on from; "" when it does not say."""
        return ""

    @property
    def last_reference(self) -> tuple[str, int] | None:
        """Return the last reference to an item of an earlier reply, by its id, and how many messages come before it."""
        return None

    @property
    def conversation_id(self) -> str:
        """Return the conversation that the upstream keeps and the request names; "" when it does not."""
        return ""

    @property
    def has_held_history(self) -> bool:
        """Whether the upstream keeps the history, so that all messages here are new."""
        return bool(self.previous_id or self.conversation_id)

    @property
    def has_held_system(self) -> bool:
        """Whether the upstream keeps the leading text too, with what its conversation's first request put there."""
        return False

    @property
    def question(self) -> str:
        """Return the user's last words; "" without any."""
        return "" if self.last_user is None else self.messages[self.last_user].text

    @property
    def is_tool_loop(self) -> bool:
        """Whether a tool's result came after the question: the same turn goes on."""
        following = self.messages[-1:] if self.last_user is None else self.messages[self.last_user + 1 :]
        return any(message.role in TOOL_ROLES for message in following)

    @abstractmethod
    def user(self) -> str:
        """Return who asks; "" when nobody says."""

    @abstractmethod
    def tool_names(self) -> list[str]:
        """Return the names of the tools offered, sorted."""

    @abstractmethod
    def message_bytes(self, first: int) -> list[bytes]:
        """Return the messages from *first* on in the form of OpenAI's chat, unusual characters replaced."""

    @abstractmethod
    def pattern_edit(self, block: str) -> Edit | None:
        """Return the edit that puts *block* at the end of the app's leading text; None where it finds no place."""

    @abstractmethod
    def context_edit(self, block: str) -> Edit | None:
        """Return the edit that puts *block* after the user's last words; None where it finds no place."""

    def span(self, raw: msgspec.Raw) -> tuple[int, int]:
        """Return where *raw*, a part of this request, begins and ends in the body.

        Raises:
            ValueError: *raw* does not lie in this request's body.
        """
        return place_of(raw, self.source)

    def before_end(self, raw: msgspec.Raw, text: bytes) -> Edit:
        """Return the edit that puts *text* before the last character of *raw*: its closing quote or bracket."""
        _, end = self.span(raw)
        return end - 1, end - 1, text

    def lengthened(self, content: msgspec.Raw, text: str, *, part_type: str) -> Edit | None:
        """Return the edit that lengthens the text of *content*, or None when that is neither text nor parts.

        The last part of text grows; parts without any get one more, of *part_type*.
        """
        if is_string(content):
            return self.before_end(content, escaped(text))
        parts = content_parts(content)
        if parts is None:
            return None
        text_parts = [part for part in parts if is_text_part(part)]
        if text_parts:
            return self.before_end(text_parts[-1]["text"], escaped(text))
        return self.with_part(content, text, part_type=part_type, is_empty=not parts)

    def with_part(self, content: msgspec.Raw, text: str, *, part_type: str, is_empty: bool) -> Edit:
        """Return the edit that puts one more part of text at the end of the list *content*."""
        part = msgspec.json.encode({"type": part_type, "text": text.lstrip("\n")})
        return self.before_end(content, part if is_empty else b"," + part)

    def new_field(self, name: str, text: str) -> Edit:
        """Return the edit that gives the body a field that it does not have."""
        start = self.source.index(b"{") + 1
        is_empty = _EMPTY_REST.match(self.source, start) is not None
        field = b"%b:%b" % (msgspec.json.encode(name), msgspec.json.encode(text.lstrip("\n")))
        return start, start, field if is_empty else field + b","

    def replaced(self, raw: msgspec.Raw, text: str) -> Edit:
        """Return the edit that puts a text in the place of *raw*."""
        start, end = self.span(raw)
        return start, end, msgspec.json.encode(text.lstrip("\n"))


def is_string(raw: msgspec.Raw) -> bool:
    """Return whether *raw* is a JSON string."""
    view = memoryview(raw)
    return len(view) > 0 and view[0] == _QUOTE


def is_list(raw: msgspec.Raw) -> bool:
    """Return whether *raw* is a JSON list."""
    view = memoryview(raw)
    return len(view) > 0 and view[0] == _BRACKET


_parts_decoder: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_text_decoder: Final = msgspec.json.Decoder(str)


def content_parts(content: msgspec.Raw) -> list[dict[str, msgspec.Raw]] | None:
    """Return the parts of a list *content*, or None when it is no list of objects."""
    if not is_list(content):
        return None
    try:
        return _parts_decoder.decode(content)
    except msgspec.ValidationError:
        return None


def is_text_part(part: dict[str, msgspec.Raw]) -> bool:
    """Return whether *part* is one of text."""
    return is_string(part.get("text", EMPTY)) and bytes(part.get("type", EMPTY)) in _TEXT_TYPES


def content_text(content: msgspec.Raw) -> str:
    """Return the text of *content*, a string or a list of parts; "" for anything else."""
    if is_string(content):
        return _text_decoder.decode(content)
    return "".join(_text_decoder.decode(part["text"]) for part in content_parts(content) or () if is_text_part(part))


def leading_count(messages: Sequence[Message]) -> int:
    """Return how many of the first messages are the app's own system or developer text."""
    count = 0
    for message in messages:
        if message.role not in LEADING_ROLES:
            break
        count += 1
    return count


def last_user_index(messages: Sequence[Message]) -> int | None:
    """Return the place of the last message of the user, or None."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].role == "user":
            return index
    return None


def plain(raw: msgspec.Raw) -> Any:
    """Return the value of *raw*; None when it is empty, or holds a number or a nesting beyond what can be read."""
    try:
        return msgspec.json.decode(raw) if raw else None
    except (msgspec.DecodeError, RecursionError):
        return None


def plain_text(raw: msgspec.Raw) -> str:
    """Return the text of *raw*; "" when it is empty or no text."""
    return _text_decoder.decode(raw) if is_string(raw) else ""


def openai_user(user: msgspec.Raw, safety_identifier: msgspec.Raw, metadata: msgspec.Raw) -> str:
    """Return who asks, as OpenAI's APIs are told: ``user``, ``safety_identifier`` or metadata's user; "" for nobody."""
    for raw in (user, safety_identifier):
        if raw and (value := plain_text(raw)):
            return value
    named = plain(metadata)
    if isinstance(named, dict):
        for key in ("user_id", "user"):
            if isinstance(named.get(key), str):
                return str(named[key])
    return ""


def place_of(raw: msgspec.Raw, source: bytes) -> tuple[int, int]:
    """Return where *raw*, a part of *source*, begins and ends in it.

    Raises:
        ValueError: *raw* does not lie in *source*.
    """
    size = len(memoryview(raw))
    start = _only_place(raw, source) if len(source) <= SEARCHED_BYTES else None
    if start is None:
        start = _address(raw) - _address(source)
    if start < 0 or start + size > len(source):
        raise ValueError("not a part of this body")
    return start, start + size


def _only_place(raw: msgspec.Raw, source: bytes) -> int | None:
    """Return where *raw* stands if that is soon found out: addresses cost more than a search of a short body."""
    start = source.find(raw)
    return start if start >= 0 and source.find(raw, start + 1) < 0 else None


def _address(data: bytes | msgspec.Raw) -> int:
    return int(np.frombuffer(data, np.uint8).__array_interface__["data"][0])
