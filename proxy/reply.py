"""Reads a reply out of the bytes that pass by, streamed or not, without holding them up.

Bytes are kept up to a bound and parsed in large pieces: once at the end of a short reply, every now and then in a
long one.
"""

import re
import zlib
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from store.records import storable

PARSE_BYTES: Final = 64 * 1024  # of a stream are kept before they are parsed: rare enough to cost nothing per chunk
SHORT_CHARS: Final = 600  # an answer that is read at a glance: [feedback] dwell_short_answer_chars says the same
LONG_CHARS: Final = 2000  # beyond about a screen
FORMAT_CHARS: Final = 20_000  # are looked at to tell the format
FULL_BODY_FACTOR: Final = 8  # a body without a stream is kept up to this many times the text kept of it

_DONE_MARK: Final = b"[DONE]"
_DONE: Final = re.compile(rb"[\r\n]data: ?\[DONE\]")
_DONE_TAIL: Final = 16  # bytes of the chunk before in which an end mark may have begun

ResponseFormat = Literal["table", "code", "list", "prose", "json", "tool_calls", ""]
LengthBand = Literal["short", "medium", "long", ""]


@dataclass(slots=True)
class Reply:
    """What a reply said."""

    upstream_id: str | None = None
    message: dict[str, Any] | None = None
    """The first choice as an assistant message, partial when the reply is; None without one."""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    is_complete: bool = False
    is_readable: bool = True
    """Off: an encoding that cannot be decoded, or too large to keep; the fields above say nothing then."""
    has_error: bool = False
    """The upstream reported an error inside a reply that began well."""


@dataclass(slots=True)
class _Choice:
    text: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    function_call: dict[str, str] | None = None
    n_chars: int = 0
    n_cut: int = 0


class _ChunkChoice(msgspec.Struct, gc=False):
    index: Any = 0
    delta: Any = None
    message: Any = None
    finish_reason: Any = None


class _Chunk(msgspec.Struct, gc=False):
    """What is read of one event of a stream, or of a whole body; the rest of it is skipped, not decoded."""

    id: Any = None
    error: Any = None
    usage: Any = None
    choices: list[_ChunkChoice] | None = None


_chunk_decoder: Final = msgspec.json.Decoder(_Chunk)


