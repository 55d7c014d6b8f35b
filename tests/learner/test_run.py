"""A run as a whole: one at a time, all or nothing, and its failure is seen."""

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from learner.run import run_once
from store.alerts import list_alerts
from store.config import Config
from store.database import Database, Parameters, open_database
from store.errors import ConflictError, NotFoundError, UnavailableError
from store.generations import current_number, current_plan
from store.learner_states import load_learner_state
from store.patterns import PatternRow, all_patterns
from store.run_lock import run_lock
from store.runs import last_completed_run, list_runs
from store.vocabulary import DEFAULT_TENANT
from tests.learner.patterns.traffic import World, likes_tables, votes_at_random

WORLD_SEED = 3
FOREVER = 10_000  # statements


def prepared(db: Database, config: Config) -> World:
    """Return a world whose next run activates a pattern and finds another."""
    world = World(db, config, WORLD_SEED)
    world.visit(120, likes_tables)
    world.learn()
    world.learn()
    world.visit(260, likes_tables, tables=0.0)
    world.visit(40, votes_at_random, question_type="chit_chat")
    return world


class Killed(BaseException):
    """The process dies here."""


class Mortal(Database):
    """Dies at the n-th statement that could change something."""

    def __init__(self, connection: sqlite3.Connection, path: Path, dies_at: int) -> None:
        super().__init__(connection, path)
        self.left = dies_at

    def execute(self, sql: str, parameters: Parameters | None = None) -> int:
        self._count()
        return super().execute(sql, parameters)

    def execute_many(self, sql: str, parameters: Any) -> None:
        self._count()
        super().execute_many(sql, parameters)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


@contextmanager
def copied(source: Path, config: Config, name: str) -> Iterator[tuple[Config, Database]]:
    path = source.with_name(name)
    with sqlite3.connect(source) as origin, sqlite3.connect(path) as copy:
        origin.backup(copy)
    origin.close()
    copy.close()
    other = replace(config, store=replace(config.store, url=f"sqlite:///{path}"))
    with open_database(other.store) as db:
        yield other, db


def result(db: Database) -> list[tuple[object, ...]]:
    """Return what a run made, but for ids and the machine's time."""

    def facts(row: PatternRow) -> tuple[object, ...]:
        return row.rule, row.conditions, row.state, row.grade, row.lift, row.e_value, row.share, row.trial_since

    events = db.rows(
        "SELECT actor, from_state, to_state, reason, detail_json FROM pattern_events ORDER BY reason, to_state"
    )
    state = load_learner_state(db, DEFAULT_TENANT)
    plan = [(one.rule, one.share, one.cells) for one in current_plan(db, DEFAULT_TENANT).patterns]
    return [
        *sorted((facts(row) for row in all_patterns(db, DEFAULT_TENANT)), key=str),
        *(tuple(event) for event in events),
        *sorted(plan, key=str),
        () if state is None else (state.state, state.cursor, state.group_field, state.priorities),
    ]


def test_a_run_killed_at_any_statement_repeats_to_the_same_result(db: Database, config: Config) -> None:
    world = prepared(db, config)

    def learn(one: Database, settings: Config) -> None:
        run_once(one, settings, DEFAULT_TENANT, "patterns", collaborators=world.collaborators, now_s=world.now_s + 60)

    with copied(db.path, config, "whole.db") as (settings, whole):
        counting = Mortal(whole.connection, whole.path, FOREVER)
        learn(counting, settings)
        expected, generation = result(whole), current_number(whole, DEFAULT_TENANT)
    before = result(db)
    for dies_at in range(FOREVER - counting.left):
        with copied(db.path, config, f"killed-{dies_at}.db") as (settings, copy):
            with pytest.raises(Killed):
                learn(Mortal(copy.connection, copy.path, dies_at), settings)
            assert result(copy) == before
            learn(copy, settings)
            assert result(copy) == expected
            assert current_number(copy, DEFAULT_TENANT) == generation

    assert "active" in str(expected)


def hold(path: Path, is_held: Event) -> None:
    with run_lock(path, DEFAULT_TENANT, wait_s=0):
        is_held.set()
        signal.pause()


def test_two_learners_never_work_the_same_tenant_and_a_killed_one_blocks_nobody(db: Database, config: Config) -> None:
    context = multiprocessing.get_context("spawn")
    is_held = context.Event()
    process = context.Process(target=hold, args=(db.path, is_held))
    process.start()
    assert is_held.wait(30)
    impatient = replace(config, learner=replace(config.learner, run_wait_s=0.0))
    world = World(db, impatient)

    with pytest.raises(ConflictError, match="default"):
        world.learn()
    with run_lock(db.path, "other", wait_s=0):
        pass
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()

    assert world.learn().changes == ()


def test_a_run_that_fails_leaves_its_row_and_an_alert_and_publishes_nothing(db: Database, config: Config) -> None:
    world = prepared(db, config)
    plan = current_plan(db, DEFAULT_TENANT)
    db.execute("DROP TABLE injection_set_items")

    with pytest.raises(UnavailableError, match="injection_set_items"):
        world.learn()

    failed = list_runs(db, DEFAULT_TENANT)[0][0]
    assert failed.status == "failed"
    assert "injection_set_items" in (failed.error or "")
    assert [alert.kind for alert in list_alerts(db, DEFAULT_TENANT)[0]] == ["run_failed"]
    assert current_plan(db, DEFAULT_TENANT) == plan


def test_a_run_that_died_is_marked_when_the_next_one_starts(db: Database, config: Config) -> None:
    world = World(db, config)
    world.visit(5, likes_tables)
    mortal = Mortal(db.connection, db.path, 9)
    with pytest.raises(Killed):
        run_once(mortal, config, DEFAULT_TENANT, "patterns", collaborators=world.collaborators, now_s=world.now_s)
    world.learn()

    newest, died = list_runs(db, DEFAULT_TENANT)[0]
    assert (died.status, died.error) == ("failed", "interrupted")
    assert newest.status == "completed"


def test_all_is_patterns_and_knowledge(db: Database, config: Config) -> None:
    world = World(db, config)
    reports = run_once(db, config, DEFAULT_TENANT, "all", collaborators=world.collaborators, now_s=world.now_s)

    assert [report.kind for report in reports] == ["patterns", "knowledge"]
    assert {run.kind for run in list_runs(db, DEFAULT_TENANT)[0]} == {"patterns", "knowledge"}


def test_what_cannot_be_run_is_refused(db: Database, config: Config) -> None:
    world = World(db, config)

    with pytest.raises(NotFoundError, match="ds-auto-training"):
        run_once(db, config, DEFAULT_TENANT, "nlu", collaborators=world.collaborators, now_s=world.now_s)
    with pytest.raises(NotFoundError, match="nobody"):
        run_once(db, config, "nobody", "patterns", collaborators=world.collaborators, now_s=world.now_s)


def test_the_row_of_a_run_says_what_it_read(db: Database, config: Config) -> None:
    world = World(db, config)
    world.visit(40, likes_tables)
    world.learn()
    world.visit(10, likes_tables, tables=1.0)
    world.learn()

    run = last_completed_run(db, DEFAULT_TENANT, "patterns")
    assert run is not None
    assert (run.n_responses, run.n_signals, run.satisfaction) == (10, 10, 1.0)
