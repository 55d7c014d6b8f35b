"""The Anthropic Python SDK as its users write it, with learned texts in every request."""

import asyncio
import json
from typing import Any, Literal

import anthropic
import httpx2
import pytest
from anthropic import Anthropic, AsyncAnthropic, beta_tool
from pydantic import BaseModel

from tests.flow.compared import QUESTION, Compare, Endpoint
from tests.flow.product import CLIENT_S
from tests.provider.answers import N_CACHED, N_COMPLETION, N_PROMPT, Answer, Call, Failure

SYSTEM = "You are the help desk of Example Ltd."
USER: Any = {"role": "user", "content": QUESTION}
TAUGHT = {"system": "rule", "messages[0].content": "knowledge"}
CALLS = (Call("account_status", {"user": "ann"}), Call("account_status", {"user": "Zoë 🌦"}))
TOOL: Any = {
    "name": "account_status",
    "description": "Whether an account is locked",
    "input_schema": {"type": "object", "properties": {"user": {"type": "string"}}, "required": ["user"]},
    "cache_control": {"type": "ephemeral"},
}


class Advice(BaseModel):
    steps: list[str]
    severity: Literal["low", "high"]


ADVICE = Advice(steps=["Open Settings", "Choose Reset"], severity="low")


def client_of(endpoint: Endpoint, **options: Any) -> Anthropic:
    return Anthropic(**{"api_key": endpoint.api_key, "base_url": endpoint.root, "timeout": CLIENT_S, **options})


def asked(endpoint: Endpoint, **fields: Any) -> dict[str, Any]:
    return {"model": endpoint.claude, "max_tokens": 64, "system": SYSTEM, "messages": [USER], **fields}


