"""The openai Python SDK cannot tell the proxy from the upstream behind it."""

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.flow.product import APP_KEY, CLIENT_S, Product, eventually, free_port
from tests.upstream import Reply, SeenRequest, Upstream, chat_reply, error_reply, sse_reply

WEATHER_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Zürich"}'},
}
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Current weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
MESSAGES: Any = [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": "Wie ist das Wetter in Zürich? 🌦"},
]
PLAIN: dict[str, Any] = {"model": "gpt-4o", "messages": MESSAGES}
CALLS = {
    "plain": PLAIN,
    "many fields": {**PLAIN, "temperature": 0.25, "max_tokens": 7, "user": "u-1", "seed": 3, "stop": ["\n"]},
    "tools": {**PLAIN, "tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True},
    "tool result": {
        **PLAIN,
        "tools": TOOLS,
        "messages": [
            *MESSAGES,
            {"role": "assistant", "content": None, "tool_calls": [WEATHER_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": '{"c": 4}'},
        ],
    },
    "unknown fields": {**PLAIN, "extra_body": {"x_vendor": {"deep": [1, None, 1.50, "é"]}, "top_k": 40}},
    "parts": {
        **PLAIN,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "x_part": 1}], "name": "ann"}],
    },
}


def scripted(request: SeenRequest) -> Reply:
    """Answer always the same to the same request: tools are called when offered, unknown fields come back."""
    has_result = any(message["role"] == "tool" for message in request.messages)
    calls = [WEATHER_CALL] if "tools" in request.json and not has_result else []
    return chat_reply(
        request,
        None if calls else "Kalt, 4 °C.",
        reply_id="chatcmpl-same",
        tool_calls=calls,
        usage={"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8, "x_usage": {"joules": 0.5}},
        extra={"x_echo": request.json.get("x_vendor"), "service_tier": "default"},
    )


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Iterator[Upstream]:
    """The shared upstream, its script set back afterwards."""
    shared_upstream.script = scripted
    shared_upstream.requests.clear()
    yield shared_upstream
    shared_upstream.script = chat_reply


def both(upstream: Upstream, serving: Product, ask: Callable[[OpenAI], Any]) -> tuple[Any, Any]:
    """Return what *ask* gets from the upstream itself and through the proxy."""
    answers = []
    for base_url in (upstream.base_url, f"{serving.proxy_url}/v1"):
        with OpenAI(api_key=APP_KEY, base_url=base_url, max_retries=0, timeout=CLIENT_S) as client:
            answers.append(ask(client))
    direct, proxied = answers
    return direct, proxied


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_whole_completion_is_the_same_as_without_the_proxy(
    call: dict[str, Any], upstream: Upstream, serving: Product
) -> None:
    direct, proxied = both(upstream, serving, lambda client: client.chat.completions.create(**call).to_dict())
    assert proxied == direct
    sent_direct, sent_proxied = upstream.requests
    assert sent_proxied.json == sent_direct.json


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_streamed_completion_is_the_same_chunk_by_chunk(
    call: dict[str, Any], upstream: Upstream, serving: Product
) -> None:
    def ask(client: OpenAI) -> list[dict[str, Any]]:
        options = {"include_usage": True}
        create: Any = client.chat.completions.create
        with create(**call, stream=True, stream_options=options) as stream:
            return [chunk.to_dict() for chunk in stream]

    direct, proxied = both(upstream, serving, ask)
    assert proxied == direct
    assert proxied[-1]["choices"] == []
    sent_direct, sent_proxied = upstream.requests
    assert sent_proxied.json == sent_direct.json


def test_the_bytes_of_an_unmodified_request_and_its_reply_are_the_same(upstream: Upstream, serving: Product) -> None:
    body = b'{ "model":"gpt-4o",  "messages":[{"role":"user","content":"\\u00e9 \xc3\xa9 \\ud83d"}], "x": 1e400 }'
    headers = {"content-type": "application/json"}
    direct = serving.client.post(f"{upstream.base_url}/chat/completions", content=body, headers=headers)
    proxied = serving.client.post(f"{serving.proxy_url}/v1/chat/completions", content=body, headers=headers)
    assert proxied.content == direct.content
    assert upstream.requests[0].body == upstream.requests[1].body == body


def test_the_proxys_own_headers_are_not_forwarded_and_every_response_has_an_id_of_its_own(
    upstream: Upstream, serving: Product
) -> None:
    headers = {
        "x-tutelage-conversation": "sdk-headers",
        "x-tutelage-user": "u-1",
        "x-tutelage-tags": "billing,refund",
        "x-app-own": "kept",
    }
    first, second = serving.chat(headers=headers), serving.chat(headers=headers)
    names = {name.decode() for name, _ in upstream.last.headers}
    assert not [name for name in names if name.startswith("x-tutelage")]
    assert upstream.last.header("x-app-own") == "kept"
    assert upstream.last.header("authorization") == f"Bearer {APP_KEY}"
    assert first.headers["x-tutelage-response-id"] != second.headers["x-tutelage-response-id"]
    assert first.json()["id"] == second.json()["id"] == "chatcmpl-same"


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_an_upstreams_error_reaches_the_sdk_with_its_status_and_retry_after(
    status: int, upstream: Upstream, serving: Product
) -> None:
    upstream.script = lambda _: error_reply(status, "scripted", retry_after="17")

    def ask(client: OpenAI) -> tuple[object, ...]:
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(**PLAIN)
        error = caught.value
        return type(error), error.status_code, error.body, error.response.headers.get("retry-after")

    direct, proxied = both(upstream, serving, ask)
    assert proxied == direct
    assert proxied[1:] == (status, direct[2], "17")


def test_a_stream_that_the_upstream_cuts_is_an_error_for_the_client_and_in_the_record(
    upstream: Upstream, serving: Product
) -> None:
    chunk = {
        "id": "chatcmpl-cut",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": "a"}}],
    }
    whole = sse_reply([chunk, chunk], done=False)
    upstream.script = lambda _: Reply(whole.parts, headers=whole.headers, is_chunked=True, end="cut")
    conversation = "sdk-cut"
    with (
        OpenAI(api_key=APP_KEY, base_url=f"{serving.proxy_url}/v1", max_retries=0) as client,
        pytest.raises(Exception, match=r"(?i)incomplete|closed|peer|connection"),
        client.chat.completions.create(
            **PLAIN,
            stream=True,
            extra_headers={"x-tutelage-conversation": conversation},
        ) as stream,
    ):
        assert len(list(stream)) < 0  # unreachable: iterating raises
    record = serving.row("SELECT * FROM responses WHERE conversation_id = :id", id=conversation)
    assert record["outcome"] == "upstream_error"


def test_a_client_that_leaves_a_stream_ends_the_upstreams_work_and_counts_as_cancelled(
    upstream: Upstream, serving: Product
) -> None:
    chunk = {
        "id": "chatcmpl-left",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": "a"}}],
    }
    whole = sse_reply([chunk] * 400, done=True)
    upstream.script = lambda _: Reply(whole.parts, headers=whole.headers, is_chunked=True, gap_s=0.02)
    n_disconnects = upstream.n_disconnects
    body = {**PLAIN, "stream": True}
    headers = {"x-tutelage-conversation": "sdk-left"}
    with serving.client.stream(
        "POST", f"{serving.proxy_url}/v1/chat/completions", json=body, headers=headers
    ) as response:
        next(response.iter_bytes())
    record = serving.row("SELECT * FROM responses WHERE conversation_id = 'sdk-left'")
    assert record["outcome"] == "cancelled"
    assert eventually(lambda: upstream.n_disconnects > n_disconnects)


def test_an_upstream_that_is_gone_is_an_error_in_openais_shape(serving: Product, tmp_path: Any) -> None:
    with Product(tmp_path / "alone", f"http://127.0.0.1:{free_port()}/v1") as product:
        product.start("proxy")
        answer = product.chat()
        assert answer.status_code in (502, 503)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert product.response_row(answer)["outcome"] == "upstream_error"


PASSED_THROUGH = [
    ("GET", "/v1/models?limit=2&after=a%2Fb", None, None),
    ("POST", "/v1/embeddings", b'{"input": "x", "model": "e"}', "application/json"),
    ("DELETE", "/v1/files/file%20one", None, None),
    ("POST", "/v1/audio/transcriptions", b"--b\r\n\x00\xff binary \r\n--b--\r\n", "multipart/form-data; boundary=b"),
]


@pytest.mark.parametrize(("method", "path", "body", "content_type"), PASSED_THROUGH)
def test_every_other_path_passes_untouched_both_ways(
    method: str, path: str, body: bytes | None, content_type: str | None, upstream: Upstream, serving: Product
) -> None:
    answer = bytes(range(256)) * 20
    upstream.script = lambda _: Reply(
        (answer,), status=207, headers=((b"content-type", b"application/octet-stream"), (b"x-request-id", b"req-9"))
    )
    headers = {"content-type": content_type} if content_type else {}
    got = serving.client.request(method, serving.proxy_url + path, content=body, headers=headers)
    assert (got.status_code, got.content, got.headers["x-request-id"]) == (207, answer, "req-9")
    seen = upstream.last
    assert (seen.method, seen.target, seen.body) == (method, path, body or b"")
    assert seen.header("content-type") == content_type
