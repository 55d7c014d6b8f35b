"""Whether a crash holds back what is new."""

from dataclasses import replace

import pytest

from learner.freezing import freeze_of
from store.alerts import acknowledge_alert, raise_alert
from store.clock import iso
from store.config import Config
from store.database import Database
from store.patterns import insert_pattern, new_pattern, save_pattern
from store.plan import Conditions
from tests.conftest import NOW_S

DAY_S = 86_400.0


@pytest.fixture
def alert(db: Database) -> str:
    return raise_alert(db, "default", kind="crash", message="it fell", detail={}, run_id=None, now_s=NOW_S)


def start_trial(db: Database, actor: str, at_s: float) -> None:
    row = new_pattern(
        "pat-a",
        "default",
        type="query_style",
        dimension="style",
        value="cte",
        rule="Use CTEs.",
        conditions=Conditions(),
        tokens=4,
        origin="learned",
        now_s=NOW_S,
    )
    insert_pattern(db, row, actor="learner", reason="found", now_s=NOW_S)
    save_pattern(db, row, replace(row, state="trial"), actor=actor, reason="", now_s=at_s)


def test_a_crash_freezes_until_a_day_that_is_told(db: Database, config: Config, alert: str) -> None:
    last_s = NOW_S + config.patterns.freeze_days * DAY_S
    freeze = freeze_of(db, "default", config.patterns, last_s)
    assert freeze is not None
    assert (freeze.alert_id, freeze.since, freeze.until) == (alert, iso(NOW_S), iso(last_s))
    assert freeze_of(db, "default", config.patterns, last_s + 1) is None


def test_a_person_who_saw_the_alert_ends_the_freeze(db: Database, config: Config, alert: str) -> None:
    acknowledge_alert(db, "default", alert, now_s=NOW_S + 1)
    assert freeze_of(db, "default", config.patterns, NOW_S + 2) is None


@pytest.mark.usefixtures("alert")
def test_a_run_that_tries_something_new_shows_that_the_freeze_is_over(db: Database, config: Config) -> None:
    start_trial(db, "learner", NOW_S + 10)
    assert freeze_of(db, "default", config.patterns, NOW_S + 20) is None


@pytest.mark.usefixtures("alert")
def test_a_trial_that_a_person_starts_does_not_end_it(db: Database, config: Config) -> None:
    start_trial(db, "command", NOW_S + 10)
    assert freeze_of(db, "default", config.patterns, NOW_S + 20) is not None


def test_other_alerts_do_not_freeze(db: Database, config: Config) -> None:
    raise_alert(db, "default", kind="run_failed", message="it broke", detail={}, run_id=None, now_s=NOW_S)
    assert freeze_of(db, "default", config.patterns, NOW_S) is None
