"""What a scripted upstream answers in the Responses and the Messages API, whole or streamed as the request asked."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

from tests.upstream import STREAM_TYPE, Reply, SeenRequest, json_reply

_IDS = count(1)


def typed_sse(events: Iterable[Mapping[str, Any]]) -> tuple[bytes, ...]:
    """Return events that are named by their ``type``, as both APIs send them."""
    return tuple(b"event: %s\ndata: %s\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in events)


def _stream(events: Iterable[Mapping[str, Any]]) -> Reply:
    return Reply(typed_sse(events), headers=(STREAM_TYPE,), is_chunked=True)


def response_object(
    text: str | None, *, reply_id: str, calls: Sequence[Mapping[str, Any]] = (), status: str = "completed"
) -> dict[str, Any]:
    """Return a whole response with *text* and function calls (``call_id``, ``name``, ``arguments``)."""
    output: list[dict[str, Any]] = [{"type": "reasoning", "id": "rs_1", "summary": []}]
    if text is not None:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        output.append({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]})
    output += [
        {"type": "function_call", "id": f"fc_{call['call_id']}", "status": "completed", **call} for call in calls
    ]
    usage = {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 35,
    }
    return {
        "id": reply_id,
        "object": "response",
        "created_at": 1760000000,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": "gpt-test",
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }


def response_events(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the events that a stream of *response* consists of."""
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(response["output"]):
        place = {"item_id": item["id"], "output_index": index}
        empty = {**item, "status": "in_progress"} | ({"content": []} if "content" in item else {})
        empty |= {"arguments": ""} if "arguments" in item else {}
        events.append({"type": "response.output_item.added", "output_index": index, "item": empty})
        for number, part in enumerate(item.get("content", [])):
            begun_part = {**part, "text": ""}
            where = {**place, "content_index": number}
            events.append({"type": "response.content_part.added", **where, "part": begun_part})
            for word in part["text"].split(" "):
                delta = {"delta": word + " ", "logprobs": []}
                events.append({"type": "response.output_text.delta", **where, **delta})
            events.append({"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []})
        events += [
            {"type": "response.function_call_arguments.delta", **place, "delta": character}
            for character in item.get("arguments", "")
        ]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": f"response.{response['status']}", "response": response})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def responses_reply(
    request: SeenRequest,
    text: str | None = "Hello from upstream.",
    *,
    reply_id: str | None = None,
    calls: Sequence[Mapping[str, Any]] = (),
) -> Reply:
    """Return a reply of the Responses API."""
    response = response_object(text, reply_id=reply_id or f"resp_up_{next(_IDS)}", calls=calls)
    return _stream(response_events(response)) if request.is_stream else json_reply(response)


def message_object(
    text: str | None, *, reply_id: str, calls: Sequence[Mapping[str, Any]] = (), stop_reason: str | None = None
) -> dict[str, Any]:
    """Return a whole message with *text* and tool calls (``id``, ``name``, ``input``)."""
    content: list[dict[str, Any]] = [{"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"}]
    if text is not None:
        content.append({"type": "text", "text": text})
    content += [{"type": "tool_use", **call} for call in calls]
    return {
        "id": reply_id,
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": content,
        "stop_reason": stop_reason or ("tool_use" if calls else "end_turn"),
        "stop_sequence": None,
        "usage": {
            "input_tokens": 9,
            "cache_creation_input_tokens": 1,
            "cache_read_input_tokens": 20,
            "output_tokens": 5,
        },
    }


_EMPTY_BLOCKS: Mapping[str, Mapping[str, Any]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
}


def _deltas(block: Mapping[str, Any]) -> list[dict[str, Any]]:
    match block["type"]:
        case "text":
            return [{"type": "text_delta", "text": word + " "} for word in block["text"].split(" ")]
        case "thinking":
            return [{"type": "thinking_delta", "thinking": block["thinking"]}]
        case _:
            return [{"type": "input_json_delta", "partial_json": part} for part in ["", *json.dumps(block["input"])]]


def message_events(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the events that a stream of *message* consists of."""
    usage = {**message["usage"], "output_tokens": 1}
    begun = {**message, "content": [], "stop_reason": None, "usage": usage}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for index, block in enumerate(message["content"]):
        events.append(
            {"type": "content_block_start", "index": index, "content_block": {**block, **_EMPTY_BLOCKS[block["type"]]}}
        )
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in _deltas(block)]
        events.append({"type": "content_block_stop", "index": index})
    stop = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": message["usage"]["output_tokens"]}
    return [*events, {"type": "message_delta", "delta": stop, "usage": usage}, {"type": "message_stop"}]


def messages_reply(
    request: SeenRequest,
    text: str | None = "Hello from upstream.",
    *,
    reply_id: str | None = None,
    calls: Sequence[Mapping[str, Any]] = (),
) -> Reply:
    """Return a reply of the Messages API."""
    message = message_object(text, reply_id=reply_id or f"msg_up_{next(_IDS)}", calls=calls)
    return _stream(message_events(message)) if request.is_stream else json_reply(message)
