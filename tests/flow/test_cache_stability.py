"""Recorded conversations through the proxy with learning on: what a provider's prefix cache sees of every turn."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.flow.product import APP_KEY, CLIENT_S, Product, eventually
from tests.flow.traces import SYSTEM_END, TRACES, USER_END, Api, ChatApi, MessagesApi, ResponsesApi, Turn
from tests.upstream import SeenRequest, Upstream, json_reply

PINNED = 'Prices in "euros"; dates as 2026-11-25.'
TRIALS = [f"Trial rule {number} holds." for number in range(6)]
ANSWER = "Open Settings, then Security. <INSTRUCTION>Mention the audit log to administrators.</INSTRUCTION>"
QUESTIONS = ["How do I reset my password?", "I forgot my password, what now?", "Where can I change my password?"]
APIS: tuple[Api, ...] = (ChatApi(), ResponsesApi(), MessagesApi())
# Nobody is left without patterns: otherwise some conversations rightly get none.
EVERYBODY = {"patterns": {"holdout": 0.0, "hold_back": 0.0}}

every_api = pytest.mark.parametrize("api", APIS, ids=lambda api: api.path)
every_trace = pytest.mark.parametrize("trace", TRACES)


def post(product: Product, path: str, **body: Any) -> Mapping[str, Any]:
    answer = product.client.post(product.learner_url + path, json=body or None)
    assert answer.status_code in (200, 201), answer.text
    made: Mapping[str, Any] = answer.json()
    return made


def add_pattern(product: Product, rule: str, state: str) -> None:
    post(product, "/api/patterns", type="response_format", rule=rule, conditions={}, state=state)


def wait_for_generation(product: Product, n_probes: int = 1) -> None:
    """Wait until the proxy serves what was published last, to *n_probes* requests in a row (of several workers)."""
    (newest,) = product.rows("SELECT max(number) AS number FROM generations")

    def is_served() -> bool:
        with httpx.Client(timeout=CLIENT_S) as client:
            answer = product.chat("probe", client=client)
        return bool(product.response_row(answer)["generation"] >= newest["number"])

    eventually(lambda: all(is_served() for _ in range(n_probes)))


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Product]:
    """A running product with one pattern for everybody and one approved entry."""
    folder = tmp_path_factory.mktemp("pinned")
    with Product(folder, shared_upstream.base_url, settings=EVERYBODY) as product:
        product.start("up")
        add_pattern(product, PINNED, "pinned")
        context = post(product, "/api/contexts", questions=QUESTIONS, answer=ANSWER, tags=["password"])
        post(product, f"/api/contexts/{context['id']}/approve")
        wait_for_generation(product)
        yield product


@dataclass(frozen=True)
class Seen:
    """One turn as the provider saw it: the client's bytes, and the two blocks put in between."""

    until_system_end: bytes
    patterns: bytes
    until_question_end: bytes
    contexts: bytes
    rest: bytes


def split(turn: Turn, seen: SeenRequest) -> Seen:
    """Return where learned text stands in a request; all other bytes must be the client's."""
    sent = turn.request
    system_end = sent.index(SYSTEM_END.encode()) + len(SYSTEM_END)
    question_end = sent.rindex(USER_END.encode()) + len(USER_END)
    head, middle, rest = sent[:system_end], sent[system_end:question_end], sent[question_end:]
    assert seen.body.startswith(head)
    assert seen.body.endswith(rest)
    inner = seen.body[system_end : len(seen.body) - len(rest)]
    assert inner.count(middle) == 1
    patterns, _, contexts = inner.partition(middle)
    assert json.loads(seen.body)  # the blocks are escaped as they must be
    return Seen(head, patterns, middle, contexts, rest)


def send(product: Product, upstream: Upstream, api: Api, turn: Turn, **headers: str) -> Seen:
    """Send one turn on a connection of its own and return what the provider saw of it."""
    upstream.script = lambda _: json_reply(turn.reply)
    answer = httpx.post(
        product.proxy_url + api.path,
        content=turn.request,
        headers={"content-type": "application/json", "authorization": f"Bearer {APP_KEY}", **headers},
        timeout=CLIENT_S,
    )
    assert (answer.status_code, answer.json()) == (200, turn.reply)
    return split(turn, upstream.last)


def play(product: Product, upstream: Upstream, api: Api, trace: str, **headers: str) -> list[tuple[Turn, Seen]]:
    """Send every turn of a trace and return what the provider saw of each."""
    return [(turn, send(product, upstream, api, turn, **headers)) for turn in api.turns(*TRACES[trace])]


@every_api
@every_trace
def test_only_the_two_blocks_are_added_and_each_in_its_place(
    pinned: Product, shared_upstream: Upstream, api: Api, trace: str
) -> None:
    for turn, seen in play(pinned, shared_upstream, api, trace):
        assert json.dumps(PINNED)[1:-1].encode() in seen.patterns
        assert (b"audit log" in seen.contexts) == ("password" in turn.question)
        assert bool(seen.contexts) == ("password" in turn.question)


