"""The sums between runs: as good as reading everything again, and made anew when they cannot be trusted."""

from dataclasses import replace

import numpy as np
import pytest

from learner.patterns.beliefs import Beliefs, Key, Scope
from learner.patterns.kept import Cursor, Kept, Source, as_state, catch_up, fresh, resets_of, restore, with_resets
from learner.patterns.observations import Column
from learner.patterns.replies import read_replies
from learner.patterns.states import Reset
from store.config import Config
from store.database import Database
from store.feedback import Signal, record_signal, withdraw_signal
from store.learner_states import LearnerState
from store.patterns import all_patterns
from store.removals import newest_removal
from store.turns import newest_response, newest_signal
from store.vocabulary import DEFAULT_TENANT
from tests.learner.patterns.traffic import World, likes_tables, likes_tables_sometimes

FOREVER = 10**9
KEY = Key(Scope(), Column("response_format", "table"))


def source(world: World) -> Source:
    rows = all_patterns(world.db, DEFAULT_TENANT)
    return Source(world.db, DEFAULT_TENANT, world.config.patterns, world.config.feedback, rows, "")


def newest(db: Database) -> Cursor:
    return Cursor(
        newest_response(db, DEFAULT_TENANT), newest_signal(db, DEFAULT_TENANT), newest_removal(db, DEFAULT_TENANT)
    )


def read(world: World, kept: Kept, settled: int) -> tuple[Kept, Beliefs]:
    """Return the sums up to *settled*, and what they and the newer records say together."""
    until = newest(world.db)
    read_replies(
        world.db,
        DEFAULT_TENANT,
        world.collaborators.tokens,
        until=until.response,
        since_at="",
        settle_days=2,
        max_term_replies=1000,
    )
    found = catch_up(kept, source(world), Cursor(), until, settled=settled)
    return found.kept, found.seen.statistics.copy().refit(world.now_s)


def begin(world: World) -> Kept:
    return fresh(source(world), None, Cursor(0, newest_signal(world.db, DEFAULT_TENANT), 0), ())


def tried(db: Database, config: Config) -> World:
    world = World(db, config)
    world.visit(160, likes_tables)
    world.learn()
    world.learn()
    world.visit(200, likes_tables_sometimes, tables=0.3)
    return world


def test_what_is_kept_says_the_same_after_it_was_written(db: Database, config: Config) -> None:
    world = tried(db, config)
    kept, beliefs = read(world, begin(world), settled=FOREVER)

    again = restore(as_state(kept, {}), source(world))

    assert again is not None
    assert (again.cursor, again.group_field) == (kept.cursor, None)
    np.testing.assert_array_equal(again.statistics.refit(world.now_s).key_mean, beliefs.key_mean)


def test_a_tail_is_taken_in_afresh_each_time(db: Database, config: Config) -> None:
    world = tried(db, config)
    kept, first = read(world, begin(world), settled=100)

    kept, second = read(world, kept, settled=100)

    assert kept.cursor.response == 100
    np.testing.assert_array_equal(first.n_treated, second.n_treated)
    np.testing.assert_array_equal(first.log_e, second.log_e)


def test_votes_that_are_taken_back_leave_hardly_a_trace_in_settled_sums(db: Database, config: Config) -> None:
    world = tried(db, config)
    rated = db.rows("SELECT response_id FROM response_feedback ORDER BY seq DESC LIMIT 20")
    kept, before = read(world, begin(world), settled=FOREVER)
    given = [
        record_signal(
            db,
            DEFAULT_TENANT,
            Signal(response_id=row["response_id"], signal="thumbs_down", user=f"other-{number}"),
            config.feedback,
            source="api",
            now_s=world.now_s,
        )
        for number, row in enumerate(rated)
    ]
    kept, changed = read(world, kept, settled=FOREVER)
    for one in given:
        withdraw_signal(db, DEFAULT_TENANT, one.id)
    kept, after = read(world, kept, settled=FOREVER)

    moved = np.abs(changed.key_mean - before.key_mean).max()
    assert moved > 0.004
    assert np.abs(after.key_mean - before.key_mean).max() < 0.1 * moved


@pytest.mark.parametrize("damage", [b"", b"x", b"0" * 5000])
def test_damaged_sums_are_not_used(db: Database, config: Config, damage: bytes) -> None:
    world = tried(db, config)
    kept, _ = read(world, begin(world), settled=FOREVER)
    state = as_state(kept, {})

    assert restore(replace(state, state=damage), source(world)) is None
    assert restore(replace(state, state=state.state[:-1] + b"?"), source(world)) is None


def test_sums_of_another_version_are_not_used(db: Database, config: Config) -> None:
    world = tried(db, config)
    state = as_state(read(world, begin(world), settled=FOREVER)[0], {})

    assert restore(replace(state, version=0), source(world)) is None
    assert restore(replace(state, cursor={**state.cursor, "versions": [0, 0]}), source(world)) is None
    assert restore(None, source(world)) is None


def test_evidence_that_began_anew_does_not_come_back_when_sums_are_made_anew(db: Database, config: Config) -> None:
    world = tried(db, config)
    kept, before = read(world, begin(world), settled=FOREVER)
    state: LearnerState = as_state(with_resets(kept, [Reset(KEY, world.now_s + 1)]), {})

    anew = fresh(source(world), None, Cursor(0, newest_signal(db, DEFAULT_TENANT), 0), resets_of(state))
    _, after = read(world, anew, settled=FOREVER)

    assert before.n_treated[0, before.columns.index(KEY.column)] > 0
    assert after.n_treated[0, after.columns.index(KEY.column)] == 0