class ReplyCollector:
    """Takes the bytes of one reply, chunk by chunk; bounded in memory.

    Args:
        max_chars: of text kept; what is longer is cut and marked.
    """

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._buffer: list[bytes] = []
        self._n_buffered = 0
        self._rest = b""  # of a stream: the event that is not complete yet
        self._is_stream: bool | None = None  # unknown before the first byte
        self._inflate: Any = None
        self._tail = b"\n"  # the end of what was fed; the first line of all begins after an end of line, too
        self._body: _Chunk | None = None  # parsed, once a body that is no stream is whole
        self._is_lost = False
        self._reply = Reply()
        self._choice = _Choice()
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        self._is_done = False

    def begin(self, content_encoding: str) -> None:
        """Take note of how the body is encoded; call it before the first ``feed``."""
        encoding = content_encoding.strip().lower()
        if encoding in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # tells gzip and zlib apart by itself
        elif encoding not in ("", "identity"):
            self._lose()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body, as the upstream sent them."""
        if self._inflate is not None and chunk:
            chunk = self._decoded(chunk)
        if self._is_lost or not chunk:
            return
        if self._is_stream is None:
            self._is_stream = chunk.lstrip()[:1] not in (b"{", b"[")
        self._buffer.append(chunk)
        self._n_buffered += len(chunk)
        if self._is_stream:
            window = self._tail + chunk
            # Looked for as plain bytes first: the pattern alone takes 20 ns a byte, on every byte of every stream.
            place = window.find(_DONE_MARK)
            if place >= 0 and _DONE.search(window, max(place - _DONE_TAIL, 0)):
                self._is_done = True
            self._tail = window[-_DONE_TAIL:]
            if self._n_buffered > PARSE_BYTES:
                self._parse_stream()
        elif self._n_buffered > self._max_chars * FULL_BODY_FACTOR:
            self._lose()

    def _decoded(self, chunk: bytes) -> bytes:
        try:
            data = bytes(self._inflate.decompress(chunk, self._max_chars * FULL_BODY_FACTOR))
        except zlib.error:
            self._lose()
            return b""
        if self._inflate.unconsumed_tail:
            self._lose()
        return data

    def _lose(self) -> None:
        """Give up: too large or not readable."""
        self._is_lost = True
        self._buffer.clear()
        self._n_buffered = 0

    @property
    def is_complete(self) -> bool:
        """Return whether the whole reply is here: its end mark, every choice's finish reason, or a whole JSON body."""
        if self._is_done:
            return True
        if self._is_stream is None or self._is_lost:
            return False
        if self._is_stream:
            return bool(self._seen) and self._seen <= self._finished and not self._n_buffered
        return self._whole_body() is not None

    def _whole_body(self) -> _Chunk | None:
        if self._body is not None:
            return self._body
        body = b"".join(self._buffer)
        self._buffer = [body]
        if body.rstrip()[-1:] != b"}":
            return None
        self._body = _decoded_chunk(body)
        return self._body

    def reply(self) -> Reply:
        """Return what was collected; call it once, at the end."""
        if self._is_stream:
            self._parse_stream()
            if self._rest:
                self._take_event(self._rest)  # some servers end without the last empty line
        elif self._is_stream is False and (body := self._whole_body()) is not None:
            self._take_body(body)
        reply = self._reply
        reply.is_readable = not self._is_lost
        reply.is_complete = self._is_done or (bool(self._seen) and self._seen <= self._finished)
        if self._seen:
            reply.message = _message(self._choice)
        return reply

    def _parse_stream(self) -> None:
        data = self._rest + b"".join(self._buffer)
        self._buffer.clear()
        self._n_buffered = 0
        held = b""
        if b"\r" in data:
            held = data[-1:] if data.endswith(b"\r") else b""  # half of a line end, perhaps
            data = data.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *events, rest = data.split(b"\n\n")
        for event in events:
            self._take_event(event)
        self._rest = rest + held
        if len(self._rest) > self._max_chars * FULL_BODY_FACTOR:
            self._lose()

    def _take_event(self, event: bytes) -> None:
        is_plain = event.startswith(b"data: ") and b"\n" not in event
        chunk = _decoded_chunk(event[6:] if is_plain else _event_data(event))
        if chunk is not None:
            if chunk.id != self._reply.upstream_id or chunk.usage or chunk.error:
                self._take_common(chunk)
            for choice in chunk.choices or ():
                self._take_choice(choice, choice.delta)

    def _take_body(self, body: _Chunk) -> None:
        self._take_common(body)
        for choice in body.choices or ():
            if choice.finish_reason is None:
                choice.finish_reason = "stop"  # a whole body is whole, also where a server leaves the reason out
            self._take_choice(choice, choice.message)

    def _take_common(self, chunk: _Chunk) -> None:
        reply = self._reply
        if chunk.error:
            reply.has_error = True
        if chunk.id and isinstance(chunk.id, str):
            reply.upstream_id = storable(chunk.id)
        usage = chunk.usage
        if isinstance(usage, dict):
            reply.prompt_tokens = _count(usage.get("prompt_tokens"))
            reply.completion_tokens = _count(usage.get("completion_tokens"))
            details = usage.get("prompt_tokens_details")
            reply.cached_tokens = _count(details.get("cached_tokens")) if isinstance(details, dict) else None

    def _take_choice(self, choice: _ChunkChoice, message: Any) -> None:
        index = choice.index if isinstance(choice.index, int) else 0
        self._seen.add(index)
        if choice.finish_reason is not None:
            self._finished.add(index)
            if index == 0 and isinstance(choice.finish_reason, str):
                self._reply.finish_reason = choice.finish_reason
        if index == 0 and isinstance(message, dict):  # the first choice is the reply
            self._take_message(message)

    def _take_message(self, message: dict[str, Any]) -> None:
        kept = self._choice
        if content := message.get("content"):
            self._take_text(kept.text, content)
            if len(message) == 1:
                return  # the usual event of a stream
        if refusal := message.get("refusal"):
            self._take_text(kept.refusal, refusal)
        if "tool_calls" in message:
            for position, call in enumerate(_objects(message["tool_calls"])):
                self._take_tool_call(call, position)
        function_call = message.get("function_call")
        if isinstance(function_call, dict):
            kept.function_call = kept.function_call or {"name": "", "arguments": ""}
            for name in ("name", "arguments"):
                if isinstance(function_call.get(name), str):
                    kept.function_call[name] += storable(self._cut(function_call[name]))

    def _take_text(self, texts: list[str], value: Any) -> None:
        """Keep the text of *value*, a string or a list of parts."""
        if isinstance(value, str):
            texts.append(self._cut(value))
        else:
            texts += [self._cut(text) for part in _objects(value) if isinstance(text := part.get("text"), str)]

    def _take_tool_call(self, delta: dict[str, Any], position: int) -> None:
        call = self._tool_call(delta, position)
        if isinstance(delta.get("id"), str) and delta["id"]:
            call["id"] = delta["id"]
        if isinstance(delta.get("type"), str):
            call["type"] = delta["type"]
        for kind in ("function", "custom"):
            part = delta.get(kind)
            if isinstance(part, dict):
                kept = call.setdefault(kind, {})
                for name, value in part.items():
                    if isinstance(value, str):
                        kept[name] = kept.get(name, "") + storable(self._cut(value))

    def _tool_call(self, delta: dict[str, Any], position: int) -> dict[str, Any]:
        """Return the call that *delta* continues: by index, by id, else the last one."""
        calls = self._choice.tool_calls
        index, call_id = delta.get("index"), delta.get("id")
        if isinstance(index, int):
            found = [call for call in calls if call["index"] == index]
        elif call_id:
            found = [call for call in calls if call.get("id") == call_id]
        else:
            found = calls[-1:]
        if not found:
            calls.append({"index": index if isinstance(index, int) else max(position, len(calls))})
            found = calls[-1:]
        return found[0]

    def _cut(self, text: str) -> str:
        kept = self._choice
        kept.n_chars += len(text)
        if kept.n_chars > self._max_chars:
            n_cut = min(kept.n_chars - self._max_chars, len(text))
            kept.n_cut += n_cut
            text = text[: len(text) - n_cut]
        return text


