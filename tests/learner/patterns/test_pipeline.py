"""A pattern's life over whole runs: found, tried, measured, switched on, taken out."""

from dataclasses import replace

import pytest

from store.config import Config
from store.database import Database, open_database
from store.generations import current_plan
from store.patterns import pattern_history
from store.tenants import ensure_default_tenant
from store.vocabulary import DEFAULT_TENANT
from tests.conftest import NOW_S
from tests.learner.patterns.traffic import (
    TABLE_RULE,
    World,
    likes_tables,
    likes_tables_sometimes,
    votes_at_random,
)


def on_trial(db: Database, config: Config, seed: int = 0) -> World:
    world = World(db, config, seed)
    world.visit(160, likes_tables)
    world.visit(80, votes_at_random, question_type="chit_chat")
    world.learn()
    world.learn()
    return world


def test_what_stands_out_becomes_a_candidate_and_nothing_is_served_yet(db: Database, config: Config) -> None:
    world = World(db, config)
    world.visit(160, likes_tables)
    world.visit(80, votes_at_random, question_type="chit_chat")

    report = world.learn()

    assert world.table().state == "candidate"
    assert world.table().conditions.question_type == ("comparison",)
    assert world.table().lift is None
    assert report.generation is None
    assert any(TABLE_RULE in line for line in report.changes)
    assert current_plan(db, DEFAULT_TENANT).patterns == ()


def test_the_next_run_starts_its_trial_without_new_records(db: Database, config: Config) -> None:
    world = on_trial(db, config)

    row = world.table()

    assert (row.state, row.share, row.lift) == ("trial", config.patterns.trial_share, None)
    assert TABLE_RULE in [pattern.rule for pattern in current_plan(db, DEFAULT_TENANT).patterns]


@pytest.mark.parametrize("seed", range(5))
def test_randomised_votes_switch_it_on_with_its_lift_and_interval(db: Database, config: Config, seed: int) -> None:
    world = on_trial(db, config, seed)
    world.visit(360, likes_tables, tables=0.0)
    world.visit(60, votes_at_random, question_type="chit_chat")

    report = world.learn()

    row = world.table()
    assert row.state == "active"
    assert row.grade == "proven"
    assert row.lift is not None
    assert row.lift_low is not None
    assert row.lift_high is not None
    assert 0 < row.lift_low < row.lift < row.lift_high
    assert row.lift_low < 2.0 < row.lift_high
    assert row.confidence > 0.975
    assert row.signal_count >= 10
    assert report.generation is not None
    assert [event.to_state for event in pattern_history(db, DEFAULT_TENANT, row.id)] == ["candidate", "trial", "active"]


def test_an_active_pattern_warms_up_over_runs(db: Database, config: Config) -> None:
    world = on_trial(db, config)
    world.visit(360, likes_tables, tables=0.0)
    shares = []
    for _ in range(6):
        world.learn(after_h=6)
        shares.append(world.table().share)

    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(config.patterns.active_share)


@pytest.mark.parametrize("seed", range(3))
def test_few_and_noisy_votes_are_enough_in_time(db: Database, config: Config, seed: int) -> None:
    world = on_trial(db, config, seed)
    for _ in range(4):
        world.visit(250, likes_tables_sometimes, tables=0.1)
        world.learn(after_h=6)

    assert world.table().state == "active"


def test_a_run_without_news_changes_nothing(db: Database, config: Config) -> None:
    world = on_trial(db, config)
    before = world.patterns()

    report = world.learn()

    assert report.changes == ()
    assert report.generation is None
    assert world.patterns() == before


def test_votes_that_do_not_depend_on_what_is_tried_activate_nothing(db: Database, config: Config) -> None:
    worlds = [a_a_world(config, seed) for seed in range(20)]

    assert sum(n_tried for n_tried, _ in worlds) >= 20
    assert sum(n_activated for _, n_activated in worlds) <= 1


def a_a_world(config: Config, seed: int) -> tuple[int, int]:
    """Return how many patterns are ever tried, and how many ever active, in 12 runs of votes that mean nothing."""
    section = replace(config.store, url=config.store.url + f"-{seed}")
    with open_database(section) as db:
        ensure_default_tenant(db, NOW_S)
        world = World(db, config, seed)
        for _ in range(12):
            world.visit(60, votes_at_random)
            world.visit(40, votes_at_random, question_type="chit_chat")
            world.learn(after_h=6)
        events = "SELECT count(*) FROM pattern_events WHERE to_state = :state"
        return int(db.value(events, {"state": "trial"})), int(db.value(events, {"state": "active"}))