def test_a_chat_over_two_turns_is_taught_in_both_and_recorded_as_one_conversation(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[Any]:
        with client_of(endpoint) as client:
            fields = {
                "metadata": {"user_id": "u-1"},
                "stop_sequences": ["END"],
                "extra_body": {"x_vendor": {"deep": [1.50]}},
            }
            first = client.messages.create(**asked(endpoint, **fields))
            messages = [USER, {"role": "assistant", "content": first.content}, {"role": "user", "content": "By phone?"}]
            second = client.messages.create(**asked(endpoint, **fields, messages=messages))
            return [first.to_dict(), second.to_dict()]

    played = compare(ask, Answer("Reset it under Security (claude)."), Answer("There, too."))
    assert [body["content"][0]["text"] for body in played.result] == [
        "Reset it under Security (claude).",
        "There, too.",
    ]
    first, second = played.injected
    assert first == TAUGHT
    assert second["system"] == "rule"
    assert played.sent[0].json["x_vendor"] == {"deep": [1.5]}
    records = played.assert_one_conversation(2)
    assert {(row["endpoint"], row["user_id"]) for row in records} == {("/v1/messages", "u-1")}
    assert (records[0]["question"], json.loads(records[0]["reply_json"])["content"]) == (
        QUESTION,
        "Reset it under Security (claude).",
    )
    assert (records[0]["cached_tokens"], records[0]["completion_tokens"]) == (N_CACHED, N_COMPLETION)
    assert records[0]["prompt_tokens"] == N_PROMPT


def test_the_stream_helper_yields_the_text_and_the_whole_message(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[Any]:
        with client_of(endpoint) as client, client.messages.stream(**asked(endpoint)) as stream:
            texts = list(stream.text_stream)
            return [texts, stream.get_final_message().to_dict()]

    played = compare(ask, Answer("Open Settings,  then “Security” 🔑."))
    texts, message = played.result
    assert "".join(texts) == message["content"][0]["text"] == "Open Settings,  then “Security” 🔑."
    assert message["usage"]["output_tokens"] == N_COMPLETION
    assert played.injected == [TAUGHT]
    (record,) = played.assert_one_conversation(1)
    assert json.loads(record["reply_json"])["content"] == "Open Settings,  then “Security” 🔑."
    assert (record["is_stream"], record["finish_reason"]) == (1, "stop")


def test_every_raw_event_of_a_stream_arrives(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[Any]:
        with client_of(endpoint) as client, client.messages.create(**asked(endpoint), stream=True) as stream:
            return [event.to_dict() for event in stream]

    played = compare(ask, Answer("Open Settings."))
    assert [event["type"] for event in played.result] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    played.assert_one_conversation(1)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_a_loop_with_parallel_tool_calls_ends_in_an_answer(is_stream: bool, compare: Compare) -> None:
    def answer(client: Anthropic, fields: dict[str, Any]) -> Any:
        if not is_stream:
            return client.messages.create(**fields)
        with client.messages.stream(**fields) as stream:
            return stream.get_final_message()

    def ask(endpoint: Endpoint) -> list[Any]:
        messages: list[Any] = [USER]
        with client_of(endpoint) as client:
            while True:
                message = answer(client, asked(endpoint, messages=messages, tools=[TOOL]))
                messages.append({"role": "assistant", "content": [block.to_dict() for block in message.content]})
                results = [
                    {"type": "tool_result", "tool_use_id": block.id, "content": f"{block.input['user']}: not locked"}
                    for block in message.content
                    if block.type == "tool_use"
                ]
                if message.stop_reason != "tool_use":
                    return messages
                messages.append({"role": "user", "content": results})

    played = compare(ask, Answer("I look.", calls=CALLS), Answer("It is not locked: reset it."))
    assert [message["role"] for message in played.result] == ["user", "assistant", "user", "assistant"]
    assert [result["content"] for result in played.result[2]["content"]] == ["ann: not locked", "Zoë 🌦: not locked"]
    assert played.injected == [TAUGHT, TAUGHT]
    assert played.sent[1].messages[0] == played.sent[0].messages[0]  # the knowledge stays as it is within the loop
    assert played.sent[0].json["tools"] == [TOOL]
    records = played.assert_one_conversation(2)
    assert [row["finish_reason"] for row in records] == ["tool_calls", "stop"]


@pytest.mark.parametrize(
    ("options", "threads", "second"),
    [
        ({}, ["create", "continue"], {}),  # the provider holds the learned texts, too
        ({"thread": False}, [None, None], TAUGHT),
    ],
    ids=["with a thread", "without"],
)
def test_the_sdks_own_tool_runner_comes_to_its_end(
    options: dict[str, Any], threads: list[str | None], second: dict[str, str], compare: Compare
) -> None:
    def ask(endpoint: Endpoint) -> str:
        @beta_tool
        def account_status(user: str) -> str:
            """Say whether an account is locked.

            Args:
                user: whose account.
            """
            return f"{user}: not locked"

        with client_of(endpoint) as client:
            runner = client.beta.messages.tool_runner(**asked(endpoint, tools=[account_status], **options))
            return "".join(block.text for block in runner.until_done().content if block.type == "text")

    played = compare(ask, Answer(calls=CALLS), Answer("Not locked: reset it (runner)."))
    assert played.result == "Not locked: reset it (runner)."
    assert [seen.json.get("thread", {}).get("type") for seen in played.sent] == threads
    assert played.injected == [TAUGHT, second]
    assert [seen.target for seen in played.sent] == [seen.target for seen in played.plain]
    played.assert_one_conversation(2)


def test_system_blocks_keep_their_breakpoints_and_get_no_further_one(compare: Compare) -> None:
    ephemeral = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    system: list[Any] = [
        {"type": "text", "text": SYSTEM},
        {"type": "text", "text": "A long manual. " * 200, **ephemeral},
    ]
    messages = [{"role": "user", "content": [{"type": "text", "text": QUESTION, **ephemeral}]}]

    def ask(endpoint: Endpoint) -> Any:
        with client_of(endpoint) as client:
            return client.messages.create(**asked(endpoint, system=system, messages=messages, tools=[TOOL])).to_dict()

    played = compare(ask, Answer("Under Security."))
    (injected,) = played.injected
    assert sorted(injected.values()) == ["knowledge", "rule"]
    (sent,) = played.sent
    assert sent.body.count(b'"cache_control"') == 3
    assert [block["text"] for block in sent.json["system"][:1]] == [SYSTEM]
    assert sent.json["system"][1]["text"].startswith(system[1]["text"])
    assert sent.json["system"][1]["cache_control"] == ephemeral["cache_control"]
    played.assert_one_conversation(1)


def test_a_request_without_system_text_is_taught_all_the_same(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> Any:
        with client_of(endpoint) as client:
            return client.messages.create(model=endpoint.claude, max_tokens=64, messages=[USER]).to_dict()

    played = compare(ask, Answer("Under Security."))
    assert played.injected == [TAUGHT]
    played.assert_one_conversation(1)


def test_structured_output_is_parsed_into_the_apps_own_model(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> Any:
        with client_of(endpoint) as client:
            return client.messages.parse(**asked(endpoint, output_format=Advice)).parsed_output

    played = compare(ask, Answer(ADVICE.model_dump_json()))
    assert played.result == ADVICE
    assert played.injected == [TAUGHT]


def test_counting_tokens_passes_through_untouched(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> int:
        with client_of(endpoint) as client:
            return client.messages.count_tokens(model=endpoint.claude, system=SYSTEM, messages=[USER]).input_tokens

    played = compare(ask)
    assert played.result == len(played.plain[0].body)
    assert played.sent[0].body == played.plain[0].body
    played.records(0)


def test_the_async_client_streams_and_answers_at_the_same_time(compare: Compare) -> None:
    async def ask_all(endpoint: Endpoint) -> list[str]:
        async with AsyncAnthropic(api_key=endpoint.api_key, base_url=endpoint.root, timeout=CLIENT_S) as client:

            async def one() -> str:
                message = await client.messages.create(**asked(endpoint))
                return "".join(block.text for block in message.content)

            async def streamed() -> str:
                async with client.messages.stream(**asked(endpoint)) as stream:
                    return "".join([text async for text in stream.text_stream])

            return list(await asyncio.gather(one(), streamed(), one(), streamed()))

    played = compare(lambda endpoint: asyncio.run(ask_all(endpoint)), *[Answer("Under Security.")] * 4)
    assert played.result == ["Under Security."] * 4
    assert [seen.body.count(b"<learned_guidance>") for seen in played.sent] == [1] * 4
    assert [row["outcome"] for row in played.records(4)] == ["ok"] * 4


@pytest.mark.parametrize(
    ("status", "kind", "outcome"),
    [
        (400, anthropic.BadRequestError, "error"),
        (401, anthropic.AuthenticationError, "error"),
        (404, anthropic.NotFoundError, "error"),
        (429, anthropic.RateLimitError, "error"),
        (529, anthropic.InternalServerError, "upstream_error"),
    ],
)
def test_an_error_of_the_provider_is_the_sdks_own_error(
    status: int, kind: type[anthropic.APIStatusError], outcome: str, compare: Compare
) -> None:
    def ask(endpoint: Endpoint) -> Any:
        with client_of(endpoint, max_retries=0) as client, pytest.raises(kind) as caught:
            client.messages.create(**asked(endpoint))
        return [type(caught.value), caught.value.body, caught.value.response.headers["retry-after"]]

    played = compare(ask, Failure(status, headers=(("retry-after", "17"),)))
    assert played.result[1]["error"]["message"] == "scripted failure"
    assert played.result[2] == "17"
    (record,) = played.records(1)
    assert (record["outcome"], record["status"]) == (outcome, status)


def test_the_sdk_tries_again_when_the_provider_says_so(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> Any:
        with client_of(endpoint, max_retries=2) as client:
            return client.messages.create(**asked(endpoint)).to_dict()

    busy = Failure(429, headers=(("retry-after-ms", "5"),))
    played = compare(ask, busy, busy, Answer("Under Security."))
    assert [seen.header("x-stainless-retry-count") for seen in played.sent] == ["0", "1", "2"]
    played.assert_retried(2)


def test_an_error_event_in_the_middle_of_a_stream_is_the_sdks_own_error(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> Any:
        with (
            client_of(endpoint, max_retries=0) as client,
            pytest.raises(anthropic.APIStatusError) as caught,
            client.messages.stream(**asked(endpoint)) as stream,
        ):
            stream.get_final_message()
        return [type(caught.value), caught.value.body]

    played = compare(ask, Answer("Open Settings and then Security.", end="error"))
    assert played.result[1]["error"] == {"type": "overloaded_error", "message": "broken"}
    assert [row["outcome"] for row in played.records(1)] == ["upstream_error"]


def test_a_stream_that_is_cut_never_ends_quietly(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> None:
        with (
            client_of(endpoint, max_retries=0) as client,
            pytest.raises((anthropic.APIError, httpx2.TransportError)),
            client.messages.stream(**asked(endpoint)) as stream,
        ):
            stream.get_final_message()

    played = compare(ask, Answer("Open Settings and then Security.", end="cut"))
    assert [row["outcome"] for row in played.records(1)] == ["upstream_error"]
