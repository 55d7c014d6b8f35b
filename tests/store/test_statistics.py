"""Numbers for people: satisfaction by day and arm, and what waits."""

from typing import Any

import pytest

from store.clock import iso
from store.config import Config
from store.database import Database
from store.exchanges import exchanges
from store.feedback import Signal, record_signal
from store.records import InjectionRecord, ResponseRecord
from store.responses import insert_records
from store.statistics import arm_totals, counts, installation_totals, satisfaction_by_day
from tests.conftest import NOW_S

DAY_S = 86400


def response(number: int, **changes: Any) -> ResponseRecord:
    values: dict[str, Any] = {
        "id": f"resp-{number}",
        "tenant_id": "default",
        "conversation_id": f"talk-{number}",
        "endpoint": "/v1/chat/completions",
        "question_type": "unknown",
        "outcome": "ok",
        "status": 200,
        "latency_ms": 5.0,
        "created_at": iso(NOW_S),
        "completed_at": iso(NOW_S),
        **changes,
    }
    return ResponseRecord(**values)


def vote(db: Database, config: Config, number: int, signal: Any) -> None:
    given = Signal(response_id=f"resp-{number}", signal=signal, user="u")
    record_signal(db, "default", given, config.feedback, source="api", now_s=NOW_S)


def test_satisfaction_is_told_by_day_and_arm(db: Database, config: Config) -> None:
    insert_records(
        db,
        [
            response(1),
            response(2),
            response(3, is_holdout=True),
            response(4, created_at=iso(NOW_S - DAY_S)),
            response(5, outcome="upstream_error"),
            response(6, created_at=iso(NOW_S - 90 * DAY_S)),
        ],
    )
    vote(db, config, 1, "thumbs_up")
    vote(db, config, 3, "thumbs_down")
    vote(db, config, 5, "thumbs_down")
    days = satisfaction_by_day(db, "default", now_s=NOW_S, days=30)
    assert [(d.day, d.arm, d.n_responses, d.satisfaction) for d in days] == [
        ("2026-11-20", "treated", 1, 0.0),
        ("2026-11-21", "holdout", 1, -1.0),
        ("2026-11-21", "treated", 2, 0.5),
    ]
    totals = arm_totals(db, "default", first_day="2026-10-22", last_day="2026-11-21")
    assert totals["treated"].n_responses == 3
    assert totals["treated"].satisfaction == pytest.approx(1 / 3)
    assert totals["treated"].stderr == pytest.approx(1 / 3)
    assert (totals["holdout"].n_responses, totals["holdout"].stderr) == (1, None)


def test_answers_of_one_conversation_are_not_counted_as_independent(db: Database, config: Config) -> None:
    insert_records(db, [response(number, conversation_id=f"talk-{number % 2}") for number in range(8)])
    for number in (0, 2, 4, 6):
        vote(db, config, number, "thumbs_up")
    treated = arm_totals(db, "default", first_day="2026-10-22", last_day="2026-11-21")["treated"]
    assert (treated.n_responses, treated.satisfaction) == (8, 0.5)
    assert treated.stderr == pytest.approx(0.5)  # two conversations, +1 and 0: as if there were two answers


def test_an_empty_tenant_has_both_arms_and_no_numbers(db: Database) -> None:
    totals = arm_totals(db, "default", first_day="2026-10-22", last_day="2026-11-21")
    assert {arm: total.satisfaction for arm, total in totals.items()} == {"treated": None, "holdout": None}
    assert counts(db, "default").n_active_patterns == 0
    assert installation_totals(db).open_alerts == 0


def test_an_exchange_says_what_was_put_in_and_what_users_made_of_it(db: Database, config: Config) -> None:
    injection = InjectionRecord("pattern", "pat_gone", "format", 0.475, 0.5, False, None, 12)
    insert_records(db, [response(1, injections=(injection,), injected_tokens=0)])
    vote(db, config, 1, "copy")
    (exchange,) = exchanges(db, "default", "talk-1")
    ((kind, item_id, propensity, treated),) = [
        (item.kind, item.item_id, item.propensity, item.treated) for item in exchange.injections
    ]
    assert (kind, item_id, propensity, treated) == ("pattern", "pat_gone", 0.475, False)
    assert [(signal.signal, signal.weight, signal.user_id) for signal in exchange.signals] == [("copy", 0.3, "u")]
    assert exchanges(db, "other", "talk-1") == []
