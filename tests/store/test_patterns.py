"""Patterns as a person and a run change them."""

from dataclasses import replace

import pytest

from store.clock import iso
from store.database import Database
from store.errors import ConflictError, InvalidError, NotFoundError
from store.generations import current_number, current_plan
from store.migrations import LIVES
from store.pattern_review import add_pattern, approve_trial, edit_pattern, set_state
from store.patterns import (
    PatternRow,
    PatternSort,
    Removal,
    get_pattern,
    harmed_since_activation,
    list_patterns,
    pattern_history,
    removals,
    save_pattern,
)
from store.plan import Conditions
from store.tenants import ensure_tenant
from store.vocabulary import DEFAULT_TENANT
from tests.conftest import NOW_S

TABLE_RULE = "Present the answer as a Markdown table."


def add(db: Database, state: str = "trial", dimension: str | None = None) -> PatternRow:
    return add_pattern(
        db,
        DEFAULT_TENANT,
        type="response_format",
        rule=TABLE_RULE,
        conditions=Conditions(question_type=("refund",)),
        state=state,  # type: ignore[arg-type]
        tokens=9,
        dimension=dimension,
        actor="command",
        now_s=NOW_S,
    )


def test_a_pinned_pattern_is_served_at_once_in_every_matching_conversation(db: Database) -> None:
    row = add(db, "pinned")

    (served,) = current_plan(db, DEFAULT_TENANT).patterns

    assert (served.id, served.rule, served.share, served.state) == (row.id, TABLE_RULE, 1.0, "pinned")
    assert served.conditions == Conditions(question_type=("refund",))
    assert get_pattern(db, DEFAULT_TENANT, row.id) == row


def test_patterns_that_a_person_wrote_do_not_compete_with_each_other(db: Database) -> None:
    first, second = add(db), add(db)

    assert first.dimension == f"person:{first.id}"
    assert second.dimension == f"person:{second.id}"
    assert (first.share, second.share) == (0.5, 0.5)


def test_a_trial_beside_others_of_its_dimension_gets_a_small_share_at_once(db: Database) -> None:
    first, second = add(db, dimension="shape"), add(db, dimension="shape")

    assert (first.share, second.share) == (0.5, 0.15)
    assert {p.id: p.share for p in current_plan(db, DEFAULT_TENANT).patterns} == {first.id: 0.5, second.id: 0.15}


def test_a_candidate_is_not_served(db: Database) -> None:
    row = add(db, "candidate")

    assert row.is_approved
    assert current_number(db, DEFAULT_TENANT) == 0


def test_disabling_takes_a_pattern_out_and_leaves_an_event_with_its_reason(db: Database) -> None:
    row = add(db)

    disabled = set_state(
        db, DEFAULT_TENANT, row.id, state="disabled", actor="console", reason="too long", now_s=NOW_S + 1
    )

    assert (disabled.state, disabled.share) == ("disabled", 0.0)
    assert current_plan(db, DEFAULT_TENANT).patterns == ()
    made, changed = pattern_history(db, DEFAULT_TENANT, row.id)
    assert (made.from_state, made.to_state, made.actor) == (None, "trial", "command")
    assert (changed.from_state, changed.to_state, changed.reason, changed.actor) == (
        "trial",
        "disabled",
        "too long",
        "console",
    )


def test_setting_the_state_that_it_has_changes_nothing(db: Database) -> None:
    row = add(db, "pinned")

    again = set_state(db, DEFAULT_TENANT, row.id, state="pinned", actor="console", reason="", now_s=NOW_S + 1)

    assert again == row
    assert len(pattern_history(db, DEFAULT_TENANT, row.id)) == 1


def test_no_person_can_declare_a_pattern_active(db: Database) -> None:
    row = add(db)

    with pytest.raises(ConflictError, match="active"):
        set_state(db, DEFAULT_TENANT, row.id, state="active", actor="x", reason="", now_s=NOW_S)  # type: ignore[arg-type]


def test_another_rule_starts_the_evidence_anew(db: Database) -> None:
    row = add(db)

    edited = edit_pattern(db, DEFAULT_TENANT, row.id, rule="Use a list.", tokens=5, actor="console", now_s=NOW_S + 60)

    assert (edited.rule, edited.tokens, edited.state) == ("Use a list.", 5, "trial")
    assert edited.trial_since == iso(NOW_S + 60)
    assert current_plan(db, DEFAULT_TENANT).patterns[0].rule == "Use a list."


