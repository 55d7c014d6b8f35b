"""What one run decides over all patterns of a tenant."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.patterns.beliefs import Beliefs, Key, Scope, Tally
from learner.patterns.changes import Days
from learner.patterns.crash import Crash
from learner.patterns.deciding import Decisions, decide, resets_by_persons
from learner.patterns.lifecycle import Change
from learner.patterns.states import Reset, Situation
from store.clock import iso
from store.config import load_config
from store.patterns import PatternRow
from store.plan import CellShare, Conditions
from store.vocabulary import PatternState, PatternType
from tests.conftest import NOW_S
from tests.learner.patterns.believing import DAY_S, LIST, PROSE, TABLE, beliefs_of, learned, pattern, tallied

SETTINGS = load_config().patterns
SITUATION = Situation(now_s=NOW_S, traffic_s=NOW_S, settings=SETTINGS)
UNKNOWN = beliefs_of([TABLE, LIST, PROSE])
TRIED = learned(learned(UNKNOWN, LIST, lift=0.0, log_e=0.0), PROSE, lift=0.0, log_e=0.0)
HELPS = learned(TRIED, TABLE, lift=0.1, log_e=math.log(50), n_treated=80, scope=Scope())
PROVEN = learned(TRIED, TABLE, lift=0.1, log_e=math.log(5000), n_treated=80, scope=Scope())
ORG = Key(Scope(), TABLE)
REFUND = Conditions(question_type=("refund",))


def decided(beliefs: Beliefs, *rows: PatternRow, situation: Situation = SITUATION) -> Decisions:
    return decide(rows, beliefs, situation, np.random.default_rng(5))


def only(found: Decisions) -> Change:
    (change,) = found.changes
    return change


def with_settings(**changes: object) -> Situation:
    return replace(SITUATION, settings=replace(SETTINGS, **changes))  # type: ignore[arg-type]


def test_a_trial_that_helps_is_active_on_probation_and_says_why() -> None:
    change = only(decided(HELPS, pattern(share=0.5)))

    assert (change.after.state, change.after.grade, change.after.warm_step) == ("active", "provisional", 1)
    assert change.reason == "helps: lift +0.100, confidence 1.000, e-value 50, 80 responses with signals"
    assert change.after.lift == pytest.approx(0.1)
    assert change.after.share >= 0.5


def test_what_the_strict_test_passes_is_proven() -> None:
    assert only(decided(PROVEN, pattern(share=0.5))).after.grade == "proven"
    assert only(decided(PROVEN, pattern("active", share=0.5, grade="provisional"))).after.grade == "proven"


def test_retired_trials_still_count_among_all_that_were_tried() -> None:
    gone = [pattern("retired", LIST, name=f"pat_gone{n}", e_value=1.0) for n in range(200)]

    found = decided(PROVEN, pattern(share=0.5), *gone)

    assert only(found).after.grade == "provisional"


@pytest.mark.parametrize(
    ("beliefs", "state"),
    [
        (learned(UNKNOWN, TABLE, lift=0.1, log_e=math.log(19), n_treated=80), "trial"),
        (learned(UNKNOWN, TABLE, lift=0.03, log_e=math.log(50), n_treated=80), "trial"),
        (learned(UNKNOWN, TABLE, lift=0.1, log_e=math.log(50), n_treated=9), "trial"),
        (HELPS, "active"),
    ],
)
def test_all_gates_must_be_open(beliefs: Beliefs, state: PatternState) -> None:
    assert only(decided(beliefs, pattern(share=0.5))).after.state == state


def test_a_tenant_decides_what_is_enough() -> None:
    doubtful = learned(UNKNOWN, TABLE, lift=0.1, log_e=0.0, n_treated=80)

    assert only(decided(doubtful, pattern(), situation=with_settings(provisional="posterior"))).after.state == "active"
    assert only(decided(HELPS, pattern(), situation=with_settings(provisional="never"))).after.state == "trial"
    assert only(decided(PROVEN, pattern(), situation=with_settings(provisional="never"))).after.state == "active"


def test_nothing_is_activated_or_tried_while_frozen_or_too_soon_after_removal() -> None:
    frozen = replace(SITUATION, is_frozen=True)

    assert only(decided(HELPS, pattern(), situation=frozen)).after.state == "trial"
    assert only(decided(HELPS, pattern("candidate"), situation=frozen)).after.state == "candidate"
    assert only(decided(HELPS, pattern(removed_at=iso(NOW_S - 6 * DAY_S)))).after.state == "trial"


def test_a_guardrail_keeps_a_pattern_out_that_wins_votes() -> None:
    worse = {**HELPS.guardrails.log_e_worse, "follow_up": np.full(HELPS.log_e.shape, math.log(200))}
    more = {**HELPS.guardrails.difference, "follow_up": np.full(HELPS.log_e.shape, 0.08)}
    guarded = replace(
        HELPS, guardrails=replace(HELPS.guardrails, log_e_worse=worse, difference=more, rates={"follow_up": 0.3})
    )
    reason = "guardrail: more replies need a follow-up (+0.080, e-value 200 against no worsening)"

    trial, active = only(decided(guarded, pattern())), decided(guarded, pattern("active", share=0.9))

    assert trial.after.state == "trial"
    assert trial.after.guardrails == {"rating": 0.0, "follow_up": 0.08, "regenerate": 0.0}
    assert (only(active).after.state, only(active).reason, only(active).is_harm) == ("retired", reason, True)


def test_a_change_that_is_sure_but_small_is_no_objection() -> None:
    worse = {**HELPS.guardrails.log_e_worse, "follow_up": np.full(HELPS.log_e.shape, math.log(200))}
    more = {**HELPS.guardrails.difference, "follow_up": np.full(HELPS.log_e.shape, 0.02)}
    guarded = replace(
        HELPS, guardrails=replace(HELPS.guardrails, log_e_worse=worse, difference=more, rates={"follow_up": 0.3})
    )

    assert only(decided(guarded, pattern())).after.state == "active"


@pytest.mark.parametrize("state", ["active", "warmdown"])
def test_what_harms_is_taken_out_and_mostly_forgotten(state: PatternState) -> None:
    found = decided(
        learned(UNKNOWN, TABLE, lift=0.1, log_e=3.0, n_treated=80, harm_z=-2.6), pattern(state, share=0.9, warm_step=3)
    )

    assert only(found).after.state == "retired"
    assert only(found).reason == "harm: 2.6 standard errors below control of late"
    assert only(found).after.removed_at == iso(NOW_S)
    assert (found.resets, found.discounts) == ([Reset(ORG, NOW_S)], [(ORG, 0.2)])


def test_what_is_taken_out_for_harm_is_told_from_what_is_of_no_use() -> None:
    recently = learned(UNKNOWN, TABLE, lift=0.1, log_e=3.0, n_treated=80, harm_z=-2.6)
    surely = learned(UNKNOWN, TABLE, lift=-0.05, log_e=-1.0, n_treated=240)
    perhaps = learned(UNKNOWN, TABLE, lift=-0.015, log_e=-1.0, n_treated=240)
    useless = learned(UNKNOWN, TABLE, lift=0.0, log_e=0.0, n_treated=80)

    changes = [
        only(decided(recently, pattern("active", share=0.9))),
        only(decided(surely, pattern(share=0.1))),
        only(decided(perhaps, pattern(share=0.1))),
        only(decided(useless, pattern("warmdown", share=0.2, warm_step=1))),
    ]

    assert {change.after.state for change in changes} == {"retired"}
    assert [change.is_harm for change in changes] == [True, True, False, False]


def changed(harm: float) -> Beliefs:
    """Return beliefs in a table that helped by 0.3 and does, for ten days, what *harm* says."""
    n = 45
    lift = np.where(np.arange(n) < n - 10, 0.3, harm)[:, None, None]
    information = np.full((n, *HELPS.key_mean.shape), 20.0)
    nothing = np.zeros(HELPS.key_mean.shape)
    first = int(NOW_S // DAY_S) - n + 1
    days = Days(first + np.arange(n), lift * information, information, 0.25 * information, nothing, nothing)
    return replace(HELPS, days=days)


@pytest.mark.parametrize("state", ["active", "warmdown"])
def test_what_turned_round_is_taken_out_whatever_it_earned_before(state: PatternState) -> None:
    row = pattern(state, share=0.9, warm_step=3)

    out, kept = decided(changed(-0.3), row), decided(changed(0.3), row)

    since = iso(NOW_S - 9 * DAY_S)[:10]
    assert only(out).reason == f"changed: since {since} it lifts by -0.300, before that by +0.300"
    assert (only(out).after.state, only(out).after.removed_at) == ("retired", iso(NOW_S))
    assert (out.resets, out.discounts) == ([Reset(ORG, NOW_S)], [(ORG, 0.2)])
    assert only(kept).after.state == "active"


def test_a_trial_that_turned_round_and_a_persons_pattern_are_left_to_their_own_rules() -> None:
    assert only(decided(changed(-0.3), pattern(share=0.4))).after.state in {"trial", "active"}
    assert only(decided(changed(-0.3), pattern("pinned", share=1.0))).after.state == "pinned"


def test_a_trial_with_much_traffic_that_harms_is_believed_less() -> None:
    harmful = learned(UNKNOWN, TABLE, lift=0.02, log_e=0.0, n_treated=80, harm_z=-2.6)

    wide, narrow = decided(harmful, pattern(share=0.7)), decided(harmful, pattern(share=0.5))

    assert (only(wide).after.state, wide.discounts, wide.resets) == ("trial", [(ORG, 0.2)], [])
    assert only(wide).after.removed_at == iso(NOW_S)
    assert narrow.discounts == []


def test_a_crash_takes_back_what_was_activated_lately() -> None:
    crash = replace(SITUATION, crash=Crash(0.8, 0.5, -5.0, NOW_S - DAY_S, None), activated_s={"pat_1": NOW_S - DAY_S})
    old = replace(crash, activated_s={"pat_1": NOW_S - 8 * DAY_S})
    row = pattern("active", share=0.9, warm_step=5, grade="provisional")

    found = decided(HELPS, row, situation=crash)

    assert (only(found).after.state, only(found).after.grade, only(found).after.e_value) == ("trial", "none", None)
    assert only(found).reason == "crash: satisfaction index fell from 0.80 to 0.50 (-5.0 sd)"
    assert found.resets == [Reset(ORG, NOW_S)]
    assert only(found).after.share <= SETTINGS.trial_share
    assert only(decided(HELPS, row, situation=old)).after.state == "active"


def test_an_active_pattern_cools_down_over_some_runs_and_may_come_back() -> None:
    down = only(decided(learned(UNKNOWN, TABLE, lift=-0.001, log_e=0.0, n_treated=80), pattern("active", share=0.9)))
    better = only(decided(HELPS, pattern("warmdown", share=0.5, warm_step=3)))
    last = decided(
        learned(UNKNOWN, TABLE, lift=0.0, log_e=0.0, n_treated=80), pattern("warmdown", share=0.2, warm_step=1)
    )

    assert (down.after.state, down.after.warm_step, down.reason) == ("warmdown", 5, "confidence fell to 0.48")
    assert down.after.share == 0.9
    assert (better.after.state, better.reason) == ("active", "confidence rose to 1.00: warm-down cancelled")
    assert (only(last).after.state, last.resets) == ("retired", [Reset(ORG, NOW_S)])


def test_an_active_pattern_that_is_served_nowhere_any_more_is_not_called_active_for_long() -> None:
    doubtful, good = learned(UNKNOWN, TABLE, lift=0.01, log_e=0.0, n_treated=80), HELPS
    unserved = pattern("active", share=0.0, last_used_at=iso(NOW_S - DAY_S))

    down = only(decided(doubtful, unserved))

    assert (down.after.state, down.reason) == ("warmdown", "no share is left to it: confidence fell to 0.69")
    assert only(decided(doubtful, replace(unserved, share=0.3))).after.state == "active"
    assert only(decided(good, unserved)).after.state == "active"


def test_a_trial_that_rather_harms_is_retired_unless_it_helps_somewhere() -> None:
    harms = learned(UNKNOWN, TABLE, lift=-0.03, log_e=-1.0, n_treated=240)
    surely = learned(UNKNOWN, TABLE, lift=-0.05, log_e=-1.0, n_treated=12)
    early = learned(UNKNOWN, TABLE, lift=-0.03, log_e=-1.0, n_treated=40)
    helps_here = learned(harms, TABLE, lift=0.03, log_e=1.0, n_treated=20, scope=Scope(question_type="refund"))

    change = only(decided(harms, pattern(share=0.1)))
    assert (change.after.state, change.reason) == ("retired", "confidence 0.07 after 240 signals")
    assert only(decided(helps_here, pattern(share=0.1))).after.state == "trial"
    assert only(decided(surely, pattern(share=0.1))).after.state == "retired"
    assert only(decided(early, pattern(share=0.1))).after.state == "trial"


def test_a_trial_without_a_share_for_long_is_futile() -> None:
    idle = pattern(share=0.0, trial_since=iso(NOW_S - 22 * DAY_S), created_at=iso(NOW_S - 25 * DAY_S))

    assert (only(decided(UNKNOWN, idle)).reason or "").startswith("futile: no share for 21 days")
    assert only(decided(UNKNOWN, replace(idle, cells=(CellShare("refund", "", 0.1),)))).reason is None


def test_a_trial_ends_in_the_second_run_in_which_something_else_is_surely_better_everywhere() -> None:
    beliefs = learned(learned(beliefs_of([TABLE, PROSE]), TABLE, lift=0.3), PROSE, lift=-0.3)
    loser = pattern(column=PROSE, name="pat_9", share=0.0)

    first = decided(beliefs, pattern(share=0.4), replace(loser, share=0.1)).changes[-1]
    found = decided(beliefs, pattern(share=0.4), loser)

    assert (first.after.state, first.after.share) == ("trial", 0.0)
    assert found.changes[-1].after == replace(first.after, state="retired", removed_at=iso(NOW_S))
    assert found.changes[-1].reason == (
        "futile: no share, and less than 1 % likely to be the best anywhere (confidence 0.00)"
    )
    assert found.resets == [Reset(Key(Scope(), PROSE), NOW_S)]


def test_a_trial_without_a_share_that_may_still_be_the_best_goes_on() -> None:
    beliefs = learned(learned(beliefs_of([TABLE, PROSE]), TABLE, lift=0.03), PROSE, lift=-0.01)
    unlucky = pattern(column=PROSE, name="pat_9", share=0.0)

    change = decided(beliefs, pattern(share=0.4), unlucky).changes[-1]

    assert (change.after.state, change.after.share) == ("trial", 0.0)


def test_a_trial_ends_when_a_wider_pattern_that_says_the_same_serves_all_of_its_conversations() -> None:
    narrow = pattern(name="pat_2", conditions=REFUND, share=0.0)

    found = decided(HELPS, pattern("active", share=0.9, warm_step=5), narrow)

    assert [change.after.state for change in found.changes] == ["active", "retired"]
    assert (found.changes[-1].reason or "").startswith("futile: no share, other patterns serve all of its conv")


def test_a_trial_that_a_person_asked_for_waits_as_long_as_it_may() -> None:
    asked = pattern(name="pat_2", conditions=REFUND, share=0.0, is_approved=True)

    found = decided(HELPS, pattern("active", share=0.9, warm_step=5), asked)

    assert found.changes[-1].after.state == "trial"


def test_what_nobody_met_for_a_month_is_retired() -> None:
    idle = pattern("active", share=0.5, last_used_at=iso(NOW_S - 31 * DAY_S), trial_since=iso(NOW_S - 60 * DAY_S))

    assert only(decided(UNKNOWN, replace(idle, created_at=iso(NOW_S - 61 * DAY_S)))).reason == "unused for 30 days"


def test_a_candidate_is_tried_in_the_run_after_it_was_found_as_far_as_there_is_room() -> None:
    waiting = pattern("candidate", PROSE, name="pat_9")
    full = [pattern(column=TABLE, name=f"pat_{n}", value=f"other{n}", share=0.1) for n in range(4)]

    assert only(decided(UNKNOWN, waiting)).reason == "trial begins: a random share of matching conversations"
    assert only(decided(UNKNOWN, waiting)).after.share > 0
    assert decided(UNKNOWN, *full, waiting).changes[-1].after.state == "candidate"
    asked = replace(SITUATION, needs_approval=True)
    assert only(decided(UNKNOWN, waiting, situation=asked)).after.state == "candidate"
    assert only(decided(UNKNOWN, replace(waiting, is_approved=True), situation=asked)).after.state == "trial"


def test_a_trial_that_begins_beside_something_surely_better_says_that_it_has_no_share() -> None:
    beliefs = learned(learned(beliefs_of([TABLE, PROSE]), TABLE, lift=0.3), PROSE, lift=-0.3)
    waiting = pattern("candidate", PROSE, name="pat_9")

    change = decided(beliefs, pattern(share=0.4), waiting).changes[-1]

    assert (change.after.state, change.after.share) == ("trial", 0.0)
    assert change.reason == "trial begins without a share: what else is tried there looks better so far"


def test_a_candidate_that_nobody_allows_for_a_month_is_retired_unless_it_was_tried_before() -> None:
    asked = replace(SITUATION, needs_approval=True)
    old = pattern("candidate", created_at=iso(NOW_S - 31 * DAY_S), trial_since=None)

    assert only(decided(UNKNOWN, old, situation=asked)).reason == "waited too long for a trial"
    revived = replace(old, removed_at=iso(NOW_S - 30 * DAY_S))
    assert only(decided(UNKNOWN, revived, situation=asked)).after.state == "candidate"


def test_what_a_person_pinned_is_measured_and_never_moved() -> None:
    change = only(decided(learned(UNKNOWN, TABLE, lift=-0.1, harm_z=-4.0, log_e=0.0), pattern("pinned", share=1.0)))

    assert (change.after.state, change.after.share, change.after.grade) == ("pinned", 1.0, "provisional")
    assert change.after.confidence < 0.01


def test_a_trial_that_stands_out_in_one_question_type_splits() -> None:
    beliefs = learned(UNKNOWN, TABLE, lift=0.1, log_e=math.log(50), n_treated=30, scope=Scope(question_type="refund"))
    row = pattern(share=0.5)

    (split,) = decided(beliefs, row).splits
    assert (split.parent.id, split.conditions, split.revives) == ("pat_1", REFUND, None)
    assert (
        split.reason == "stands out in 'refund': lift +0.100, confidence 1.000, e-value 50, 30 responses with signals"
    )
    assert decided(beliefs, row, pattern(name="pat_2", conditions=REFUND, share=0.5)).splits == []
    assert decided(beliefs, row, situation=replace(SITUATION, is_frozen=True)).splits == []
    assert decided(beliefs, row, pattern("disabled", name="pat_2", conditions=REFUND)).splits == []


@pytest.mark.parametrize(("type_", "n_splits"), [("response_format", 1), ("query_style", 0)])
def test_a_trial_splits_by_group_only_if_its_type_can_depend_on_it(type_: PatternType, n_splits: int) -> None:
    unknown = beliefs_of([TABLE], groups=("free", "pro"), field="segment")
    beliefs = learned(unknown, TABLE, lift=0.1, log_e=math.log(50), n_treated=30, scope=Scope(group="pro"))

    splits = decided(beliefs, pattern(share=0.5, type=type_)).splits

    assert [split.conditions for split in splits] == [Conditions(segment=("pro",))] * n_splits


def test_the_split_pattern_is_activated_by_its_own_key() -> None:
    beliefs = learned(UNKNOWN, TABLE, lift=0.1, log_e=math.log(50), n_treated=30, scope=Scope(question_type="refund"))

    found = decided(beliefs, pattern(share=0.5), pattern(name="pat_2", conditions=REFUND, share=0.0))

    assert [change.after.state for change in found.changes] == ["trial", "active"]


def test_evidence_begins_anew_when_a_person_restarts_a_pattern() -> None:
    restarted = pattern(is_approved=True)

    assert resets_by_persons([restarted, pattern("active", is_approved=True)], None) == [Reset(ORG, NOW_S - 4 * DAY_S)]
    assert resets_by_persons([replace(restarted, lift=0.1), pattern()], None) == []


def test_counts_never_fall() -> None:
    row = pattern(share=0.5, use_count=50, signal_count=20, user_count=9)
    beliefs = tallied(UNKNOWN, "pat_1", Tally(60, 10, 12, NOW_S - 60, 0.2))

    after = only(decided(beliefs, row)).after

    assert (after.use_count, after.signal_count, after.user_count, after.score) == (60, 20, 12, 0.2)
    assert after.last_used_at == iso(NOW_S - 60)


LEGAL = {
    "candidate": {"candidate", "trial", "retired"},
    "trial": {"trial", "active", "retired"},
    "active": {"active", "warmdown", "retired", "trial"},
    "warmdown": {"warmdown", "active", "retired"},
    "pinned": {"pinned"},
}
STATES: list[PatternState] = ["candidate", "trial", "active", "warmdown", "pinned", "retired", "disabled"]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(STATES),
            st.sampled_from([TABLE, LIST, PROSE]),
            st.sampled_from([Conditions(), REFUND]),
            st.sampled_from([0.0, 0.5, 0.9]),
            st.sampled_from([1, 5, 40]),
        ),
        max_size=5,
    ),
    st.lists(
        st.tuples(st.floats(-0.2, 0.2), st.floats(-3, 12), st.floats(-5, 5), st.integers(0, 200)),
        min_size=3,
        max_size=3,
    ),
    st.booleans(),
    st.booleans(),
)
def test_every_step_of_a_life_is_legal_and_has_its_reason(
    specs: list[tuple[PatternState, object, Conditions, float, int]],
    facts: list[tuple[float, float, float, int]],
    is_frozen: bool,
    is_crash: bool,
) -> None:
    beliefs = UNKNOWN
    for column, (lift, log_e, harm_z, n) in zip(UNKNOWN.columns, facts, strict=True):
        beliefs = learned(beliefs, column, lift=lift, log_e=log_e, harm_z=harm_z, n_treated=n)
    rows = [
        pattern(
            state,
            column,  # type: ignore[arg-type]
            name=f"pat_{index}",
            conditions=conditions,
            share={"pinned": 1.0, "candidate": 0.0}.get(state, share),
            warm_step=3,
            created_at=iso(NOW_S - days * DAY_S),
            trial_since=iso(NOW_S - days * DAY_S),
            removed_at=iso(NOW_S - days * DAY_S) if state == "retired" else None,
        )
        for index, (state, column, conditions, share, days) in enumerate(specs)
    ]
    situation = replace(
        SITUATION,
        is_frozen=is_frozen,
        crash=Crash(0.8, 0.5, -5.0, NOW_S - DAY_S, None) if is_crash else None,
        activated_s={"pat_0": NOW_S - DAY_S},
        types={"response_format": "response_format"},
    )

    found = decided(beliefs, *rows, situation=situation)

    assert {change.before.id for change in found.changes} == {
        row.id for row in rows if row.state not in ("retired", "disabled")
    }
    for change in found.changes:
        before, after = change.before, change.after
        assert after.state in LEGAL[before.state]
        assert (after.state == before.state) or change.reason
        assert not (situation.is_halted and after.state == "active" and before.state == "trial")
        assert after.share == 0 or after.state in ("trial", "active", "warmdown", "pinned")
    assert found == decided(beliefs, *rows, situation=situation)
