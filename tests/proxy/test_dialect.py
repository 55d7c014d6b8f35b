"""Errors are told in the client's API, in the middle of a stream too."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseErrorEvent, ResponseStreamEvent

from proxy.dialect import CHAT_PATH, LEARNED, MESSAGES_PATH, RESPONSES_PATH, Dialect, dialect_of
from proxy.errors import ApiError

VERSION = (b"anthropic-version", b"2023-06-01")
ERROR = ApiError(502, "Upstream 'a': gone \ud83d", type="upstream_error", code="upstream_unreachable")


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        (CHAT_PATH, [], "chat"),
        (RESPONSES_PATH, [], "responses"),
        (MESSAGES_PATH, [], "messages"),
        (f"{MESSAGES_PATH}/count_tokens", [], "messages"),
        ("/v1/messagesboard", [], "chat"),
        ("/v1/models", [VERSION], "messages"),
        ("/v1/models", [(b"accept", b"*/*")], "chat"),
        (f"{RESPONSES_PATH}/resp_1", [], "chat"),
    ],
)
def test_the_dialect_of_errors_follows_path_and_headers(
    path: str, headers: list[tuple[bytes, bytes]], expected: str
) -> None:
    assert dialect_of(path, headers).name == expected


@pytest.mark.parametrize("path", [CHAT_PATH, RESPONSES_PATH])
def test_openais_error_body_has_all_four_fields(path: str) -> None:
    body = LEARNED[path].error_body(ApiError(400, "bad", param="model", code="x"))
    assert json.loads(body) == {
        "error": {"message": "bad", "type": "invalid_request_error", "param": "model", "code": "x"}
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_anthropics_error_body_has_the_type_of_its_status(status: int, kind: str) -> None:
    body = LEARNED[MESSAGES_PATH].error_body(ApiError(status, "why \ud83d"))
    assert json.loads(body) == {"type": "error", "error": {"type": kind, "message": "why ?"}}


def raised_by_sdk(data: bytes, cast_to: Any) -> openai.APIError:
    """Return what OpenAI's client raises when it reads a stream of *data*."""
    request = httpx.Request("POST", "http://upstream/v1")
    response = httpx.Response(200, content=data, headers={"content-type": "text/event-stream"}, request=request)
    client = openai.OpenAI(api_key="k", base_url="http://upstream/v1")
    stream: Iterator[Any] = openai.Stream(cast_to=cast_to, response=response, client=client)
    with pytest.raises(openai.APIError) as raised:
        list(stream)
    client.close()
    return raised.value


@pytest.mark.parametrize(("path", "cast_to"), [(CHAT_PATH, ChatCompletionChunk), (RESPONSES_PATH, ResponseStreamEvent)])
def test_openais_client_raises_on_an_error_in_the_middle_of_a_stream(path: str, cast_to: Any) -> None:
    error = raised_by_sdk(LEARNED[path].stream_error(ERROR), cast_to)
    assert (error.message, error.code, error.type) == ("Upstream 'a': gone ?", "upstream_unreachable", "upstream_error")


def event_of(dialect: Dialect) -> tuple[str, Any]:
    lines = dialect.stream_error(ERROR).decode().split("\n")
    assert lines[-2:] == ["", ""]
    fields = dict(line.split(": ", 1) for line in lines[:-2])
    return fields.get("event", ""), json.loads(fields["data"])


def test_a_stream_error_of_the_responses_api_is_also_the_documented_event() -> None:
    name, data = event_of(LEARNED[RESPONSES_PATH])
    event = ResponseErrorEvent.model_validate(data, strict=True)
    assert (name, event.type, event.code) == ("error", "error", "upstream_unreachable")


def test_a_stream_error_of_the_messages_api_is_an_error_event() -> None:
    assert event_of(LEARNED[MESSAGES_PATH]) == (
        "error",
        {"type": "error", "error": {"type": "api_error", "message": "Upstream 'a': gone ?"}},
    )
