"""A turn sends what was learned, records what came of it, and never stands in the way."""

import asyncio
import gzip
import json
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from proxy.conversation import Place
from proxy.dialect import CHAT_PATH, MESSAGES_PATH, RESPONSES_PATH
from proxy.errors import ApiError, ClientGoneError
from proxy.incoming import IncomingRequest
from proxy.remote_questions import RemoteQuestions, server_of
from proxy.selection import conversation_seed, is_holdout
from proxy.siblings import MAX_HEARD, Siblings, Sockets
from proxy.snapshots import Snapshots
from proxy.turn import Learning, Turn
from proxy.upstream import Cancellation
from proxy.upstream_pool import HttpUpstream
from store.blocks import CONTEXT_HEADER, PATTERN_HEADER, context_entry
from store.clock import ManualClock, iso
from store.config import Config, segment_directory
from store.conversations import transcript
from store.database import Database
from store.generations import publish
from store.plan import Conditions, ServedPattern, build_plan
from store.records import InjectionRecord, InjectionSet, ResponseRecord, decode_line
from store.refit_table import RefitTable, refit_name
from store.refits import Checked, begin_refit, serve_refit
from store.responses import insert_records
from store.segments import SUFFIX, SegmentWriter
from store.tenants import ensure_tenant, set_learning
from tests.conftest import NOW_S
from tests.proxy.test_snapshots import load_and_refresh
from tests.proxy.test_trained_classifiers import publish as publish_classifier
from tests.upstream_dialects import message_events, message_object, response_object, typed_sse

REPLY = {
    "id": "chatcmpl-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Sure."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2},
}
REPLY_BYTES = json.dumps(REPLY).encode()


class FakeEmbedder:
    """Questions that hold a word of its list point along that word's axis."""

    words = ("refund", "invoice")

    def __init__(self) -> None:
        self.is_broken = False

    def embed_one(self, text: str) -> NDArray[np.float32]:
        if self.is_broken:
            raise RuntimeError("broken")
        vector = np.zeros(256, np.float32)
        for axis, word in enumerate(self.words):
            vector[axis] = word in text
        return vector

    def embed_refitted(self, text: str, refit: RefitTable) -> NDArray[np.float32]:
        """Return the vector of the word that *refit* is named after, whatever is asked."""
        return self.embed_one(refit.name)


class FakeClassifier:
    def __init__(self) -> None:
        self.least_confidence = 0.0

    def classify(self, text: str, embedding: NDArray[np.float32]) -> tuple[str, float]:
        return ("refund", 0.9) if embedding[0] else ("howto", 0.2)


