"""Answers as OpenAI's Chat Completions API gives them."""

from collections.abc import Iterator, Sequence
from typing import Any

from tests.provider.answers import N_CACHED, N_COMPLETION, N_PROMPT, Answer, words
from tests.upstream import SeenRequest

USAGE: dict[str, Any] = {
    "prompt_tokens": N_PROMPT,
    "completion_tokens": N_COMPLETION,
    "total_tokens": N_PROMPT + N_COMPLETION,
    "prompt_tokens_details": {"cached_tokens": N_CACHED, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}


def whole(request: SeenRequest, answer: Answer, name: str) -> dict[str, Any]:
    """Return the body of a reply that is not streamed."""
    finish = _finish(answer)
    choices = []
    for index, text in enumerate(_texts(answer)):
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": answer.refusal, "annotations": []}
        if answer.calls:
            message["tool_calls"] = _calls(answer, name)
        choices.append(
            {"index": index, "message": message, "logprobs": _logprobs(request, text), "finish_reason": finish}
        )
    return {**_head(request, name, "chat.completion"), "choices": choices, "usage": USAGE}


def events(request: SeenRequest, answer: Answer, name: str) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a stream: a role, the texts word by word, the calls' arguments in halves, an end."""
    head = {**_head(request, name, "chat.completion.chunk"), "usage": None}

    def chunk(index: int, delta: dict[str, Any], text: str | None = None, finish: str | None = None) -> dict[str, Any]:
        logprobs = _logprobs(request, text)
        return {**head, "choices": [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]}

    texts = _texts(answer)
    for index, text in enumerate(texts):
        yield chunk(index, {"role": "assistant", "content": None if text is None else "", "refusal": None})
    for index, text in enumerate(texts):
        for word in words(text or ""):
            yield chunk(index, {"content": word}, word)
    for word in words(answer.refusal or ""):
        yield chunk(0, {"refusal": word})
    for index, call in enumerate(_calls(answer, name)):
        arguments = call["function"]["arguments"]
        half = len(arguments) // 2
        named = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        yield chunk(0, {"tool_calls": [named]})
        yield chunk(0, {"tool_calls": [{"index": index, "function": {"arguments": arguments[:half]}}]})
        yield chunk(0, {"tool_calls": [{"index": index, "function": {"arguments": arguments[half:]}}]})
    for index in range(len(texts)):
        yield chunk(index, {}, finish=_finish(answer))
    if (request.json.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": USAGE}


def error(status: int, message: str) -> dict[str, Any]:
    """Return an error's body, which is also the event that ends a broken stream."""
    kinds = {401: "invalid_request_error", 429: "requests"}
    codes = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
    kind = kinds.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": codes.get(status)}}


def _head(request: SeenRequest, name: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{name}",
        "object": kind,
        "created": 1760000000,
        "model": request.json["model"],
        "service_tier": "default",
        "system_fingerprint": "fp_scripted",
    }


def _texts(answer: Answer) -> Sequence[str | None]:
    return [answer.text, *answer.others]


def _calls(answer: Answer, name: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{name}_{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments_json},
        }
        for index, call in enumerate(answer.calls)
    ]


def _finish(answer: Answer) -> str:
    return "tool_calls" if answer.calls else "stop"


def _logprobs(request: SeenRequest, text: str | None) -> dict[str, Any] | None:
    if not request.json.get("logprobs") or text is None:
        return None
    n_top = request.json.get("top_logprobs", 0)
    tokens = [{"token": word, "logprob": -0.25, "bytes": list(word.encode())} for word in words(text)]
    return {"content": [{**token, "top_logprobs": [token] * n_top} for token in tokens], "refusal": None}
