"""Randomised evidence: right on average, careful at every look, never one account's word."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.patterns.evidence import Rows, contrast, lift_interval, log_e_value

NOW_S = 1_000_000.0


def rows(n: int, seed: int, *, lift: float = 0.0, n_users: int = 50, sd: float = 1.0) -> Rows:
    """Return n rows whose coin is logged exactly, from users with their own moods."""
    rng = np.random.default_rng(seed)
    propensity = rng.choice([0.2, 0.5, 0.8], n)
    treated = rng.random(n) < propensity
    cluster = rng.integers(n_users, size=n)
    mood = rng.normal(0, 0.3, n_users)
    residual = mood[cluster] + lift * treated + rng.normal(0, sd, n)
    return Rows(treated, propensity, residual, np.ones(n), cluster, np.full(n, NOW_S), np.ones(n, np.bool_))


def test_the_lift_is_found_though_propensities_differ() -> None:
    found = contrast(rows(20_000, 1, lift=0.4))

    assert found.lift == pytest.approx(0.4, abs=0.05)


def test_rows_that_say_nothing_leave_no_lift() -> None:
    empty = rows(0, 1)

    assert contrast(empty).lift is None
    assert lift_interval(contrast(empty), 1.0) is None


@given(st.lists(st.tuples(st.booleans(), st.floats(0.05, 0.95), st.floats(-2, 2)), min_size=1, max_size=60))
def test_a_single_account_never_exceeds_one_standard_error(drawn: list[tuple[bool, float, float]]) -> None:
    n = len(drawn)
    treated, propensity, residual = (np.array(column) for column in zip(*drawn, strict=True))
    found = contrast(
        Rows(
            treated.astype(np.bool_),
            propensity,
            residual,
            np.ones(n),
            np.zeros(n, np.int64),
            np.zeros(n),
            np.ones(n, np.bool_),
        )
    )

    assert abs(found.score) <= math.sqrt(found.variance()) + 1e-9


def test_looking_all_the_time_rarely_fools_the_e_value() -> None:
    n_fooled = 0
    for seed in range(300):
        world = rows(1500, seed)
        looks = [contrast(world.only(np.arange(1500) < n)) for n in range(50, 1501, 50)]
        n_fooled += any(log_e_value(look, 1.09) >= math.log(20) for look in looks)

    assert n_fooled / 300 <= 0.05


def test_the_interval_covers_the_lift_at_every_look() -> None:
    n_missed = 0
    for seed in range(200):
        world = rows(1500, seed, lift=0.3)
        intervals = [lift_interval(contrast(world.only(np.arange(1500) < n)), 1.09) for n in range(100, 1501, 100)]
        n_missed += not all(interval is not None and interval[0] <= 0.3 <= interval[1] for interval in intervals)

    assert n_missed / 200 <= 0.05


def test_strong_evidence_has_a_large_e_value_and_an_interval_above_nothing() -> None:
    found = contrast(rows(4000, 3, lift=0.5))
    interval = lift_interval(found, 1.09)

    assert log_e_value(found, 1.09) > math.log(1000)
    assert interval is not None
    assert 0 < interval[0] < 0.5 < interval[1]


@given(
    st.floats(-1, 1), st.integers(1, 400), st.integers(1, 60), st.integers(0, 10_000), st.sampled_from([0.1, 0.5, 1.0])
)
@settings(max_examples=300, deadline=None)
def test_interval_and_e_value_tell_one_story(lift: float, n: int, n_users: int, seed: int, sd: float) -> None:
    found = contrast(rows(n, seed, lift=lift, n_users=n_users, sd=sd))
    interval = lift_interval(found, sd**2)

    assert interval is not None
    assert found.lift is not None
    assert interval[0] < found.lift < interval[1]
    assert interval[0] >= -2 or found.lift == -2
    assert interval[1] <= 2 or found.lift == 2
    assert (interval[0] > 0) == (log_e_value(found, sd**2) >= math.log(20))


def test_the_low_end_is_the_effect_whose_e_value_is_20() -> None:
    for found in (contrast(rows(4000, 3, lift=0.5)), contrast(rows(300, 3, lift=0.1))):
        interval = lift_interval(found, 1.09)

        assert interval is not None
        assert log_e_value(found, 1.09, interval[0]) == pytest.approx(math.log(20), abs=1e-6)


def test_the_interval_of_the_opposite_is_the_opposite_interval() -> None:
    world = rows(500, 4, lift=0.2)
    interval = lift_interval(contrast(world), 1.09)
    opposite = lift_interval(contrast(replace(world, residual=-world.residual)), 1.09)

    assert interval is not None
    assert opposite == pytest.approx((-interval[1], -interval[0]), abs=1e-9)


def test_a_strong_effect_is_proven_by_150_responses_of_60_users() -> None:
    world = rows(150, 5, n_users=60)
    found = contrast(replace(world, residual=world.treated - world.propensity))
    interval = lift_interval(found, float(np.var(world.treated - world.propensity)))

    assert log_e_value(found, 0.25) > math.log(20)
    assert interval is not None
    assert 0.5 < interval[0] < 1 < interval[1] < 1.5


def test_a_pattern_that_harms_never_has_evidence_that_it_helps() -> None:
    found = contrast(rows(4000, 3, lift=-0.5))

    assert log_e_value(found, 1.09) < 0