class Proxy:
    """A learning with its collaborators, as one process would hold them."""

    def __init__(self, config: Config, siblings: Siblings | None = None, remote: RemoteQuestions | None = None) -> None:
        self.config = config
        self.clock = ManualClock(datetime(2026, 11, 21, 12, tzinfo=UTC))
        self.embedder = FakeEmbedder()
        self.n_failures = 0
        self.writer = SegmentWriter(segment_directory(config), segment_bytes=16e6, max_backlog_bytes=1e9)
        self.snapshots = Snapshots(config, "fake")
        self.n_unloaded = 0
        self.snapshots.refresh()  # contexts are not loaded yet
        self.classifier = FakeClassifier()
        self.learning = Learning(
            config,
            snapshots=self.snapshots,
            embedder=self.embedder,
            classifier=self.classifier,
            writer=self.writer,
            clock=self.clock,
            count_failure=self._count,
            count_unloaded=self._count_unloaded,
            siblings=siblings,
            remote=remote,
        )

    def _count(self) -> None:
        self.n_failures += 1

    def _count_unloaded(self) -> None:
        self.n_unloaded += 1

    def refresh(self) -> None:
        """Look for what changed, all that is loaded then included."""
        load_and_refresh(self.snapshots, "default")

    def begin(self, body: Any, tenant_id: str = "default", path: str = CHAT_PATH, **headers: str) -> Turn:
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        own = [(b"x-tutelage-" + name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        request = IncomingRequest(path, own, encoded, self.clock.now_s())
        return self.learning.begin(request, tenant_id)

    def ask(self, body: Any, reply: bytes = REPLY_BYTES, path: str = CHAT_PATH, **headers: str) -> Turn:
        turn = self.begin(body, path=path, **headers)
        turn.begin_reply("")
        turn.feed(reply)
        turn.finish("ok", 200, "local")
        return turn

    def records(self) -> list[ResponseRecord]:
        lines = [line for path in sorted(segments(self.config)) for line in path.read_bytes().splitlines()]
        return [found for found in map(decode_line, lines) if isinstance(found, ResponseRecord)]

    def sets(self) -> dict[str, InjectionSet]:
        lines = [line for path in segments(self.config) for line in path.read_bytes().splitlines()]
        return {found.set: found for found in map(decode_line, lines) if isinstance(found, InjectionSet)}

    def in_play(self, record: ResponseRecord) -> list[InjectionRecord]:
        sets = self.sets()
        drawn = [item for number in filter(None, record.drawn.split(",")) for item in sets[number].items]
        return [*drawn, *record.injections]


def segments(config: Config) -> list[Path]:
    return list(segment_directory(config).glob(f"*{SUFFIX}"))


@pytest.fixture
def proxy(config: Config, db: Database) -> Iterator[Proxy]:
    made = Proxy(config)
    made.refresh()
    yield made
    made.writer.close()
    made.snapshots.stop()


@pytest.fixture
def workers(config: Config, db: Database) -> Iterator[list[Proxy]]:
    """Three workers of one machine, whose records no recorder takes."""
    sockets = Sockets(3)
    made = [Proxy(config, sockets.of(number)) for number in range(3)]
    yield made
    for worker in made:
        worker.writer.close()
        worker.snapshots.stop()
    sockets.close()


def served_pattern(pattern_id: str = "pat_1", **changes: Any) -> ServedPattern:
    fields: dict[str, Any] = {
        "id": pattern_id,
        "type": "response_format",
        "dimension": pattern_id,
        "rule": f"Rule of {pattern_id}.",
        "conditions": Conditions(),
        "state": "pinned",
        "tokens": 10,
        "share": 1.0,
        "lift": 0.1,
    }
    return ServedPattern(**(fields | changes))


def serve(proxy: Proxy, db: Database, *patterns: ServedPattern, tenant_id: str = "default") -> None:
    publish(db, tenant_id, plan=build_plan(patterns), actor="test", reason="test", now_s=NOW_S)
    proxy.refresh()


def approve(proxy: Proxy, db: Database, context_id: str, word: str, *, is_served: bool = True) -> None:
    with db.transaction():
        number = publish(db, "default", plan=None, actor="test", reason="test", now_s=NOW_S)
        db.execute(
            """
            INSERT INTO ai_contexts (id, tenant_id, questions_json, answer, tags_json, status, is_served, revision,
              n_users, provenance, tokens, embedding, embedding_model, changed_generation, created_at, updated_at)
            VALUES (:id, 'default', :questions, :answer, '[]', 'approved', :is_served, 1, 1, 'person', 20, :embedding,
              'fake', :number, :now, :now)
            ON CONFLICT (id) DO UPDATE SET is_served = excluded.is_served, changed_generation = :number
            """,
            {
                "id": context_id,
                "questions": json.dumps([f"What about a {word}?"]),
                "answer": f"Answer of {context_id}.",
                "is_served": is_served,
                "embedding": FakeEmbedder().embed_one(word).tobytes(),
                "number": number,
                "now": iso(NOW_S),
            },
        )
    proxy.refresh()


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-test", "messages": [{"role": "system", "content": "Be kind."}, *messages], **fields}


def system_text(turn: Turn) -> str:
    return str(json.loads(turn.body)["messages"][0]["content"])


def not_held(proxy: Proxy) -> str:
    """A conversation outside the holdout."""
    served = proxy.snapshots.tenant("default")
    assert served is not None
    secret, share = served.snapshot.secret, proxy.config.patterns.holdout
    return next(name for number in range(100) if not is_holdout(conversation_seed(secret, name := f"c{number}"), share))


def test_patterns_end_the_system_text_and_contexts_the_last_question(proxy: Proxy, db: Database) -> None:
    serve(proxy, db, served_pattern())
    approve(proxy, db, "ctx_1", "refund")
    name = not_held(proxy)
    turn = proxy.ask(chat(user("refund please"), temperature=0.5), conversation=name, user="u")
    sent = json.loads(turn.body)
    assert sent["messages"][0]["content"].startswith("Be kind." + PATTERN_HEADER + "- Rule of pat_1.\n")
    entry = context_entry("What about a refund?", "Answer of ctx_1.")
    assert sent["messages"][1]["content"].startswith("refund please" + CONTEXT_HEADER + entry)
    assert sent["temperature"] == 0.5


def test_what_is_recorded_is_the_whole_turn_without_what_was_injected(proxy: Proxy, db: Database) -> None:
    serve(proxy, db, served_pattern())
    approve(proxy, db, "ctx_1", "refund")
    name = not_held(proxy)
    turn = proxy.ask(
        chat(user("refund please"), user="body-user", tools=[{"type": "function", "function": {"name": "f"}}]),
        conversation=name,
        data_source="crm",
        segment="gold",
        tags="billing, refund,,billing",
        agent="human",
    )
    (record,) = proxy.records()
    assert (record.id, record.conversation_id, record.user_id, record.upstream_id) == (
        turn.response_id,
        name,
        "body-user",
        "chatcmpl-1",
    )
    assert (record.question, record.question_type, record.question_type_confidence) == ("refund please", "refund", 0.9)
    assert (record.outcome, record.status, record.upstream, record.model) == ("ok", 200, "local", "gpt-test")
    assert (record.data_source, record.segment, record.tags_json, record.agent) == (
        "crm",
        "gold",
        '["billing","refund"]',
        "human",
    )
    assert json.loads(record.messages_json) == chat(user("refund please"))["messages"]
    assert json.loads(record.reply_json or "") == {"role": "assistant", "content": "Sure."}
    assert [(i.kind, i.item_id, i.propensity, i.treated) for i in proxy.in_play(record)] == [
        ("pattern", "pat_1", 0.95, True),
        ("context", "ctx_1", 1.0, True),
    ]
    assert (record.generation, record.is_holdout, record.response_format) == (2, False, "prose")
    assert record.injected_tokens == 28 + 10 + 54 + 20
    assert len(record.tool_set) == len(record.prompt_template) == 16
    insert_records(db, [record])


def test_an_answer_that_the_classifier_calls_too_unsure_is_unknown_however_low_the_configured_threshold(
    proxy: Proxy,
) -> None:
    proxy.ask(chat(user("refund")))
    proxy.classifier.least_confidence = 0.95
    proxy.ask(chat(user("a refund")))
    assert [(record.question_type, record.question_type_confidence) for record in proxy.records()] == [
        ("refund", 0.9),
        ("unknown", 0.9),
    ]


def test_the_pattern_block_is_equal_over_all_turns_though_the_questions_type_changes(
    proxy: Proxy, db: Database
) -> None:
    refund = Conditions(question_type=("refund",))
    trials = [served_pattern(f"pat_{i}", state="trial", share=0.5) for i in range(5)]
    serve(proxy, db, served_pattern("pat_r", conditions=refund), *trials)
    name = not_held(proxy)
    first = proxy.ask(chat(user("refund")), conversation=name)
    second = proxy.ask(
        chat(user("refund"), {"role": "assistant", "content": "Sure."}, user("invoice")), conversation=name
    )
    assert system_text(first) == system_text(second)
    assert [record.question_type for record in proxy.records()] == ["refund", "unknown"]


def test_a_restarted_proxy_gives_a_conversation_the_same_block(proxy: Proxy, db: Database, config: Config) -> None:
    trials = [served_pattern(f"pat_{i}", state="trial", share=0.5) for i in range(8)]
    refund = served_pattern("pat_r", conditions=Conditions(question_type=("refund",)))
    serve(proxy, db, refund, *trials)
    first = proxy.ask(chat(user("refund")))
    insert_records(db, proxy.records())
    restarted = Proxy(config)
    second = restarted.begin(chat(user("refund"), {"role": "assistant", "content": "Sure."}, user("invoice")))
    assert system_text(first) == system_text(second)
    assert second.draft is not None
    assert second.draft.place.conversation.id == proxy.records()[0].conversation_id
    restarted.snapshots.stop()


def test_what_is_drawn_does_not_depend_on_what_is_said(proxy: Proxy, db: Database, config: Config) -> None:
    trials = [served_pattern(f"pat_{i}", state="trial", share=0.5) for i in range(8)]
    serve(proxy, db, *trials)
    other = Proxy(config)
    other.refresh()
    drawn = set()
    for number in range(20):
        name = f"chat-{number}"
        first = proxy.begin(chat(user("I want a refund!")), conversation=name)
        second = other.begin(chat(user("Which invoice?"), temperature=1), conversation=name)
        assert first.draft is not None
        assert second.draft is not None
        assert (first.draft.drawn, first.draft.is_holdout) == (second.draft.drawn, second.draft.is_holdout)
        drawn.add(first.draft.drawn)
    assert len(drawn) > 10
    other.writer.close()
    other.snapshots.stop()


def test_a_holdout_conversation_gets_contexts_but_no_pattern(proxy: Proxy, db: Database) -> None:
    serve(proxy, db, served_pattern())
    approve(proxy, db, "ctx_1", "refund")
    for number in range(200):
        proxy.ask(chat(user("refund")), conversation=f"c{number}")
    held = [record for record in proxy.records() if record.is_holdout]
    assert 0 < len(held) < 30
    assert all([(i.kind, i.treated) for i in proxy.in_play(r)] == [("pattern", False), ("context", True)] for r in held)
    assert {r.injected_tokens for r in held} == {74}


def test_an_entry_is_held_back_in_all_turns_of_a_conversation_or_in_none(proxy: Proxy, db: Database) -> None:
    approve(proxy, db, "ctx_1", "refund")
    half = replace(proxy.config, contexts=replace(proxy.config.contexts, hold_back=0.5, hold_back_after_h=0.0))
    held_back = Proxy(half)
    held_back.refresh()
    for number in range(100):
        for text in ("refund", "refund please", "refund"):
            turn = held_back.ask(chat(user(text)), conversation=f"c{number}")
            assert turn.draft is not None
            (item,) = turn.draft.injections
            assert (item.propensity, b"ctx_1" in turn.body) == (0.5, item.treated)
            assert item.treated or turn.body == turn.draft.incoming.body
    held_back.snapshots.stop()
    by_conversation: dict[str, set[bool]] = {}
    for record in held_back.records():
        by_conversation.setdefault(record.conversation_id, set()).update(i.treated for i in record.injections)
    assert all(len(arms) == 1 for arms in by_conversation.values())
    assert 30 < sum(arms == {True} for arms in by_conversation.values()) < 70


def test_contexts_stay_equal_through_a_tool_loop_whatever_is_published(proxy: Proxy, db: Database) -> None:
    approve(proxy, db, "ctx_1", "refund")
    call = {"role": "assistant", "content": "Sure."}
    loop = chat(user("refund"), call, {"role": "tool", "tool_call_id": "1", "content": "x"})
    first = proxy.ask(chat(user("refund")), user="u")
    approve(proxy, db, "ctx_1", "refund", is_served=False)
    second = proxy.ask(loop, user="u")
    assert json.loads(second.body)["messages"][1] == json.loads(first.body)["messages"][1]
    assert "ctx_1" not in proxy.ask(chat(user("refund")), user="u").body.decode()


def test_what_is_approved_is_used_in_the_next_request_of_the_same_conversation(proxy: Proxy, db: Database) -> None:
    before = proxy.ask(chat(user("refund")), user="u")
    approve(proxy, db, "ctx_1", "refund")
    after = proxy.ask(chat(user("refund")), user="u")
    assert b"ctx_1" not in before.body
    assert b"ctx_1" in after.body
    assert len({record.conversation_id for record in proxy.records()}) == 1


@pytest.fixture
def unloaded(proxy: Proxy, config: Config, db: Database) -> Iterator[Proxy]:
    """A proxy that has started again with ctx_1 to serve, which nobody asked for yet."""
    approve(proxy, db, "ctx_1", "refund")
    made = Proxy(config)
    yield made
    made.writer.close()
    made.snapshots.stop()


async def load_meanwhile(proxy: Proxy, *waiting: Coroutine[Any, Any, None]) -> None:
    """Run all that wait; another thread loads what they ask for."""
    tasks = [asyncio.create_task(one) for one in waiting]
    await asyncio.sleep(0)  # all of them have asked
    await asyncio.to_thread(proxy.refresh)
    await asyncio.gather(*tasks)


def test_all_requests_that_came_before_the_contexts_were_loaded_get_them(unloaded: Proxy) -> None:
    assert unloaded.learning.lacks_contexts("default")
    waits = [unloaded.learning.load_contexts([], "default", Cancellation()) for _ in range(3)]
    asyncio.run(load_meanwhile(unloaded, *waits))
    assert not unloaded.learning.lacks_contexts("default")
    assert b"ctx_1" in unloaded.ask(chat(user("refund"))).body
    assert unloaded.n_unloaded == 0


def test_beyond_its_wait_a_request_goes_on_with_patterns_alone_and_is_counted_and_recorded_so(
    unloaded: Proxy, db: Database
) -> None:
    publish(db, "default", plan=build_plan([served_pattern()]), actor="test", reason="test", now_s=NOW_S)
    unloaded.snapshots.refresh()
    settings = replace(unloaded.config, contexts=replace(unloaded.config.contexts, load_wait_s=0.001))
    impatient = Proxy(settings)
    asyncio.run(impatient.learning.load_contexts([], "default", Cancellation()))
    turn = impatient.ask(chat(user("refund")), conversation=not_held(impatient))
    assert PATTERN_HEADER in system_text(turn)
    assert b"ctx_1" not in turn.body
    assert impatient.n_unloaded == 1
    assert impatient.n_failures == 0
    (record,) = impatient.records()
    assert [item.kind for item in impatient.in_play(record)] == ["pattern"]
    impatient.writer.close()
    impatient.snapshots.stop()


def test_the_same_question_gets_the_contexts_once_they_are_loaded_but_not_within_its_tool_loop(
    unloaded: Proxy,
) -> None:
    loop = chat(user("refund"), {"role": "assistant", "content": "Sure."}, {"role": "tool", "content": "x"})
    first = unloaded.ask(chat(user("refund")), user="u")
    unloaded.refresh()
    second = unloaded.ask(loop, user="u")
    assert json.loads(second.body)["messages"][1] == json.loads(first.body)["messages"][1]
    assert b"ctx_1" in unloaded.ask(chat(user("refund")), user="u").body


def test_a_request_that_is_not_learned_from_loads_nothing_and_does_not_wait(unloaded: Proxy) -> None:
    wait = unloaded.learning.load_contexts([(b"x-tutelage-learn", b"off")], "acme", Cancellation())
    asyncio.run(wait)
    assert unloaded.snapshots.loader._waiting.keys() == {"default"}  # open mode's one tenant, at the start


def test_who_leaves_while_contexts_load_ends_the_wait(unloaded: Proxy) -> None:
    async def leave() -> None:
        cancellation = Cancellation()
        waiting = asyncio.create_task(unloaded.learning.load_contexts([], "default", cancellation))
        await asyncio.sleep(0)
        cancellation.cancel()
        with pytest.raises(ClientGoneError):
            await waiting
        await asyncio.to_thread(unloaded.refresh)  # and nobody is missed when they are there

    asyncio.run(leave())
    assert not unloaded.learning.lacks_contexts("default")


def test_a_request_marks_its_tenants_contexts_as_used(proxy: Proxy, db: Database) -> None:
    approve(proxy, db, "ctx_1", "refund")
    served = proxy.snapshots.tenant("default")
    assert served is not None
    proxy.ask(chat(user("refund")), learn="off")
    assert not served.use.is_marked
    proxy.ask(chat(user("refund")))
    assert served.use.is_marked


def test_a_turn_records_only_what_it_added(proxy: Proxy) -> None:
    proxy.ask(chat(user("a")))
    proxy.ask(chat(user("a"), {"role": "assistant", "content": "Sure."}, user("b")))
    first, second = proxy.records()
    assert second.conversation_id == first.conversation_id
    assert json.loads(second.messages_json) == [user("b")]


@pytest.mark.parametrize(
    ("chunks", "outcome", "recorded"),
    [
        ([REPLY_BYTES], "ok", "ok"),
        ([REPLY_BYTES[:-5]], "ok", "upstream_error"),
        ([b"<html>"], "ok", "upstream_error"),
        ([], "ok", "upstream_error"),
        ([b'data: {"choices":[{"index":0,"delta":{"content":"par"}}]}\n\n'], "ok", "upstream_error"),
        ([b'data: {"choices":[{"index":0,"delta":{"content":"par"}}]}\n\n'], "cancelled", "cancelled"),
        ([b'data: {"error":{"message":"x"}}\n\ndata: [DONE]\n\n'], "ok", "upstream_error"),
        ([b'{"error":{"message":"x"}}'], "error", "error"),
    ],
)
def test_a_reply_that_ends_early_or_in_an_error_is_no_success(
    proxy: Proxy, chunks: list[bytes], outcome: Any, recorded: str
) -> None:
    turn = proxy.begin(chat(user("hi")))
    turn.begin_reply("")
    for chunk in chunks:
        turn.feed(chunk)
    turn.finish(outcome, 200, "local")
    turn.finish("ok", 200, "local")
    assert [record.outcome for record in proxy.records()] == [recorded]


def test_a_broken_embedder_lets_the_request_pass_unmodified_and_recorded(proxy: Proxy, db: Database) -> None:
    serve(proxy, db, served_pattern())
    proxy.embedder.is_broken = True
    body = json.dumps(chat(user("refund"))).encode()
    turn = proxy.ask(body)
    assert turn.body is body
    assert proxy.n_failures == 1
    (record,) = proxy.records()
    assert (record.outcome, proxy.in_play(record), record.injected_tokens) == ("ok", [], 0)


def test_a_missing_database_lets_the_request_pass_unmodified_until_it_is_back(
    proxy: Proxy, db: Database, config: Config
) -> None:
    serve(proxy, db, served_pattern())
    moved = db.path.with_suffix(".away")
    db.path.rename(moved)
    proxy.refresh()
    body = json.dumps(chat(user("hi"))).encode()
    assert proxy.ask(body).body is body
    assert proxy.snapshots.problem is not None
    moved.rename(db.path)
    proxy.refresh()
    assert proxy.snapshots.problem is None
    name = not_held(proxy)
    assert b"Rule of pat_1" in proxy.ask(body, conversation=name).body
    assert len(proxy.records()) == 2


def test_learning_stays_off_while_the_database_is_away(proxy: Proxy, db: Database) -> None:
    set_learning(db, "default", learning=False)
    proxy.refresh()
    db.path.rename(db.path.with_suffix(".away"))
    proxy.refresh()
    assert proxy.snapshots.tenant("default") is None
    proxy.ask(chat(user("hi")))
    assert proxy.records() == []


def test_a_full_disk_costs_the_record_not_the_request(proxy: Proxy, config: Config) -> None:
    segment_directory(config).write_text("in the way")
    assert proxy.ask(chat(user("hi"))).response_id
    assert proxy.writer.n_dropped == 1


@pytest.mark.parametrize("off", ["header", "loud header", "tenant"])
def test_with_learning_off_nothing_is_injected_or_recorded(proxy: Proxy, db: Database, off: str) -> None:
    serve(proxy, db, served_pattern())
    set_learning(db, "default", learning=off != "tenant")
    proxy.refresh()
    body = json.dumps(chat(user("hi"))).encode()
    turn = proxy.ask(body, learn={"header": "off", "loud header": "OFF", "tenant": "on"}[off])
    assert turn.body is body
    assert turn.response_id
    assert proxy.records() == []


def test_one_tenant_never_gets_anothers_patterns_or_conversations(proxy: Proxy, db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    serve(proxy, db, served_pattern())
    turns = [proxy.begin(chat(user("hi")), tenant_id="other", conversation=f"c{i}") for i in range(50)]
    assert {turn.body for turn in turns} == {json.dumps(chat(user("hi"))).encode()}


def test_a_bad_request_is_the_clients_error_not_a_failure_of_learning(proxy: Proxy) -> None:
    with pytest.raises(ApiError):
        proxy.begin(b"{")
    assert proxy.n_failures == 0
    assert proxy.records() == []


def test_texts_that_cannot_be_stored_are_recorded_as_well_as_can_be(proxy: Proxy, db: Database) -> None:
    body = rb'{"user": "\ud800", "model": "m\udfff", "messages": [{"role": "user", "content": "cut \ud83d"}]}'
    proxy.ask(body)
    (record,) = proxy.records()
    insert_records(db, [record])
    assert db.value("SELECT question FROM responses") == "cut \ufffd"


@pytest.mark.parametrize("number", ["1e999", "1" * 5000])
def test_numbers_beyond_all_bounds_pass_and_cost_no_record(proxy: Proxy, db: Database, number: str) -> None:
    body = (
        '{"model": "m", "metadata": {"x": N}, "tools": [{"function": {"name": "f", "parameters": {"maximum": N}}}],'
        '"messages": [{"role": "user", "content": "hi", "x": N}, {"role": "assistant", "tool_calls": [{"x": N}]},'
        '{"role": "tool", "content": "done", "x": N}]}'
    ).replace("N", number)
    turn = proxy.ask(body.encode())
    (record,) = proxy.records()
    insert_records(db, [record])
    assert (turn.body, proxy.n_failures) == (body.encode(), 0)
    assert transcript(db, "default", record.conversation_id).messages[-1]["content"] == "Sure."


def test_a_long_message_of_any_depth_costs_no_record(proxy: Proxy) -> None:
    deep = "[" * 600 + "]" * 600
    proxy.ask(f'{{"model": "m", "messages": [{{"role": "user", "content": "{"x" * 300_000}", "x": {deep}}}]}}'.encode())
    (record,) = proxy.records()
    assert proxy.n_failures == 0
    (message,) = json.loads(record.messages_json)
    assert (message["role"], message["content"].endswith(" bytes cut]")) == ("user", True)


def test_what_is_kept_of_a_huge_message_is_cut_and_marked(proxy: Proxy) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5_000}}
    proxy.ask(chat({"role": "user", "content": [{"type": "text", "text": "look"}, image]}, user("x" * 300_000)))
    (record,) = proxy.records()
    _, parts, long = json.loads(record.messages_json)
    assert parts["content"][0] == {"type": "text", "text": "look"}
    assert parts["content"][1]["image_url"]["url"].endswith(" characters cut]")
    assert len(parts["content"][1]["image_url"]["url"]) < 100
    assert long["content"] == "x" * 256_000 + " [44000 characters cut]"


@pytest.mark.parametrize("path", [CHAT_PATH, RESPONSES_PATH, MESSAGES_PATH])
@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model": "m", "messages": 5, "stream": true}', "m"),
        (b'{"model": "m", "messages": [', None),
        (b'{"model": 5}', None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_with_learning_off_any_body_is_the_upstreams_to_judge(
    proxy: Proxy, path: str, body: bytes, model: str | None
) -> None:
    turn = proxy.ask(body, path=path, learn="off")
    assert turn.body is body
    assert turn.model == model
    assert proxy.records() == []
    assert proxy.n_failures == 0


def test_a_body_that_is_encoded_passes_unread(proxy: Proxy) -> None:
    body = gzip.compress(json.dumps(chat(user("hi"))).encode())
    request = IncomingRequest(CHAT_PATH, [(b"content-encoding", b"gzip")], body, proxy.clock.now_s())
    turn = proxy.learning.begin(request, "default")
    assert turn.body is body
    assert turn.model is None
    turn.finish("ok", 200, "local")
    assert proxy.records() == []


def respond(proxy: Proxy, body: Any, reply_id: str, *, calls: Any = (), **headers: str) -> Turn:
    reply = response_object("Sure.", reply_id=reply_id, calls=calls)
    return proxy.ask(body, json.dumps(reply).encode(), RESPONSES_PATH, **headers)


def test_a_response_is_recorded_in_the_form_of_a_chat(proxy: Proxy, db: Database) -> None:
    serve(proxy, db, served_pattern())
    approve(proxy, db, "ctx_1", "refund")
    name = not_held(proxy)
    body = {"model": "gpt-test", "instructions": "Be kind.", "input": "refund please", "user": "u"}
    sent = json.loads(respond(proxy, body, "resp_1", conversation=name).body)
    assert sent["instructions"].startswith("Be kind." + PATTERN_HEADER)
    assert sent["input"].startswith("refund please" + CONTEXT_HEADER)
    (record,) = proxy.records()
    assert json.loads(record.messages_json) == [{"role": "system", "content": "Be kind."}, user("refund please")]
    assert json.loads(record.reply_json or "") == {"role": "assistant", "content": "Sure."}
    assert (record.endpoint, record.upstream_id, record.user_id) == (RESPONSES_PATH, "resp_1", "u")
    assert (record.outcome, record.finish_reason, record.question) == ("ok", "stop", "refund please")
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (30, 5, 20)
    assert record.injected_tokens == 28 + 10 + 54 + 20
    insert_records(db, [record])


def test_a_message_is_recorded_in_the_form_of_a_chat(proxy: Proxy, db: Database) -> None:
    serve(proxy, db, served_pattern())
    approve(proxy, db, "ctx_1", "refund")
    name = not_held(proxy)
    body = {
        "model": "claude-test",
        "system": "Be kind.",
        "messages": [user("refund please")],
        "metadata": {"user_id": "u"},
        "stream": True,
    }
    stream = b"".join(typed_sse(message_events(message_object("Sure.", reply_id="msg_1"))))
    sent = json.loads(proxy.ask(body, stream, MESSAGES_PATH, conversation=name).body)
    assert sent["system"].startswith("Be kind." + PATTERN_HEADER)
    assert sent["messages"][0]["content"].startswith("refund please" + CONTEXT_HEADER)
    (record,) = proxy.records()
    assert json.loads(record.messages_json) == [{"role": "system", "content": "Be kind."}, user("refund please")]
    assert json.loads(record.reply_json or "") == {"role": "assistant", "content": "Sure. "}
    assert (record.endpoint, record.upstream_id, record.user_id) == (MESSAGES_PATH, "msg_1", "u")
    assert (record.outcome, record.finish_reason, record.is_stream) == ("ok", "stop", True)
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (30, 5, 20)
    insert_records(db, [record])


def test_the_same_system_text_is_the_same_template_in_every_api(proxy: Proxy) -> None:
    proxy.ask(chat(user("hi")))
    respond(proxy, {"instructions": "Be kind.", "input": "hi"}, "resp_1")
    proxy.ask({"system": [{"type": "text", "text": "Be kind."}], "messages": [user("hi")]}, path=MESSAGES_PATH)
    assert len({record.prompt_template for record in proxy.records()}) == 1


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_previous_response_links_its_conversation_and_patterns(
    proxy: Proxy, db: Database, config: Config, is_restarted: bool
) -> None:
    trials = [served_pattern(f"pat_{i}", state="trial", share=0.5) for i in range(8)]
    serve(proxy, db, served_pattern("pat_r", conditions=Conditions(question_type=("refund",))), *trials)
    first = respond(proxy, {"instructions": "Be kind.", "input": "refund"}, "resp_1")
    insert_records(db, proxy.records())
    later = {False: lambda: proxy, True: lambda: Proxy(config)}[is_restarted]()
    body = {"instructions": "Be kind.", "input": "invoice", "previous_response_id": "resp_1"}
    second = respond(later, body, "resp_2")
    assert json.loads(second.body)["instructions"] == json.loads(first.body)["instructions"]
    records = proxy.records()
    assert records[0].conversation_id == records[1].conversation_id
    assert json.loads(records[1].messages_json) == [user("invoice")]
    later.snapshots.stop()


def test_a_reply_that_comes_back_as_a_reference_to_its_item_leads_to_its_conversation(proxy: Proxy) -> None:
    reference = {"type": "item_reference", "id": "msg_1"}  # as ``response_object`` calls a reply's text
    respond(proxy, {"input": [user("refund")]}, "resp_1")
    respond(proxy, {"input": [user("refund"), reference, user("And now?")]}, "resp_2")
    respond(proxy, {"input": [user("refund"), {**reference, "id": "msg_unknown"}, user("Why?")]}, "resp_3")
    first, second, stranger = proxy.records()
    assert second.conversation_id == first.conversation_id
    assert json.loads(second.messages_json) == [user("And now?")]
    assert stranger.conversation_id != first.conversation_id


def test_a_tool_loop_over_a_kept_history_keeps_its_question_type_and_gets_no_knowledge(
    proxy: Proxy, db: Database
) -> None:
    approve(proxy, db, "ctx_1", "refund")
    call = {"call_id": "c", "name": "f", "arguments": "{}"}
    respond(proxy, {"input": "refund"}, "resp_1", calls=[call])
    output = {"type": "function_call_output", "call_id": "c", "output": "42"}
    turn = respond(proxy, {"input": [output], "previous_response_id": "resp_1"}, "resp_2")
    assert json.loads(turn.body)["input"] == [output]
    first, second = proxy.records()
    assert first.finish_reason == "tool_calls"
    assert (second.question_type, second.conversation_id) == ("refund", first.conversation_id)
    assert [item.kind for item in second.injections] == []


def test_a_rule_that_stands_in_a_thread_counts_in_every_turn_as_it_was_whatever_is_published(
    proxy: Proxy, db: Database
) -> None:
    serve(proxy, db, served_pattern())
    name = not_held(proxy)
    created = {"thread": {"type": "create"}, "system": "Be kind.", "messages": [user("hi")]}
    reply = json.dumps(message_object("Sure.", reply_id="msg_1")).encode()
    proxy.ask(created, reply, MESSAGES_PATH, conversation=name)
    serve(proxy, db, served_pattern(), served_pattern("pat_new"))
    thread = {"type": "continue", "previous_message_id": "msg_1"}
    continued = {"thread": thread, "messages": [user("And now?")]}
    again = proxy.ask(continued, reply, MESSAGES_PATH)
    stranger = proxy.ask({**continued, "thread": {**thread, "previous_message_id": "msg_9"}}, reply, MESSAGES_PATH)
    assert json.loads(again.body) == continued
    assert "system" not in json.loads(stranger.body)
    first, second, third = proxy.records()
    assert first.conversation_id == second.conversation_id != third.conversation_id
    assert json.loads(second.messages_json) == [user("And now?")]
    assert (second.drawn, second.generation) == (first.drawn, first.generation)
    assert [item.treated for item in proxy.in_play(second)] == [True]
    assert not any(item.treated for item in proxy.in_play(third))


def test_blocks_stay_equal_through_a_tool_loop_of_messages_whatever_is_published(proxy: Proxy, db: Database) -> None:
    approve(proxy, db, "ctx_1", "refund")
    call = {"id": "t", "name": "f", "input": {"a": 1}}
    question = {"role": "user", "content": [{"type": "text", "text": "refund", "cache_control": {"type": "ephemeral"}}]}
    reply = message_object(None, reply_id="msg_1", calls=[call])
    first = proxy.ask({"messages": [question]}, json.dumps(reply).encode(), MESSAGES_PATH)
    approve(proxy, db, "ctx_1", "refund", is_served=False)
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "42"}]}
    loop = [question, {"role": "assistant", "content": reply["content"]}, result]
    second = proxy.begin({"messages": loop}, path=MESSAGES_PATH)
    blocks = [json.loads(turn.body)["messages"][0] for turn in (first, second)]
    assert blocks[0] == blocks[1]
    assert blocks[0]["content"][0] == question["content"][0]
    assert "ctx_1" in blocks[0]["content"][1]["text"]
    assert json.loads(second.body)["messages"][1:] == loop[1:]
    assert second.draft is not None
    assert second.draft.place.n_known == 2


