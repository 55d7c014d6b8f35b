"""Answers as Anthropic's Messages API gives them."""

from collections.abc import Iterator
from typing import Any

from tests.provider.answers import N_CACHED, N_COMPLETION, N_PROMPT, Answer, words
from tests.upstream import SeenRequest

USAGE: dict[str, Any] = {
    "input_tokens": N_PROMPT - N_CACHED,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": N_CACHED,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens": N_COMPLETION,
    "service_tier": "standard",
}
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def refusal(request: SeenRequest) -> str | None:
    """Return why the API does not take *request*; None when it does.

    What continues a thread that the provider holds must not repeat what the thread was created with.
    """
    thread = request.json.get("thread") or {}
    repeated = [name for name in ("system", "tools") if name in request.json and thread.get("type") == "continue"]
    return f"{repeated[0]}: not allowed when a thread continues" if repeated else None


def whole(request: SeenRequest, answer: Answer, name: str) -> dict[str, Any]:
    """Return the body of a reply that is not streamed."""
    return {
        **_shell(request, name),
        "content": _blocks(answer, name),
        "stop_reason": _stop_reason(answer),
        "usage": USAGE,
    }


def events(request: SeenRequest, answer: Answer, name: str) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream, a ``ping`` among them; ``type`` is also each one's name."""
    begun = {**_shell(request, name), "content": [], "stop_reason": None, "usage": {**USAGE, "output_tokens": 1}}
    yield {"type": "message_start", "message": begun}
    for index, block in enumerate(_blocks(answer, name)):
        if block["type"] == "text":
            shell: dict[str, Any] = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": word} for word in words(block["text"])]
        else:
            shell = {**block, "input": {}}
            arguments = answer.calls[int(block["id"].rsplit("_", 1)[1])].arguments_json
            half = len(arguments) // 2
            deltas = [
                {"type": "input_json_delta", "partial_json": part} for part in ("", arguments[:half], arguments[half:])
            ]
        yield {"type": "content_block_start", "index": index, "content_block": shell}
        yield {"type": "ping"}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": _stop_reason(answer), "stop_sequence": None},
        "usage": {"output_tokens": N_COMPLETION},
    }
    yield {"type": "message_stop"}


def error(status: int, message: str) -> dict[str, Any]:
    """Return an error's body, which is also the event that ends a broken stream."""
    kind = ERROR_TYPES.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_scripted"}


def _shell(request: SeenRequest, name: str) -> dict[str, Any]:
    return {
        "id": f"msg_{name}",
        "type": "message",
        "role": "assistant",
        "model": request.json["model"],
        "stop_sequence": None,
    }


def _blocks(answer: Answer, name: str) -> list[dict[str, Any]]:
    text = answer.refusal or answer.text
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text is not None else []
    return blocks + [
        {"type": "tool_use", "id": f"toolu_{name}_{index}", "name": call.name, "input": dict(call.arguments)}
        for index, call in enumerate(answer.calls)
    ]


def _stop_reason(answer: Answer) -> str:
    if answer.refusal:
        return "refusal"
    return "tool_use" if answer.calls else "end_turn"
