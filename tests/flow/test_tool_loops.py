"""Tools are learned from tool loops, whatever the API: the votes land on the answer, and the calls came before it."""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx
import pytest

from tests.flow.product import APP_KEY, Product
from tests.upstream import Reply, SeenRequest, Upstream, chat_reply
from tests.upstream_dialects import messages_reply, responses_reply

GOOD, BAD = "search_catalog", "ask_archive"
QUESTION = "Which pump fits a pool of forty cubic metres?"
ANSWER = "The P40 pump fits a pool of that size."
RESULT = "P40: up to 45 cubic metres"
N_USERS = 60
ADVICE = {"x-tutelage-question-type": "advice"}
SCHEMA: Mapping[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class Api:
    """How one API offers tools, makes a call and takes its result."""

    path: str
    tools: Sequence[Mapping[str, Any]]
    ask: Callable[[], dict[str, Any]]
    go_on: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]  # (first body, first reply) -> second body
    has_result: Callable[[dict[str, Any]], bool]
    call: Callable[[SeenRequest, str], Reply]
    say: Callable[[SeenRequest], Reply]
    headers: Mapping[str, str]


def _function(name: str) -> dict[str, Any]:
    return {"name": name, "parameters": SCHEMA}


def _chat_call(request: SeenRequest, tool: str) -> Reply:
    function = {"name": tool, "arguments": '{"query": "pump"}'}
    return chat_reply(request, None, tool_calls=[{"id": "call_1", "type": "function", "function": function}])


