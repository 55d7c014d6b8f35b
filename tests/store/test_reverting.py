"""Back to an earlier generation in one step."""

from dataclasses import replace

import pytest

from store.audit import list_audit
from store.clock import iso
from store.database import Database
from store.errors import ConflictError, NotFoundError
from store.generations import current_number, current_plan, list_generations, plan_of, plans_since, publish
from store.pattern_review import add_pattern, edit_pattern, set_state
from store.patterns import (
    PatternRow,
    Removal,
    all_patterns,
    get_pattern,
    pattern_history,
    publish_patterns,
    save_pattern,
)
from store.plan import CellShare, Conditions
from store.reverting import revert, step_back
from store.vocabulary import DEFAULT_TENANT
from tests.conftest import NOW_S
from tests.learner.test_run import Killed, Mortal


def add(db: Database, rule: str = "Be brief.", state: str = "trial") -> PatternRow:
    return add_pattern(
        db,
        DEFAULT_TENANT,
        type="response_format",
        rule=rule,
        conditions=Conditions(),
        state=state,  # type: ignore[arg-type]
        tokens=4,
        actor="command",
        now_s=NOW_S,
    )


def change(db: Database, row: PatternRow, **fields: object) -> PatternRow:
    """Return the row as a run leaves it."""
    after = replace(row, **fields)  # type: ignore[arg-type]
    save_pattern(db, row, after, actor="learner", reason="run", now_s=NOW_S)
    return after


def publish_rows(db: Database) -> int:
    return publish_patterns(db, DEFAULT_TENANT, actor="learner", reason="run", now_s=NOW_S)


def test_what_is_served_is_again_what_that_generation_served(db: Database) -> None:
    cells = (CellShare("refund", "", 0.4),)
    row = change(db, add(db), state="active", grade="proven", share=0.7, cells=cells, warm_step=3)
    good = publish_rows(db)
    change(db, row, state="warmdown", share=0.1, cells=(), warm_step=2)
    late = add(db, "Shout.")
    change(db, late, state="active", share=0.9)
    bad = publish_rows(db)

    done = revert(db, DEFAULT_TENANT, good, actor="learner", reason="crash", now_s=NOW_S + 60)

    assert (done.generation, done.restored, done.retired, done.kept) == (bad + 1, (row.id,), (late.id,), ())
    assert current_plan(db, DEFAULT_TENANT) == plan_of(db, DEFAULT_TENANT, good)
    now, gone = get_pattern(db, DEFAULT_TENANT, row.id), get_pattern(db, DEFAULT_TENANT, late.id)
    assert (now.state, now.share, now.cells, now.grade) == ("active", 0.7, cells, "proven")
    assert (gone.state, gone.share, gone.removed_at) == ("retired", 0.0, iso(NOW_S + 60))
    assert pattern_history(db, DEFAULT_TENANT, late.id)[-1].reason == f"back to generation {good}: crash"
    entry = list_audit(db, DEFAULT_TENANT)[0][0]
    assert (entry.action, entry.object_id, entry.actor) == ("generations.revert", str(good), "learner")


def test_a_suspect_that_the_generation_served_already_stays_in_trial(db: Database) -> None:
    row = change(db, add(db), state="active", grade="proven", share=0.7)
    other = change(db, add(db, "Use a table."), state="active", share=0.7)
    good = publish_rows(db)
    change(db, other, state="warmdown", share=0.1)
    back = change(db, row, state="trial", grade="none", share=0.5)
    publish_rows(db)

    done = revert(db, DEFAULT_TENANT, good, actor="learner", reason="crash", now_s=NOW_S, suspects=[row.id])

    assert done.restored == (other.id,)
    assert get_pattern(db, DEFAULT_TENANT, row.id) == back
    assert {one.id: one.share for one in current_plan(db, DEFAULT_TENANT).patterns} == {row.id: 0.5, other.id: 0.7}


def test_a_retired_pattern_comes_back(db: Database) -> None:
    row = change(db, add(db), state="active", share=0.7)
    good = publish_rows(db)
    change(db, row, state="retired", share=0.0, removed_at=iso(NOW_S))
    publish_rows(db)

    revert(db, DEFAULT_TENANT, good, actor="command", reason="by a person", now_s=NOW_S)

    assert [(one.id, one.share) for one in current_plan(db, DEFAULT_TENANT).patterns] == [(row.id, 0.7)]


def harmed(db: Database) -> tuple[PatternRow, int]:
    """Return a pattern that was taken out for harm, and the generation that served it last."""
    row = change(db, add(db), state="active", share=0.7)
    good = publish_rows(db)
    gone = replace(row, state="retired", share=0.0, removed_at=iso(NOW_S))
    save_pattern(db, row, gone, actor="learner", reason="harm: 2.6 errors", now_s=NOW_S, is_harm=True)
    publish_rows(db)
    return gone, good


def test_a_person_is_told_why_what_would_come_back_had_been_taken_out_and_must_insist_after_harm(db: Database) -> None:
    row, good = harmed(db)

    step = step_back(db, DEFAULT_TENANT, good, now_s=NOW_S)
    with pytest.raises(ConflictError, match=rf"say force: {row.id} \(harm: 2.6 errors\)"):
        revert(db, DEFAULT_TENANT, good, actor="command", reason="by a person", now_s=NOW_S)
    unchanged = get_pattern(db, DEFAULT_TENANT, row.id).state
    revert(db, DEFAULT_TENANT, good, actor="command", reason="by a person", now_s=NOW_S, is_forced=True)

    assert step.removals == {row.id: Removal("harm: 2.6 errors", True, iso(NOW_S))}
    assert step.harmful == [row.id]
    assert (unchanged, get_pattern(db, DEFAULT_TENANT, row.id).state) == ("retired", "active")