def measured(db: Database, row: PatternRow) -> PatternRow:
    """Return the row as a run leaves it that has measured it."""
    after = replace(
        row,
        value="table",
        state="active",
        grade="proven",
        confidence=0.99,
        lift=0.2,
        lift_low=0.1,
        lift_high=0.3,
        e_value=400.0,
        score=0.6,
        use_count=90,
        signal_count=50,
        user_count=20,
        last_used_at=iso(NOW_S),
        guardrails={"rating": 0.1},
    )
    save_pattern(db, row, after, actor="learner", reason="it helps", now_s=NOW_S)
    return get_pattern(db, DEFAULT_TENANT, row.id)


def test_nothing_that_was_measured_of_the_old_words_is_shown_of_the_new(db: Database) -> None:
    row = measured(db, add(db))

    edited = edit_pattern(db, DEFAULT_TENANT, row.id, rule="Use a list.", tokens=5, actor="console", now_s=NOW_S + 60)

    assert (edited.state, edited.value, edited.grade, edited.reworded_at) == ("trial", "", "none", iso(NOW_S + 60))
    assert (edited.confidence, edited.lift, edited.lift_low, edited.lift_high, edited.e_value) == (0.5, *[None] * 4)
    assert (edited.score, edited.use_count, edited.signal_count, edited.user_count) == (0.0, 0, 0, 0)
    assert (edited.last_used_at, edited.guardrails, edited.reworded_from) == (None, {}, "table")
    assert get_pattern(db, DEFAULT_TENANT, row.id) == replace(edited, updated_at=iso(NOW_S + 60))
    event = pattern_history(db, DEFAULT_TENANT, row.id)[-1]
    assert event.reason == "edited by a person: the evidence begins anew"
    assert event.detail == {"rule_before": TABLE_RULE, "conditions_before": {"question_type": ["refund"]}}


def test_other_conditions_begin_the_evidence_anew_and_leave_what_was_counted_of_the_words(db: Database) -> None:
    row = measured(db, add(db))

    edited = edit_pattern(db, DEFAULT_TENANT, row.id, conditions=Conditions(), actor="console", now_s=NOW_S + 60)

    assert (edited.state, edited.lift, edited.e_value) == ("trial", None, None)
    assert (edited.value, edited.use_count, edited.reworded_at) == ("table", 90, None)


def test_what_was_taken_out_for_harm_is_known_until_evidence_activates_it_again(db: Database) -> None:
    row = add(db)
    active = replace(row, state="active", share=0.9)
    gone = replace(active, state="retired", share=0.0)
    tried = replace(gone, state="trial", share=0.1)
    other = add(db)
    save_pattern(db, other, replace(other, state="retired"), actor="learner", reason="unused", now_s=NOW_S)
    save_pattern(db, row, active, actor="learner", reason="helps", now_s=NOW_S)
    assert harmed_since_activation(db, DEFAULT_TENANT) == set()

    save_pattern(db, active, gone, actor="learner", reason="harm", now_s=NOW_S + 1, is_harm=True)
    assert harmed_since_activation(db, DEFAULT_TENANT) == {row.id}
    assert removals(db, DEFAULT_TENANT, [row.id, other.id, "pat_none"]) == {
        row.id: Removal("harm", True, iso(NOW_S + 1)),
        other.id: Removal("unused", False, iso(NOW_S)),
    }

    save_pattern(db, gone, tried, actor="learner", reason="another try", now_s=NOW_S + 2)
    assert harmed_since_activation(db, DEFAULT_TENANT) == {row.id}
    save_pattern(db, tried, active, actor="learner", reason="helps", now_s=NOW_S + 3)
    assert harmed_since_activation(db, DEFAULT_TENANT) == set()


def test_the_migration_marks_what_was_taken_out_for_harm_before_there_was_a_mark(db: Database) -> None:
    rows = {reason: add(db) for reason in ("harm: 2.6 errors", "guardrail: fewer ratings", "unused for 30 days")}
    for reason, row in rows.items():
        save_pattern(db, row, replace(row, state="retired"), actor="learner", reason=reason, now_s=NOW_S)

    with db.transaction():
        db.execute(LIVES.split(";\n\n")[-1])

    assert harmed_since_activation(db, DEFAULT_TENANT) == {row.id for reason, row in rows.items() if ":" in reason}


