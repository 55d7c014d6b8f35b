"""A crash is a large fall that chance does not explain."""

import numpy as np
from numpy.typing import NDArray

from learner.patterns.crash import Crash, find_crash

NOW_S = 100 * 86_400.0


def crash_of(before: float, now: float, n_before: int, n_now: int, seed: int = 0) -> Crash | None:
    """Return the crash when shares of good votes are *before* and *now*."""
    rng = np.random.default_rng(seed)
    is_good: NDArray[np.bool_] = np.concatenate([rng.random(n_before) < before, rng.random(n_now) < now])
    created_s = np.concatenate(
        [NOW_S - rng.uniform(1.1, 7.9, n_before) * 86_400, NOW_S - rng.uniform(0, 1, n_now) * 86_400]
    )
    return find_crash(
        good=is_good.astype(np.float64),
        bad=(~is_good).astype(np.float64),
        created_s=created_s,
        now_s=NOW_S,
        drop=0.3,
        min_z=3.5,
    )


def test_a_large_and_sure_fall_is_a_crash() -> None:
    found = crash_of(0.8, 0.35, 600, 120)

    assert found is not None
    assert found.before > 0.7
    assert found.now < 0.45
    assert found.z < -3.5


def test_a_small_fall_is_none_however_sure() -> None:
    assert crash_of(0.8, 0.65, 60_000, 12_000) is None


def test_a_large_fall_among_few_votes_is_none() -> None:
    assert crash_of(0.8, 0.2, 300, 9) is None
    assert crash_of(0.7, 0.4, 40, 12) is None


def test_without_a_week_before_there_is_nothing_to_fall_from() -> None:
    assert crash_of(0.8, 0.1, 0, 300) is None


def test_chance_alone_is_hardly_ever_a_crash() -> None:
    assert sum(crash_of(0.6, 0.6, 400, 55, seed) is not None for seed in range(500)) == 0


def test_only_bad_votes_after_good_ones_are_a_crash() -> None:
    assert crash_of(1.0, 0.0, 100, 30) is not None
