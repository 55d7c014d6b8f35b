"""Runs in processes of their own: one that dies at any statement leaves nothing, and two at once do the work of two."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from learner.run import run_once
from store.config import Config
from store.database import Database
from store.generations import current_number
from store.runs import list_runs
from store.vocabulary import DEFAULT_TENANT
from tests.learner.patterns.killed import DIED
from tests.learner.patterns.traffic import World
from tests.learner.test_run import copied, prepared, result

BY_ITSELF = -1
N_ANYWHERE = 4
LAST = 12  # statements, most of them inside the transaction that publishes


def started(path: Path, now_s: float, statement: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.learner.patterns.killed", str(path), str(now_s), str(statement)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def learn(world: World, db: Database, config: Config) -> None:
    run_once(db, config, DEFAULT_TENANT, "patterns", collaborators=world.collaborators, now_s=world.now_s)


@pytest.mark.parametrize("seed", [11, 12])
def test_a_process_that_dies_at_any_statement_leaves_nothing_and_the_next_run_makes_up_for_it(
    db: Database, config: Config, seed: int
) -> None:
    world = prepared(db, config)
    before = result(db)
    with copied(db.path, config, "whole.db") as (_, whole):
        undisturbed = started(whole.path, world.now_s, BY_ITSELF)
        n_statements = int(undisturbed.communicate()[0])
        expected, generation = result(whole), current_number(whole, DEFAULT_TENANT)
    rng = np.random.default_rng(seed)
    anywhere = rng.integers(1, n_statements + 1, N_ANYWHERE)
    at_the_end = n_statements - rng.choice(LAST, 2, replace=False)

    for statement in {*anywhere.tolist(), *at_the_end.tolist()}:
        with copied(db.path, config, f"killed-{statement}.db") as (settings, copy):
            dying = started(copy.path, world.now_s, statement)
            dying.communicate()
            assert dying.returncode == DIED
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

    both = [started(db.path, world.now_s, BY_ITSELF) for _ in range(2)]
    for one in both:
        one.communicate()

    assert [one.returncode for one in both] == [0, 0]
    assert result(db) == expected
    assert [run.status for run in list_runs(db, DEFAULT_TENANT, limit=50)[0]] == ["completed"] * n_runs
