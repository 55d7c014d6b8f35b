"""A signal is one vote: weighed, replaced within its family, taken back, never counted twice."""

from dataclasses import replace
from typing import Any

import pytest

from store.config import Config
from store.database import Database
from store.errors import NotFoundError
from store.feedback import Signal, SignalAnswer, record_signal, withdraw_signal
from store.responses import insert_records
from store.tenants import ensure_tenant
from tests.conftest import NOW_S
from tests.store.test_segments import record


@pytest.fixture(autouse=True)
def responses(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    short = '{"role":"assistant","content":"short"}'
    insert_records(
        db,
        [
            record(1, upstream_id="chatcmpl-1", reply_json=short),
            record(2, upstream_id="chatcmpl-1", reply_json=short.replace("short", "x" * 601)),
            record(3, upstream_id="chatcmpl-1", tenant_id="other"),
        ],
    )


def rows(db: Database) -> list[tuple[Any, ...]]:
    found = db.rows("SELECT response_id, user_id, signal_type, weight, source FROM response_feedback ORDER BY seq")
    return [tuple(row) for row in found]


def test_each_signal_weighs_what_the_settings_say(db: Database, config: Config) -> None:
    for signal, weight in config.feedback.weights.items():
        given = Signal("resp_000001", signal, user=signal, value=61)  # type: ignore[arg-type]
        answer = record_signal(db, "default", given, config.feedback, source="api", now_s=NOW_S)
        assert (answer.signal, answer.weight, answer.response_id) == (signal, weight, "resp_000001")


def test_a_later_vote_replaces_the_earlier_one(db: Database, config: Config) -> None:
    for signal in (Signal("resp_000001", "thumbs_up", "u"), Signal("resp_000001", "thumbs_down", "u")):
        record_signal(db, "default", signal, config.feedback, source="api", now_s=NOW_S)
    assert rows(db) == [("resp_000001", "u", "thumbs_down", -1.0, "api")]


def test_users_and_families_keep_their_own_signals(db: Database, config: Config) -> None:
    for signal in (
        Signal("resp_000001", "thumbs_up", "u"),
        Signal("resp_000001", "thumbs_down", "v"),
        Signal("resp_000001", "copy", "u"),
        Signal("resp_000002", "copy", "u"),
    ):
        record_signal(db, "default", signal, config.feedback, source="api", now_s=NOW_S)
    assert len(rows(db)) == 4


def test_an_id_seen_before_changes_nothing_and_answers_the_same(db: Database, config: Config) -> None:
    first = Signal("resp_000001", "thumbs_up", "u", id="mine")
    answers = [
        record_signal(db, "default", signal, config.feedback, source="api", now_s=NOW_S)
        for signal in (first, replace(first, signal="thumbs_down"), replace(first, response_id="resp_000002"))
    ]
    assert answers == [SignalAnswer("mine", "resp_000001", "thumbs_up", 1.0)] * 3
    assert len(rows(db)) == 1


def test_a_repeated_id_changes_nothing_even_after_it_was_replaced_or_taken_back(db: Database, config: Config) -> None:
    up = Signal("resp_000001", "thumbs_up", "u", id="mine")
    for signal in (up, Signal("resp_000001", "thumbs_down", "u", id="second"), up):
        record_signal(db, "default", signal, config.feedback, source="api", now_s=NOW_S)
    assert [row[2] for row in rows(db)] == ["thumbs_down"]
    withdraw_signal(db, "default", "second")
    record_signal(db, "default", up, config.feedback, source="api", now_s=NOW_S)
    assert rows(db) == []


def test_a_body_id_means_the_newest_response_of_the_tenant(db: Database, config: Config) -> None:
    answer = record_signal(db, "default", Signal("chatcmpl-1", "copy"), config.feedback, source="api", now_s=NOW_S)
    assert answer.response_id == "chatcmpl-1"
    assert rows(db) == [("resp_000002", "", "copy", 0.3, "api")]


def test_another_tenants_response_or_signal_is_unknown(db: Database, config: Config) -> None:
    with pytest.raises(NotFoundError):
        record_signal(db, "other", Signal("resp_000001", "copy"), config.feedback, source="api", now_s=NOW_S)
    answer = record_signal(db, "default", Signal("resp_000001", "copy"), config.feedback, source="api", now_s=NOW_S)
    with pytest.raises(NotFoundError):
        withdraw_signal(db, "other", answer.id)
    assert len(rows(db)) == 1


@pytest.mark.parametrize(
    ("response_id", "seconds", "weight"),
    [("resp_000001", 60.5, -0.1), ("resp_000001", 60, 0.0), ("resp_000001", None, 0.0), ("resp_000002", 90, 0.0)],
)
def test_reading_long_counts_only_on_a_short_answer(
    db: Database, config: Config, response_id: str, seconds: float | None, weight: float
) -> None:
    signal = Signal(response_id, "dwell_time", value=seconds)
    assert record_signal(db, "default", signal, config.feedback, source="api", now_s=NOW_S).weight == weight


def test_a_signal_is_taken_back_once(db: Database, config: Config) -> None:
    answer = record_signal(db, "default", Signal("resp_000001", "copy"), config.feedback, source="api", now_s=NOW_S)
    withdraw_signal(db, "default", answer.id)
    assert rows(db) == []
    with pytest.raises(NotFoundError):
        withdraw_signal(db, "default", answer.id)


def test_what_the_traffic_shows_never_replaces_what_a_user_said(db: Database, config: Config) -> None:
    said = Signal("resp_000001", "follow_up", "u", comment="said")
    for source in ("api", "traffic"):
        record_signal(db, "default", said, config.feedback, source=source, now_s=NOW_S)
    assert [row[4] for row in rows(db)] == ["api"]


def test_a_replaced_signal_comes_anew_in_the_order_of_arrival(db: Database, config: Config) -> None:
    for signal in ("thumbs_up", "copy", "thumbs_down"):
        given = Signal("resp_000001", signal, "u")
        record_signal(db, "default", given, config.feedback, source="api", now_s=NOW_S)
    assert [row[2] for row in rows(db)] == ["copy", "thumbs_down"]


def test_a_caller_that_knows_our_id_names_the_response_and_gets_the_clients_name_back(
    db: Database, config: Config
) -> None:
    signal, newest = Signal(response_id="chatcmpl-1", signal="copy"), record(4, upstream_id="chatcmpl-1")
    with pytest.raises(NotFoundError):  # its record is on its way
        record_signal(db, "default", signal, config.feedback, source="api", now_s=NOW_S, own_id=newest.id)
    insert_records(db, [newest])
    answer = record_signal(db, "default", signal, config.feedback, source="api", now_s=NOW_S, own_id=newest.id)
    assert answer.response_id == "chatcmpl-1"
    assert [row[0] for row in rows(db)] == [newest.id]
