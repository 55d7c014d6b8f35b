"""Runs in processes of their own: one that dies at any statement leaves nothing, and two at once do the work of two."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from learner.run import run_once
from store.config import Config
from store.database import Database
from store.generations import current_number
from store.runs import list_runs
from store.vocabulary import DEFAULT_TENANT
from tests.learner.patterns.traffic import World
from tests.learner.test_run import copied, prepared, result

BY_ITSELF = -1
N_ANYWHERE = 8
N_AT_THE_END = 4
LAST = 12  # statements, most of them inside the transaction that publishes


def started(now_s: float, *jobs: tuple[Path, int]) -> subprocess.Popen[str]:
    """Start a run on each database, one after the other, that dies at a statement."""
    arguments = [str(argument) for job in jobs for argument in job]
    command = [sys.executable, "-m", "tests.learner.patterns.killed", str(now_s), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def learn(world: World, db: Database, config: Config) -> None:
    run_once(db, config, DEFAULT_TENANT, "patterns", collaborators=world.collaborators, now_s=world.now_s)


def test_a_process_that_dies_at_any_statement_leaves_nothing_and_the_next_run_makes_up_for_it(
    db: Database, config: Config
) -> None:
    world = prepared(db, config)
    before = result(db)
    with copied(db.path, config, "whole.db") as (_, whole):
        n_statements = int(started(world.now_s, (whole.path, BY_ITSELF)).communicate()[0])
        expected, generation = result(whole), current_number(whole, DEFAULT_TENANT)
    rng = np.random.default_rng(11)
    anywhere = rng.choice(n_statements - LAST, N_ANYWHERE, replace=False) + 1
    at_the_end = n_statements - rng.choice(LAST, N_AT_THE_END, replace=False)

    with ExitStack() as stack:
        copies = {
            statement: stack.enter_context(copied(db.path, config, f"killed-{statement}.db"))
            for statement in (*anywhere.tolist(), *at_the_end.tolist())
        }
        jobs = [(copy.path, statement) for statement, (_, copy) in copies.items()]
        ends = started(world.now_s, *jobs).communicate()[0].split()

        assert ends == ["died"] * len(copies)
        for settings, copy in copies.values():
            assert result(copy) == before
            learn(world, copy, settings)
            assert result(copy) == expected
            assert current_number(copy, DEFAULT_TENANT) == generation


def test_two_processes_at_once_come_to_what_two_runs_in_turn_do(db: Database, config: Config) -> None:
    world = prepared(db, config)
    with copied(db.path, config, "in-turn.db") as (settings, in_turn):
        learn(world, in_turn, settings)
        learn(world, in_turn, settings)
        expected = result(in_turn)
        n_runs = len(list_runs(in_turn, DEFAULT_TENANT, limit=50)[0])

    both = [started(world.now_s, (db.path, BY_ITSELF)) for _ in range(2)]
    assert all(int(one.communicate()[0]) > 0 for one in both)

    assert [one.returncode for one in both] == [0, 0]
    assert result(db) == expected
    assert [run.status for run in list_runs(db, DEFAULT_TENANT, limit=50)[0]] == ["completed"] * n_runs