def test_tokens_put_in_and_tokens_from_the_providers_cache_are_summed_up(proxy: Proxy, db: Database) -> None:
    serve(proxy, db, served_pattern())
    approve(proxy, db, "ctx_1", "refund")
    usage = {"prompt_tokens": 900, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 512}}

    for _ in range(2):
        turn = proxy.begin(chat(user("refund please")), conversation=not_held(proxy))
        turn.begin_reply("")
        turn.feed(json.dumps(REPLY | {"usage": usage}).encode())
        turn.finish("ok", 200, "local")
    proxy.begin(chat(user("refund please"))).finish("cancelled", 0, "local")

    totals = proxy.learning.tokens
    assert (totals.prompt, totals.cached) == (1800, 1024)
    assert totals.injected == sum(record.injected_tokens for record in proxy.records()) > 0


SAID = {"role": "assistant", "content": "Sure."}


def place_of(turn: Turn) -> Place:
    assert turn.draft is not None
    return turn.draft.place


def test_a_conversation_goes_on_in_another_worker_before_its_record_is_in_the_database(
    workers: list[Proxy], db: Database
) -> None:
    trials = [served_pattern(f"pat_{i}", state="trial", share=0.5) for i in range(8)]
    for worker in workers:
        serve(worker, db, served_pattern("pat_r", conditions=Conditions(question_type=("refund",))), *trials)
    first = workers[0].ask(chat(user("refund")))
    second = workers[1].ask(chat(user("refund"), SAID, user("invoice")))
    third = workers[2].ask(chat(user("refund"), SAID, user("invoice"), SAID, user("bye")))
    assert len({place_of(turn).conversation.id for turn in (first, second, third)}) == 1
    assert len({system_text(turn) for turn in (first, second, third)}) == 1
    assert [place_of(turn).n_known for turn in (first, second, third)] == [0, 3, 5]


