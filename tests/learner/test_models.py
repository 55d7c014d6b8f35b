"""Models over HTTP: retried when it may help, counted once, never beyond the cap."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from learner.errors import BudgetExceededError, ModelError
from learner.models import Model, Models, Usage, load_models
from store.config import Config
from tests.learner.model_server import ModelServer, Reply, error_reply, text_reply, tool_reply

# litellm warns about its own types at its first call.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("thread_loop")]
QUESTION = [{"role": "user", "content": "Is it resolved? Answer in JSON."}]
Start = Callable[..., tuple[ModelServer, Models]]


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def start(config: Config, waits: list[float]) -> Iterator[Start]:
    servers: list[ModelServer] = []

    def begin(*replies: Reply, name: str = "openai/scripted", max_cost_usd: float = 1.0) -> tuple[ModelServer, Models]:
        server = ModelServer(replies)
        server.__enter__()
        servers.append(server)
        section = replace(
            config.learner.models,
            extract=name,
            api_base=server.base_url,
            timeout_s=0.5,
            max_cost_usd_per_run=max_cost_usd,
        )
        return server, load_models(section, sleep=waits.append)

    yield begin
    for server in servers:
        server.__exit__()


def extract(models: Models) -> Model:
    assert models.extract is not None
    return models.extract


def test_no_model_is_loaded_when_none_is_named(config: Config) -> None:
    models = load_models(config.learner.models)

    assert (models.prescreen, models.extract, models.wording) == (None, None, None)
    assert models.for_run().meter.usage == Usage()


def test_an_answer_comes_back_with_its_tokens_and_price(start: Start) -> None:
    server, models = start(text_reply("{}"), name="openai/gpt-4o-mini")

    completion = extract(models).complete(QUESTION, json_object=True)

    assert (completion.text, completion.prompt_tokens, completion.completion_tokens) == ("{}", 100, 10)
    assert completion.cost_usd == pytest.approx(100 * 0.15e-6 + 10 * 0.6e-6)
    assert models.meter.usage == Usage(1, 100, 10, completion.cost_usd)
    assert models.meter.notes() == []
    assert server.requests == [
        {"model": "gpt-4o-mini", "messages": QUESTION, "response_format": {"type": "json_object"}}
    ]


def test_an_unknown_price_counts_as_nothing_and_says_so(start: Start) -> None:
    _, models = start(text_reply("yes"))

    assert extract(models).complete(QUESTION).cost_usd == 0.0
    assert models.meter.notes() == ["the price of openai/scripted is unknown: counted as 0 dollars"]


def test_tool_calls_come_back_as_the_model_wrote_them(start: Start) -> None:
    tool = {"type": "function", "function": {"name": "skip", "parameters": {"type": "object", "properties": {}}}}
    server, models = start(tool_reply("skip", '{"reason": '))

    completion = extract(models).complete(QUESTION, tools=[tool])

    assert [(call.name, call.arguments) for call in completion.tool_calls] == [("skip", '{"reason": ')]
    assert completion.as_message()["tool_calls"][0]["function"] == {"name": "skip", "arguments": '{"reason": '}
    assert server.requests[0]["tools"] == [tool]


@pytest.mark.parametrize("failure", [error_reply(429), error_reply(500), error_reply(503), Reply(delay_s=0.8)])
def test_a_passing_failure_is_tried_again_and_counted_once(start: Start, waits: list[float], failure: Reply) -> None:
    server, models = start(failure, text_reply("yes"))

    assert extract(models).complete(QUESTION).text == "yes"

    assert len(server.requests) == 2
    assert len(waits) == 1
    assert models.meter.usage.calls == 1


def test_a_server_that_asks_for_patience_gets_it(start: Start, waits: list[float]) -> None:
    _, models = start(error_reply(429, retry_after="7"), text_reply("yes"))

    extract(models).complete(QUESTION)

    assert waits == [pytest.approx(7, abs=1.1)]


def test_after_all_tries_the_model_has_failed(start: Start, waits: list[float]) -> None:
    server, models = start(*[error_reply(503)] * 5)

    with pytest.raises(ModelError, match="openai/scripted"):
        extract(models).complete(QUESTION)

    assert len(server.requests) == 3
    assert waits == sorted(waits)


@pytest.mark.parametrize("failure", [error_reply(400), error_reply(401), error_reply(404)])
def test_a_lasting_failure_is_not_tried_again(start: Start, failure: Reply) -> None:
    server, models = start(failure, text_reply("yes"))

    with pytest.raises(ModelError):
        extract(models).complete(QUESTION)

    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"<html>busy</html>", b'{"choices": []}', b"{}", b""])
def test_a_reply_that_is_none_is_a_failure(start: Start, body: bytes) -> None:
    _, models = start(*[Reply(body=body)] * 3)

    with pytest.raises(ModelError):
        extract(models).complete(QUESTION)


def test_calls_that_succeed_are_not_logged(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    _, models = start(text_reply("yes"))

    with caplog.at_level(logging.INFO):
        extract(models).complete(QUESTION)

    assert [record.name for record in caplog.records if record.name.startswith("LiteLLM")] == []


def test_a_run_stops_calling_at_its_cap_and_the_next_begins_afresh(start: Start) -> None:
    reply = text_reply("yes", prompt_tokens=1_000_000)
    server, models = start(reply, reply, name="openai/gpt-4o-mini", max_cost_usd=0.1)
    extract(models).complete(QUESTION)

    with pytest.raises(BudgetExceededError):
        extract(models).complete(QUESTION)

    assert len(server.requests) == 1
    assert extract(models.for_run()).complete(QUESTION).text == "yes"
