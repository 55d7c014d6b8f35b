"""Reads a reply of ``/v1/chat/completions``: chunks of a stream, or a whole body."""

import re
from typing import Any, Final

import msgspec

from proxy.reply import EndMark, Kept, Reply, count, objects
from store.records import storable


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
_END_MARK: Final = EndMark((b"[DONE]",), re.compile(rb"[\r\n]data: ?\[DONE\]"), n_bytes=16, is_whole=True)


class ChatReader:
    """Reads the first choice; a stream ends with ``[DONE]``, or once every choice has its finish reason."""

    end_mark = _END_MARK

    def __init__(self, max_chars: int) -> None:
        self.reply = Reply()
        self._kept = Kept(max_chars)
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._tool_calls: list[dict[str, Any]] = []
        self._function_call: dict[str, str] | None = None
        self._seen: set[int] = set()
        self._finished: set[int] = set()

    @property
    def has_finished(self) -> bool:
        return bool(self._seen) and self._seen <= self._finished

    def take_events(self, events: list[bytes]) -> None:
        texts: list[str] = []  # of events that hold a piece of text and nothing else, as nearly all do
        for event in events:
            chunk = _decoded(event)
            if chunk is None:
                continue
            if chunk.id != self.reply.upstream_id or chunk.usage or chunk.error:
                self._take_common(chunk)
            for choice in chunk.choices or ():
                delta = choice.delta
                is_plain = choice.index == 0 and choice.finish_reason is None and type(delta) is dict
                if is_plain and len(delta) == 1 and type(text := delta.get("content")) is str:
                    texts.append(text)
                    continue
                self._take_texts(texts)
                self._take_choice(choice, delta)
        self._take_texts(texts)

    def _take_texts(self, texts: list[str]) -> None:
        """Keep *texts* of the first choice and empty the list."""
        if texts:
            self._seen.add(0)
            self._text.append(self._kept.cut("".join(texts)))
            texts.clear()

    def take_body(self, body: bytes) -> bool:
        chunk = _decoded(body)
        if chunk is None:
            return False
        self._take_common(chunk)
        for choice in chunk.choices or ():
            if choice.finish_reason is None:
                choice.finish_reason = "stop"  # a whole body is whole, also where a server leaves the reason out
            self._take_choice(choice, choice.message)
        return True

    def message(self) -> dict[str, Any] | None:
        if not self._seen:
            return None
        message: dict[str, Any] = {"role": "assistant", "content": self._kept.marked(self._text) or None}
        if self._refusal:
            message["refusal"] = storable("".join(self._refusal))
        if self._tool_calls:
            calls = sorted(self._tool_calls, key=lambda call: call["index"])
            message["tool_calls"] = [{name: value for name, value in call.items() if name != "index"} for call in calls]
        if self._function_call:
            message["function_call"] = self._function_call
        return message

    def _take_common(self, chunk: _Chunk) -> None:
        reply = self.reply
        if chunk.error:
            reply.has_error = True
        if chunk.id and isinstance(chunk.id, str):
            reply.upstream_id = storable(chunk.id)
        usage = chunk.usage
        if isinstance(usage, dict):
            reply.prompt_tokens = count(usage.get("prompt_tokens"))
            reply.completion_tokens = count(usage.get("completion_tokens"))
            details = usage.get("prompt_tokens_details")
            reply.cached_tokens = count(details.get("cached_tokens")) if isinstance(details, dict) else None

    def _take_choice(self, choice: _ChunkChoice, message: Any) -> None:
        index = choice.index if isinstance(choice.index, int) else 0
        self._seen.add(index)
        if choice.finish_reason is not None:
            self._finished.add(index)
            if index == 0 and isinstance(choice.finish_reason, str):
                self.reply.finish_reason = choice.finish_reason
        if index == 0 and isinstance(message, dict):  # the first choice is the reply
            self._take_message(message)

    def _take_message(self, message: dict[str, Any]) -> None:
        if content := message.get("content"):
            self._take_text(self._text, content)
        if refusal := message.get("refusal"):
            self._take_text(self._refusal, refusal)
        if "tool_calls" in message:
            for position, call in enumerate(objects(message["tool_calls"])):
                self._take_tool_call(call, position)
        function_call = message.get("function_call")
        if isinstance(function_call, dict):
            self._function_call = self._function_call or {"name": "", "arguments": ""}
            for name in ("name", "arguments"):
                if isinstance(function_call.get(name), str):
                    self._function_call[name] += storable(self._kept.cut(function_call[name]))

    def _take_text(self, texts: list[str], value: Any) -> None:
        """Keep the text of *value*, a string or a list of parts."""
        if isinstance(value, str):
            texts.append(self._kept.cut(value))
        else:
            texts += [self._kept.cut(text) for part in objects(value) if isinstance(text := part.get("text"), str)]

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
                        kept[name] = kept.get(name, "") + storable(self._kept.cut(value))

    def _tool_call(self, delta: dict[str, Any], position: int) -> dict[str, Any]:
        """Return the call that *delta* continues: by index, by id, else the last one."""
        calls = self._tool_calls
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


def _decoded(data: bytes) -> _Chunk | None:
    try:
        return _chunk_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # [DONE] is no JSON either
        return None