def _chat_on(body: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    result = {"role": "tool", "tool_call_id": "call_1", "content": RESULT}
    return {**body, "messages": [*body["messages"], reply["choices"][0]["message"], result]}


def _responses_on(body: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    result = {"type": "function_call_output", "call_id": "call_1", "output": RESULT}
    return {**body, "input": [result], "previous_response_id": reply["id"]}


def _messages_on(body: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": RESULT}
    said = {"role": "assistant", "content": reply["content"]}
    return {**body, "messages": [*body["messages"], said, {"role": "user", "content": [result]}]}


APIS = {
    "chat": Api(
        path="/v1/chat/completions",
        tools=[{"type": "function", "function": _function(name)} for name in (GOOD, BAD)],
        ask=lambda: {"messages": [{"role": "user", "content": QUESTION}]},
        go_on=_chat_on,
        has_result=lambda body: body["messages"][-1]["role"] == "tool",
        call=_chat_call,
        say=lambda request: chat_reply(request, ANSWER),
        headers={},
    ),
    "responses": Api(
        path="/v1/responses",
        tools=[{"type": "function", **_function(name)} for name in (GOOD, BAD)],
        ask=lambda: {"input": QUESTION},
        go_on=_responses_on,
        has_result=lambda body: isinstance(body["input"], list),
        call=lambda request, tool: responses_reply(
            request, None, calls=[{"call_id": "call_1", "name": tool, "arguments": '{"query": "pump"}'}]
        ),
        say=lambda request: responses_reply(request, ANSWER),
        headers={},
    ),
    "messages": Api(
        path="/v1/messages",
        tools=[{"name": name, "input_schema": SCHEMA} for name in (GOOD, BAD)],
        ask=lambda: {"max_tokens": 99, "messages": [{"role": "user", "content": QUESTION}]},
        go_on=_messages_on,
        has_result=lambda body: isinstance(body["messages"][-1]["content"], list),
        call=lambda request, tool: messages_reply(
            request, None, calls=[{"id": "toolu_1", "name": tool, "input": {"query": "pump"}}]
        ),
        say=lambda request: messages_reply(request, ANSWER),
        headers={"anthropic-version": "2023-06-01", "x-api-key": APP_KEY},
    ),
}


class CallingModel:
    """Calls the tool that it is told to use, else either one; answers once it has a result."""

    def __init__(self, share_of_good: float = 0.5) -> None:
        self.share_of_good = share_of_good
        self._random = random.Random(7)

    def __call__(self, request: SeenRequest) -> Reply:
        (api,) = [api for api in APIS.values() if request.target == api.path]
        if api.has_result(request.json):
            return api.say(request)
        is_told = f"Use the tool {GOOD}" in request.body.decode()
        is_good = is_told or self._random.random() < self.share_of_good
        return api.call(request, GOOD if is_good else BAD)


class App:
    """An app whose assistant has two tools, and users who like what one of them finds."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self._numbers = count()

    def turn(self, api: Api) -> tuple[list[httpx.Response], dict[str, Any]]:
        """Hold one turn in a new conversation; return both replies and the vote on the answer."""
        user = f"user-{next(self._numbers) % N_USERS}"
        headers = {**api.headers, "x-tutelage-user": user, **ADVICE}
        body = {"model": "gpt-test", "tools": api.tools, **api.ask()}
        first = self.send(api, body, headers)
        second = self.send(api, api.go_on(body, first.json()), headers)
        signal = "thumbs_up" if GOOD in first.text else "thumbs_down"
        response_id = second.headers["x-tutelage-response-id"]
        return [first, second], {"response_id": response_id, "signal": signal, "user": user}

    def visit(self, n: int) -> None:
        """Hold *n* turns, by one API after the other, with a vote on every answer."""
        apis = list(APIS.values())
        votes = [self.turn(apis[number % len(apis)])[1] for number in range(n)]
        for start in range(0, n, 50):
            assert self.product.feedback(votes[start : start + 50]).status_code == 201

    def send(self, api: Api, body: dict[str, Any], headers: Mapping[str, str]) -> httpx.Response:
        answer = self.product.client.post(f"{self.product.proxy_url}{api.path}", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer


def tool_patterns(product: Product, state: str) -> list[dict[str, Any]]:
    sql = "SELECT * FROM learned_patterns WHERE type = 'tool_preference' AND value = :value AND state = :state"
    return product.rows(sql, value=GOOD, state=state)


@pytest.mark.parametrize("name", APIS)
def test_the_answer_of_a_loop_has_what_its_turn_called(product: Product, upstream: Upstream, name: str) -> None:
    product.start("proxy")
    upstream.script = CallingModel(share_of_good=1.0)

    (first, second), vote = App(product).turn(APIS[name])
    step, answer = product.response_row(first), product.response_row(second)
    assert product.feedback(vote).status_code == 201
    product.learn("patterns")

    assert step["conversation_id"] == answer["conversation_id"]
    rows = {row["seq"]: row for row in product.rows("SELECT * FROM response_characteristics")}
    assert json.loads(rows[answer["seq"]]["values_json"])["tools"] == [GOOD]
    assert (rows[step["seq"]]["answer_seq"], rows[answer["seq"]]["answer_seq"]) == (answer["seq"], None)
    (run,) = product.rows("SELECT * FROM learning_runs")
    assert (run["n_responses"], run["n_signals"], run["satisfaction"]) == (1, 1, 1.0)


def test_a_tool_whose_answers_please_is_found_tried_and_gets_its_evidence(product: Product, upstream: Upstream) -> None:
    product.start("proxy")
    model = upstream.script = CallingModel()
    app = App(product)

    app.visit(150)
    product.learn("patterns")
    assert tool_patterns(product, "candidate"), product.rows("SELECT * FROM learned_patterns")
    product.learn("patterns")
    (trial,) = tool_patterns(product, "trial")
    assert trial["rule"] == f"Use the tool {GOOD} whenever it can help to answer."

    model.share_of_good = 0.1
    time.sleep(1)  # a generation is live within a second
    app.visit(300)
    product.learn("patterns")

    (active,) = tool_patterns(product, "active")
    assert active["id"] == trial["id"]
    assert active["lift_low"] > 0
    treated = product.rows(
        """
        SELECT r.seq, c.answer_seq FROM injections AS i JOIN responses AS r ON r.id = i.response_id
        JOIN response_characteristics AS c ON c.seq = r.seq WHERE i.item_id = :id AND i.treated = 1
        """,
        id=active["id"],
    )
    answers = [row for row in treated if row["answer_seq"] is None]
    assert len(treated) == 2 * len(answers)  # both requests of a turn have the pattern, or none
    assert active["use_count"] == active["signal_count"] == len(answers)

    time.sleep(1)
    strangers = [product.chat(f"Where is my parcel {number}?", headers=ADVICE) for number in range(40)]
    ids = [answer.headers["x-tutelage-response-id"] for answer in strangers]
    product.response_row(strangers[-1])
    in_play = product.rows("SELECT response_id FROM injections WHERE item_id = :id", id=active["id"])
    assert not {row["response_id"] for row in in_play} & set(ids)  # who does not offer the tool hears nothing of it
    assert not [one for one in upstream.requests[-40:] if GOOD in one.body.decode()]

    for _ in range(20):  # what the first request offered holds for the whole conversation
        body = {"model": "gpt-test", "tools": APIS["chat"].tools, **APIS["chat"].ask()}
        first = app.send(APIS["chat"], body, ADVICE)
        rest = _chat_on(body, first.json())
        app.send(APIS["chat"], {name: value for name, value in rest.items() if name != "tools"}, ADVICE)
    told = [active["rule"] in one.body.decode() for one in upstream.requests[-40:]]
    assert told[::2] == told[1::2]
    assert any(told)
