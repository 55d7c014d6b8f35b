"""LangChain's chat models as its users write them, with learned texts in every request."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Literal

import anthropic
import httpx
import httpx2
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.flow.compared import QUESTION, Compare, Compared, Endpoint
from tests.flow.product import CLIENT_S
from tests.provider.answers import N_COMPLETION, N_PROMPT, Answer, Call, Failure

SYSTEM = "You are the help desk of Example Ltd."
CALLS = (Call("account_status", {"user": "ann"}), Call("account_status", {"user": "Zoë 🌦"}))
MakeModel = Callable[..., BaseChatModel]


class Advice(BaseModel):
    """Advice to a user."""

    steps: list[str]
    severity: Literal["low", "high"]


ADVICE = Advice(steps=["Open Settings", "Choose Reset"], severity="low")


@tool
def account_status(user: str) -> str:
    """Say whether an account is locked."""
    return f"{user}: not locked"


def chat_model(endpoint: Endpoint, **options: Any) -> BaseChatModel:
    return ChatOpenAI(
        **{
            "model": endpoint.gpt,
            "api_key": endpoint.api_key,
            "base_url": endpoint.base_url,
            "timeout": CLIENT_S,
            "max_retries": 0,
            "extra_body": {"x_vendor": {"deep": [1.50, None]}},
            **options,
        }
    )


def responses_model(endpoint: Endpoint, **options: Any) -> BaseChatModel:
    return chat_model(endpoint, use_responses_api=True, **options)


def claude_model(endpoint: Endpoint, **options: Any) -> BaseChatModel:
    return ChatAnthropic(
        **{
            "model_name": endpoint.claude,
            "api_key": endpoint.api_key,
            "base_url": endpoint.root,
            "timeout": CLIENT_S,
            "max_retries": 0,
            "max_tokens": 64,
            **options,
        }
    )


MODELS = pytest.mark.parametrize("make", [chat_model, responses_model, claude_model])
QUESTIONS: list[BaseMessage] = [SystemMessage(SYSTEM), HumanMessage(QUESTION)]


def assert_taught(played: Compared) -> None:
    """Assert that every request got both texts, the app's own before them."""
    for injected in played.injected:
        assert sorted(injected.values()) == ["knowledge", "rule"]


@MODELS
def test_a_chat_over_two_turns_is_taught_in_both_and_recorded_as_one_conversation(
    make: MakeModel, compare: Compare
) -> None:
    def ask(endpoint: Endpoint) -> list[Any]:
        model = make(endpoint)
        first = model.invoke(QUESTIONS)
        second = model.invoke([*QUESTIONS, first, HumanMessage("How do I reset my password by phone?")])
        return [first.text, second.text, first.usage_metadata]

    played = compare(ask, Answer(f"Under Security ({make.__name__})."), Answer("There, too."))
    assert played.result[:2] == [f"Under Security ({make.__name__}).", "There, too."]
    assert played.result[2]["input_tokens"] == N_PROMPT
    assert played.result[2]["output_tokens"] == N_COMPLETION
    assert_taught(played)
    played.assert_one_conversation(2)


