"""A pattern that stopped helping is seen by its last weeks alone, and one that goes on helping is let be."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.patterns.changes import WATCHED_DAYS, Days, find_change
from learner.patterns.normal import Floats
from store.clock import DAY_S

YEAR = 365
TREATED = 0.9  # of an active pattern's conversations
PER_DAY = 200.0
FIRST_DAY = 20_000


def sums(rng: np.random.Generator, effects: Floats) -> Floats:
    """Return psi, information and psi^2 by day (3, d) of one with *effects* (d,), in deviations of a residual."""
    days = []
    for effect in effects.tolist():
        treated = rng.random(rng.poisson(PER_DAY)) < TREATED
        coin = treated - TREATED
        psi = coin * (rng.normal(0, 1, len(coin)) + effect * coin)
        days.append((psi.sum(), (coin**2).sum(), (psi**2).sum()))
    return np.array(days).T


def watched(found: Floats) -> Days:
    """Return the last days of *found* (3, d), as a ledger keeps them."""
    score, information, squares = found
    last = slice(max(len(score) - WATCHED_DAYS, 0), None)
    day = FIRST_DAY + np.arange(len(score))
    before = np.asarray(score[: last.start].sum()), np.asarray(information[: last.start].sum())
    return Days(day[last], score[last], information[last], squares[last], *before)


def alarm(rng: np.random.Generator, effects: Floats, years: float = 1.0) -> int | None:
    """Return the day at whose end a change is found first."""
    found = sums(rng, effects)
    for n in range(1, len(effects) + 1):
        if find_change(watched(found[:, :n]), 1.0, years) is not None:
            return n - 1
    return None


@pytest.mark.parametrize(("effect", "within"), [(0.5, 3), (0.2, 14)])
@pytest.mark.parametrize("before", [20, 300])
def test_what_turns_round_is_seen_in_days_however_long_it_helped_before(
    effect: float, within: int, before: int
) -> None:
    waits = []
    for seed in range(5):
        effects = np.where(np.arange(before + 30) < before, effect, -effect)
        found = alarm(np.random.default_rng(seed), effects)
        assert found is not None
        waits.append(found - before)

    assert all(wait >= 0 for wait in waits)
    assert sorted(waits)[2] <= within


def test_what_stops_to_help_is_seen_though_it_does_no_harm() -> None:
    effects = np.where(np.arange(100) < 40, 0.5, 0.0)
    waits = [alarm(np.random.default_rng(seed), effects) for seed in range(5)]

    assert all(wait is not None and 40 <= wait < 80 for wait in waits)


def test_half_of_what_it_did_is_enough_to_stay() -> None:
    """Ten years of service in which an effect halves: at most ten alarms are allowed."""
    effects = np.where(np.arange(YEAR) < 30, 0.2, 0.1)
    alarms = [alarm(np.random.default_rng(seed), effects) for seed in range(10)]

    assert sum(found is not None for found in alarms) <= 4


def test_a_change_says_since_when_and_how_much() -> None:
    effects = np.where(np.arange(60) < 50, 0.5, -0.5)
    found = find_change(watched(sums(np.random.default_rng(1), effects)), 1.0, 1.0)

    assert found is not None
    assert found.since_s == pytest.approx((FIRST_DAY + 50) * DAY_S, abs=DAY_S)
    assert found.before == pytest.approx(0.5, abs=0.1)
    assert found.lift == pytest.approx(-0.5, abs=0.25)
    assert found.odds >= 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(-0.5, 0.5), st.floats(0.1, 10.0))
def test_the_surer_one_must_be_the_later_a_change_is_found(seed: int, effect: float, years: float) -> None:
    days = watched(sums(np.random.default_rng(seed), np.where(np.arange(30) < 20, 0.3, effect)))
    lax, strict = find_change(days, 1.0, years), find_change(days, 1.0, 4 * years)

    assert strict is None or lax is not None
    assert lax is None or lax.lift <= 0
    assert strict is None or lax is None or strict.odds == pytest.approx(lax.odds / 4)


def test_variance_that_accounts_make_is_no_evidence() -> None:
    days = watched(sums(np.random.default_rng(1), np.where(np.arange(60) < 50, 0.5, -0.5)))

    assert find_change(days, 1.0, 1.0) is not None
    assert find_change(replace(days, variance=30 * days.variance), 1.0, 1.0) is None


def test_nothing_is_known_without_rows() -> None:
    nothing = np.zeros(WATCHED_DAYS)
    days = Days(np.arange(WATCHED_DAYS), nothing, nothing, nothing, np.asarray(0.0), np.asarray(0.0))

    assert find_change(days, 1.0, 1.0) is None
    assert math.isfinite(float(days.score_before))