def _event_data(event: bytes) -> bytes:
    """Return the data of an event of any form: of several lines, with comments or other fields; empty without."""
    return b"\n".join(line[5:] for line in event.split(b"\n") if line.startswith(b"data:"))


def _decoded_chunk(data: bytes) -> _Chunk | None:
    try:
        return _chunk_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # [DONE] is no JSON either
        return None


def _message(choice: _Choice) -> dict[str, Any]:
    text = storable("".join(choice.text))
    if choice.n_cut:
        text += f" [{choice.n_cut} characters cut]"
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if choice.refusal:
        message["refusal"] = storable("".join(choice.refusal))
    if choice.tool_calls:
        calls = sorted(choice.tool_calls, key=lambda call: call["index"])
        message["tool_calls"] = [{name: value for name, value in call.items() if name != "index"} for call in calls]
    if choice.function_call:
        message["function_call"] = choice.function_call
    return message


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


_FENCE: Final = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_TABLE: Final = re.compile(r"^[ \t]*\|?[ \t]*:?-{2,}:?[ \t]*(?:\|[ \t]*:?-{2,}:?[ \t]*)+\|?[ \t]*$", re.MULTILINE)
_ITEM: Final = re.compile(r"^[ \t]*(?:[-*+\u2022]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)


def response_format(message: dict[str, Any] | None) -> ResponseFormat:
    r"""Return what kind of answer *message* is.

    >>> response_format({"content": "| a | b |\n|---|---|\n| 1 | 2 |"}), response_format({"content": "- a\n- b"})
    ('table', 'list')
    >>> response_format({"content": None, "tool_calls": [{}]}), response_format({"content": '{"a": 1}'})
    ('tool_calls', 'json')
    """
    if not message:
        return ""
    if message.get("tool_calls") or message.get("function_call"):
        return "tool_calls"
    text = str(message.get("content") or message.get("refusal") or "")[:FORMAT_CHARS].strip()
    return _text_format(text) if text else ""


def _text_format(text: str) -> ResponseFormat:
    # Looked for as plain text first: each pattern stops at every line, and most replies are prose.
    if _is_json(text):
        return "json"
    if "--" in text and _TABLE.search(text):
        return "table"
    if ("```" in text or "~~~" in text) and _FENCE.search(text):
        return "code"
    return "list" if "\n" in text and len(_ITEM.findall(text)) >= 2 else "prose"


def _is_json(text: str) -> bool:
    if text[0] not in "{[" or text[-1] not in "}]":
        return False
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def length_band(message: dict[str, Any] | None) -> LengthBand:
    """Return how long the text of *message* is; "" without text."""
    text = str((message or {}).get("content") or "")
    if not text:
        return ""
    if len(text) <= SHORT_CHARS:
        return "short"
    return "medium" if len(text) <= LONG_CHARS else "long"
