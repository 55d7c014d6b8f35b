"""What a user's next turn says about the reply before it."""

import json

import pytest
from msgspec.structs import replace

from learner.signals import find_traffic_signals, is_closing, is_correction, judge
from store.clock import iso
from store.config import Config
from store.database import Database
from store.feedback import Signal, record_signal
from store.records import ResponseRecord
from store.responses import insert_records
from store.turns import FollowedResponse, newest_response
from store.vocabulary import DEFAULT_TENANT
from tests.conftest import NOW_S


def pair(text: str, *, waited_s: float = 10.0, request_hash: str = "b", role: str = "user") -> FollowedResponse:
    return FollowedResponse(
        response_id="resp_1",
        user_id="u",
        completed_at=iso(NOW_S),
        request_hash="a",
        reply_json=json.dumps({"role": "assistant", "content": "Within 14 days."}),
        families=frozenset(),
        next_messages_json=json.dumps([{"role": role, "content": text}]),
        next_request_hash=request_hash,
        next_created_at=iso(NOW_S + waited_s),
    )


def test_a_new_question_within_the_window_is_a_follow_up() -> None:
    assert judge(pair("And how do I send it back?"), follow_up_window_s=30) == "follow_up"


@pytest.mark.parametrize("waited_s", [30.5, 3600.0])
def test_a_later_question_is_none(waited_s: float) -> None:
    assert judge(pair("And how do I send it back?", waited_s=waited_s), follow_up_window_s=30) is None


def test_the_result_of_a_tool_is_no_question() -> None:
    assert judge(pair("42", role="tool"), follow_up_window_s=30) is None


def test_a_reply_that_calls_tools_is_not_answered_yet() -> None:
    calling = replace(pair("hurry"), reply_json=json.dumps({"role": "assistant", "tool_calls": [{"id": "c"}]}))

    assert judge(calling, follow_up_window_s=30) is None


def test_the_same_request_again_is_a_regenerate_at_any_time() -> None:
    assert judge(pair("How long?", request_hash="a", waited_s=500.0), follow_up_window_s=30) == "regenerate"


@pytest.mark.parametrize(
    "text",
    [
        "That's wrong.",
        "that is not correct, the fee is 5 euros",
        "No, it is 30 days.",
        "no, that's outdated",
        "Actually it's 30 days",
        "actually, the limit is 20 euros",
        "This isn\u2019t right",
        "You got that wrong",
        "Wrong, it should be Tuesday",
        "Your answer is incorrect.",
    ],
)
def test_a_correction_is_recognised_at_any_time(text: str) -> None:
    assert is_correction(text)
    assert judge(pair(text, waited_s=3000.0), follow_up_window_s=30) == "correction"


@pytest.mark.parametrize(
    "text",
    [
        "Actually, can you also check my other order?",
        "No.",
        "No thanks",
        "What is wrong with my router?",
        "Is that wrong?",
        "I was wrong about the date, sorry",
        "Not sure what that means",
        "Is it true that it's 30 days?",
    ],
)
def test_what_may_mean_something_else_is_no_correction(text: str) -> None:
    assert not is_correction(text)


@pytest.mark.parametrize(
    "text",
    [
        "thanks",
        "Thanks!!",
        "Great, thank you so much!",
        "ok perfect, that worked",
        "No, that's all, thanks.",
        "Thank you for your help",
        "👍",
        "",
    ],
)
def test_a_farewell_is_no_follow_up(text: str) -> None:
    assert is_closing(text)
    assert judge(pair(text), follow_up_window_s=30) is None


@pytest.mark.parametrize("text", ["Thanks. How do I cancel?", "ok and what about Sunday", "Great, now do it for May"])
def test_thanks_with_a_question_is_a_question(text: str) -> None:
    assert not is_closing(text)


def record(number: int, text: str, *, at_s: float, request_hash: str = "") -> ResponseRecord:
    return ResponseRecord(
        id=f"resp_{number}",
        tenant_id=DEFAULT_TENANT,
        conversation_id="c",
        endpoint="/v1/chat/completions",
        user_id="u",
        question_type="refund",
        outcome="ok",
        status=200,
        latency_ms=5.0,
        messages_json=json.dumps([{"role": "user", "content": text}]),
        reply_json=json.dumps({"role": "assistant", "content": "Yes."}),
        request_hash=request_hash or f"h{number}",
        created_at=iso(at_s),
        completed_at=iso(at_s + 1),
    )


def signals(db: Database) -> list[tuple[str, str, str, float]]:
    rows = db.rows("SELECT response_id, signal_type, source, weight FROM response_feedback ORDER BY response_id")
    return [(row["response_id"], row["signal_type"], row["source"], row["weight"]) for row in rows]


def test_signals_are_found_once_however_often_they_are_looked_for(db: Database, config: Config) -> None:
    insert_records(
        db,
        [
            record(1, "How long?", at_s=NOW_S),
            record(2, "And where?", at_s=NOW_S + 5),
            record(3, "And where?", at_s=NOW_S + 40, request_hash="h2"),
            record(4, "That's wrong, it is in Lyon.", at_s=NOW_S + 400),
        ],
    )

    found = find_traffic_signals(db, DEFAULT_TENANT, config.feedback, after=0, until=newest_response(db, "default"))
    again = find_traffic_signals(db, DEFAULT_TENANT, config.feedback, after=0, until=newest_response(db, "default"))

    assert (found, again) == (3, 0)
    assert signals(db) == [
        ("resp_1", "follow_up", "traffic", -0.2),
        ("resp_2", "regenerate", "traffic", -0.3),
        ("resp_3", "correction", "traffic", -0.5),
    ]
    assert db.value("SELECT correction FROM response_feedback WHERE signal_type = 'correction'") == (
        "That's wrong, it is in Lyon."
    )


def test_what_a_client_said_itself_stays(db: Database, config: Config) -> None:
    insert_records(db, [record(1, "How long?", at_s=NOW_S), record(2, "And where?", at_s=NOW_S + 5)])
    said = Signal(response_id="resp_1", signal="follow_up", user="somebody", comment="by hand")
    record_signal(db, DEFAULT_TENANT, said, config.feedback, source="api", now_s=NOW_S)

    assert find_traffic_signals(db, DEFAULT_TENANT, config.feedback, after=0, until=9) == 0
    assert signals(db) == [("resp_1", "follow_up", "api", -0.2)]