def test_what_was_retired_for_another_reason_comes_back_unasked(db: Database) -> None:
    row = change(db, add(db), state="active", share=0.7)
    good = publish_rows(db)
    change(db, row, state="retired", share=0.0, removed_at=iso(NOW_S))

    step = step_back(db, DEFAULT_TENANT, good, now_s=NOW_S)

    assert (step.removals, step.harmful) == ({row.id: Removal("run", False, iso(NOW_S))}, [])


def test_a_persons_word_since_then_stays(db: Database) -> None:
    disabled, pinned, unpinned = add(db), add(db), add(db, state="pinned")
    good = publish_rows(db)
    later = add(db, state="pinned")
    set_state(db, DEFAULT_TENANT, disabled.id, state="disabled", actor="console", reason="no", now_s=NOW_S)
    set_state(db, DEFAULT_TENANT, pinned.id, state="pinned", actor="console", reason="yes", now_s=NOW_S)
    set_state(db, DEFAULT_TENANT, unpinned.id, state="trial", actor="console", reason="try", now_s=NOW_S)

    done = revert(db, DEFAULT_TENANT, good, actor="learner", reason="crash", now_s=NOW_S)

    assert (done.generation, done.restored, done.retired) == (None, (), ())
    assert done.kept == tuple(sorted([disabled.id, pinned.id, unpinned.id, later.id]))
    assert get_pattern(db, DEFAULT_TENANT, disabled.id).state == "disabled"


def test_an_edited_rule_is_again_the_one_that_was_served_and_what_was_measured_of_the_other_is_gone(
    db: Database,
) -> None:
    row = change(db, add(db), value="short", state="active", share=0.7, lift=0.3, e_value=50.0, use_count=7)
    good = publish_rows(db)
    edit_pattern(db, DEFAULT_TENANT, row.id, rule="Be long.", tokens=5, actor="console", now_s=NOW_S)

    revert(db, DEFAULT_TENANT, good, actor="command", reason="by a person", now_s=NOW_S + 9)

    now = get_pattern(db, DEFAULT_TENANT, row.id)
    assert (now.rule, now.tokens, now.state, now.lift, now.e_value) == ("Be brief.", 4, "active", None, None)
    assert (now.value, now.use_count, now.reworded_at) == ("short", 0, iso(NOW_S + 9))
    assert now.reworded_from is None


def test_what_is_served_already_publishes_nothing(db: Database) -> None:
    add(db)
    number = current_number(db, DEFAULT_TENANT)

    done = revert(db, DEFAULT_TENANT, number, actor="command", reason="by a person", now_s=NOW_S)

    assert done.generation is None
    assert current_number(db, DEFAULT_TENANT) == number


@pytest.mark.parametrize("number", [0, 2, -1])
def test_an_unknown_generation_changes_nothing(db: Database, number: int) -> None:
    add(db)

    with pytest.raises(NotFoundError):
        revert(db, DEFAULT_TENANT, number, actor="command", reason="by a person", now_s=NOW_S)


def test_a_generation_of_knowledge_alone_served_the_plan_before_it(db: Database) -> None:
    add(db)
    publish(db, DEFAULT_TENANT, plan=None, actor="learner", reason="entries", now_s=NOW_S)

    assert plan_of(db, DEFAULT_TENANT, 2) == plan_of(db, DEFAULT_TENANT, 1)
    assert [(one.number, one.has_plan) for one in list_generations(db, DEFAULT_TENANT)[0]] == [(2, False), (1, True)]


def test_the_plans_of_a_time_include_the_last_one_before_it(db: Database) -> None:
    for age_s in (300, 200, 100):
        publish(db, DEFAULT_TENANT, plan=current_plan(db, DEFAULT_TENANT), actor="a", reason="r", now_s=NOW_S - age_s)

    assert [one.number for one in plans_since(db, DEFAULT_TENANT, NOW_S - 150)] == [2, 3]
    assert [one.number for one in plans_since(db, DEFAULT_TENANT, NOW_S - 1000)] == [1, 2, 3]


def test_a_step_back_that_is_interrupted_at_any_statement_changed_nothing(db: Database) -> None:
    row = change(db, add(db), state="active", share=0.7)
    good = publish_rows(db)
    change(db, row, state="warmdown", share=0.1)
    late = add(db, "Shout.")
    publish_rows(db)
    before = (all_patterns(db, DEFAULT_TENANT), current_plan(db, DEFAULT_TENANT), list_audit(db, DEFAULT_TENANT))

    n_statements = 8  # begin, two rows with their events, the generation, the audit, commit
    for dies_at in range(n_statements):
        with pytest.raises(Killed):
            back(Mortal(db.connection, db.path, dies_at), good)
        now = (all_patterns(db, DEFAULT_TENANT), current_plan(db, DEFAULT_TENANT), list_audit(db, DEFAULT_TENANT))
        assert now == before
    alive = Mortal(db.connection, db.path, n_statements)
    back(alive, good)

    assert alive.left == 0
    assert get_pattern(db, DEFAULT_TENANT, late.id).state == "retired"


def back(db: Database, generation: int) -> None:
    revert(db, DEFAULT_TENANT, generation, actor="command", reason="by a person", now_s=NOW_S)
