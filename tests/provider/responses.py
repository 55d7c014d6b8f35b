"""Answers as OpenAI's Responses API gives them."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from tests.provider.answers import N_CACHED, N_COMPLETION, N_PROMPT, Answer, words
from tests.upstream import SeenRequest

USAGE: dict[str, Any] = {
    "input_tokens": N_PROMPT,
    "input_tokens_details": {"cached_tokens": N_CACHED, "cache_write_tokens": 0},
    "output_tokens": N_COMPLETION,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": N_PROMPT + N_COMPLETION,
}


def whole(request: SeenRequest, answer: Answer, name: str) -> dict[str, Any]:
    """Return the body of a reply that is not streamed, which is also what ``response.completed`` holds."""
    return {**_shell(request, name), "status": "completed", "output": _output(answer, name), "usage": USAGE}


def events(request: SeenRequest, answer: Answer, name: str) -> Iterator[dict[str, Any]]:
    """Yield the whole sequence of a stream's events, numbered."""
    numbers = count()
    for event in _unnumbered(request, answer, name):
        yield {**event, "sequence_number": next(numbers)}


def error_event(message: str) -> dict[str, Any]:
    """Return the event that ends a broken stream."""
    return {"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 99}


def _unnumbered(request: SeenRequest, answer: Answer, name: str) -> Iterator[dict[str, Any]]:
    shell = {**_shell(request, name), "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": shell}
    yield {"type": "response.in_progress", "response": shell}
    for index, item in enumerate(_output(answer, name)):
        of_item = {"output_index": index, "item_id": item["id"]}
        if item["type"] == "function_call":
            begun, inside = {**item, "status": "in_progress", "arguments": ""}, _call_events(item, of_item)
        else:
            begun, inside = {**item, "status": "in_progress", "content": []}, _message_events(item, of_item)
        yield {"type": "response.output_item.added", "output_index": index, "item": begun}
        yield from inside
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": whole(request, answer, name)}


def _call_events(item: dict[str, Any], of_item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    arguments = item["arguments"]
    half = len(arguments) // 2
    for delta in (arguments[:half], arguments[half:]):
        yield {"type": "response.function_call_arguments.delta", **of_item, "delta": delta}
    yield {
        "type": "response.function_call_arguments.done",
        **of_item,
        "name": item["name"],
        "arguments": arguments,
    }


def _message_events(item: dict[str, Any], of_item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    (part,) = item["content"]
    of_part = {**of_item, "content_index": 0}
    field, kind = ("text", "output_text") if part["type"] == "output_text" else ("refusal", "refusal")
    more: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
    yield {"type": "response.content_part.added", **of_part, "part": {**part, field: ""}}
    for word in words(part[field]):
        yield {"type": f"response.{kind}.delta", **of_part, "delta": word, **more}
    yield {"type": f"response.{kind}.done", **of_part, field: part[field], **more}
    yield {"type": "response.content_part.done", **of_part, "part": part}


def _output(answer: Answer, name: str) -> list[dict[str, Any]]:
    output: list[dict[str, Any]] = []
    if answer.text is not None or answer.refusal is not None:
        part: dict[str, Any] = (
            {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
            if answer.refusal is None
            else {"type": "refusal", "refusal": answer.refusal}
        )
        output.append(
            {"id": f"msg_{name}", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
        )
    for index, call in enumerate(answer.calls):
        output.append(
            {
                "id": f"fc_{name}_{index}",
                "type": "function_call",
                "status": "completed",
                "call_id": f"call_{name}_{index}",
                "name": call.name,
                "arguments": call.arguments_json,
            }
        )
    return output


def _shell(request: SeenRequest, name: str) -> dict[str, Any]:
    asked = request.json
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": 1760000000,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "model": asked["model"],
        "parallel_tool_calls": asked.get("parallel_tool_calls", True),
        "previous_response_id": asked.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "store": asked.get("store", True),
        "temperature": asked.get("temperature", 1.0),
        "text": asked.get("text", {"format": {"type": "text"}}),
        "tool_choice": asked.get("tool_choice", "auto"),
        "tools": asked.get("tools", []),
        "top_p": asked.get("top_p", 1.0),
        "truncation": "disabled",
        "user": asked.get("user"),
        "metadata": asked.get("metadata") or {},
    }
