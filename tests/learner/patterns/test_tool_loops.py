"""A turn in which tools were called is one response: what it used, its votes and its time."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learner.patterns.characteristics import VERSION
from learner.patterns.replies import read_replies
from learner.patterns.tool_loops import MAX_OPEN, OpenSteps, Step
from learner.signals import find_traffic_signals
from store.clock import iso
from store.config import Config
from store.database import Database, open_database
from store.feedback import Signal, record_signal, withdraw_signal
from store.records import ResponseRecord
from store.responses import insert_records
from store.tenants import ensure_tenant
from store.tokens import load_token_counter
from store.turns import newest_signal
from store.vocabulary import DEFAULT_TENANT, SignalType
from store.windows import Batch, Span, read_batches, read_revised
from tests.conftest import NOW_S

TOKENS = load_token_counter()
FOREVER = 10**9
DAY_S = 86_400.0
Message = dict[str, Any]


def user(text: str = "Where is it?") -> Message:
    return {"role": "user", "content": text}


def result(call_id: str = "a") -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": "3 hits"}


def call(*calls: tuple[str, str], text: str | None = None, arguments: str = "{}") -> Message:
    """Return a reply that makes *calls*: (id, name of the tool)."""
    made = [{"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}} for id_, name in calls]
    return {"role": "assistant", "content": text, "tool_calls": made}


def say(text: str = "It is in the drawer.") -> Message:
    return {"role": "assistant", "content": text}


def write(db: Database, number: int, added: list[Message], reply: Message, **facts: object) -> None:
    """Write response *number*, a minute after the one before."""
    values: dict[str, object] = {
        "id": f"resp-{number}",
        "tenant_id": DEFAULT_TENANT,
        "conversation_id": "chat",
        "endpoint": "/v1/chat/completions",
        "user_id": "anna",
        "question_type": "refund",
        "tool_set": "tools",
        "response_format": "tool_calls" if "tool_calls" in reply else "prose",
        "length_band": "short" if reply["content"] else "",
        "outcome": "ok",
        "status": 200,
        "latency_ms": 1.0,
        "request_hash": f"hash-{number}",
        "messages_json": json.dumps(added),
        "reply_json": json.dumps(reply),
        "created_at": iso(NOW_S + 60 * number),
        "completed_at": iso(NOW_S + 60 * number + 1),
    }
    insert_records(db, [ResponseRecord(**{**values, **facts})])  # type: ignore[arg-type]


def read(db: Database, until: int = FOREVER, tenant_id: str = DEFAULT_TENANT) -> None:
    read_replies(db, tenant_id, TOKENS, until=until, since_at="", settle_days=2, max_term_replies=1000)


def batch(db: Database, **span: Any) -> Batch:
    where = Span(**{"after": 0, "until": FOREVER, "until_signal": FOREVER, **span})
    (found,) = read_batches(db, DEFAULT_TENANT, where, group_field="data_source")
    return found


def values(db: Database) -> list[dict[str, list[str]]]:
    return [json.loads(text) for text in batch(db).responses.characteristics]


def vote(db: Database, config: Config, number: int, signal: SignalType, by: str = "anna") -> str:
    one = Signal(response_id=f"resp-{number}", signal=signal, user=by)
    return record_signal(db, DEFAULT_TENANT, one, config.feedback, source="api", now_s=NOW_S).id


def loop(db: Database) -> None:
    """Write a turn of three replies: two tools, then the answer."""
    write(db, 1, [user()], call(("a", "search")))
    write(db, 2, [result("a")], call(("b", "read_page")))
    write(db, 3, [result("b")], say())


def test_an_answer_has_the_tools_of_its_whole_turn_and_the_steps_are_no_answers(db: Database) -> None:
    loop(db)

    read(db)

    assert batch(db).responses.seq.tolist() == [3]
    (found,) = values(db)
    assert found["tools"] == ["search", "read_page"]
    assert found["length"] == ["short"]


def test_the_next_turn_begins_anew(db: Database) -> None:
    loop(db)
    write(db, 4, [user("And the other one?")], say())

    read(db)

    assert [one["tools"] for one in values(db)] == [["search", "read_page"], []]


@pytest.mark.parametrize("until", [1, 2])
def test_a_turn_that_two_runs_see_is_one_turn(db: Database, until: int) -> None:
    loop(db)

    read(db, until=until)
    assert batch(db).responses.seq.tolist() == [until]  # as far as it went, it stands for itself
    read(db)

    assert batch(db).responses.seq.tolist() == [3]
    assert values(db)[0]["tools"] == ["search", "read_page"]


def test_a_call_that_nobody_answers_is_an_answer(db: Database) -> None:
    write(db, 1, [user()], call(("a", "extract")))
    write(db, 2, [user("Next.")], call(("a", "extract")))

    read(db)

    assert batch(db).responses.seq.tolist() == [1, 2]


def test_results_that_come_with_a_new_question_begin_a_turn(db: Database) -> None:
    write(db, 1, [user()], call(("a", "search")))
    write(db, 2, [result("a"), user("Stop. Something else:")], say())

    read(db)

    assert batch(db).responses.seq.tolist() == [1, 2]
    assert [one["tools"] for one in values(db)] == [["search"], []]


def test_what_is_sent_again_as_history_is_not_used_again(db: Database) -> None:
    before = [user("Hello"), call(("x", "greet")), result("x"), say("Hi.")]
    write(db, 1, [*before, user(), call(("a", "search")), result("a")], say())

    read(db)

    assert values(db)[0]["tools"] == ["search"]


def test_an_answer_that_is_given_again_has_the_same_tools(db: Database) -> None:
    write(db, 1, [user()], call(("a", "search")))
    write(db, 2, [result("a")], say(), request_hash="same")
    write(db, 3, [result("a")], say("It is under the bed."), request_hash="same")

    read(db)

    assert batch(db).responses.seq.tolist() == [2, 3]
    assert [one["tools"] for one in values(db)] == [["search"], ["search"]]


def test_agents_that_share_a_conversation_are_told_apart_by_their_calls(db: Database) -> None:
    write(db, 1, [user("one")], call(("a", "search")))
    write(db, 2, [user("two")], call(("b", "weather")))
    write(db, 3, [result("a")], say())
    write(db, 4, [result("b")], say())

    read(db)

    assert [one["tools"] for one in values(db)] == [["search"], ["weather"]]


def test_a_call_without_an_id_is_answered_by_the_next_result(db: Database) -> None:
    old = {"role": "assistant", "content": None, "function_call": {"name": "search", "arguments": "{}"}}
    write(db, 1, [user()], old, response_format="tool_calls")
    write(db, 2, [{"role": "function", "name": "search", "content": "3 hits"}], say())

    read(db)

    assert batch(db).responses.seq.tolist() == [2]
    assert values(db)[0]["tools"] == ["search"]


def test_an_answer_may_come_without_the_tools_being_offered_again(db: Database) -> None:
    write(db, 1, [user()], call(("a", "search")))
    write(db, 2, [result("a")], say(), tool_set="")

    read(db)

    assert batch(db).responses.seq.tolist() == [2]
    assert values(db)[0]["tools"] == ["search"]


def test_a_try_that_failed_is_passed_over(db: Database) -> None:
    write(db, 1, [user()], call(("a", "search")))
    write(db, 2, [result("a")], say(""), outcome="upstream_error", status=500)
    write(db, 3, [result("a")], say())

    read(db)

    assert batch(db).responses.seq.tolist() == [3]


def test_a_query_that_a_tool_ran_and_a_chart_that_it_drew_are_the_turns(db: Database) -> None:
    query = "WITH x AS (SELECT a FROM t)\nSELECT a, count(*) FROM x JOIN u USING (a) GROUP BY a"
    write(db, 1, [user()], call(("a", "run_sql"), arguments=json.dumps({"sql": {"text": query}})))
    write(db, 2, [result("a")], call(("b", "draw_chart"), arguments='{"chart_type": "bar", "x": "a"}'))
    write(db, 3, [result("b")], say("There you are."))

    read(db)

    (found,) = values(db)
    assert found["query"] == ["cte", "join", "aggregation"]
    assert found["visualization"] == ["bar"]


@pytest.mark.parametrize(
    "arguments", ["", "{", '{"select": 1, "from": 2}', '["select", "from"]', "[" * 5000 + "select from"]
)
def test_arguments_that_are_no_query_show_none(db: Database, arguments: str) -> None:
    write(db, 1, [user()], call(("a", "search"), arguments=arguments))

    read(db)

    assert "query" not in values(db)[0]


def test_what_a_step_alone_was_told_holds_for_its_answer(db: Database) -> None:
    told = {"data_source": "sales_db", "question_type": "price", "user_id": "ben"}
    write(db, 1, [user()], call(("a", "search")), **told)
    guessed = {"data_source": "", "question_type": "refund", "question_type_confidence": 0.8, "user_id": ""}
    write(db, 2, [result("a")], say(), **guessed)

    read(db)

    responses = batch(db).responses
    assert (responses.groups, responses.question_types, responses.users) == (("sales_db",), ("price",), ("ben",))


def test_what_an_answer_was_told_itself_stays(db: Database) -> None:
    write(db, 1, [user()], call(("a", "search")), data_source="sales_db", question_type="price")
    write(db, 2, [result("a")], say(), data_source="crm")

    read(db)

    responses = batch(db).responses
    assert (responses.groups, responses.question_types) == (("crm",), ("refund",))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_vote_on_any_reply_of_a_turn_is_a_vote_on_its_answer(db: Database, config: Config, number: int) -> None:
    loop(db)
    vote(db, config, number, "thumbs_up")

    read(db)

    found = batch(db)
    assert found.signals.response.tolist() == [0]
    assert list(found.signals.types) == ["thumbs_up"]


def test_signals_of_steps_come_in_the_order_of_arrival(db: Database, config: Config) -> None:
    write(db, 0, [user("Before")], say(), conversation_id="other")
    loop(db)
    for number, signal in ((3, "copy"), (0, "thumbs_up"), (1, "thumbs_down")):
        vote(db, config, number, signal)  # type: ignore[arg-type]

    read(db)

    signals = batch(db).signals
    assert list(zip(signals.response.tolist(), signals.types, strict=True)) == [
        (0, "thumbs_up"),
        (1, "copy"),
        (1, "thumbs_down"),
    ]


def test_a_new_question_follows_the_answer_and_a_result_follows_nothing(db: Database, config: Config) -> None:
    loop(db)
    write(db, 4, [user("And the other one?")], say(), created_at=iso(NOW_S + 60 * 3 + 10))

    find_traffic_signals(db, DEFAULT_TENANT, config.feedback, after=0, until=FOREVER)

    found = db.rows("SELECT response_id, signal_type FROM response_feedback")
    assert [tuple(row) for row in found] == [("resp-3", "follow_up")]


def test_a_late_vote_on_a_step_changes_its_answer_and_taking_it_back_changes_it_again(
    db: Database, config: Config
) -> None:
    loop(db)
    read(db)
    before = newest_signal(db, DEFAULT_TENANT)
    name = vote(db, config, 1, "thumbs_up")
    now = newest_signal(db, DEFAULT_TENANT)

    def revised(after: int, removals: tuple[int, int]) -> list[tuple[list[int], list[str], list[str]]]:
        span = Span(0, 3, FOREVER)
        found = read_revised(db, DEFAULT_TENANT, span, after_signal=after, removals=removals, group_field=None)
        return [(one.now.responses.seq.tolist(), list(one.now.signals.types), list(one.before.types)) for one in found]

    assert revised(before, (0, 0)) == [([3], ["thumbs_up"], [])]
    withdraw_signal(db, DEFAULT_TENANT, name)
    assert revised(now, (0, FOREVER)) == [([3], [], ["thumbs_up"])]


def test_a_turn_of_which_only_the_steps_are_settled_is_taken_in_with_its_answer(db: Database, config: Config) -> None:
    loop(db)
    vote(db, config, 1, "thumbs_up")
    read(db)
    span = Span(0, 2, FOREVER)

    assert list(read_batches(db, DEFAULT_TENANT, span, group_field=None)) == []
    assert batch(db, after=2).responses.seq.tolist() == [3]
    assert list(batch(db, after=2).signals.types) == ["thumbs_up"]
    assert list(read_revised(db, DEFAULT_TENANT, span, after_signal=0, removals=(0, 0), group_field=None)) == []


@pytest.mark.parametrize(("days", "seqs"), [(0.9, [2]), (1.1, [1, 2])])
def test_a_turn_goes_on_for_half_of_the_time_until_records_are_settled(
    db: Database, days: float, seqs: list[int]
) -> None:
    write(db, 1, [user()], call(("a", "approve")))
    write(db, 2, [result("a")], say(), created_at=iso(NOW_S + 60 + days * DAY_S))

    read(db)

    assert batch(db).responses.seq.tolist() == seqs


def test_turns_of_other_tenants_are_theirs(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    write(db, 1, [user()], call(("a", "search")), tenant_id="other")
    write(db, 2, [result("a")], say())

    read(db)
    read(db, tenant_id="other")

    assert batch(db).responses.seq.tolist() == [2]
    assert values(db)[0]["tools"] == []
    assert db.value("SELECT count(*) FROM response_characteristics WHERE answer_seq IS NOT NULL") == 0


def test_only_the_latest_calls_are_remembered() -> None:
    steps = OpenSteps()
    for number in range(MAX_OPEN + 1):
        steps.put("chat", [f"call-{number}"], Step(number, 0.0, {}))

    assert steps.find("chat", ["call-0"]) is None
    assert steps.find("chat", ["call-1", f"call-{MAX_OPEN}"]) == Step(MAX_OPEN, 0.0, {})


Plan = list[tuple[int, bool]]


def written(db: Database, plan: Plan) -> None:
    """Write interleaved turns of three conversations: (conversation, whether the reply makes a call)."""
    waiting: dict[int, str] = {}
    for number, (chat, is_call) in enumerate(plan, start=1):
        added = [result(waiting.pop(chat))] if chat in waiting else [user()]
        reply = call((f"call-{number}", f"tool-{number % 4}")) if is_call else say()
        write(db, number, added, reply, conversation_id=f"chat-{chat}")
        if is_call:
            waiting[chat] = f"call-{number}"


def stored(db: Database) -> list[tuple[object, ...]]:
    sql = "SELECT seq, version, values_json, answer_seq FROM response_characteristics ORDER BY seq"
    return [tuple(row) for row in db.rows(sql)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    plan=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=14),
    cuts=st.sets(st.integers(1, 13)),
)
def test_turns_come_out_the_same_however_runs_cut_them(config: Config, plan: Plan, cuts: set[int]) -> None:
    with open_database(config.store) as db:
        db.execute("DELETE FROM responses")
        db.execute("DELETE FROM sqlite_sequence")
        ensure_tenant(db, DEFAULT_TENANT, NOW_S)
        written(db, plan)
        read(db)
        at_once = stored(db)
        db.execute("DELETE FROM response_characteristics")
        for cut in sorted(cuts):
            read(db, until=cut)
        read(db)
        in_parts = stored(db)

        answers = {seq: answer for seq, _, _, answer in at_once}
        is_step = np.array([answer is not None for answer in answers.values()])

    assert in_parts == at_once
    assert {version for _, version, _, _ in at_once} == {VERSION}
    assert all(answers[answer] is None for answer in answers.values() if answer is not None)
    assert is_step.sum() <= sum(is_call for _, is_call in plan)
