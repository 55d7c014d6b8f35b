"""The Responses and the Messages API through the whole proxy: injected, recorded, linked, answered in their shape."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.flow.product import APP_KEY, Product, eventually
from tests.flow.test_injection import ANSWER, QUESTIONS, add_context, add_pattern, wait_for_generation
from tests.upstream import Reply, SeenRequest, Upstream, error_reply
from tests.upstream_dialects import (
    message_events,
    message_object,
    messages_reply,
    response_events,
    response_object,
    responses_reply,
    typed_sse,
)

RULE = "Name the source of each figure."
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
VERSION = {"anthropic-version": "2023-06-01", "x-api-key": APP_KEY}
SYSTEM = "Be kind."
MESSAGES_CALL = {"id": "toolu_1", "name": "lookup", "input": {"a": 1}}
RESPONSES_CALL = {"call_id": "call_1", "name": "lookup", "arguments": '{"a": 1}'}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Product]:
    """A running installation that serves one pattern to every conversation and one entry."""
    settings = {"patterns": {"holdout": 0.0}}
    with Product(tmp_path_factory.mktemp("dialects"), shared_upstream.base_url, settings) as product:
        product.start("up")
        add_pattern(product, RULE)
        context_id = add_context(product, QUESTIONS, ANSWER)
        product.client.post(f"{product.learner_url}/api/contexts/{context_id}/approve").raise_for_status()
        wait_for_generation(product)
        yield product


def send(product: Product, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return product.client.post(f"{product.proxy_url}{path}", json=body, headers=headers)


def respond(product: Product, body: dict[str, Any], **headers: str) -> httpx.Response:
    answer = send(product, RESPONSES, {"model": "gpt-test", **body}, **headers)
    assert answer.status_code == 200, answer.text
    return answer


def message(product: Product, body: dict[str, Any], **headers: str) -> httpx.Response:
    answer = send(product, MESSAGES, {"model": "claude-test", "max_tokens": 99, **body}, **VERSION, **headers)
    assert answer.status_code == 200, answer.text
    return answer


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_response_is_injected_relayed_and_recorded(
    learned: Product, shared_upstream: Upstream, is_stream: bool
) -> None:
    shared_upstream.script = lambda request: responses_reply(request, "Open Settings.", reply_id=f"r_{is_stream}")
    body = {"instructions": SYSTEM, "input": QUESTIONS[0], "stream": is_stream, "user": "u", "store": False}
    answer = respond(learned, body)
    seen = shared_upstream.last
    assert seen.target == RESPONSES
    assert seen.json["instructions"].startswith(SYSTEM)
    assert RULE in seen.json["instructions"]
    assert seen.json["input"].startswith(QUESTIONS[0])
    assert ANSWER in seen.json["input"]
    assert {**seen.json, "instructions": SYSTEM, "input": QUESTIONS[0]} == {"model": "gpt-test", **body}
    assert answer.content == b"".join(shared_upstream.script(seen).parts)
    row = learned.response_row(answer)
    assert (row["endpoint"], row["outcome"], row["upstream_id"]) == (RESPONSES, "ok", f"r_{is_stream}")
    assert (row["prompt_tokens"], row["completion_tokens"], row["cached_tokens"]) == (30, 5, 20)
    assert (row["user_id"], row["finish_reason"], bool(row["is_stream"])) == ("u", "stop", is_stream)
    assert json.loads(row["messages_json"]) == [{"role": "system", "content": SYSTEM}, user(QUESTIONS[0])]
    assert json.loads(row["reply_json"])["content"].strip() == "Open Settings."
    assert row["injected_tokens"] > 0


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_message_is_injected_relayed_and_recorded(
    learned: Product, shared_upstream: Upstream, is_stream: bool
) -> None:
    shared_upstream.script = lambda request: messages_reply(request, "Open Settings.", reply_id=f"m_{is_stream}")
    system = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]
    asked = user([{"type": "text", "text": QUESTIONS[0], "cache_control": {"type": "ephemeral"}}])
    body = {"system": system, "messages": [asked], "stream": is_stream, "metadata": {"user_id": "u"}}
    answer = message(learned, body)
    seen = shared_upstream.last
    assert seen.header("anthropic-version") == "2023-06-01"
    assert seen.json["system"][0] == system[0]
    assert RULE in seen.json["system"][1]["text"]
    assert seen.json["messages"][0]["content"][0] == asked["content"][0]
    assert ANSWER in seen.json["messages"][0]["content"][1]["text"]
    assert seen.body.count(b"cache_control") == 2
    assert answer.content == b"".join(shared_upstream.script(seen).parts)
    row = learned.response_row(answer)
    assert (row["endpoint"], row["outcome"], row["upstream_id"]) == (MESSAGES, "ok", f"m_{is_stream}")
    assert (row["prompt_tokens"], row["completion_tokens"], row["cached_tokens"]) == (30, 5, 20)
    assert (row["user_id"], row["finish_reason"], bool(row["is_stream"])) == ("u", "stop", is_stream)
    assert [recorded["role"] for recorded in json.loads(row["messages_json"])] == ["system", "user"]
    assert ANSWER not in row["messages_json"]
    assert json.loads(row["reply_json"])["content"].strip() == "Open Settings."


def test_a_previous_response_links_the_conversation_whoever_asks(learned: Product, shared_upstream: Upstream) -> None:
    shared_upstream.script = responses_reply
    first = respond(learned, {"instructions": SYSTEM, "input": "How do I pay?"})
    reply_id = first.json()["id"]
    blocks = [shared_upstream.last.json["instructions"]]
    second = respond(learned, {"instructions": SYSTEM, "input": "By card?", "previous_response_id": reply_id})
    blocks.append(shared_upstream.last.json["instructions"])
    rows = [learned.response_row(answer) for answer in (first, second)]
    assert rows[0]["conversation_id"] == rows[1]["conversation_id"]
    assert blocks[0] == blocks[1]
    assert json.loads(rows[1]["messages_json"]) == [user("By card?")]
    conversation = learned.client.get(f"{learned.learner_url}/api/conversations/{rows[0]['conversation_id']}").json()
    assert [said["role"] for said in conversation["messages"]] == ["system", "user", "assistant", "user", "assistant"]


def test_a_conversation_that_the_upstream_keeps_is_the_conversation(
    learned: Product, shared_upstream: Upstream
) -> None:
    shared_upstream.script = responses_reply
    named = respond(learned, {"input": "How do I pay?", "conversation": {"id": "conv_up"}})
    renamed = respond(
        learned, {"input": "How do I pay?", "conversation": "conv_up"}, **{"x-tutelage-conversation": "mine"}
    )
    assert [learned.response_row(answer)["conversation_id"] for answer in (named, renamed)] == ["conv_up", "mine"]


def test_both_blocks_stay_byte_equal_through_a_tool_loop_of_messages(
    learned: Product, shared_upstream: Upstream
) -> None:
    shared_upstream.script = lambda request: messages_reply(request, "Wait.", calls=[MESSAGES_CALL])
    loop = [user(QUESTIONS[0])]
    prefixes, conversations = [], []
    for step in range(3):
        answer = message(learned, {"system": SYSTEM, "messages": loop})
        sent = shared_upstream.last.json
        prefixes.append((sent["system"], sent["messages"][0]))
        assert sent["messages"][1:] == loop[1:]
        conversations.append(learned.response_row(answer)["conversation_id"])
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": f"result {step}"}
        loop += [{"role": "assistant", "content": answer.json()["content"]}, user([result])]
    assert prefixes == [prefixes[0]] * 3
    assert ANSWER in prefixes[0][1]["content"]
    assert len(set(conversations)) == 1


def test_both_blocks_stay_byte_equal_through_a_tool_loop_of_responses(
    learned: Product, shared_upstream: Upstream
) -> None:
    shared_upstream.script = lambda request: responses_reply(request, None, calls=[RESPONSES_CALL])
    loop: list[Any] = [{"role": "developer", "content": SYSTEM}, user(QUESTIONS[0])]
    prefixes, conversations = [], []
    for step in range(3):
        answer = respond(learned, {"input": loop})
        sent = shared_upstream.last.json["input"]
        prefixes.append(sent[:2])
        assert sent[2:] == loop[2:]
        conversations.append(learned.response_row(answer)["conversation_id"])
        output = {"type": "function_call_output", "call_id": "call_1", "output": f"result {step}"}
        loop += [*answer.json()["output"], output]
    assert prefixes == [prefixes[0]] * 3
    assert RULE in prefixes[0][0]["content"]
    assert ANSWER in prefixes[0][1]["content"]
    assert len(set(conversations)) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RESPONSES, {"model": "gpt-test", "input": 5}),
        (MESSAGES, {"model": "claude-test", "messages": 5}),
    ],
)
def test_a_bad_body_is_refused_in_the_apis_shape(learned: Product, path: str, body: dict[str, Any]) -> None:
    answer = send(learned, path, body)
    assert answer.status_code == 400
    message = {RESPONSES: "'input' must be a string or a list.", MESSAGES: "'messages' must be a list."}[path]
    assert answer.json()["error"]["message"] == message
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json().get("type") == {RESPONSES: None, MESSAGES: "error"}[path]


def test_an_unreachable_upstream_is_told_in_anthropics_shape_wherever_its_client_asks(
    learned: Product, shared_upstream: Upstream
) -> None:
    shared_upstream.script = lambda _: Reply((), end="reset")
    body = {"model": "claude-test", "max_tokens": 9, "messages": [user("hi")]}
    answers = [
        send(learned, MESSAGES, body),
        send(learned, f"{MESSAGES}/count_tokens", body),
        learned.client.get(f"{learned.proxy_url}/v1/models", headers=VERSION),
    ]
    assert [answer.status_code for answer in answers] == [502] * 3
    assert [(answer.json()["type"], answer.json()["error"]["type"]) for answer in answers] == [
        ("error", "api_error")
    ] * 3


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
def test_an_error_of_the_upstream_comes_through_as_it_is_and_is_no_success(
    learned: Product, shared_upstream: Upstream, path: str
) -> None:
    shared_upstream.script = lambda _: error_reply(429, retry_after="3")
    answer = send(learned, path, {"model": "m", "input": "hi", "messages": [user("hi")]})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json()["error"]["code"] == "scripted"
    assert learned.response_row(answer)["outcome"] == "error"


RESPONSE_EVENTS = typed_sse(response_events(response_object("Never said.", reply_id="cut")))
MESSAGE_EVENTS = typed_sse(message_events(message_object("Never said.", reply_id="cut")))


@pytest.mark.parametrize(("path", "events"), [(RESPONSES, RESPONSE_EVENTS), (MESSAGES, MESSAGE_EVENTS)])
def test_a_stream_that_lacks_its_last_event_is_no_success(
    learned: Product, shared_upstream: Upstream, path: str, events: tuple[bytes, ...]
) -> None:
    stream = ((b"content-type", b"text/event-stream"),)
    n_sent = {RESPONSES: len(events) - 1, MESSAGES: len(events) - 2}[path]
    shared_upstream.script = lambda _: Reply(events[:n_sent], headers=stream, is_chunked=True)
    answer = send(learned, path, {"model": "m", "input": "hi", "messages": [user("hi")], "stream": True})
    assert answer.content == b"".join(events[:n_sent])
    assert learned.response_row(answer)["outcome"] == "upstream_error"


def scripted_gaps(request: SeenRequest) -> Reply:
    """The last event, then silence: the connection stays open."""
    events = {RESPONSES: RESPONSE_EVENTS, MESSAGES: MESSAGE_EVENTS}[request.target]
    return Reply(events, headers=((b"content-type", b"text/event-stream"),), is_chunked=True, end="stall")


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
def test_the_record_is_written_with_the_last_event_though_the_connection_stays_open(
    learned: Product, shared_upstream: Upstream, path: str
) -> None:
    shared_upstream.script = scripted_gaps
    body = {"model": "m", "input": "hi", "messages": [user("hi")], "stream": True}
    with learned.client.stream("POST", f"{learned.proxy_url}{path}", json=body) as answer:
        ended = {RESPONSES: b"response.completed", MESSAGES: b"message_stop"}[path]
        next(piece for piece in answer.iter_bytes() if ended in piece)
        row = eventually(
            lambda: learned.rows(
                "SELECT outcome FROM responses WHERE id = :id", id=answer.headers["x-tutelage-response-id"]
            )
        )[0]
    assert row["outcome"] == "ok"


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
def test_with_learning_off_a_body_of_any_kind_goes_upstream_as_it_is(
    learned: Product, shared_upstream: Upstream, path: str
) -> None:
    shared_upstream.script = lambda _: Reply((b"judged",), status=400)
    answer = learned.client.post(
        f"{learned.proxy_url}{path}", content=b'{"messages": [', headers={"x-tutelage-learn": "off"}
    )
    assert (answer.status_code, answer.content) == (400, b"judged")
    assert shared_upstream.last.body == b'{"messages": ['
