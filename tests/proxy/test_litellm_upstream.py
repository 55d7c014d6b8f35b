"""A provider with another wire format, as a client of OpenAI's sees it; the provider is played on a real port."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from queue import Queue
from random import Random
from typing import Any

import pytest
import uvicorn
from prometheus_client import CollectorRegistry

from proxy.app import create_app
from proxy.authentication import OpenAuthenticator
from proxy.browsers import Origins
from proxy.litellm_upstream import LitellmUpstream
from proxy.metrics import Metrics
from proxy.routing import Route, Router
from proxy.server import server_config
from store.clock import SystemClock
from store.config import Config, UpstreamSection, load_config
from tests.proxy.wire import (
    STREAM_HEAD,
    Client,
    FakeFeedback,
    FakeHealth,
    FakeLearning,
    Peer,
    RawUpstream,
    Seen,
    answering,
    chunked,
    make_limiter,
    plain,
    serving,
)

# litellm's own faults, not ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

CHAT = b"/v1/chat/completions"
BODY: dict[str, Any] = {"model": "claude-x", "messages": [{"role": "user", "content": "hi"}]}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 5, "output_tokens": 3},
}
TOOL_MESSAGE = {
    **MESSAGE,
    "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}],
    "stop_reason": "tool_use",
}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]
JSON = b"content-type: application/json"


def sse(*events: dict[str, Any]) -> bytes:
    return chunked(*(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events))


def provider(upstream: RawUpstream) -> UpstreamSection:
    """Return the settings of an Anthropic-like upstream, as a file would give them."""
    table = {"name": "claude", "provider": "anthropic", "base_url": f"http://127.0.0.1:{upstream.port}"}
    return load_config(None, {"upstream": [table]}).upstream[0]


@contextlib.contextmanager
def proxied(config: Config, upstream: RawUpstream, learning: FakeLearning) -> Iterator[Client]:
    reached = LitellmUpstream(provider(upstream), "sk-provider")

    @contextlib.asynccontextmanager
    async def lifespan():  # type: ignore[no-untyped-def]
        reached.start()
        yield
        await reached.close()

    app = create_app(
        config.proxy,
        authenticator=OpenAuthenticator(),
        router=Router([Route(reached, ("*",))]),
        learning=learning,
        feedback=FakeFeedback(),
        origins=Origins(()),
        health=FakeHealth(),
        limiter=make_limiter([]),
        metrics=Metrics(CollectorRegistry()),
        clock=SystemClock(),
        rng=Random(1),
        lifespan=lifespan,
    )
    with serving(uvicorn.Server(server_config(app, config.proxy))) as port, Client(port) as client:
        client.socket.settimeout(60)  # the first request waits for the import
        yield client


def encoded(**fields: Any) -> bytes:
    return json.dumps({**BODY, **fields}).encode()


def test_a_reply_comes_in_openais_shape_and_litellms_keywords_stay_out(config: Config) -> None:
    seen_requests: Queue[Seen] = Queue()
    learning = FakeLearning()
    with RawUpstream(answering(plain(json.dumps(MESSAGE).encode(), JSON), seen=seen_requests)) as upstream:
        with proxied(config, upstream, learning) as client:
            body = encoded(api_base="http://evil.test", api_key="x", mock_response="mocked", temperature=0.5)
            answer = client.ask(b"POST", CHAT, body, [(b"authorization", b"Bearer sk-client")])
        seen = seen_requests.get(timeout=10)
    reply = json.loads(answer.body)
    assert answer.status == 200
    assert (reply["object"], reply["choices"][0]["finish_reason"]) == ("chat.completion", "stop")
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": "Hello"}
    assert (reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]) == (5, 3)
    assert seen.line == b"POST /v1/messages HTTP/1.1"
    assert seen.values(b"x-api-key") == [b"sk-provider"]
    assert json.loads(seen.body)["temperature"] == 0.5
    assert b"sk-client" not in repr(seen).encode()
    assert learning.turns[0].fed == answer.body
    assert learning.turns[0].outcome() == ("ok", 200, "claude")


def test_tools_go_there_and_calls_come_back(config: Config) -> None:
    seen_requests: Queue[Seen] = Queue()
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    with RawUpstream(answering(plain(json.dumps(TOOL_MESSAGE).encode(), JSON), seen=seen_requests)) as upstream:
        with proxied(config, upstream, FakeLearning()) as client:
            answer = client.ask(b"POST", CHAT, encoded(tools=[tool]))
        seen = seen_requests.get(timeout=10)
    message = json.loads(answer.body)["choices"][0]["message"]
    assert json.loads(seen.body)["tools"][0]["name"] == "f"
    assert message["tool_calls"] == [
        {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    ]
    assert message["content"] is None


def test_a_stream_comes_as_events_that_end_with_done(config: Config) -> None:
    learning = FakeLearning()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + sse(*EVENTS) + b"0\r\n\r\n")

    with RawUpstream(script) as upstream, proxied(config, upstream, learning) as client:
        answer = client.ask(b"POST", CHAT, encoded(stream=True, stream_options={"include_usage": True}))
    assert (b"content-type", b"text/event-stream; charset=utf-8") in answer.headers
    *chunks, done, rest = answer.body.split(b"\n\n")
    parsed = [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]
    assert (done, rest) == (b"data: [DONE]", b"")
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in parsed if c["choices"]) == "Hello"
    assert [c["choices"][0]["finish_reason"] for c in parsed if c["choices"]][-1] == "stop"
    assert (parsed[-1]["choices"], parsed[-1]["usage"]["prompt_tokens"]) == ([], 5)
    assert learning.turns[0].outcome() == ("ok", 200, "claude")


def test_a_providers_error_keeps_its_status_and_retry_after(config: Config) -> None:
    body = b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}'
    reply = plain(body, JSON, b"retry-after: 9", status=b"429 Too Many Requests")
    learning = FakeLearning()
    with RawUpstream(answering(reply)) as upstream, proxied(config, upstream, learning) as client:
        answers = [client.ask(b"POST", CHAT, encoded(stream=stream)) for stream in (False, True)]
    for answer in answers:
        assert answer.status == 429
        assert answer.values(b"retry-after") == [b"9"]
        assert "slow down" in json.loads(answer.body)["error"]["message"]
    assert [turn.outcome() for turn in learning.turns] == [("error", 429, "claude")] * 2
    assert upstream.n_connections <= 2


def test_an_unreachable_provider_is_a_502(config: Config) -> None:
    learning = FakeLearning()
    with RawUpstream(answering(plain(b""))) as upstream:
        section_of_nobody = upstream
    with proxied(config, section_of_nobody, learning) as client:
        answer = client.ask(b"POST", CHAT, encoded())
    assert answer.status == 502
    assert learning.turns[0].outcome() == ("upstream_error", 502, "claude")


def test_a_stream_that_breaks_breaks_the_clients_connection(config: Config) -> None:
    learning = FakeLearning()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + sse(*EVENTS[:3]))
        peer.reset()

    with RawUpstream(script) as upstream, proxied(config, upstream, learning) as client:
        client.request(b"POST", CHAT, encoded(stream=True))
        assert not client.read_until_closed().endswith(b"0\r\n\r\n")
    assert learning.turns[0].outcome()[0] == "upstream_error"


def test_a_client_that_leaves_ends_the_providers_work(config: Config) -> None:
    learning = FakeLearning()

    def script(peer: Peer) -> None:
        peer.read_request()
        upstream.events.put("asked")
        peer.wait_closed()
        upstream.events.put("closed")

    with RawUpstream(script) as upstream, proxied(config, upstream, learning) as client:
        client.request(b"POST", CHAT, encoded())
        assert upstream.events.get(timeout=60) == "asked"
        client.close()
        assert upstream.events.get(timeout=10) == "closed"
        assert learning.turns[0].outcome() == ("cancelled", 0, "claude")


@pytest.mark.parametrize("body", [b"[]", b'{"model": "claude-x", "messages": [], "n": NaN}', b"{"])
def test_a_body_that_cannot_be_read_is_a_400(config: Config, body: bytes) -> None:
    learning = FakeLearning()
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        proxied(config, upstream, learning) as client,
    ):
        answer = client.ask(b"POST", CHAT, body)
    assert (answer.status, json.loads(answer.body)["error"]["type"]) == (400, "invalid_request_error")
    assert learning.turns[0].outcome() == ("error", 400, "claude")


def test_other_paths_are_not_served(config: Config) -> None:
    with RawUpstream(answering(plain(b""))) as upstream, proxied(config, upstream, FakeLearning()) as client:
        answer = client.ask(b"POST", b"/v1/embeddings", b"{}")
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"]) == (404, "not_found")
    assert error["message"].startswith("Upstream 'claude' is reached through litellm")


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_a_request_of_another_api_is_told_which_upstream_speaks_chat_alone(config: Config, path: str) -> None:
    with RawUpstream(answering(plain(b""))) as upstream, proxied(config, upstream, FakeLearning()) as client:
        answer = client.ask(b"POST", path.encode(), json.dumps({**BODY, "input": "hi", "max_tokens": 5}).encode())
    error = json.loads(answer.body)["error"]
    assert answer.status == 404
    assert error["message"] == (
        f"Upstream 'claude' is reached through litellm and serves POST /v1/chat/completions alone; {path} needs "
        'an upstream that speaks this API itself (provider "openai").'
    )


def test_litellm_logs_through_this_process_alone_and_what_matters() -> None:
    program = (
        "import logging, proxy.litellm_upstream as made; made.load_litellm(); logger = logging.getLogger('LiteLLM');"
        "print(logger.handlers, logging.getLevelName(logger.getEffectiveLevel()))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[] WARNING"


def test_a_provider_without_an_address_is_not_sent_to_openai() -> None:
    section = load_config(None, {"upstream": [{"name": "claude", "provider": "anthropic"}]}).upstream[0]
    assert section.base_url == ""


def test_litellm_is_not_imported_by_the_proxy_itself() -> None:
    program = "import sys, proxy.serve; sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
