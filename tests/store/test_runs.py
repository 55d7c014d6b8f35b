"""Learning runs and what is left of them."""

import pytest

from store.database import Database
from store.errors import NotFoundError
from store.runs import fail_interrupted_runs, fail_run, finish_run, get_run, last_completed_run, list_runs, start_run
from store.vocabulary import DEFAULT_TENANT
from tests.conftest import NOW_S


def test_the_next_run_begins_where_the_last_completed_one_ended(db: Database) -> None:
    done = start_run(db, DEFAULT_TENANT, "patterns", NOW_S, NOW_S)
    finish_run(db, DEFAULT_TENANT, done, finished_s=NOW_S + 1, cursor={"response": 7}, summary={"n": 1}, n_responses=7)
    failed = start_run(db, DEFAULT_TENANT, "patterns", NOW_S, NOW_S + 2)
    fail_run(db, DEFAULT_TENANT, failed, error="out of memory", finished_s=NOW_S + 3)

    last = last_completed_run(db, DEFAULT_TENANT, "patterns")

    assert last is not None
    assert (last.id, last.cursor, last.n_responses, last.summary) == (done, {"response": 7}, 7, {"n": 1})
    assert get_run(db, DEFAULT_TENANT, failed).error == "out of memory"
    assert last_completed_run(db, DEFAULT_TENANT, "knowledge") is None


def test_a_run_whose_process_died_is_marked_as_failed(db: Database) -> None:
    run_id = start_run(db, DEFAULT_TENANT, "patterns", NOW_S, NOW_S)

    assert fail_interrupted_runs(db, DEFAULT_TENANT, finished_s=NOW_S + 9) == 1
    assert get_run(db, DEFAULT_TENANT, run_id).error == "interrupted"


def test_a_run_ends_once(db: Database) -> None:
    run_id = start_run(db, DEFAULT_TENANT, "patterns", NOW_S, NOW_S)
    finish_run(db, DEFAULT_TENANT, run_id, finished_s=NOW_S, cursor={}, summary={})

    with pytest.raises(NotFoundError):
        finish_run(db, DEFAULT_TENANT, run_id, finished_s=NOW_S, cursor={}, summary={})


def test_runs_are_listed_the_newest_first_in_pages(db: Database) -> None:
    made = [start_run(db, DEFAULT_TENANT, "patterns", NOW_S, NOW_S + i) for i in range(3)]
    start_run(db, DEFAULT_TENANT, "knowledge", NOW_S, NOW_S)

    first, cursor = list_runs(db, DEFAULT_TENANT, kind="patterns", limit=2)
    rest, end = list_runs(db, DEFAULT_TENANT, kind="patterns", limit=2, cursor=cursor)

    assert [run.id for run in first + rest] == made[::-1]
    assert end is None