def test_a_new_rule_needs_its_tokens(db: Database) -> None:
    row = add(db)

    with pytest.raises(InvalidError, match="tokens"):
        edit_pattern(db, DEFAULT_TENANT, row.id, rule="Use a list.", actor="console", now_s=NOW_S)


def test_an_approved_candidate_stays_a_candidate_until_the_next_run(db: Database) -> None:
    row = add(db, "candidate")

    approved = approve_trial(db, DEFAULT_TENANT, row.id, actor="console", now_s=NOW_S)

    assert (approved.state, approved.is_approved) == ("candidate", True)
    assert pattern_history(db, DEFAULT_TENANT, row.id)[-1].reason == "trial approved by a person"


def test_only_a_candidate_can_be_approved(db: Database) -> None:
    row = add(db)

    with pytest.raises(ConflictError, match="trial"):
        approve_trial(db, DEFAULT_TENANT, row.id, actor="console", now_s=NOW_S)


def test_another_tenant_does_not_see_it(db: Database) -> None:
    row = add(db)
    ensure_tenant(db, "other", NOW_S)

    assert list_patterns(db, "other") == ([], None)
    with pytest.raises(NotFoundError):
        get_pattern(db, "other", row.id)
    with pytest.raises(NotFoundError):
        set_state(db, "other", row.id, state="pinned", actor="x", reason="", now_s=NOW_S)


def test_pages_of_patterns_hold_each_one_once(db: Database) -> None:
    made = sorted(add(db).id for _ in range(5))

    first, cursor = list_patterns(db, DEFAULT_TENANT, limit=3)
    rest, end = list_patterns(db, DEFAULT_TENANT, limit=3, cursor=cursor)

    assert [row.id for row in first + rest] == made
    assert end is None


@pytest.mark.parametrize("sort", ["lift", "confidence", "signals", "changed"])
def test_pages_in_another_order_hold_each_one_once_the_largest_first(db: Database, sort: PatternSort) -> None:
    made = [add(db) for _ in range(5)]
    for number, row in enumerate(made[1:]):
        size = (number * 7) % 4
        measured = replace(row, lift=size / 4 - 0.5, confidence=size / 4, signal_count=size)
        save_pattern(db, row, measured, actor="learner", reason="", now_s=NOW_S + 10 * size)

    whole, _ = list_patterns(db, DEFAULT_TENANT, sort=sort)
    first, cursor = list_patterns(db, DEFAULT_TENANT, sort=sort, limit=2)
    rest, end = list_patterns(db, DEFAULT_TENANT, sort=sort, limit=3, cursor=cursor)

    assert first + rest == whole
    assert end is None
    assert {row.id for row in whole} == {row.id for row in made}
    assert [row.lift for row in whole if row.lift is not None] == [0.25, 0.0, -0.25, -0.5]
    with pytest.raises(InvalidError, match="cursor"):
        list_patterns(db, DEFAULT_TENANT, cursor=cursor)


def test_patterns_are_found_by_grade_and_question_type(db: Database) -> None:
    row = add(db)
    save_pattern(db, row, replace(row, grade="proven"), actor="learner", reason="", now_s=NOW_S)
    found = {
        (grade, question_type): [
            one.id for one in list_patterns(db, DEFAULT_TENANT, grade=grade, question_type=question_type)[0]
        ]
        for grade in ("proven", "none", None)
        for question_type in ("refund", "price", None)
    }
    assert [key for key, ids in found.items() if ids] == [
        ("proven", "refund"),
        ("proven", None),
        (None, "refund"),
        (None, None),
    ]


@pytest.mark.parametrize("rule", ["", "  \n", "x" * 20_001])
def test_an_empty_or_endless_rule_is_refused(db: Database, rule: str) -> None:
    with pytest.raises(InvalidError, match="rule"):
        add_pattern(
            db,
            DEFAULT_TENANT,
            type="response_format",
            rule=rule,
            conditions=Conditions(),
            state="trial",
            tokens=1,
            actor="command",
            now_s=NOW_S,
        )
