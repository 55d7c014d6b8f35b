"""The three learned APIs as a client and an upstream speak them on the wire."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CHAT_TOOL = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object", "properties": {}}}}
RESPONSES_TOOL = {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}
MESSAGES_TOOL = {"name": "lookup", "input_schema": {"type": "object", "properties": {}}}


def event(data: Mapping[str, Any]) -> bytes:
    """Return one event, named after its type where it has one."""
    name = b"event: " + data["type"].encode() + b"\n" if "type" in data else b""
    return name + b"data: " + json.dumps(data).encode() + b"\n\n"


@dataclass(frozen=True)
class Dialect:
    """How one API puts a question, a whole reply, a streamed one and a failure within a stream."""

    path: bytes
    tool: Mapping[str, Any]

    def question(self, text: str, model: str, *, is_stream: bool, has_tools: bool) -> bytes:
        body: dict[str, Any] = {"model": model, **self._asked(text)}
        if is_stream:
            body["stream"] = True
        if has_tools:
            body["tools"] = [self.tool]
        return json.dumps(body).encode()

    def _asked(self, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def whole(self, reply_id: str, text: str) -> bytes:
        raise NotImplementedError

    def events(self, reply_id: str, words: Sequence[str]) -> list[bytes]:
        """Return a streamed reply: one event for each word, and the last one ends it."""
        raise NotImplementedError

    def failure(self) -> bytes:
        """Return the event of an upstream that gives up within a stream."""
        raise NotImplementedError


class Chat(Dialect):
    def __init__(self) -> None:
        super().__init__(b"/v1/chat/completions", CHAT_TOOL)

    def _asked(self, text: str) -> dict[str, Any]:
        return {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]}

    def whole(self, reply_id: str, text: str) -> bytes:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
        return json.dumps({"id": reply_id, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()

    def events(self, reply_id: str, words: Sequence[str]) -> list[bytes]:
        deltas: list[tuple[dict[str, str], str | None]] = [({"content": word}, None) for word in words]
        chunks = [
            {"id": reply_id, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
            for delta, reason in [*deltas, ({}, "stop")]
        ]
        return [*(event(chunk) for chunk in chunks), b"data: [DONE]\n\n"]

    def failure(self) -> bytes:
        return event({"error": {"message": "overloaded", "type": "server_error", "param": None, "code": None}})


class Responses(Dialect):
    def __init__(self) -> None:
        super().__init__(b"/v1/responses", RESPONSES_TOOL)

    def _asked(self, text: str) -> dict[str, Any]:
        return {"instructions": "Be kind.", "input": text}

    def _response(self, reply_id: str, text: str, status: str = "completed") -> dict[str, Any]:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        output = [{"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": content}]
        usage = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
        return {"id": reply_id, "object": "response", "status": status, "output": output, "usage": usage}

    def whole(self, reply_id: str, text: str) -> bytes:
        return json.dumps(self._response(reply_id, text)).encode()

    def events(self, reply_id: str, words: Sequence[str]) -> list[bytes]:
        created = {"id": reply_id, "object": "response", "status": "in_progress", "output": []}
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        deltas: list[dict[str, Any]] = [
            {"type": "response.output_text.delta", **place, "delta": word} for word in words
        ]
        completed = {"type": "response.completed", "response": self._response(reply_id, "".join(words))}
        return [event(data) for data in [{"type": "response.created", "response": created}, *deltas, completed]]

    def failure(self) -> bytes:
        failed = {"id": "resp_1", "object": "response", "status": "failed", "output": [], "error": {"code": "x"}}
        return event({"type": "response.failed", "response": failed})


class Messages(Dialect):
    def __init__(self) -> None:
        super().__init__(b"/v1/messages", MESSAGES_TOOL)

    def _asked(self, text: str) -> dict[str, Any]:
        return {"max_tokens": 100, "system": "Be kind.", "messages": [{"role": "user", "content": text}]}

    def whole(self, reply_id: str, text: str) -> bytes:
        reply = {"id": reply_id, "type": "message", "role": "assistant", "content": [{"type": "text", "text": text}]}
        return json.dumps(
            {**reply, "stop_reason": "end_turn", "usage": {"input_tokens": 9, "output_tokens": 4}}
        ).encode()

    def events(self, reply_id: str, words: Sequence[str]) -> list[bytes]:
        message = {"id": reply_id, "type": "message", "role": "assistant", "content": list[Any]()}
        begin: list[dict[str, Any]] = [
            {"type": "message_start", "message": {**message, "usage": {"input_tokens": 9, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        ]
        deltas: list[dict[str, Any]] = [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in words
        ]
        end: list[dict[str, Any]] = [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
            {"type": "message_stop"},
        ]
        return [event(data) for data in [*begin, *deltas, *end]]

    def failure(self) -> bytes:
        return event({"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}})


CHAT = Chat()
RESPONSES = Responses()
MESSAGES = Messages()
