"""A model's answers one after the other, each in the form of the API that was asked."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from tests.provider import chat, messages, other_paths, responses
from tests.provider.answers import Answer, Failure
from tests.upstream import STREAM_TYPE, Reply, SeenRequest, json_reply, sse_reply

REQUEST_ID = (b"x-request-id", b"req_scripted")


class Provider:
    """The script of an ``Upstream``: the n-th request to a model gets the n-th answer.

    Args:
        name: part of every id in the replies, so that ids are unique over all tests and equal in every play.
        answers: in order; a request beyond the last one is answered 400, which no library tries again.
    """

    def __init__(self, name: str, answers: Iterable[Answer | Failure]) -> None:
        self._name = name
        self._answers = list(answers)
        self._n_asked = 0

    def __call__(self, request: SeenRequest) -> Reply:
        reply = other_paths.answer(request) or self._ask_model(request)
        return replace(reply, headers=(*reply.headers, REQUEST_ID))

    def _ask_model(self, request: SeenRequest) -> Reply:
        path = urlsplit(request.target).path
        refusal = messages.refusal(request) if path == "/v1/messages" else None
        if refusal:
            return json_reply(_error_body(path, 400, refusal), 400)
        if self._n_asked >= len(self._answers):
            return json_reply(_error_body(path, 400, "the script has no further answer"), 400)
        answer = self._answers[self._n_asked]
        self._n_asked += 1
        if isinstance(answer, Failure):
            headers = tuple((name.encode(), value.encode()) for name, value in answer.headers)
            return json_reply(_error_body(path, answer.status, answer.message), answer.status, headers)
        name = f"{self._name}-{self._n_asked}"
        reply = _streamed(path, request, answer, name) if request.is_stream else _whole(path, request, answer, name)
        return replace(reply, delay_s=answer.delay_s)


def _whole(path: str, request: SeenRequest, answer: Answer, name: str) -> Reply:
    bodies = {
        "/v1/chat/completions": chat.whole,
        "/v1/responses": responses.whole,
        "/v1/messages": messages.whole,
    }
    return json_reply(bodies[path](request, answer, name))


def _streamed(path: str, request: SeenRequest, answer: Answer, name: str) -> Reply:
    if path == "/v1/chat/completions":
        reply = sse_reply(chat.events(request, answer, name))
        error = b"data: " + json.dumps(chat.error(500, "broken")).encode() + b"\n\n"
    elif path == "/v1/responses":
        reply = _named_events(responses.events(request, answer, name))
        error = _named_event(responses.error_event("broken"))
    else:
        reply = _named_events(messages.events(request, answer, name))
        error = _named_event(messages.error(529, "broken"))
    if answer.end == "complete":
        return reply
    half = reply.parts[: len(reply.parts) // 2]
    if answer.end == "cut":
        return replace(reply, parts=half, end="cut")
    return replace(reply, parts=(*half, error))


def _named_events(events: Iterable[Mapping[str, Any]]) -> Reply:
    return Reply(tuple(map(_named_event, events)), headers=(STREAM_TYPE,), is_chunked=True)


def _named_event(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _error_body(path: str, status: int, message: str) -> dict[str, Any]:
    return messages.error(status, message) if path == "/v1/messages" else chat.error(status, message)