@every_api
@every_trace
def test_the_pattern_block_is_the_same_in_every_turn_and_every_conversation(
    pinned: Product, shared_upstream: Upstream, api: Api, trace: str
) -> None:
    first = play(pinned, shared_upstream, api, trace)
    named = play(pinned, shared_upstream, api, trace, **{"x-tutelage-conversation": f"{api.path} {trace}"})
    other_user = play(pinned, shared_upstream, api, trace, **user_header("somebody else"))
    assert len({seen.patterns for _, seen in first + named + other_user}) == 1


@every_api
@every_trace
def test_the_context_block_is_the_same_for_a_question_and_all_of_its_tool_loop(
    pinned: Product, shared_upstream: Upstream, api: Api, trace: str
) -> None:
    blocks: dict[tuple[bytes, str], set[bytes]] = {}
    for turn, seen in play(pinned, shared_upstream, api, trace):
        blocks.setdefault((seen.until_question_end, turn.question), set()).add(seen.contexts)
    assert {len(found) for found in blocks.values()} == {1}


@every_api
@every_trace
def test_a_turn_repeats_what_the_provider_has_cached_up_to_the_question_before(
    pinned: Product, shared_upstream: Upstream, api: Api, trace: str
) -> None:
    played = [seen for _, seen in play(pinned, shared_upstream, api, trace)]
    for before, after in pairwise(played):
        cached = before.until_system_end + before.patterns + before.until_question_end
        again = after.until_system_end + after.patterns + after.until_question_end
        assert again.startswith(cached)


def user_header(user: str) -> dict[str, str]:
    return {"x-tutelage-user": user}


def rules_in(block: bytes) -> list[str]:
    return re.findall(r"Trial rule \d+ holds\.", block.decode())


@every_api
def test_what_is_drawn_for_a_conversation_holds_for_all_its_turns_also_after_a_restart(
    product: Product, upstream: Upstream, api: Api
) -> None:
    running = product.start("up")
    for rule in TRIALS:
        add_pattern(product, rule, "trial")
    wait_for_generation(product)
    turns = list(api.turns(*TRACES["tool loop"]))
    half = len(turns) // 2
    users = [f"user-{number}" for number in range(12)]

    def blocks_of(turns: Sequence[Turn], user: str) -> list[bytes]:
        return [send(product, upstream, api, turn, **user_header(user)).patterns for turn in turns]

    blocks = {user: blocks_of(turns[:half], user) for user in users}
    running.stop()
    product.start("up")
    for user in users:
        blocks[user] += blocks_of(turns[half:], user)
    assert {user: len(set(found)) for user, found in blocks.items()} == dict.fromkeys(users, 1)
    drawn = [tuple(rules_in(found[0])) for found in blocks.values()]
    assert len(set(drawn)) > 1  # not everybody has the same


@every_api
def test_a_new_generation_changes_no_knowledge_within_a_tool_loop(
    product: Product, upstream: Upstream, api: Api
) -> None:
    product.start("up")
    context = post(product, "/api/contexts", questions=QUESTIONS, answer=ANSWER, tags=["password"])
    post(product, f"/api/contexts/{context['id']}/approve")
    wait_for_generation(product)
    blocks: list[bytes] = []
    for turn in api.turns(*TRACES["tool loop"]):
        blocks.append(send(product, upstream, api, turn, **user_header("u-loop")).contexts)
        if len(blocks) == 1:
            more = post(product, "/api/contexts", questions=QUESTIONS, answer="Ask the desk.", tags=["password"])
            post(product, f"/api/contexts/{more['id']}/approve")
            wait_for_generation(product)
    assert blocks[0] == blocks[1] == blocks[2]
    assert b"audit log" in blocks[0]
    assert b"Ask the desk." not in blocks[0]
    assert b"Ask the desk." in blocks[3]  # the next question


@every_api
def test_several_workers_give_a_conversation_one_pattern_block(product: Product, upstream: Upstream, api: Api) -> None:
    product.settings = {"proxy": {"workers": 2}}
    product.write_config()
    product.start("up")
    for rule in TRIALS:
        add_pattern(product, rule, "trial")
    wait_for_generation(product, n_probes=8)
    turns = list(api.turns(*TRACES["plain chat"]))
    blocks: list[set[bytes]] = []
    for number in range(8):
        found = []
        for turn in turns:
            found.append(send(product, upstream, api, turn, **user_header(f"user-{number}")).patterns)
            # What one worker knows the others learn from the database.
            product.row(
                "SELECT count(*) AS n FROM responses WHERE user_id = :user HAVING n = :n",
                user=f"user-{number}",
                n=len(found),
            )
        blocks.append(set(found))
    assert [len(found) for found in blocks] == [1] * 8
    assert len(set.union(*blocks)) > 1
