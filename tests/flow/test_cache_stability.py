"""Recorded conversations through the proxy with learning on: what a provider's prefix cache sees of every turn."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest

from tests.flow.product import Product, eventually
from tests.flow.raw import BEARER, CHAT, JSON_TYPE, chat_body, client_of
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


def add_context(product: Product, answer: str) -> None:
    context = post(product, "/api/contexts", questions=QUESTIONS, answer=answer, tags=["password"])
    post(product, f"/api/contexts/{context['id']}/approve")


def wait_for_generation(product: Product, n_probes: int = 1) -> None:
    """Wait until the proxy serves what was published last, to *n_probes* requests in a row (of several workers)."""
    (newest,) = product.rows("SELECT max(number) AS number FROM generations")

    def is_served() -> bool:
        with client_of(product) as client:
            (response_id,) = client.ask(b"POST", CHAT, chat_body("probe")).values(b"x-tutelage-response-id")
        record = product.row("SELECT generation FROM responses WHERE id = :id", id=response_id.decode())
        return bool(record["generation"] >= newest["number"])

    eventually(lambda: all(is_served() for _ in range(n_probes)))


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Product]:
    """A running product with one pattern for everybody and one approved entry."""
    folder = tmp_path_factory.mktemp("pinned")
    with Product(folder, shared_upstream.base_url, settings=EVERYBODY) as product:
        product.start("up")
        add_pattern(product, PINNED, "pinned")
        add_context(product, ANSWER)
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
    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    with client_of(product) as client:
        answer = client.ask(b"POST", api.path.encode(), turn.request, [JSON_TYPE, BEARER, *named])
    assert (answer.status, json.loads(answer.body)) == (200, turn.reply)
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


def test_what_is_drawn_for_a_conversation_holds_for_all_its_turns_also_after_a_restart(
    product: Product, upstream: Upstream
) -> None:
    running = product.start("up")
    for rule in TRIALS:
        add_pattern(product, rule, "trial")
    wait_for_generation(product)
    blocks: dict[tuple[str, int], list[bytes]] = defaultdict(list)

    def play_part(turns: slice) -> None:
        for api in APIS:
            for turn in list(api.turns(*TRACES["tool loop"]))[turns]:
                for user in range(8):
                    seen = send(product, upstream, api, turn, **user_header(f"user-{user}"))
                    blocks[api.path, user].append(seen.patterns)

    play_part(slice(4))  # ends within the second tool loop
    running.stop()
    product.start("up")
    play_part(slice(4, None))
    assert {key: len(set(found)) for key, found in blocks.items()} == dict.fromkeys(blocks, 1)
    assert len({tuple(rules_in(found[0])) for found in blocks.values()}) > 1  # not everybody has the same


def test_a_new_generation_changes_no_knowledge_within_a_tool_loop(product: Product, upstream: Upstream) -> None:
    product.start("up")
    add_context(product, ANSWER)
    wait_for_generation(product)
    turns = {api: list(api.turns(*TRACES["tool loop"])) for api in APIS}

    def blocks_of(number: int) -> list[bytes]:
        return [send(product, upstream, api, turns[api][number], **user_header("u")).contexts for api in APIS]

    asked = blocks_of(0)
    add_context(product, "Ask the desk.")
    wait_for_generation(product)
    looped = [blocks_of(1), blocks_of(2)]
    next_question = blocks_of(3)
    assert looped == [asked, asked]
    assert all(b"audit log" in block and b"Ask the desk." not in block for block in asked)
    assert all(b"Ask the desk." in block for block in next_question)


def responses_turns(name: str) -> Iterator[tuple[bytes, Mapping[str, Any]]]:
    """Yield requests and replies of a conversation with a tool loop whose history the upstream keeps."""
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": "{}"}
    text = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Done."}]}
    result = {"type": "function_call_output", "call_id": "call_1", "output": "legacy"}
    steps: list[tuple[Any, Any]] = [("How?", text), ("Look it up.", call), ([result], text), ("Thanks!", text)]
    previous = None
    for number, (said, output) in enumerate(steps):
        body = {"model": "m", "instructions": SYSTEM_END, "input": said, "previous_response_id": previous}
        previous = f"resp_{name}_{number}"
        yield json.dumps(body).encode(), {"id": previous, "status": "completed", "output": [output]}


def instructions_of(product: Product, upstream: Upstream, request: bytes, reply: Mapping[str, Any], tag: str) -> str:
    """Send one turn on a connection of its own and return the instructions that the provider saw."""
    upstream.script = lambda _: json_reply(reply)
    with client_of(product) as client:
        headers = [JSON_TYPE, BEARER, (b"x-tutelage-tags", tag.encode())]
        assert client.ask(b"POST", b"/v1/responses", request, headers).status == 200
    return str(json.loads(upstream.last.body)["instructions"])


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Product]:
    """A running product with two workers and six rules on trial."""
    folder = tmp_path_factory.mktemp("workers")
    with Product(folder, shared_upstream.base_url, settings={"proxy": {"workers": 2}}) as product:
        product.start("up")
        for rule in TRIALS:
            add_pattern(product, rule, "trial")
        wait_for_generation(product, n_probes=16)
        yield product


def assert_one_conversation_each(product: Product, n_turns: Mapping[str, int]) -> None:
    """Assert that all turns that carried a tag were recorded as one conversation; its turns by tag are given."""
    n_sent = sum(n_turns.values())
    tags = [json.dumps([tag]) for tag in n_turns]
    marks = ", ".join(f":tag_{number}" for number in range(len(tags)))
    given = {f"tag_{number}": tag for number, tag in enumerate(tags)}
    product.row(f"SELECT count(*) AS n FROM responses WHERE tags_json IN ({marks}) HAVING n = :n", n=n_sent, **given)
    split_up = product.rows(
        f"""
        SELECT tags_json, count(*) AS n_turns, count(DISTINCT conversation_id) AS n FROM responses
        WHERE tags_json IN ({marks}) GROUP BY tags_json HAVING n > 1
        """,
        **given,
    )
    assert split_up == []


@every_api
@pytest.mark.parametrize("trace", ["plain chat", "tool loop"])
def test_a_turn_that_comes_to_another_worker_at_once_finds_its_conversation_by_its_history(
    two_workers: Product, shared_upstream: Upstream, api: Api, trace: str
) -> None:
    blocks: dict[str, list[bytes]] = defaultdict(list)
    for number in range(12):
        tag = f"{trace} {number} {api.path}"
        for turn in api.turns(*TRACES[trace]):
            own = replace(turn, request=turn.request.replace(b"How do I", f"[{number}] How do I".encode()))
            blocks[tag].append(send(two_workers, shared_upstream, api, own, **{"x-tutelage-tags": tag}).patterns)
    assert {tag: len(set(found)) for tag, found in blocks.items()} == dict.fromkeys(blocks, 1)
    assert_one_conversation_each(two_workers, {tag: len(found) for tag, found in blocks.items()})


def test_a_turn_that_comes_to_another_worker_at_once_finds_its_conversation_by_the_response_before(
    two_workers: Product, shared_upstream: Upstream
) -> None:
    blocks: dict[str, list[str]] = defaultdict(list)
    for number in range(16):
        tag = f"kept-{number}"
        for request, reply in responses_turns(tag):
            blocks[tag].append(instructions_of(two_workers, shared_upstream, request, reply, tag))
    assert {tag: len(set(found)) for tag, found in blocks.items()} == dict.fromkeys(blocks, 1)
    assert len({tuple(found) for found in blocks.values()}) > 1
    assert_one_conversation_each(two_workers, dict.fromkeys(blocks, 4))


@every_api
def test_several_workers_give_a_known_users_conversation_one_pattern_block(
    two_workers: Product, shared_upstream: Upstream, api: Api
) -> None:
    blocks: dict[int, list[bytes]] = defaultdict(list)
    for turn in api.turns(*TRACES["plain chat"]):
        for user in range(12):
            seen = send(two_workers, shared_upstream, api, turn, **user_header(f"{api.path}-{user}"))
            blocks[user].append(seen.patterns)
    assert {user: len(set(found)) for user, found in blocks.items()} == dict.fromkeys(blocks, 1)
    assert len({tuple(rules_in(found[0])) for found in blocks.values()}) > 1


def test_a_named_conversation_that_comes_to_another_worker_at_once_keeps_what_its_first_turn_was_about(
    two_workers: Product, shared_upstream: Upstream
) -> None:
    """Its patterns hang on the type of its first question, whatever is asked later."""
    conditions = {"question_type": ["howto"]}
    rule = {"type": "response_format", "rule": PINNED, "conditions": conditions, "state": "pinned"}
    post(two_workers, "/api/patterns", **rule)
    wait_for_generation(two_workers, n_probes=16)
    api = APIS[0]
    blocks: dict[int, list[bytes]] = defaultdict(list)
    for number in range(12):
        for turn, kind in zip(api.turns(*TRACES["plain chat"]), ["howto", "chat", "chat", "chat"], strict=True):
            own = {"x-tutelage-conversation": f"named {number}", "x-tutelage-question-type": kind}
            blocks[number].append(send(two_workers, shared_upstream, api, turn, **own).patterns)
    assert {number: len(set(found)) for number, found in blocks.items()} == dict.fromkeys(blocks, 1)
