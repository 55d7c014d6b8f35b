"""Reads a reply of ``/v1/messages``, Anthropic's Messages API: events of a stream, or a whole message."""

import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from proxy.reply import EndMark, Kept, Reply, assistant_message, count, objects, text_of
from store.records import storable

FINISH_REASONS: Final = {  # in the words of a chat; others stay as they are
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_PROMPT_COUNTS: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_END_MARK: Final = EndMark(
    (b"message_stop",),
    re.compile(rb"""[\r\n](?:event:\ ?|data:\ ?\{"type":\ ?")message_stop""", re.VERBOSE),
    n_bytes=36,
    is_whole=False,
)


class _Message(msgspec.Struct, gc=False):
    """What is read of a message object; the rest of it is skipped, not decoded."""

    id: Any = None
    content: Any = None
    stop_reason: Any = None
    usage: Any = None
    error: Any = None


class _Event(msgspec.Struct, gc=False):
    type: Any = None
    message: _Message | None = None
    index: Any = None
    content_block: Any = None
    delta: Any = None
    usage: Any = None
    error: Any = None


@dataclass(slots=True)
class _Block:
    """One content block as far as it came; of thinking, and of tools that the API runs itself, nothing is kept."""

    type: str = ""
    id: str = ""
    name: str = ""
    text: list[str] = field(default_factory=list)  # or the tool's input as JSON
    input: Any = None  # as the block began


_event_decoder: Final = msgspec.json.Decoder(_Event)
_message_decoder: Final = msgspec.json.Decoder(_Message)


class MessagesReader:
    """Reads text and tool calls; a stream ends with ``message_stop``."""

    end_mark = _END_MARK

    def __init__(self, max_chars: int) -> None:
        self.reply = Reply()
        self._kept = Kept(max_chars)
        self._blocks: dict[int, _Block] = {}
        self._counts: dict[str, int] = {}
        self._has_begun = False
        self.has_finished = False

    def take_events(self, events: list[bytes]) -> None:
        for data in events:
            try:
                event = _event_decoder.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            self._take_event(event)

    def take_body(self, body: bytes) -> bool:
        try:
            message = _message_decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        self._take_message(message)
        self.has_finished = True
        return True

    def message(self) -> dict[str, Any] | None:
        if not self._has_begun:
            return None
        blocks = [self._blocks[index] for index in sorted(self._blocks)]
        return assistant_message(
            self._kept.marked([text for block in blocks if block.type == "text" for text in block.text]),
            "",
            [_call(block) for block in blocks if block.type == "tool_use"],
        )

    def _take_event(self, event: _Event) -> None:
        if event.error:
            self.reply.has_error = True
        if event.message is not None:
            self._take_message(event.message)
        if isinstance(event.index, int):
            self._take_part(event, event.index)
        elif event.type == "message_delta":
            self._take_usage(event.usage)
            if isinstance(event.delta, dict):
                self._take_stop_reason(event.delta.get("stop_reason"))

    def _take_part(self, event: _Event, index: int) -> None:
        if isinstance(event.content_block, dict):
            self._take_block(index, event.content_block)
        elif isinstance(event.delta, dict) and (block := self._blocks.get(index)) is not None:
            text = text_of(event.delta.get("text" if block.type == "text" else "partial_json"))
            block.text.append(self._kept.cut(text))

    def _take_block(self, index: int, content: dict[str, Any]) -> None:
        if content.get("type") not in ("text", "tool_use"):
            return
        block = _Block(text_of(content["type"]), text_of(content.get("id")), text_of(content.get("name")))
        if block.type == "text":
            block.text.append(self._kept.cut(text_of(content.get("text"))))
        else:
            block.input = content.get("input")
        self._blocks[index] = block

    def _take_message(self, message: _Message) -> None:
        if message.error:
            self.reply.has_error = True
            return
        self._has_begun = True
        if message.id and isinstance(message.id, str):
            self.reply.upstream_id = storable(message.id)
        for index, content in enumerate(objects(message.content)):
            self._take_block(index, content)
        self._take_usage(message.usage)
        self._take_stop_reason(message.stop_reason)

    def _take_stop_reason(self, reason: Any) -> None:
        if isinstance(reason, str):
            self.has_finished = True
            self.reply.finish_reason = FINISH_REASONS.get(reason, storable(reason))

    def _take_usage(self, usage: Any) -> None:
        """Take the counts that are there: those of a stream come in two parts, the later ones in place of the first.

        What the cache gave or took is counted beside ``input_tokens`` here; in a chat it is a part of the prompt's.
        """
        if not isinstance(usage, dict):
            return
        self._counts |= {name: n for name in usage if (n := count(usage[name])) is not None}
        prompt = [self._counts[name] for name in _PROMPT_COUNTS if name in self._counts]
        self.reply.prompt_tokens = sum(prompt) if prompt else None
        self.reply.completion_tokens = self._counts.get("output_tokens")
        self.reply.cached_tokens = self._counts.get("cache_read_input_tokens")


def _call(block: _Block) -> dict[str, Any]:
    arguments = "".join(block.text)
    if not arguments:
        arguments = msgspec.json.encode(block.input if isinstance(block.input, dict) else {}).decode()
    function = {"name": storable(block.name), "arguments": storable(arguments)}
    return {"id": storable(block.id), "type": "function", "function": function}
