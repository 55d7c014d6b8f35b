"""How much of each cell's traffic each pattern gets."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.patterns.beliefs import Beliefs, Scope
from learner.patterns.dealing import Dealt, best_odds, deal, share_in
from learner.patterns.lifecycle import Change
from learner.patterns.observations import Column
from learner.patterns.readings import Readings
from store.config import load_config
from store.pattern_review import BESIDE_SHARE
from store.patterns import PatternRow
from store.plan import CellShare, Conditions
from store.vocabulary import PatternState
from tests.learner.patterns.believing import LIST, PROSE, TABLE, beliefs_of, learned, pattern

SETTINGS = load_config().patterns
STEPS = Column("strategy", "steps")
REFUND, COMPARISON = ("refund", ""), ("comparison", "")
MOST = min(SETTINGS.active_share, 1 - SETTINGS.hold_back)


def dealt(beliefs: Beliefs, *rows: PatternRow, disabled: tuple[PatternRow, ...] = (), seed: int = 7) -> Dealt:
    changes = [Change(row, row) for row in rows]
    return deal(changes, disabled, Readings(beliefs, SETTINGS), SETTINGS, np.random.default_rng(seed))


def shares(found: Dealt, cell: tuple[str, str]) -> dict[str, float]:
    return {change.after.id: share_in(change.after, cell) for change in found.changes}


def test_odds_of_being_best_sum_to_one_and_are_what_symmetry_says() -> None:
    draws = np.random.default_rng(1).standard_normal((200_000, 2))

    best, none, gain = best_odds(np.zeros((1, 2)), np.ones((1, 2)), np.ones((1, 2), np.bool_), draws)

    np.testing.assert_allclose(best, [[3 / 8, 3 / 8]], atol=0.01)
    np.testing.assert_allclose(best.sum(1) + none, 1.0)
    assert gain[0] == pytest.approx(np.maximum(draws.max(1), 0).mean())


def test_a_first_trial_alone_gets_the_whole_trial_share_everywhere() -> None:
    found = dealt(beliefs_of([TABLE]), pattern(share=0.0))

    assert found.changes[0].after.share == SETTINGS.trial_share
    assert found.changes[0].after.cells == ()


def test_what_the_model_does_not_know_yet_is_tried_on_its_prior() -> None:
    found = dealt(beliefs_of([LIST]), pattern(share=0.0), pattern(column=LIST, name="pat_2", share=0.0))

    assert all(change.after.share > 0 for change in found.changes)


def test_trials_together_stay_within_the_trial_share() -> None:
    beliefs = learned(learned(beliefs_of([TABLE, LIST]), TABLE, lift=0.02), LIST, lift=0.02)

    found = dealt(beliefs, pattern(share=0.2), pattern(column=LIST, name="pat_2", share=0.2))

    assert sum(shares(found, REFUND).values()) == pytest.approx(SETTINGS.trial_share, abs=0.02)


def test_a_promising_trial_passes_the_cap_once_it_had_its_even_odds() -> None:
    early = learned(beliefs_of([TABLE]), TABLE, lift=0.1, log_e=1.0, n_treated=40)
    late = learned(beliefs_of([TABLE]), TABLE, lift=0.1, log_e=1.0, n_treated=140)

    assert dealt(early, pattern(share=0.5)).changes[0].after.share == SETTINGS.trial_share
    assert dealt(late, pattern(share=0.5)).changes[0].after.share == MOST


def test_competing_trials_of_a_small_tenant_get_more() -> None:
    beliefs = learned(learned(beliefs_of([TABLE, LIST], n_signals=500), TABLE, lift=0.05), LIST, lift=0.01)

    found = dealt(beliefs, pattern(share=0.2), pattern(column=LIST, name="pat_2", share=0.2))

    assert sum(shares(found, REFUND).values()) == pytest.approx(SETTINGS.small_trial_share, abs=0.02)


def test_a_trial_is_served_where_it_helps_and_not_where_it_harms() -> None:
    beliefs = learned(beliefs_of([TABLE]), TABLE, lift=0.1, scope=Scope(question_type="refund"))
    beliefs = learned(beliefs, TABLE, lift=-0.1, scope=Scope(question_type="comparison"))

    found = dealt(beliefs, pattern(share=0.5))

    assert shares(found, REFUND)["pat_1"] == SETTINGS.trial_share
    assert shares(found, COMPARISON)["pat_1"] == 0.0


def test_an_active_pattern_warms_up_and_trials_shrink_beside_it() -> None:
    beliefs = learned(learned(beliefs_of([TABLE, LIST]), TABLE, lift=0.1), LIST, lift=0.08, sd=0.05)
    trial = pattern(column=LIST, name="pat_2", share=0.2)

    warming = shares(dealt(beliefs, pattern("active", share=0.5, warm_step=1), trial), REFUND)
    warm = shares(dealt(beliefs, pattern("active", share=0.5, warm_step=SETTINGS.warmup_runs), trial), REFUND)

    assert 0 < warm["pat_2"] <= 0.3 * SETTINGS.trial_share
    assert SETTINGS.trial_share - warm["pat_2"] < warming["pat_1"] < warm["pat_1"]
    assert sum(warm.values()) == pytest.approx(MOST, abs=0.02)


def test_an_active_pattern_gets_no_more_than_a_trial_where_it_is_in_doubt() -> None:
    beliefs = learned(beliefs_of([TABLE]), TABLE, lift=0.1, scope=Scope(question_type="refund"))

    found = shares(dealt(beliefs, pattern("active", share=0.5, warm_step=5)), REFUND)
    doubted = shares(dealt(beliefs, pattern("active", share=0.5, warm_step=5)), COMPARISON)

    assert found["pat_1"] == MOST
    assert doubted["pat_1"] <= SETTINGS.trial_share


def test_warm_down_takes_an_equal_step_of_the_share_with_each_run() -> None:
    beliefs = learned(beliefs_of([TABLE]), TABLE, lift=-0.01)
    row = pattern("warmdown", share=0.8, warm_step=4)

    assert dealt(beliefs, row).changes[0].after.share == pytest.approx(0.64)


def test_a_person_who_asks_gets_a_trial_beside_others() -> None:
    beliefs = learned(learned(beliefs_of([TABLE, LIST]), TABLE, lift=0.1), LIST, lift=-0.1)

    found = dealt(beliefs, pattern(share=0.5), pattern(column=LIST, name="pat_2", share=0.0, is_approved=True))

    assert shares(found, REFUND)["pat_2"] >= BESIDE_SHARE * 0.7


def test_in_a_cell_one_pattern_serves_an_instruction_the_most_advanced_then_the_most_specific() -> None:
    narrow = Conditions(question_type=("refund",))
    beliefs = learned(beliefs_of([TABLE]), TABLE, lift=0.1)
    everywhere = pattern(share=0.3)

    trial = dealt(beliefs, everywhere, pattern(name="pat_2", conditions=narrow, share=0.3))
    active = dealt(beliefs, replace(everywhere, state="active"), pattern(name="pat_2", conditions=narrow, share=0.3))

    assert shares(trial, REFUND)["pat_1"] == 0.0 < shares(trial, REFUND)["pat_2"]
    assert shares(trial, COMPARISON)["pat_1"] > 0
    assert shares(active, REFUND)["pat_2"] == 0.0 < shares(active, REFUND)["pat_1"]


def test_what_a_person_pinned_has_its_dimension_where_it_matches() -> None:
    narrow = Conditions(question_type=("refund",))
    pinned = pattern("pinned", LIST, name="pat_2", conditions=narrow, share=1.0)

    found = dealt(beliefs_of([TABLE, LIST]), pattern(share=0.5), pinned)

    assert shares(found, REFUND) == {"pat_1": 0.0, "pat_2": 1.0}
    assert shares(found, COMPARISON)["pat_1"] > 0


def test_what_a_person_disabled_is_not_served_in_its_scope_by_another_pattern() -> None:
    narrow = Conditions(question_type=("refund",))

    found = dealt(
        beliefs_of([TABLE]), pattern(share=0.5), disabled=(pattern("disabled", name="pat_2", conditions=narrow),)
    )

    assert shares(found, REFUND)["pat_1"] == 0.0 < shares(found, COMPARISON)["pat_1"]


def test_of_two_that_harm_each_other_only_the_better_is_served() -> None:
    beliefs = learned(learned(beliefs_of([TABLE, STEPS]), TABLE, lift=0.1), STEPS, lift=0.06)
    beliefs = replace(beliefs, clashes=~np.eye(2, dtype=np.bool_))

    found = shares(dealt(beliefs, pattern(share=0.5), pattern(column=STEPS, name="pat_2", share=0.5)), REFUND)

    assert found["pat_2"] == 0.0 < found["pat_1"]


def test_a_share_that_hardly_moves_stays() -> None:
    beliefs = learned(beliefs_of([TABLE]), TABLE, lift=0.1)

    assert dealt(beliefs, pattern(share=SETTINGS.trial_share - 0.02)).changes[0].after.share == 0.48
    assert dealt(beliefs, pattern(share=SETTINGS.trial_share - 0.05)).changes[0].after.share == 0.5


def test_a_question_type_without_a_cell_belongs_to_the_rest() -> None:
    found = dealt(beliefs_of([TABLE]), pattern(conditions=Conditions(question_type=("rare",)), share=0.0))

    assert shares(found, ("", ""))["pat_1"] == SETTINGS.trial_share


def test_a_dimension_is_worth_more_the_more_its_best_arm_is_expected_to_lift() -> None:
    beliefs = learned(learned(beliefs_of([TABLE, STEPS]), TABLE, lift=0.1), STEPS, lift=0.01)

    found = dealt(beliefs, pattern(share=0.5), pattern(column=STEPS, name="pat_2", share=0.5)).priorities

    assert found["response_format"] > found["strategy"] > 0


STATES: list[PatternState] = ["trial", "active", "warmdown"]
ROWS = st.lists(
    st.tuples(
        st.sampled_from(STATES),
        st.sampled_from([TABLE, LIST, PROSE]),
        st.sampled_from([(), ("refund",), ("comparison",), ("rare",)]),
        st.sampled_from([0.0, 0.03, 0.3, 0.9]),
        st.integers(1, 5),
        st.booleans(),
    ),
    max_size=6,
)
LIFTS = st.lists(st.floats(-0.2, 0.2), min_size=3, max_size=3)


def made(specs: list[tuple[PatternState, Column, tuple[str, ...], float, int, bool]]) -> list[PatternRow]:
    return [
        pattern(
            state,
            column,
            name=f"pat_{index}",
            conditions=Conditions(question_type=types),
            share=share,
            warm_step=step,
            is_approved=is_asked,
            cells=(CellShare("refund", "a", 0.4),),
        )
        for index, (state, column, types, share, step, is_asked) in enumerate(specs)
    ]


def known(lifts: list[float]) -> Beliefs:
    beliefs = beliefs_of([TABLE, LIST, PROSE], groups=("a", "b"), field="segment")
    for column, lift in zip(beliefs.columns, lifts, strict=True):
        beliefs = learned(beliefs, column, lift=lift, sd=0.05, log_e=0.0, n_treated=120)
    return beliefs


@settings(deadline=None, max_examples=60)
@given(ROWS, LIFTS)
def test_no_cell_ever_gives_away_what_is_held_back(
    specs: list[tuple[PatternState, Column, tuple[str, ...], float, int, bool]], lifts: list[float]
) -> None:
    found = dealt(known(lifts), *made(specs))

    for cell in [(q, g) for q in ("refund", "comparison", "") for g in ("a", "b", "")]:
        covering = [
            change.after
            for change in found.changes
            if not change.after.conditions.question_type
            or cell[0] in change.after.conditions.question_type
            or ("rare" in change.after.conditions.question_type and not cell[0])
        ]
        assert sum(share_in(row, cell) for row in covering) <= 1 - SETTINGS.hold_back + 1e-9
    assert all(0 <= change.after.share <= 1 for change in found.changes)


@settings(deadline=None, max_examples=30)
@given(ROWS, LIFTS)
def test_the_same_run_deals_the_same(
    specs: list[tuple[PatternState, Column, tuple[str, ...], float, int, bool]], lifts: list[float]
) -> None:
    assert dealt(known(lifts), *made(specs)) == dealt(known(lifts), *made(specs))


@settings(deadline=None, max_examples=60)
@given(LIFTS, st.floats(0.0, 0.2))
def test_more_evidence_for_a_trial_never_means_a_smaller_share(lifts: list[float], more: float) -> None:
    rows = [pattern(column=column, name=f"pat_{column.value}", share=0.0) for column in (TABLE, LIST, PROSE)]

    before = dealt(known(lifts), *rows).changes[0].after.share
    after = dealt(known([lifts[0] + more, *lifts[1:]]), *rows).changes[0].after.share

    assert after >= before - 1e-9
