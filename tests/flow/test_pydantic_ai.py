"""Pydantic AI as its users write it, with learned texts in every request."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, ModelAPIError, ModelHTTPError, RunContext
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.flow.compared import QUESTION, Compare, Compared, Endpoint
from tests.flow.product import CLIENT_S
from tests.provider.answers import Answer, Call, Failure

SYSTEM = "You are the help desk of Example Ltd."
CALLS = (Call("account_status", {"user": "ann"}), Call("account_status", {"user": "Zoë 🌦"}))


class Advice(BaseModel):
    """Advice to a user."""

    steps: list[str]
    severity: str


ADVICE = Advice(steps=["Open Settings", "Choose Reset"], severity="low")
RESULT = Call("final_result", ADVICE.model_dump())


MakeModel = Callable[..., Model]


def chat_model(endpoint: Endpoint, client: AsyncOpenAI) -> Model:
    return OpenAIChatModel(endpoint.gpt, provider=OpenAIProvider(openai_client=client))


def responses_model(endpoint: Endpoint, client: AsyncOpenAI) -> Model:
    return OpenAIResponsesModel(endpoint.gpt, provider=OpenAIProvider(openai_client=client))


MODELS = pytest.mark.parametrize("make", [chat_model, responses_model])


def using(
    make: MakeModel, ask: Callable[[Model], Coroutine[None, None, Any]], max_retries: int = 0
) -> Callable[[Endpoint], Any]:
    """Return a scenario that asks with a model whose client is closed afterwards."""

    async def run(endpoint: Endpoint) -> Any:
        async with AsyncOpenAI(
            api_key=endpoint.api_key, base_url=endpoint.base_url, timeout=CLIENT_S, max_retries=max_retries
        ) as client:
            return await ask(make(endpoint, client))

    return lambda endpoint: asyncio.run(run(endpoint))


def assert_taught(played: Compared) -> None:
    """Assert that every request got both texts, the app's own before them."""
    for injected in played.injected:
        assert sorted(injected.values()) == ["knowledge", "rule"]


def desk_agent(model: Model) -> Agent[str, Advice]:
    """Return an agent with a tool that needs what the app knows, and a structured result."""
    agent = Agent(model, deps_type=str, output_type=Advice, instructions=SYSTEM)

    @agent.tool
    def account_status(context: RunContext[str], user: str) -> str:
        """Say whether an account is locked."""
        return f"{context.deps}/{user}: not locked"

    return agent


@MODELS
def test_an_agent_with_a_tool_comes_to_a_structured_result(make: MakeModel, compare: Compare) -> None:
    async def ask(model: Model) -> list[Any]:
        run = await desk_agent(model).run(QUESTION, deps="example")
        return [run.output, run.usage.requests, run.usage.tool_calls]

    played = compare(using(make, ask), Answer(calls=CALLS), Answer(calls=(RESULT,)))
    assert played.result == [ADVICE, 2, 2]
    assert b"example/ann: not locked" in played.sent[1].body
    assert_taught(played)
    assert played.injected[0] == played.injected[1]
    played.assert_one_conversation(2)


@MODELS
def test_a_result_that_does_not_validate_is_asked_for_again(make: MakeModel, compare: Compare) -> None:
    async def ask(model: Model) -> Advice:
        return (await desk_agent(model).run(QUESTION, deps="example")).output

    wrong = Answer(calls=(Call("final_result", {"steps": "none"}),))
    played = compare(using(make, ask), wrong, Answer(calls=(RESULT,)))
    assert played.result == ADVICE
    assert_taught(played)
    played.assert_one_conversation(2)


@MODELS
def test_a_streamed_run_calls_its_tool_and_yields_the_text(make: MakeModel, compare: Compare) -> None:
    async def ask(model: Model) -> list[str]:
        agent = Agent(model, instructions=SYSTEM)

        @agent.tool_plain
        def account_status(user: str) -> str:
            """Say whether an account is locked."""
            return f"{user}: not locked"

        async with agent.run_stream(QUESTION) as streamed:
            return [piece async for piece in streamed.stream_text(delta=True, debounce_by=None)]

    played = compare(using(make, ask), Answer(calls=CALLS), Answer("Not locked:  “reset” it 🔑."))
    assert "".join(played.result) == "Not locked:  “reset” it 🔑."
    assert len(played.result) > 3
    assert_taught(played)
    records = played.assert_one_conversation(2)
    assert [row["is_stream"] for row in records] == [1, 1]


@MODELS
def test_a_run_that_goes_on_with_the_messages_of_another_is_the_same_conversation(
    make: MakeModel, compare: Compare
) -> None:
    async def ask(model: Model) -> list[str]:
        agent = Agent(model, instructions=SYSTEM)
        first = await agent.run(QUESTION)
        second = await agent.run("How do I reset my password by phone?", message_history=first.all_messages())
        return [first.output, second.output]

    played = compare(using(make, ask), Answer(f"Under Security ({make.__name__})."), Answer("There, too."))
    assert played.result == [f"Under Security ({make.__name__}).", "There, too."]
    assert_taught(played)
    played.assert_one_conversation(2)


@MODELS
@pytest.mark.parametrize("status", [401, 429])
def test_an_error_of_the_provider_is_a_model_http_error(status: int, make: MakeModel, compare: Compare) -> None:
    async def ask(model: Model) -> Any:
        with pytest.raises(ModelHTTPError) as caught:
            await Agent(model).run(QUESTION)
        return [caught.value.status_code, caught.value.body]

    played = compare(using(make, ask), Failure(status, headers=(("retry-after", "17"),)))
    assert played.result[0] == status
    assert [row["outcome"] for row in played.records(1)] == ["error"]


@MODELS
def test_the_model_tries_again_when_the_provider_says_so(make: MakeModel, compare: Compare) -> None:
    async def ask(model: Model) -> str:
        return (await Agent(model).run(QUESTION)).output

    busy = Failure(429, headers=(("retry-after-ms", "5"),))
    played = compare(using(make, ask, max_retries=2), busy, Answer("Under Security."))
    assert played.result == "Under Security."
    played.assert_retried(1)


@pytest.mark.parametrize(
    ("make", "end"),
    [
        (chat_model, "cut"),
        (chat_model, "error"),
        (responses_model, "cut"),  # to the Responses API's error event it answers with a warning, proxy or not
    ],
)
def test_a_stream_that_breaks_in_the_middle_never_ends_quietly(end: Any, make: MakeModel, compare: Compare) -> None:
    async def ask(model: Model) -> None:
        with pytest.raises((ModelAPIError, openai.APIError, httpx.TransportError)):
            async with Agent(model).run_stream(QUESTION) as streamed:
                await streamed.get_output()

    played = compare(using(make, ask), Answer("Open Settings and then Security.", end=end))
    assert [row["outcome"] for row in played.records(1)] == ["upstream_error"]
