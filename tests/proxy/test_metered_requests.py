"""Limits and what is counted for them, over real connections."""

import json
import zlib
from dataclasses import replace

import pytest

from proxy.authentication import KeyAuthenticator, OpenAuthenticator
from store.config import Config, LimitsSection
from store.tenants import LiveKey, hash_key
from store.usage import UsageRecord, decode_usage
from tests.proxy.wire import (
    STREAM_HEAD,
    Answer,
    Client,
    FakeLearning,
    Peer,
    RawUpstream,
    Script,
    Stack,
    answering,
    chunked,
    make_limiter,
    plain,
    section,
)

CHAT = b"/v1/chat/completions"
BODY = b'{"model":"gpt-5","messages":[]}'
REPLY = b'{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":8}}}'
HEADERS = [(b"authorization", b"Bearer tut-app"), (b"content-type", b"application/json")]


class Desk:
    """A proxy in front of *script*, asked by one key with *limits*."""

    def __init__(self, config: Config, script: Script, **limits: float) -> None:
        self.config = config
        self.script = script
        self.lines: list[bytes] = []
        effective = replace(LimitsSection(0, 0, 0.0, 0), **limits)  # type: ignore[arg-type]
        self.keys = {hash_key("tut-app"): LiveKey("key_1", "acme", "app", effective)}

    def ask(self, *requests: tuple[bytes, bytes]) -> list[Answer]:
        """Return the answers to (path, body) after (path, body)."""
        with RawUpstream(self.script) as upstream:
            stack = Stack(
                self.config,
                [section(upstream, self.config, name="main")],
                FakeLearning(model="gpt-5"),
                authenticator=KeyAuthenticator(lambda: self.keys),
                limiter=make_limiter(self.lines),
            )
            with stack.running() as port, Client(port) as client:
                return [client.ask(b"POST", path, body, HEADERS) for path, body in requests]

    @property
    def written(self) -> list[UsageRecord]:
        return [decode_usage(line) for line in self.lines]

    @property
    def counts(self) -> list[tuple[int, int, int, bool]]:
        return [(use.prompt_tokens, use.completion_tokens, use.cached_tokens, use.is_estimated) for use in self.written]


def test_too_many_requests_are_answered_before_anything_goes_upstream(config: Config) -> None:
    desk = Desk(config, answering(plain(REPLY, b"x-ratelimit-remaining-requests: 77")), requests_per_minute=1)

    first, second = desk.ask((CHAT, BODY), (CHAT, BODY))

    assert (first.status, first.body, first.values(b"x-ratelimit-remaining-requests")) == (200, REPLY, [b"77"])
    error = json.loads(second.body)["error"]
    assert (second.status, error["type"], error["code"]) == (429, "requests", "rate_limit_exceeded")
    assert second.values(b"retry-after") == [b"60"]
    assert second.values(b"x-ratelimit-limit-requests") == [b"1"]
    assert desk.lines == []  # nobody asked to count tokens


def test_a_limit_speaks_the_language_of_the_api(config: Config) -> None:
    desk = Desk(config, answering(plain(REPLY)), requests_per_minute=1)

    _, refused = desk.ask((b"/v1/messages", BODY), (b"/v1/messages", BODY))

    assert refused.status == 429
    assert json.loads(refused.body)["error"]["type"] == "rate_limit_error"


def test_passed_through_requests_count_with_the_others(config: Config) -> None:
    desk = Desk(config, answering(plain(REPLY)), requests_per_minute=1)

    assert [answer.status for answer in desk.ask((b"/v1/embeddings", BODY), (CHAT, BODY))] == [200, 429]


def test_a_budget_that_is_spent_is_a_quota_error(config: Config) -> None:
    desk = Desk(config, answering(plain(REPLY)), monthly_budget_usd=0.015)  # 15 tokens at 1,000 dollars a million

    first, second = desk.ask((CHAT, BODY), (CHAT, BODY))

    error = json.loads(second.body)["error"]
    assert (first.status, second.status, error["code"]) == (200, 429, "insufficient_quota")
    assert [(use.key_id, use.tenant_id, use.upstream, use.model) for use in desk.written] == [
        ("key_1", "acme", "main", "gpt-5")
    ]
    assert desk.written[0].cost_usd == pytest.approx(0.015)


def test_a_long_body_is_paid_for_too(config: Config) -> None:
    desk = Desk(config, answering(plain(REPLY)), monthly_budget_usd=1.0)

    desk.ask((b"/v1/embeddings", b'{"model":"gpt-5","input":"%b"}' % (b"x" * 1_500_000)))

    (use,) = desk.written
    assert use.model == "gpt-5"
    assert use.cost_usd == pytest.approx(0.015)


@pytest.mark.parametrize(
    ("path", "reply", "counts"),
    [
        (CHAT, plain(REPLY), (12, 3, 8, False)),
        (CHAT, plain(zlib.compress(REPLY), b"content-encoding: deflate"), (12, 3, 8, False)),
        (
            CHAT,
            STREAM_HEAD
            + chunked(b'data: {"n":1}\n\n', b'data: {"usage":{"prompt_tokens":5}}\n\n', b"data: [DONE]\n\n")
            + b"0\r\n\r\n",
            (5, 0, 0, False),
        ),
        (CHAT, STREAM_HEAD + chunked(b'data: {"n":1}\n\ndata: [DONE]\n\n') + b"0\r\n\r\n", (8, 2, 0, True)),
        (CHAT, plain(b'{"error":{}}', status=b"400 Bad Request"), (0, 0, 0, False)),
        (b"/v1/embeddings", plain(b'{"usage":{"prompt_tokens":6,"total_tokens":6}}'), (6, 0, 0, False)),
        (b"/v1/audio/speech", plain(b"\xff\xfb" * 500), (0, 0, 0, False)),
        (b"/v1/completions", plain(b'{"text":"word"}'), (8, 4, 0, True)),
        (b"/v1//chat/completions/", plain(b'{"text":"word"}'), (8, 4, 0, True)),
    ],
)
def test_what_a_reply_used_is_counted(
    config: Config, path: bytes, reply: bytes, counts: tuple[int, int, int, bool]
) -> None:
    desk = Desk(config, answering(reply), monthly_tokens=1000)

    desk.ask((path, BODY))

    assert desk.counts == [counts]


def test_a_stream_that_broke_is_counted_as_far_as_it_came(config: Config) -> None:
    def cut(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunked(b'data: {"n":1}\n\n'))
        peer.close()

    lines: list[bytes] = []
    with RawUpstream(cut) as upstream:
        stack = Stack(
            config,
            [section(upstream, config)],
            authenticator=OpenAuthenticator(LimitsSection(0, 100, 0.0, 0)),
            limiter=make_limiter(lines),
        )
        with stack.running() as port, Client(port) as client:
            client.request(b"POST", CHAT, BODY)
            client.read_until_closed()
    (use,) = (decode_usage(line) for line in lines)
    assert (use.key_id, use.tenant_id, use.prompt_tokens, use.completion_tokens) == ("open", "default", 8, 1)


def test_a_use_is_written_before_the_client_has_all_of_its_reply(config: Config) -> None:
    desk = Desk(config, answering(plain(REPLY)), monthly_tokens=1000)
    with RawUpstream(desk.script) as upstream:
        stack = Stack(
            config,
            [section(upstream, config)],
            authenticator=KeyAuthenticator(lambda: desk.keys),
            limiter=make_limiter(desk.lines),
        )
        with stack.running() as port, Client(port) as client:
            for n_asked in (1, 2, 3):
                client.ask(b"POST", CHAT, BODY, HEADERS)
                assert len(desk.lines) == n_asked
