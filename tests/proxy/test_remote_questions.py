"""A question's vector comes from the embedding server in time, or the request goes on without it."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from proxy.errors import ClientGoneError
from proxy.remote_questions import RemoteQuestions, server_of
from proxy.upstream import Cancellation
from proxy.upstream_pool import HttpUpstream
from store.config import Config, EmbeddingSection
from tests.upstream import Reply, SeenRequest, Upstream, error_reply, json_reply


@pytest.fixture
def server() -> Iterator[Upstream]:
    with Upstream(script=embeddings) as server:
        yield server


def embeddings(request: SeenRequest) -> Reply:
    """Answer each text with a vector that begins with its length."""
    data = [{"index": i, "embedding": [float(len(text)), 1.0]} for i, text in enumerate(request.json["input"])]
    return json_reply({"data": data, "usage": {"prompt_tokens": 3}})


class Asked:
    """One asker and the time that it knows; each call runs in a loop of its own."""

    def __init__(self, section: EmbeddingSection) -> None:
        self.now_s = 0.0
        self.outcomes: dict[str, int] = {}
        self.remote = RemoteQuestions(
            section, HttpUpstream(server_of(section)), "sk-test", self.outcomes, lambda: self.now_s
        )

    def ask(self, *questions: str) -> float:
        """Return the seconds that asking took."""

        async def asking() -> None:
            for question in questions:
                await self.remote.ask(question, Cancellation())
            await self.remote.close()

        start_s = time.monotonic()
        asyncio.run(asking())
        return time.monotonic() - start_s


@pytest.fixture
def asked(config: Config, server: Upstream) -> Asked:
    return Asked(replace(config.embedding, model="m", base_url=server.base_url, timeout_s=0.25, breaker_failures=2))


def test_a_question_is_asked_once_and_then_known(asked: Asked, server: Upstream) -> None:
    asked.ask("hello", "hello", " ")

    vector = asked.remote.known("hello")
    assert vector is not None
    assert np.allclose(vector[:2], np.array([5, 1]) / np.sqrt(26))
    assert asked.outcomes == {"made": 1, "cached": 1}
    assert [request.target for request in server.requests] == ["/v1/embeddings"]
    assert server.last.header("authorization") == "Bearer sk-test"
    assert server.last.json["input"] == ["hello"]


def test_a_slow_server_costs_the_timeout_and_no_more(asked: Asked, server: Upstream) -> None:
    server.script = lambda request: replace(embeddings(request), delay_s=5.0)

    took_s = asked.ask("hello")

    assert 0.2 < took_s < 1.5
    assert asked.remote.known("hello") is None
    assert asked.outcomes == {"timeout": 1}


def test_a_body_that_stalls_costs_the_timeout_and_no_more(asked: Asked, server: Upstream) -> None:
    server.script = lambda request: replace(embeddings(request), end="stall")

    assert asked.ask("hello") < 1.5
    assert asked.outcomes == {"timeout": 1}


@pytest.mark.parametrize(
    "reply",
    [
        error_reply(500),
        error_reply(429, retry_after="1"),
        error_reply(400),
        json_reply({"data": []}),
        json_reply({"data": [{"embedding": [0.0]}]}),
        Reply((b"not json",)),
        Reply((), end="reset"),
    ],
)
def test_whatever_the_server_answers_wrongly_leaves_the_question_without_a_vector(
    asked: Asked, server: Upstream, reply: Reply
) -> None:
    server.script = lambda _: reply

    asked.ask("hello")

    assert asked.remote.known("hello") is None
    assert asked.outcomes == {"failed": 1}


def test_a_dead_server_is_asked_again_only_after_its_rest(asked: Asked, server: Upstream) -> None:
    server.script = lambda _: error_reply(503)
    asked.ask("a", "b", "c", "d")

    assert len(server.requests) == 2
    assert asked.outcomes == {"failed": 2, "resting": 2}
    assert "local vectors" in (asked.remote.problem or "")

    server.script = embeddings
    asked.now_s = 31.0
    asked.ask("e", "f")

    assert asked.remote.known("e") is not None
    assert asked.remote.problem is None
    assert asked.outcomes["made"] == 2


def test_a_client_that_leaves_ends_the_call_and_says_nothing_of_the_server(asked: Asked, server: Upstream) -> None:
    server.script = lambda request: replace(embeddings(request), delay_s=5.0)

    async def leaving() -> None:
        cancellation = Cancellation()
        asyncio.get_running_loop().call_later(0.05, cancellation.cancel)
        with pytest.raises(ClientGoneError):
            await asked.remote.ask("hello", cancellation)

    asyncio.run(leaving())

    assert asked.outcomes == {}
    assert asked.remote.problem is None


def test_no_more_questions_are_remembered_than_configured(config: Config, server: Upstream) -> None:
    asked = Asked(replace(config.embedding, model="m", base_url=server.base_url, timeout_s=2.0, question_cache=2))

    asked.ask("a", "bb", "ccc")

    assert [asked.remote.known(question) is not None for question in ("a", "bb", "ccc")] == [False, True, True]
