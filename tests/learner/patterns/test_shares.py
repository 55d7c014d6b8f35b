"""How much traffic each pattern gets."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.patterns.posterior import Belief
from learner.patterns.shares import Arm, best_shares, deal, sharpened
from store.config import load_config
from store.plan import Conditions
from store.vocabulary import PatternState

SETTINGS = replace(load_config().patterns, prune_min_signals=30)
BELIEFS = st.builds(Belief, st.floats(-0.3, 0.3), st.floats(0.005, 0.3))


def arm(
    name: str,
    mean: float,
    sd: float = 0.05,
    *,
    state: PatternState = "trial",
    types: tuple[str, ...] = (),
    warmth: float = 0.0,
    share: float = 0.2,
    n_signals: int = 100,
    is_asked: bool = False,
) -> Arm:
    return Arm(name, Conditions(question_type=types), state, Belief(mean, sd), warmth, share, n_signals, is_asked)


@given(st.lists(BELIEFS, max_size=5))
def test_probabilities_of_being_best_sum_to_one(beliefs: list[Belief]) -> None:
    best, none = best_shares(beliefs)

    assert float(best.sum()) + none == pytest.approx(1.0, abs=1e-6)


def test_they_are_what_sampling_finds() -> None:
    beliefs = [Belief(0.05, 0.1), Belief(0.0, 0.2), Belief(-0.1, 0.05)]
    draws = np.random.default_rng(1).normal([b.mean for b in beliefs], [b.sd for b in beliefs], (200_000, 3))
    sampled = [float(((draws.argmax(1) == k) & (draws.max(1) > 0)).mean()) for k in range(3)]

    np.testing.assert_allclose(best_shares(beliefs)[0], sampled, atol=0.01)


def test_sharpening_drops_what_is_hardly_ever_best() -> None:
    shares = sharpened(np.array([0.7, 0.2]), 0.1)

    assert shares[0] > 0.98
    assert shares[1] == 0.0


def test_a_first_trial_alone_gets_the_whole_trial_share() -> None:
    assert deal([arm("a", 0.0, share=0.0)], SETTINGS) == {"a": SETTINGS.trial_share}


def test_trials_together_stay_within_the_trial_share() -> None:
    shares = deal([arm("a", 0.02), arm("b", 0.01), arm("c", -0.2)], SETTINGS)

    assert sum(shares.values()) == pytest.approx(SETTINGS.trial_share)
    assert shares["a"] > shares["b"] > shares["c"]


def test_a_promising_trial_may_pass_the_cap_once_a_strong_effect_would_be_proven() -> None:
    assert deal([arm("a", 0.1, n_signals=100)], SETTINGS)["a"] == pytest.approx(SETTINGS.active_share)
    assert deal([arm("a", 0.1, n_signals=99)], SETTINGS)["a"] == pytest.approx(SETTINGS.trial_share)


def test_a_trial_that_a_person_asked_for_is_tried_beside_a_strong_pattern() -> None:
    best = arm("a", 0.2, 0.02, state="active", warmth=1.0)
    asked = deal([best, arm("b", 0.0, 0.01, n_signals=0, is_asked=True)], SETTINGS)

    assert asked == {"a": pytest.approx(0.75), "b": 0.15}
    assert deal([best, arm("b", 0.0, 0.01, n_signals=0)], SETTINGS)["b"] == 0.0
    assert deal([best, arm("b", 0.0, 0.01, n_signals=30, is_asked=True)], SETTINGS)["b"] == 0.0


def test_an_active_pattern_warms_up_and_never_falls_back() -> None:
    cold = deal([arm("a", 0.1, state="active", warmth=0.2)], SETTINGS)["a"]
    warm = deal([arm("a", 0.1, state="active", warmth=1.0)], SETTINGS)["a"]
    promising = deal([arm("a", 0.1, state="active", warmth=0.2, share=0.9)], SETTINGS)["a"]

    assert SETTINGS.trial_share < cold < warm == promising == pytest.approx(SETTINGS.active_share)


def test_an_active_pattern_that_is_in_doubt_gets_no_more_than_a_trial() -> None:
    assert deal([arm("a", 0.02, state="active", warmth=1.0, share=0.9)], SETTINGS)["a"] == SETTINGS.trial_share


def test_warm_down_takes_the_share_away_in_steps() -> None:
    shares = [deal([arm("a", -0.01, state="warmdown", warmth=step / 5)], SETTINGS)["a"] for step in (5, 3, 1)]

    assert shares == pytest.approx([0.9, 0.54, 0.18])


def test_trials_beside_an_active_pattern_leave_it_most() -> None:
    shares = deal([arm("a", 0.2, state="active", warmth=1.0), arm("b", 0.0, 0.1)], SETTINGS)

    assert shares["b"] <= 0.3 * SETTINGS.trial_share
    assert shares["a"] + shares["b"] <= SETTINGS.active_share + 1e-9


def test_trials_for_different_questions_do_not_share() -> None:
    shares = deal([arm("a", 0.0, types=("x",), share=0.0), arm("b", 0.0, types=("y",), share=0.0)], SETTINGS)

    assert shares == {"a": SETTINGS.trial_share, "b": SETTINGS.trial_share}


@given(
    st.lists(
        st.tuples(
            BELIEFS,
            st.sampled_from(["trial", "active", "warmdown"]),
            st.floats(0, 1),
            st.floats(0, 1),
            st.integers(0, 150),
            st.booleans(),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_the_hold_back_is_always_kept(drawn: list[tuple[Belief, PatternState, float, float, int, bool]]) -> None:
    arms = [
        Arm(str(k), Conditions(), state, belief, warmth, share, n, is_asked)
        for k, (belief, state, warmth, share, n, is_asked) in enumerate(drawn)
    ]

    shares = deal(arms, SETTINGS)

    assert all(share >= 0 for share in shares.values())
    assert sum(shares.values()) <= 1 - SETTINGS.hold_back + 1e-9
