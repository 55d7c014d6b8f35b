"""The openai Python SDK as its users write it, with learned texts in every request."""

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any, Literal

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.flow.compared import QUESTION, Compare, Endpoint
from tests.flow.product import CLIENT_S, Product, eventually
from tests.provider.answers import N_CACHED, N_COMPLETION, N_PROMPT, Answer, Call, Failure
from tests.upstream import Upstream

SYSTEM: Any = {"role": "system", "content": "You are the help desk of Example Ltd."}
USER: Any = {"role": "user", "content": QUESTION}
IN_BOTH = {"messages[0].content": "rule", "messages[1].content": "knowledge"}
CALLS = (Call("account_status", {"user": "ann"}), Call("account_status", {"user": "Zoë 🌦"}))
TOOL: Any = {
    "type": "function",
    "x_vendor": {"cost": 1.50},
    "function": {
        "name": "account_status",
        "description": "Whether an account is locked",
        "parameters": {
            "type": "object",
            "properties": {"user": {"type": "string"}},
            "required": ["user"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
FLAT_TOOL: Any = {"type": "function", **TOOL["function"]}


class Advice(BaseModel):
    steps: list[str]
    severity: Literal["low", "high"]


ADVICE = Advice(steps=["Open Settings", "Choose Reset"], severity="low")


def client_of(endpoint: Endpoint, **options: Any) -> OpenAI:
    return OpenAI(**{"api_key": endpoint.api_key, "base_url": endpoint.base_url, "timeout": CLIENT_S, **options})


def status_of(arguments: str) -> str:
    """Return what the app's own tool says."""
    return json.dumps({"user": json.loads(arguments)["user"], "locked": False})


def test_a_chat_over_two_turns_is_taught_in_both_and_recorded_as_one_conversation(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[Any]:
        with client_of(endpoint) as client:
            messages = [SYSTEM, USER]
            first = client.chat.completions.create(model=endpoint.gpt, messages=messages, temperature=0.2, seed=7)
            messages += [first.choices[0].message.to_dict(), {"role": "user", "content": "And on a phone?"}]
            second = client.chat.completions.create(model=endpoint.gpt, messages=messages, temperature=0.2, seed=7)
            return [first.to_dict(), second.to_dict()]

    played = compare(ask, Answer("Reset it under Security (chat)."), Answer("There, too."))
    assert [body["choices"][0]["message"]["content"] for body in played.result] == [
        "Reset it under Security (chat).",
        "There, too.",
    ]
    first, second = played.injected
    assert first == IN_BOTH
    assert second["messages[0].content"] == "rule"
    records = played.assert_one_conversation(2)
    assert (records[0]["prompt_tokens"], records[0]["completion_tokens"]) == (N_PROMPT, N_COMPLETION)
    assert records[0]["cached_tokens"] == N_CACHED


def test_a_streamed_chat_arrives_chunk_by_chunk_with_its_usage(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[Any]:
        with (
            client_of(endpoint) as client,
            client.chat.completions.create(
                model=endpoint.gpt, messages=[SYSTEM, USER], stream=True, stream_options={"include_usage": True}
            ) as stream,
        ):
            return [chunk.to_dict() for chunk in stream]

    played = compare(ask, Answer("Open Settings,  then “Security” 🔑."))
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in played.result[:-1])
    assert text == "Open Settings,  then “Security” 🔑."
    assert played.result[-1]["usage"]["total_tokens"] == N_PROMPT + N_COMPLETION
    assert played.injected == [IN_BOTH]
    (record,) = played.assert_one_conversation(1)
    assert json.loads(record["reply_json"])["content"] == text


def test_choices_and_logprobs_come_back_as_asked(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[Any]:
        asked: Any = {
            "model": endpoint.gpt,
            "messages": [SYSTEM, USER],
            "n": 2,
            "logprobs": True,
            "top_logprobs": 2,
        }
        with client_of(endpoint) as client:
            whole = client.chat.completions.create(**asked)
            with client.chat.completions.stream(**asked) as stream:
                streamed = stream.get_final_completion()
            return [whole.to_dict(), streamed.to_dict()]

    answer = Answer("Under Security.", others=("In Settings.",))
    played = compare(ask, answer, answer)
    for body in played.result:
        assert [choice["message"]["content"] for choice in body["choices"]] == ["Under Security.", "In Settings."]
        assert [token["token"] for token in body["choices"][1]["logprobs"]["content"]] == ["In", " Settings."]
    assert played.injected == [IN_BOTH, IN_BOTH]
    assert [row["outcome"] for row in played.records(2)] == ["ok", "ok"]


def test_a_refusal_is_the_clients_to_see(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[Any]:
        asked: Any = {"model": endpoint.gpt, "messages": [SYSTEM, USER], "response_format": Advice}
        with client_of(endpoint) as client:
            whole = client.chat.completions.parse(**asked)
            with client.chat.completions.stream(**asked) as stream:
                streamed = stream.get_final_completion()
            return [body.choices[0].message.refusal for body in (whole, streamed)]

    answer = Answer(refusal="I cannot help with that.")
    played = compare(ask, answer, answer)
    assert played.result == ["I cannot help with that."] * 2
    assert played.injected == [IN_BOTH, IN_BOTH]


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
def test_a_loop_with_parallel_tool_calls_ends_in_an_answer(is_stream: bool, compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[Any]:
        messages: list[Any] = [SYSTEM, USER]
        with client_of(endpoint) as client:
            while True:
                asked: Any = {"model": endpoint.gpt, "messages": messages, "tools": [TOOL], "parallel_tool_calls": True}
                message = (streamed_message if is_stream else whole_message)(client, asked)
                messages.append(message)
                for call in message.get("tool_calls") or []:
                    result = status_of(call["function"]["arguments"])
                    messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
                if not message.get("tool_calls"):
                    return messages

    played = compare(ask, Answer(calls=CALLS), Answer("It is not locked: reset it."))
    assert [message["role"] for message in played.result] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    assert json.loads(played.result[4]["content"]) == {"user": "Zoë 🌦", "locked": False}
    assert played.injected == [IN_BOTH, IN_BOTH]
    assert played.sent[1].messages[1] == played.sent[0].messages[1]  # the knowledge stays as it is within the loop
    assert played.sent[0].json["tools"] == [TOOL]
    records = played.assert_one_conversation(2)
    assert [row["finish_reason"] for row in records] == ["tool_calls", "stop"]


def whole_message(client: OpenAI, asked: Any) -> dict[str, Any]:
    message: dict[str, Any] = client.chat.completions.create(**asked).choices[0].message.to_dict()
    return message


def streamed_message(client: OpenAI, asked: Any) -> dict[str, Any]:
    with client.chat.completions.stream(**asked) as stream:
        message: dict[str, Any] = stream.get_final_completion().choices[0].message.to_dict()
    for call in message.get("tool_calls") or []:
        call["function"].pop("parsed_arguments", None)  # the SDK's own, not the API's
    message.pop("parsed", None)
    return message


def test_structured_output_is_parsed_into_the_apps_own_model(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> Any:
        with client_of(endpoint) as client:
            completion = client.chat.completions.parse(
                model=endpoint.gpt, messages=[SYSTEM, USER], response_format=Advice
            )
            return completion.choices[0].message.parsed

    played = compare(ask, Answer(ADVICE.model_dump_json()))
    assert played.result == ADVICE
    assert played.injected == [IN_BOTH]
    assert played.sent[0].json["response_format"]["json_schema"]["strict"] is True
    played.assert_one_conversation(1)


def test_json_mode_and_unknown_fields_reach_the_provider(compare: Compare) -> None:
    messages: Any = [{**USER, "name": "ann", "x_part": [None, 1.50]}]

    def ask(endpoint: Endpoint) -> Any:
        with client_of(endpoint) as client:
            completion = client.chat.completions.create(
                model=endpoint.gpt,
                messages=messages,
                response_format={"type": "json_object"},
                extra_body={"x_vendor": {"deep": [1, None, "é"]}, "top_k": 40},
                extra_headers={"x-app-own": "kept"},
                extra_query={"api-version": "2026-01-01"},
            )
            return json.loads(completion.choices[0].message.content or "")

    played = compare(ask, Answer('{"locked": false}'))
    assert played.result == {"locked": False}
    assert played.injected == [{"messages[0]": "rule", "messages[1].content": "knowledge"}]
    (sent,) = played.sent
    assert sent.header("x-app-own") == "kept"
    assert sent.target == "/v1/chat/completions?api-version=2026-01-01"
    assert sent.json["x_vendor"] == {"deep": [1, None, "é"]}
    played.assert_one_conversation(1)


RESPONSES_TAUGHT = {"instructions": "rule", "input": "knowledge"}


def test_responses_that_follow_each_other_by_id_are_one_conversation(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> Any:
        with client_of(endpoint) as client:
            common: Any = {"model": endpoint.gpt, "instructions": SYSTEM["content"], "metadata": {"app": "desk"}}
            first = client.responses.create(**common, input=QUESTION)
            second = client.responses.create(
                **common, input=[{"role": "user", "content": QUESTION}], previous_response_id=first.id
            )
            return [first.output_text, second.output_text, second.previous_response_id == first.id]

    played = compare(ask, Answer("Under Security (ids)."), Answer("As I said."))
    assert played.result == ["Under Security (ids).", "As I said.", True]
    assert played.injected == [
        RESPONSES_TAUGHT,
        {"instructions": "rule", "input[0].content": "knowledge"},
    ]
    records = played.assert_one_conversation(2)
    assert [(row["endpoint"], row["question"]) for row in records] == [("/v1/responses", QUESTION)] * 2
    assert (records[0]["prompt_tokens"], records[0]["cached_tokens"]) == (N_PROMPT, N_CACHED)


def test_a_streamed_response_sends_every_event_of_the_api(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> Any:
        with (
            client_of(endpoint) as client,
            client.responses.stream(model=endpoint.gpt, instructions=SYSTEM["content"], input=QUESTION) as stream,
        ):
            # What the API says back of the instructions is what reached it, learned text and all.
            return [[event.type for event in stream], stream.get_final_response().output_text]

    played = compare(ask, Answer("Open Settings."))
    types, text = played.result
    assert text == "Open Settings."
    assert [kind.removeprefix("response.") for kind in types] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert played.injected == [RESPONSES_TAUGHT]
    (record,) = played.assert_one_conversation(1)
    assert json.loads(record["reply_json"])["content"] == text


@pytest.mark.parametrize("is_by_id", [False, True], ids=["with the whole input", "by the response's id"])
def test_a_responses_tool_loop_ends_in_an_answer(is_by_id: bool, compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> Any:
        common: Any = {"model": endpoint.gpt, "instructions": SYSTEM["content"], "tools": [FLAT_TOOL]}
        items: list[Any] = [USER]
        with client_of(endpoint) as client:
            with client.responses.stream(**common, input=items) as stream:
                first = stream.get_final_response()
            results = [
                {"type": "function_call_output", "call_id": call.call_id, "output": status_of(call.arguments)}
                for call in first.output
                if call.type == "function_call"
            ]
            if is_by_id:
                following: Any = {"input": results, "previous_response_id": first.id}
            else:
                calls = [item.to_dict() for item in first.output]
                for call in calls:
                    call.pop("parsed_arguments", None)  # the SDK's own, not the API's
                following = {"input": [*items, *calls, *results]}
            return [len(results), client.responses.create(**common, **following).output_text]

    played = compare(ask, Answer(calls=CALLS), Answer("It is not locked: reset it (loop)."))
    assert played.result == [2, "It is not locked: reset it (loop)."]
    first, second = played.injected
    assert first == {"instructions": "rule", "input[0].content": "knowledge"}
    assert second == ({"instructions": "rule"} if is_by_id else first)
    played.assert_one_conversation(2)


def test_a_response_is_parsed_into_the_apps_own_model(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> Any:
        with client_of(endpoint) as client:
            return client.responses.parse(model=endpoint.gpt, input=QUESTION, text_format=Advice).output_parsed

    played = compare(ask, Answer(ADVICE.model_dump_json()))
    assert played.result == ADVICE
    assert played.injected == [RESPONSES_TAUGHT]
    played.assert_one_conversation(1)


def test_embeddings_and_models_pass_through_unrecorded(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> Any:
        with client_of(endpoint) as client:
            found = client.embeddings.create(model=endpoint.gpt, input=["a", "b"], dimensions=3)
            return [[item.embedding for item in found.data], [model.id for model in client.models.list()]]

    played = compare(ask)
    assert played.result[0] == [[0.0, 0.25, 0.5], [1.0, 1.25, 1.5]]
    assert "gpt-4o" in played.result[1]
    assert [seen.body for seen in played.sent] == [seen.body for seen in played.plain]
    played.records(0)


def test_a_files_upload_passes_through_with_its_bytes(compare: Compare) -> None:
    content = b'{"messages": []}\n' * 5_000

    def ask(endpoint: Endpoint) -> Any:
        with client_of(endpoint) as client:
            return client.files.create(file=("training.jsonl", io.BytesIO(content)), purpose="fine-tune").to_dict()

    played = compare(ask)
    assert played.result["id"] == "file-scripted"
    (sent,) = played.sent
    assert content in sent.body
    assert b'name="purpose"' in sent.body
    assert (sent.header("content-type") or "").startswith("multipart/form-data; boundary=")


def test_the_async_client_streams_and_answers_at_the_same_time(compare: Compare) -> None:
    async def ask_all(endpoint: Endpoint) -> list[str]:
        async with AsyncOpenAI(api_key=endpoint.api_key, base_url=endpoint.base_url, timeout=CLIENT_S) as client:

            async def one() -> str:
                completion = await client.chat.completions.create(model=endpoint.gpt, messages=[SYSTEM, USER])
                return completion.choices[0].message.content or ""

            async def streamed() -> str:
                async with client.chat.completions.stream(model=endpoint.gpt, messages=[SYSTEM, USER]) as stream:
                    return "".join([event.delta async for event in stream if event.type == "content.delta"])

            return list(await asyncio.gather(one(), streamed(), one(), streamed()))

    played = compare(lambda endpoint: asyncio.run(ask_all(endpoint)), *[Answer("Under Security.")] * 4)
    assert played.result == ["Under Security."] * 4
    assert [seen.system_text.count("<learned_guidance>") for seen in played.sent] == [1] * 4
    assert [row["outcome"] for row in played.records(4)] == ["ok"] * 4


def test_raw_responses_show_the_providers_headers_and_the_id_of_the_record(compare: Compare) -> None:
    own_ids: list[str | None] = []

    def ask(endpoint: Endpoint) -> Any:
        with client_of(endpoint) as client:
            raw = client.chat.completions.with_raw_response.create(model=endpoint.gpt, messages=[SYSTEM, USER])
            own_ids.append(raw.headers.get("x-tutelage-response-id"))
            return [raw.request_id, raw.headers["content-type"], raw.parse().choices[0].message.content]

    played = compare(ask, Answer("Under Security."))
    assert played.result == ["req_scripted", "application/json", "Under Security."]
    (record,) = played.assert_one_conversation(1)
    assert own_ids == [None, record["id"]]


def chat(client: OpenAI, endpoint: Endpoint) -> None:
    client.chat.completions.create(model=endpoint.gpt, messages=[SYSTEM, USER])


def responses(client: OpenAI, endpoint: Endpoint) -> None:
    client.responses.create(model=endpoint.gpt, input=QUESTION)


BOTH_APIS = pytest.mark.parametrize("call", [chat, responses])


@BOTH_APIS
@pytest.mark.parametrize(
    ("status", "kind", "outcome"),
    [
        (400, openai.BadRequestError, "error"),
        (401, openai.AuthenticationError, "error"),
        (404, openai.NotFoundError, "error"),
        (429, openai.RateLimitError, "error"),
        (503, openai.InternalServerError, "upstream_error"),
    ],
)
def test_an_error_of_the_provider_is_the_sdks_own_error(
    status: int,
    kind: type[openai.APIStatusError],
    outcome: str,
    call: Callable[[OpenAI, Endpoint], None],
    compare: Compare,
) -> None:
    def ask(endpoint: Endpoint) -> Any:
        with client_of(endpoint, max_retries=0) as client, pytest.raises(kind) as caught:
            call(client, endpoint)
        return [caught.value.body, caught.value.request_id, caught.value.response.headers["retry-after"]]

    played = compare(ask, Failure(status, headers=(("retry-after", "17"),)))
    assert played.result[0]["message"] == "scripted failure"
    assert played.result[1:] == ["req_scripted", "17"]
    (record,) = played.records(1)
    assert (record["outcome"], record["status"]) == (outcome, status)


@BOTH_APIS
def test_the_sdk_tries_again_when_the_provider_says_so(
    call: Callable[[OpenAI, Endpoint], None], compare: Compare
) -> None:
    def ask(endpoint: Endpoint) -> None:
        with client_of(endpoint, max_retries=2) as client:
            call(client, endpoint)

    busy = Failure(429, headers=(("retry-after-ms", "5"),))
    played = compare(ask, busy, busy, Answer("Under Security."))
    assert [seen.header("x-stainless-retry-count") for seen in played.sent] == ["0", "1", "2"]
    played.assert_retried(2)


def chat_stream(client: OpenAI, endpoint: Endpoint) -> None:
    for _ in client.chat.completions.create(model=endpoint.gpt, messages=[SYSTEM, USER], stream=True):
        pass


def responses_stream(client: OpenAI, endpoint: Endpoint) -> None:
    with client.responses.stream(model=endpoint.gpt, input=QUESTION) as stream:
        stream.get_final_response()


BOTH_STREAMS = pytest.mark.parametrize("call", [chat_stream, responses_stream])


@BOTH_STREAMS
@pytest.mark.parametrize("end", ["cut", "error"])
def test_a_stream_that_breaks_in_the_middle_never_ends_quietly(
    end: Any, call: Callable[[OpenAI, Endpoint], None], compare: Compare
) -> None:
    def ask(endpoint: Endpoint) -> None:
        with (
            client_of(endpoint, max_retries=0) as client,
            pytest.raises((openai.APIError, httpx.TransportError, RuntimeError)),
        ):
            call(client, endpoint)

    played = compare(ask, Answer("Open Settings and then Security.", end=end))
    (record,) = played.records(1)
    assert record["outcome"] == "upstream_error"


def test_a_client_that_no_longer_waits_ends_the_providers_work(
    compare: Compare, taught: Product, provider_server: Upstream
) -> None:
    def ask(endpoint: Endpoint) -> None:
        with client_of(endpoint, max_retries=0, timeout=0.3) as client, pytest.raises(openai.APITimeoutError):
            chat(client, endpoint)

    n_before = provider_server.n_disconnects
    played = compare(ask, Answer("Too late.", delay_s=20))
    assert [row["outcome"] for row in played.records(1)] == ["cancelled"]
    assert eventually(lambda: provider_server.n_disconnects >= n_before + 2)


def test_a_client_that_leaves_a_stream_is_recorded_as_cancelled(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> Any:
        with client_of(endpoint) as client:
            stream = client.chat.completions.create(model=endpoint.gpt, messages=[SYSTEM, USER], stream=True)
            first = next(iter(stream)).to_dict()
            stream.close()
            return first

    played = compare(ask, Answer("word " * 20_000))
    assert [row["outcome"] for row in played.records(1)] == ["cancelled"]