@pytest.mark.parametrize("name", ["", "mine"])
def test_a_conversation_keeps_the_facts_of_its_first_turn_in_another_worker(workers: list[Proxy], name: str) -> None:
    first = workers[0].ask(chat(user("hi")), conversation=name, question_type="refund", segment="gold")
    second = workers[1].begin(chat(user("hi"), SAID, user("bye")), conversation=name, question_type="howto")
    assert place_of(second).conversation == place_of(first).conversation


def test_a_response_is_known_by_the_id_in_its_body_in_another_worker_to_its_tenant_alone(
    workers: list[Proxy], db: Database
) -> None:
    first = respond(workers[0], {"input": "refund"}, "resp_1")
    ours, others = (workers[1].learning.own_id(tenant_id, "resp_1") for tenant_id in ("default", "other"))
    assert (ours, others) == (first.response_id, None)
    body = {"input": "more", "previous_response_id": "resp_1"}
    assert place_of(workers[2].begin(body, path=RESPONSES_PATH)).conversation == place_of(first).conversation


def test_another_tenant_never_goes_on_with_what_a_worker_heard(workers: list[Proxy], db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    for worker in workers:
        worker.snapshots.refresh()
    first = workers[0].ask(chat(user("hi")), conversation="mine")
    for headers in ({"conversation": "mine"}, {}):
        other = workers[1].begin(chat(user("hi"), SAID, user("bye")), "other", **headers)
        assert place_of(other).conversation is not place_of(first).conversation
        assert place_of(other).n_known == 0


def test_conversations_of_unknown_users_that_went_alike_stay_apart_over_all_workers(workers: list[Proxy]) -> None:
    first = {place_of(workers[number].ask(chat(user("hi")))).conversation.id for number in (0, 1)}
    going_on = [workers[number].begin(chat(user("hi"), SAID, user("bye"))) for number in (2, 0)]
    assert len(first) == 2
    assert {place_of(turn).conversation.id for turn in going_on} == first


def test_a_known_users_first_turn_asked_again_of_another_worker_is_the_same_conversation(
    workers: list[Proxy],
) -> None:
    first = workers[0].ask(chat(user("hi")), user="u")
    again = workers[1].begin(chat(user("hi")), user="u")
    somebody_else = workers[1].begin(chat(user("hi")), user="v")
    assert place_of(again).conversation.id == place_of(first).conversation.id
    assert place_of(again).request_hash == place_of(first).request_hash
    assert place_of(somebody_else).conversation.id != place_of(first).conversation.id


def test_what_another_worker_said_is_there_before_the_last_byte_of_its_reply(workers: list[Proxy]) -> None:
    turn = workers[0].begin(chat(user("hi")))
    turn.begin_reply("")
    assert turn.feed(REPLY_BYTES)
    turn.finish("ok", 200, "local")  # what the relay calls before it writes those bytes
    assert place_of(workers[1].begin(chat(user("hi"), SAID, user("bye")))).n_known == 3


def test_a_full_socket_costs_neither_the_request_nor_its_record(workers: list[Proxy]) -> None:
    for number in range(MAX_HEARD):
        workers[0].ask(chat(user(f"question {number}")), segment="x" * 2000)
    assert workers[0].n_failures == 0
    assert len(workers[0].records()) == MAX_HEARD


class BrokenQuestions(RemoteQuestions):
    """An asker with a fault of its own."""

    async def ask(self, question: str, cancellation: Cancellation) -> None:
        if cancellation.is_cancelled:
            raise ClientGoneError("the client left")
        raise RuntimeError(question)


def test_a_fault_in_asking_for_a_vector_is_counted_and_the_request_goes_on(config: Config, db: Database) -> None:
    assert db.is_current()
    section = replace(config.embedding, model="m", base_url="http://127.0.0.1:9/v1")
    proxy = Proxy(config, remote=BrokenQuestions(section, HttpUpstream(server_of(section)), "", {}))
    request = IncomingRequest(
        CHAT_PATH, [], json.dumps(chat({"role": "user", "content": "a refund?"})).encode(), proxy.clock.now_s()
    )

    asyncio.run(proxy.learning.load_vector(request, "default", Cancellation()))

    assert proxy.n_failures == 1
    gone = Cancellation()
    gone.cancel()
    with pytest.raises(ClientGoneError):
        asyncio.run(proxy.learning.load_vector(request, "default", gone))
    assert proxy.n_failures == 1


def test_a_trained_classifier_reads_the_vectors_that_it_was_trained_on(proxy: Proxy, db: Database) -> None:
    begun = begin_refit(db, "default", local_model="fake", teacher="t", now_s=NOW_S)
    table = RefitTable("", np.zeros(0, np.int32), np.zeros((0, 256), np.float32))
    serve_refit(db, begun, table, Checked(1, 1, 1, 0.1, 0.1, ""), now_s=NOW_S)
    name = refit_name("fake", begun.id)
    proxy.embedder.words = (name, "please")  # what the refit makes of any text, and what the local vector is of
    publish_classifier(db, embedding_model=name)
    proxy.refresh()
    proxy.ask(chat(user("once more please")))
    assert proxy.records()[-1].question_type == "parcel"
    publish_classifier(db, embedding_model="fake")
    proxy.refresh()
    proxy.ask(chat(user("once more please")))
    assert proxy.records()[-1].question_type == "refund"
