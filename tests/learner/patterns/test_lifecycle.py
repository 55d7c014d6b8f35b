"""What becomes of a pattern, decided from values alone."""

import math
from dataclasses import replace

import pytest

from learner.patterns.evidence import Contrast, Squares
from learner.patterns.lifecycle import Change, Reading, decide, measured, proven
from learner.patterns.posterior import Belief
from store.clock import iso
from store.config import load_config
from store.patterns import PatternRow, new_pattern
from store.plan import Conditions
from store.vocabulary import PatternState
from tests.conftest import NOW_S

SETTINGS = replace(load_config().patterns, prune_min_signals=30)
DAY_S = 86_400.0
GOOD = Reading(
    belief=Belief(0.1, 0.02),
    prior=Belief(0.0, 0.05),
    contrast=Contrast(30.0, 100.0, Squares(50.0, 8.0, 25.0), Squares(50.0, 8.0, 25.0), 60, 40),
    log_e=math.log(500.0),
    interval=(0.1, 0.5),
    harm_z=1.0,
    score=0.2,
    n_used=210,
    n_signals=70,
    n_users=40,
    last_used_s=NOW_S - 60,
)


def pattern(state: PatternState, **changes: object) -> PatternRow:
    row = new_pattern(
        "pat_1",
        "default",
        type="response_format",
        dimension="response_format",
        value="table",
        rule="Present the answer as a Markdown table.",
        conditions=Conditions(question_type=("comparison",)),
        tokens=9,
        origin="learned",
        now_s=NOW_S - 5 * DAY_S,
    )
    facts: dict[str, object] = {"state": state, "trial_since": iso(NOW_S - 4 * DAY_S), "share": 0.5, **changes}
    return replace(row, **facts)  # type: ignore[arg-type]


def decided(
    row: PatternRow, reading: Reading, *, is_proven: bool = False, may_activate: bool = True, now_s: float = NOW_S
) -> Change:
    return decide(row, reading, SETTINGS, now_s=now_s, is_proven=is_proven, may_activate=may_activate)


def confident(confidence_z: float) -> Belief:
    return Belief(0.02 * confidence_z, 0.02)


def test_a_trial_with_all_gates_open_becomes_active() -> None:
    change = decided(pattern("trial"), GOOD)

    assert (change.after.state, change.after.grade, change.after.warm_step) == ("active", "provisional", 1)
    assert change.after.lift == pytest.approx(0.3)
    assert change.reason is not None
    assert "lift +0.300" in change.reason


def test_one_that_passes_the_strict_test_is_proven() -> None:
    assert decided(pattern("trial"), GOOD, is_proven=True).after.grade == "proven"


@pytest.mark.parametrize(
    "reading",
    [
        replace(GOOD, contrast=replace(GOOD.contrast, n_treated_rated=9)),
        replace(GOOD, belief=confident(1.9)),
        replace(GOOD, log_e=math.log(19.9)),
    ],
)
def test_a_single_closed_gate_keeps_it_in_trial(reading: Reading) -> None:
    assert decided(pattern("trial"), reading).after.state == "trial"


def test_nothing_is_activated_while_a_crash_lasts() -> None:
    assert decided(pattern("trial"), GOOD, may_activate=False).after.state == "trial"


def test_what_was_removed_waits_out_its_cooldown() -> None:
    row = pattern("trial", removed_at=iso(NOW_S - 6 * DAY_S))

    assert decided(row, GOOD).after.state == "trial"
    assert decided(row, GOOD, now_s=NOW_S + DAY_S).after.state == "active"


@pytest.mark.parametrize("state", ["active", "warmdown"])
def test_recent_harm_removes_it_at_once(state: PatternState) -> None:
    change = decided(pattern(state, grade="proven", warm_step=5), replace(GOOD, harm_z=-2.6))

    assert (change.after.state, change.after.share, change.after.grade) == ("retired", 0.0, "none")
    assert change.after.removed_at == iso(NOW_S)


def test_a_trial_with_most_of_the_traffic_is_watched_for_harm_too() -> None:
    assert decided(pattern("trial", share=0.7), replace(GOOD, harm_z=-2.6)).after.state == "retired"
    assert decided(pattern("trial", share=0.5), replace(GOOD, harm_z=-2.6, log_e=0.0)).after.state == "trial"


def test_lost_confidence_begins_a_warm_down_that_ends_after_five_runs() -> None:
    doubtful = replace(GOOD, belief=confident(-0.2))
    states = []
    row = pattern("active", warm_step=5)
    for _ in range(7):
        row = decided(row, doubtful).after if row.state != "retired" else row
        states.append((row.state, row.warm_step))

    assert states == [
        ("warmdown", 5),
        ("warmdown", 4),
        ("warmdown", 3),
        ("warmdown", 2),
        ("warmdown", 1),
        ("retired", 0),
        ("retired", 0),
    ]


def test_regained_confidence_cancels_the_warm_down() -> None:
    row = pattern("warmdown", warm_step=3)

    assert decided(row, replace(GOOD, belief=confident(0.5))).after.state == "warmdown"
    assert decided(row, replace(GOOD, belief=confident(0.9))).after.state == "active"


def test_a_hopeless_trial_is_given_up() -> None:
    hopeless = replace(GOOD, belief=confident(-0.6), contrast=replace(GOOD.contrast, n_treated_rated=30))
    too_early = replace(hopeless, contrast=replace(GOOD.contrast, n_treated_rated=29))

    assert decided(pattern("trial"), hopeless).after.state == "retired"
    assert decided(pattern("trial"), too_early).after.state == "trial"


@pytest.mark.parametrize("state", ["trial", "active", "warmdown"])
def test_what_nobody_needed_for_thirty_days_goes(state: PatternState) -> None:
    row = pattern(
        state,
        last_used_at=iso(NOW_S - 31 * DAY_S),
        trial_since=iso(NOW_S - 40 * DAY_S),
        created_at=iso(NOW_S - 41 * DAY_S),
    )
    unused = replace(GOOD, last_used_s=None, belief=confident(1.0), log_e=0.0)

    assert decided(row, unused).reason == "unused for 30 days"


def test_counts_never_fall_when_records_leave_the_window() -> None:
    row = pattern("active", use_count=500, signal_count=100, user_count=80)

    after = measured(row, GOOD)

    assert (after.use_count, after.signal_count, after.user_count) == (500, 100, 80)
    assert after.last_used_at == iso(NOW_S - 60)


def test_an_endless_e_value_fits_its_column() -> None:
    assert measured(pattern("trial"), replace(GOOD, log_e=10_000.0)).e_value == math.exp(700)


def test_the_strict_test_counts_all_that_were_tried() -> None:
    assert proven([], [], 0.1) == []
    assert proven([math.log(11)], ["type"], 0.1) == [True]
    assert proven([math.log(11), *[0.0] * 9], ["type"] * 10, 0.1) == [False] * 10
    assert proven([math.log(101), *[0.0] * 9], ["type"] * 10, 0.1) == [True] + [False] * 9


def test_families_share_the_budget() -> None:
    # One org-wide hypothesis has 60 of 80 % of the weight; the type's needs three times its e-value.
    assert proven([math.log(14), 0.0], ["org", "type"], 0.1) == [True, False]
    assert proven([0.0, math.log(14)], ["org", "type"], 0.1) == [False, False]
