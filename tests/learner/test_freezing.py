"""Whether a crash holds back what is new, as the last run found."""

import pytest

from learner.freezing import freeze_of
from store.alerts import acknowledge_alert, raise_alert
from store.clock import iso
from store.config import Config
from store.database import Database
from store.runs import finish_run, start_run
from tests.conftest import NOW_S

DAY_S = 86_400.0


@pytest.fixture
def alert(db: Database) -> str:
    return raise_alert(db, "default", kind="crash", message="it fell", detail={}, run_id=None, now_s=NOW_S)


def look(db: Database, at_s: float, *, is_frozen: bool | None) -> str:
    """Return the id of a run that looked, or did not (None)."""
    run_id = start_run(db, "default", "patterns", at_s, at_s)
    finish_run(db, "default", run_id, finished_s=at_s, cursor={}, summary={}, is_frozen=is_frozen)
    return run_id


def test_a_crash_freezes_until_a_day_that_is_told(db: Database, config: Config, alert: str) -> None:
    run_id = look(db, NOW_S, is_frozen=True)
    last_s = NOW_S + config.patterns.freeze_days * DAY_S
    freeze = freeze_of(db, "default", config.patterns, last_s)
    assert freeze is not None
    assert (freeze.alert_id, freeze.run_id, freeze.since, freeze.until) == (alert, run_id, iso(NOW_S), iso(last_s))
    assert freeze_of(db, "default", config.patterns, last_s + 1) is None


def test_a_person_who_saw_the_alert_ends_the_freeze(db: Database, config: Config, alert: str) -> None:
    look(db, NOW_S, is_frozen=True)
    acknowledge_alert(db, "default", alert, now_s=NOW_S + 1)
    assert freeze_of(db, "default", config.patterns, NOW_S + 2) is None


@pytest.mark.usefixtures("alert")
def test_a_run_that_was_not_frozen_ends_it_though_nothing_was_tried(db: Database, config: Config) -> None:
    look(db, NOW_S, is_frozen=True)
    look(db, NOW_S + 10, is_frozen=False)
    assert freeze_of(db, "default", config.patterns, NOW_S + 20) is None


@pytest.mark.usefixtures("alert")
def test_a_run_that_had_nothing_to_look_at_changes_nothing(db: Database, config: Config) -> None:
    frozen = look(db, NOW_S, is_frozen=True)
    look(db, NOW_S + 10, is_frozen=None)
    freeze = freeze_of(db, "default", config.patterns, NOW_S + 20)
    assert freeze is not None
    assert freeze.run_id == frozen


@pytest.mark.usefixtures("alert")
def test_an_alert_alone_freezes_nothing(db: Database, config: Config) -> None:
    assert freeze_of(db, "default", config.patterns, NOW_S) is None
