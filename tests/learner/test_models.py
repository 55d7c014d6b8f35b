"""Models over HTTP: retried when it may help, counted once, never beyond the cap."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
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

    def begin(
        *replies: Reply,
        name: str = "openai/scripted",
        max_cost_usd: float = 1.0,
        max_tokens: int = 1_000_000_000,
        prices: Mapping[str, tuple[float, ...]] | None = None,
    ) -> tuple[ModelServer, Models]:
        server = ModelServer(replies)
        server.__enter__()
        servers.append(server)
        section = replace(
            config.learner.models,
            extract=name,
            api_base=server.base_url,
            timeout_s=0.5,
            max_cost_usd_per_run=max_cost_usd,
            max_tokens_per_run=max_tokens,
        )
        return server, load_models(section, prices or {}, sleep=waits.append)

    yield begin
    for server in servers:
        server.__exit__()


def extract(models: Models) -> Model:
    assert models.extract is not None
    return models.extract


def test_no_model_is_loaded_when_none_is_named(config: Config) -> None:
    models = load_models(config.learner.models, config.prices)

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
    assert models.meter.notes() == ["the price of openai/scripted is unknown: counted as 0 dollars; add it to [prices]"]


@pytest.mark.parametrize("name", ["openai/scripted", "scripted"])
def test_the_operators_own_price_counts_and_stops_a_run(start: Start, name: str) -> None:
    server, models = start(*[text_reply("yes")] * 3, prices={name: (1000.0, 5000.0)}, max_cost_usd=0.2)

    assert extract(models).complete(QUESTION).cost_usd == pytest.approx(100 * 1000e-6 + 10 * 5000e-6)
    extract(models).complete(QUESTION)
    with pytest.raises(BudgetExceededError, match="max_cost_usd_per_run"):
        extract(models).complete(QUESTION)

    assert len(server.requests) == 2
    assert models.meter.usage.cost_usd == pytest.approx(0.3)
    assert models.meter.notes() == []


def test_tokens_stop_a_run_whose_models_have_no_known_price(start: Start) -> None:
    server, models = start(*[text_reply("yes")] * 3, max_tokens=220)
    for _ in range(2):
        extract(models).complete(QUESTION)

    with pytest.raises(BudgetExceededError, match="max_tokens_per_run"):
        extract(models).complete(QUESTION)

    assert len(server.requests) == 2


def test_a_paid_reply_that_says_nothing_counts_and_is_asked_for_again(start: Start) -> None:
    body = json.loads(text_reply("x").body)
    empty = Reply(body=json.dumps(body | {"choices": []}).encode())
    _, models = start(empty, text_reply("yes"))

    assert extract(models).complete(QUESTION).text == "yes"

    assert models.meter.usage == Usage(2, 200, 20, 0.0)


@pytest.mark.parametrize(
    "reply",
    [
        text_reply("half \ud800 a character"),
        text_reply("x" * 3_000_000),
        Reply(body=text_reply("yes").body, headers={"content-type": "text/plain"}),
        Reply(body=text_reply("yes").body, headers={"content-type": "text/html; charset=latin-1"}),
    ],
)
def test_an_odd_answer_is_text_that_can_be_stored(start: Start, reply: Reply) -> None:
    _, models = start(reply)

    text = extract(models).complete(QUESTION).text

    assert text.encode()


def test_a_refused_answer_is_shown_again_within_bounds(start: Start) -> None:
    long = json.dumps({"reason": "x" * 100_000})
    _, models = start(text_reply("y" * 100_000), tool_reply("skip", long), tool_reply("skip", '{"reason": "short"}'))

    texts = [json.dumps(extract(models).complete(QUESTION).as_message()) for _ in range(3)]

    assert max(map(len, texts)) < 9000
    assert "short" in texts[2]


def test_arguments_that_are_no_text_come_as_text(start: Start) -> None:
    body = json.loads(tool_reply("skip", "{}").body)
    body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] = {"reason": "none"}
    _, models = start(Reply(body=json.dumps(body).encode()))

    (call,) = extract(models).complete(QUESTION).tool_calls

    assert "reason" in call.arguments


def test_tool_calls_come_back_as_the_model_wrote_them(start: Start) -> None:
    tool = {"type": "function", "function": {"name": "skip", "parameters": {"type": "object", "properties": {}}}}
    server, models = start(tool_reply("skip", '{"reason": '))

    completion = extract(models).complete(QUESTION, tools=[tool])

    assert [(call.name, call.arguments) for call in completion.tool_calls] == [("skip", '{"reason": ')]
    assert completion.as_message()["tool_calls"][0]["function"] == {"name": "skip", "arguments": "{}"}
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