@MODELS
def test_a_stream_yields_the_text_piece_by_piece(make: MakeModel, compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[str]:
        return [str(chunk.text) for chunk in make(endpoint).stream(QUESTIONS)]

    played = compare(ask, Answer("Open Settings,  then “Security” 🔑."))
    assert "".join(played.result) == "Open Settings,  then “Security” 🔑."
    assert len(played.result) > 4
    assert_taught(played)
    (record,) = played.assert_one_conversation(1)
    assert json.loads(record["reply_json"])["content"] == "Open Settings,  then “Security” 🔑."


@MODELS
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_an_agents_loop_over_bound_tools_ends_in_an_answer(is_stream: bool, make: MakeModel, compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[Any]:
        model = make(endpoint).bind_tools([account_status])
        messages = list(QUESTIONS)
        while True:
            answer = streamed(model, messages) if is_stream else model.invoke(messages)
            messages.append(answer)
            results = [account_status.invoke(call) for call in answer.tool_calls]
            messages.extend(results)
            if not results:
                return [message.text for message in messages if isinstance(message, ToolMessage)] + [answer.text]

    played = compare(ask, Answer(calls=CALLS), Answer("Not locked: reset it."))
    assert played.result == ["ann: not locked", "Zoë 🌦: not locked", "Not locked: reset it."]
    assert_taught(played)
    assert played.injected[0] == played.injected[1]
    played.assert_one_conversation(2)


def streamed(model: Any, messages: list[BaseMessage]) -> AIMessage:
    """Return the sum of a stream's chunks, as LangChain adds them up."""
    chunks = iter(model.stream(messages))
    total = next(chunks)
    for chunk in chunks:
        total += chunk
    message: AIMessage = total
    return message


@pytest.mark.parametrize("make", [chat_model, responses_model])
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_parsed_into_the_apps_own_model(
    method: Literal["json_schema", "function_calling"], make: MakeModel, compare: Compare
) -> None:
    def ask(endpoint: Endpoint) -> Any:
        return make(endpoint).with_structured_output(Advice, method=method).invoke(QUESTIONS)

    as_text, as_call = Answer(ADVICE.model_dump_json()), Answer(calls=(Call("Advice", ADVICE.model_dump()),))
    played = compare(ask, {"json_schema": as_text, "function_calling": as_call}[method])
    assert played.result == ADVICE
    assert_taught(played)
    played.assert_one_conversation(1)


def test_a_chain_of_responses_by_id_is_one_conversation(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[str]:
        model = responses_model(endpoint, use_previous_response_id=True)
        first = model.invoke(QUESTIONS)
        second = model.invoke([*QUESTIONS, first, HumanMessage("How do I reset my password by phone?")])
        return [first.text, second.text]

    played = compare(ask, Answer("Under Security (chain)."), Answer("There, too."))
    assert played.result == ["Under Security (chain).", "There, too."]
    assert played.sent[1].json["previous_response_id"].startswith("resp_")
    assert "knowledge" in played.injected[1].values()
    played.assert_one_conversation(2)


def test_async_batches_are_taught_one_by_one(compare: Compare) -> None:
    async def ask(endpoint: Endpoint) -> list[str]:
        async with httpx.AsyncClient(timeout=CLIENT_S) as client:
            answers = await chat_model(endpoint, http_async_client=client).abatch([QUESTIONS] * 3)
        return [answer.text for answer in answers]

    played = compare(lambda endpoint: asyncio.run(ask(endpoint)), *[Answer("Under Security.")] * 3)
    assert played.result == ["Under Security."] * 3
    assert_taught(played)
    assert [row["outcome"] for row in played.records(3)] == ["ok"] * 3


def test_embeddings_pass_through(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[list[float]]:
        embeddings = OpenAIEmbeddings(
            model=endpoint.gpt,
            api_key=SecretStr(endpoint.api_key),
            base_url=endpoint.base_url,
            check_embedding_ctx_length=False,  # its own token count needs a download
        )
        return embeddings.embed_documents(["a", "b"])

    played = compare(ask)
    assert played.result == [[0.0, 0.25, 0.5], [1.0, 1.25, 1.5]]
    assert played.sent[0].body == played.plain[0].body
    played.records(0)


@MODELS
@pytest.mark.parametrize(
    ("status", "kinds"),
    [
        (401, (openai.AuthenticationError, anthropic.AuthenticationError)),
        (429, (openai.RateLimitError, anthropic.RateLimitError)),
    ],
    ids=["401", "429"],
)
def test_an_error_of_the_provider_is_the_sdks_own_error(
    status: int,
    kinds: tuple[type[Any], ...],
    make: MakeModel,
    compare: Compare,
) -> None:
    def ask(endpoint: Endpoint) -> Any:
        with pytest.raises(kinds) as caught:
            make(endpoint).invoke(QUESTIONS)
        error: Any = caught.value
        return [error.status_code, error.response.headers["retry-after"]]

    played = compare(ask, Failure(status, headers=(("retry-after", "17"),)))
    assert played.result == [status, "17"]
    assert [row["outcome"] for row in played.records(1)] == ["error"]


@MODELS
def test_the_model_tries_again_when_the_provider_says_so(make: MakeModel, compare: Compare) -> None:
    busy = Failure(429, headers=(("retry-after-ms", "5"),))
    played = compare(
        lambda endpoint: make(endpoint, max_retries=2).invoke(QUESTIONS).text, busy, busy, Answer("Under Security.")
    )
    assert played.result == "Under Security."
    assert_taught(played)
    played.assert_retried(2)


@MODELS
@pytest.mark.parametrize("end", ["cut", "error"])
def test_a_stream_that_breaks_in_the_middle_never_ends_quietly(
    end: Literal["cut", "error"], make: MakeModel, compare: Compare
) -> None:
    def ask(endpoint: Endpoint) -> None:
        broken = (openai.APIError, anthropic.APIError, httpx.TransportError, httpx2.TransportError, ValueError)
        with pytest.raises(broken):
            list(make(endpoint).stream(QUESTIONS))

    played = compare(ask, Answer("Open Settings and then Security.", end=end))
    assert [row["outcome"] for row in played.records(1)] == ["upstream_error"]
