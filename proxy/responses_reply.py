"""Reads a reply of ``/v1/responses``: typed events of a stream, or a whole response."""

import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from proxy.reply import EndMark, Kept, Reply, assistant_message, count, objects, text_of
from store.records import storable

TERMINAL: Final = ("response.completed", "response.incomplete", "response.failed")
CALLS: Final = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}
MAX_ITEM_IDS: Final = 32  # of one reply that are remembered
FINISH_REASONS: Final = {"max_output_tokens": "length"}  # others are called as in a chat

_END_MARK: Final = EndMark(
    tuple(name.encode() for name in TERMINAL),
    re.compile(rb"""[\r\n](?:event:\ ?|data:\ ?\{"type":\ ?")response\.(?:completed|incomplete|failed)""", re.VERBOSE),
    n_bytes=48,
    is_whole=False,
)


class _Response(msgspec.Struct, gc=False):
    """What is read of a response object; the rest of it is skipped, not decoded."""

    id: Any = None
    status: Any = None
    error: Any = None
    incomplete_details: Any = None
    usage: Any = None
    output: Any = None


class _Event(msgspec.Struct, gc=False):
    type: Any = None
    response: _Response | None = None
    item: Any = None
    delta: Any = None
    output_index: Any = None
    error: Any = None


@dataclass(slots=True)
class _Item:
    """One output item as far as it came."""

    type: str = ""
    call_id: str = ""
    name: str = ""
    text: list[str] = field(default_factory=list)  # or arguments, or input
    refusal: list[str] = field(default_factory=list)


_event_decoder: Final = msgspec.json.Decoder(_Event)
_response_decoder: Final = msgspec.json.Decoder(_Response)


class ResponsesReader:
    """Reads output text, refusals and calls; a stream ends with the event that holds the whole response again."""

    end_mark = _END_MARK

    def __init__(self, max_chars: int) -> None:
        self.reply = Reply()
        self.has_finished = False
        self._max_chars = max_chars
        self._kept = Kept(max_chars)
        self._items: dict[int, _Item] = {}

    def take_events(self, events: list[bytes]) -> None:
        # Usually all events are here at once, and the last says all that the others say.
        for data in events[-2:]:
            event = _decoded(data)
            if event is not None and event.type in TERMINAL and event.response is not None and event.response.output:
                self._take_response(event.response)
                return
        for data in events:
            event = _decoded(data)
            if event is not None:
                self._take_event(event)

    def take_body(self, body: bytes) -> bool:
        try:
            response = _response_decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        self._take_response(response)
        self.has_finished = True  # a response in the background too: this is all that the client gets
        return True

    def message(self) -> dict[str, Any] | None:
        if not self._items:
            return None
        items = [self._items[index] for index in sorted(self._items)]
        messages = [item for item in items if item.type not in CALLS]
        return assistant_message(
            self._kept.marked([text for item in messages for text in item.text]),
            storable("".join([text for item in messages for text in item.refusal])),
            [_call(item) for item in items if item.type in CALLS],
        )

    def _take_event(self, event: _Event) -> None:
        if event.type == "error" or event.error:
            self.reply.has_error = True
        if event.response is not None:
            self._take_response(event.response)
            self.has_finished = self.has_finished or event.type in TERMINAL
        elif isinstance(event.output_index, int):
            self._take_part(event, event.output_index)

    def _take_part(self, event: _Event, index: int) -> None:
        match event.type:
            case "response.output_item.added" | "response.output_item.done" if isinstance(event.item, dict):
                item = self._items.setdefault(index, _Item()) if _is_read(event.item) else None
                if item is not None:
                    self._take_head(item, event.item)
            case "response.output_text.delta":
                self._items.setdefault(index, _Item()).text.append(self._kept.cut(text_of(event.delta)))
            case "response.refusal.delta":
                self._items.setdefault(index, _Item()).refusal.append(self._kept.cut(text_of(event.delta)))
            case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
                self._items.setdefault(index, _Item()).text.append(self._kept.cut(text_of(event.delta)))

    def _take_head(self, kept: _Item, item: dict[str, Any]) -> None:
        item_id = storable(text_of(item.get("id")))
        if item_id and item_id not in self.reply.item_ids and len(self.reply.item_ids) < MAX_ITEM_IDS:
            self.reply.item_ids += (item_id,)
        kept.type = text_of(item.get("type"))
        kept.call_id = text_of(item.get("call_id"))
        kept.name = text_of(item.get("name"))
        if not kept.text and not kept.refusal:  # no delta told it
            self._take_content(kept, item)

    def _take_content(self, kept: _Item, item: dict[str, Any]) -> None:
        if kept.type in CALLS:
            text = text_of(item.get(CALLS[kept.type][1]))
            kept.text = [self._kept.cut(text)] if text else []
            return
        for part in objects(item.get("content")):
            if part.get("type") == "refusal":
                kept.refusal.append(self._kept.cut(text_of(part.get("refusal"))))
            else:
                kept.text.append(self._kept.cut(text_of(part.get("text"))))

    def _take_response(self, response: _Response) -> None:
        reply = self.reply
        if response.id and isinstance(response.id, str):
            reply.upstream_id = storable(response.id)
        if isinstance(response.usage, dict):
            reply.prompt_tokens = count(response.usage.get("input_tokens"))
            reply.completion_tokens = count(response.usage.get("output_tokens"))
            details = response.usage.get("input_tokens_details")
            reply.cached_tokens = count(details.get("cached_tokens")) if isinstance(details, dict) else None
        if response.output:
            self._items = {}
            self._kept = Kept(self._max_chars)
            for index, item in enumerate(objects(response.output)):
                if _is_read(item):
                    self._take_head(self._items.setdefault(index, _Item()), item)
        if response.error or response.status in ("failed", "cancelled"):
            reply.has_error = True
        if response.status in ("completed", "incomplete", "failed", "cancelled"):
            self.has_finished = True
        reply.finish_reason = self._finish_reason(response)

    def _finish_reason(self, response: _Response) -> str | None:
        """Return why the reply ended in the words of a chat; the status where a chat has no word."""
        if response.status == "completed":
            return "tool_calls" if any(item.type in CALLS for item in self._items.values()) else "stop"
        if response.status == "incomplete":
            details = response.incomplete_details
            reason = text_of(details.get("reason")) if isinstance(details, dict) else ""
            return FINISH_REASONS.get(reason, reason) or "incomplete"
        return storable(text_of(response.status)) or None


def _is_read(item: dict[str, Any]) -> bool:
    kind = text_of(item.get("type"))
    return kind == "message" or kind in CALLS


def _call(item: _Item) -> dict[str, Any]:
    kind, text_name = CALLS[item.type]
    return {
        "id": storable(item.call_id),
        "type": kind,
        kind: {"name": storable(item.name), text_name: storable("".join(item.text))},
    }


def _decoded(data: bytes) -> _Event | None:
    try:
        return _event_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # [DONE], which some servers send here too
        return None
