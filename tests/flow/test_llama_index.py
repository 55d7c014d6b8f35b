"""LlamaIndex as its users write it, with learned texts in every request."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from tests.flow.compared import QUESTION, Compare, Compared, Endpoint
from tests.flow.product import CLIENT_S
from tests.provider.answers import Answer, Call, Failure

SYSTEM = "You are the help desk of Example Ltd."
CHAT = [ChatMessage(role="system", content=SYSTEM), ChatMessage(role="user", content=QUESTION)]
CALLS = (Call("account_status", {"user": "ann"}), Call("account_status", {"user": "Zoë 🌦"}))
MakeModel = Callable[..., FunctionCallingLLM]
# Its workflows look at every attribute of an agent, pydantic's deprecated ones among them.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning:inspect")


class Advice(BaseModel):
    """Advice to a user."""

    steps: list[str]
    severity: str


ADVICE = Advice(steps=["Open Settings", "Choose Reset"], severity="low")


def account_status(user: str) -> str:
    """Say whether an account is locked."""
    return f"{user}: not locked"


def options_of(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "model": endpoint.gpt,
        "api_key": endpoint.api_key,
        "api_base": endpoint.base_url,
        "timeout": CLIENT_S,
        "max_retries": 0,
    }


def openai_model(endpoint: Endpoint, **options: Any) -> FunctionCallingLLM:
    return OpenAI(**{**options_of(endpoint), **options})


def like_model(endpoint: Endpoint, **options: Any) -> FunctionCallingLLM:
    # A server of one's own: no table of models, unknown fields of its own.
    extra = {"extra_body": {"x_vendor": {"deep": [1.50, None]}}}
    model: FunctionCallingLLM = OpenAILike(
        **{
            **options_of(endpoint),
            "is_chat_model": True,
            "is_function_calling_model": True,
            "additional_kwargs": extra,
            **options,
        }
    )
    return model


def responses_model(endpoint: Endpoint, **options: Any) -> FunctionCallingLLM:
    return OpenAIResponses(**{**options_of(endpoint), **options})


MODELS = pytest.mark.parametrize("make", [openai_model, like_model, responses_model])


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
        first = model.chat(CHAT)
        question = ChatMessage(role="user", content="How do I reset my password by phone?")
        second = model.chat([*CHAT, first.message, question])
        return [first.message.content, second.message.content]

    played = compare(ask, Answer(f"Under Security ({make.__name__})."), Answer("There, too."))
    assert played.result == [f"Under Security ({make.__name__}).", "There, too."]
    assert_taught(played)
    played.assert_one_conversation(2)


@MODELS
def test_a_streamed_chat_yields_the_text_piece_by_piece(make: MakeModel, compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[str]:
        return [piece.delta or "" for piece in make(endpoint).stream_chat(CHAT)]

    played = compare(ask, Answer("Open Settings,  then “Security” 🔑."))
    assert "".join(played.result) == "Open Settings,  then “Security” 🔑."
    assert len(played.result) > 4
    assert_taught(played)
    (record,) = played.assert_one_conversation(1)
    assert json.loads(record["reply_json"])["content"] == "Open Settings,  then “Security” 🔑."


@MODELS
def test_a_function_agent_calls_its_tools_and_answers(make: MakeModel, compare: Compare) -> None:
    async def run(endpoint: Endpoint) -> list[str]:
        async with httpx.AsyncClient(timeout=CLIENT_S) as client:
            agent = FunctionAgent(
                tools=[FunctionTool.from_defaults(account_status)],
                llm=make(endpoint, async_http_client=client),
                system_prompt=SYSTEM,
                timeout=CLIENT_S,
            )
            output: Any = await agent.run(QUESTION)
        return [str(output), *(call.tool_output.content for call in output.tool_calls)]

    played = compare(lambda endpoint: asyncio.run(run(endpoint)), Answer(calls=CALLS), Answer("Not locked: reset it."))
    assert played.result[0] == "Not locked: reset it."
    assert sorted(played.result[1:]) == ["Zoë 🌦: not locked", "ann: not locked"]
    assert_taught(played)
    assert played.injected[0] == played.injected[1]
    played.assert_one_conversation(2)


@pytest.mark.parametrize("make", [openai_model, like_model])
def test_a_structured_answer_is_parsed_into_the_apps_own_model(make: MakeModel, compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> Any:
        return make(endpoint).as_structured_llm(Advice).chat(CHAT).raw

    played = compare(ask, Answer(calls=(Call("Advice", ADVICE.model_dump()),)))
    assert played.result == ADVICE
    assert_taught(played)
    played.assert_one_conversation(1)


def test_embeddings_pass_through(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[list[float]]:
        embedding = OpenAIEmbedding(
            model_name=endpoint.gpt, api_key=endpoint.api_key, api_base=endpoint.base_url, timeout=CLIENT_S
        )
        vectors: list[list[float]] = embedding.get_text_embedding_batch(["a", "b"])
        return vectors

    played = compare(ask)
    assert played.result == [[0.0, 0.25, 0.5], [1.0, 1.25, 1.5]]
    assert played.sent[0].body == played.plain[0].body
    played.records(0)


@MODELS
@pytest.mark.parametrize(
    ("status", "kind"), [(401, openai.AuthenticationError), (429, openai.RateLimitError)], ids=["401", "429"]
)
def test_an_error_of_the_provider_is_the_sdks_own_error(
    status: int, kind: type[openai.APIStatusError], make: MakeModel, compare: Compare
) -> None:
    def ask(endpoint: Endpoint) -> Any:
        with pytest.raises(kind) as caught:
            make(endpoint).chat(CHAT)
        return [caught.value.body, caught.value.response.headers["retry-after"]]

    played = compare(ask, Failure(status, headers=(("retry-after", "17"),)))
    assert played.result[1] == "17"
    assert [row["outcome"] for row in played.records(1)] == ["error"]


@pytest.mark.parametrize(
    ("make", "end"),
    [
        (openai_model, "cut"),
        (openai_model, "error"),
        (like_model, "cut"),
        (like_model, "error"),
        (responses_model, "cut"),  # of the Responses API's error event LlamaIndex takes no note, proxy or not
    ],
)
def test_a_stream_that_breaks_in_the_middle_never_ends_quietly(end: Any, make: MakeModel, compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> None:
        with pytest.raises((openai.APIError, httpx.TransportError)):
            list(make(endpoint).stream_chat(CHAT))

    played = compare(ask, Answer("Open Settings and then Security.", end=end))
    assert [row["outcome"] for row in played.records(1)] == ["upstream_error"]
