"""The joint posterior: right where there is evidence, the prior where there is none."""

import numpy as np
import pytest

from learner.patterns.effects import PART_SD, Regression, Scales, solve
from learner.patterns.normal import Floats

WEIGHTS = np.array([1.0, 0, 0, 0, 0, 0, 0])
VARIANCE = 0.25


def trial(truth: Floats, n: int, seed: int) -> Regression:
    """Return the sums of a trial without natural values; *truth* (q, s, f) are the lifts, each coin is fair."""
    rng = np.random.default_rng(seed)
    n_types, n_groups, n_columns = truth.shape
    sums = Regression({"q": n_types, "s": n_groups, "f": n_columns})
    for q, s in np.ndindex(n_types, n_groups):
        coins = (rng.random((n, n_columns)) < 0.5) - 0.5
        score = coins @ truth[q, s] + rng.normal(0, VARIANCE**0.5, n)
        sums.gram[q, s, 0] = coins.T @ coins
        sums.cross[q, s, 0, :, 0] = coins.T @ score
        sums.responses[q, s] = n
    return sums


def fit(sums: Regression, n_fits: int = 3) -> tuple[Floats, Floats, Floats, Floats]:
    """Return cell means, cell deviations, key means and key deviations after some fits."""
    scales = Scales({})
    for _ in range(n_fits):
        found = solve(sums, scales, WEIGHTS, VARIANCE, fading=1.0, is_small=False)
    return found.cell_mean, found.cell_sd, found.key_mean, found.key_sd


def test_without_evidence_the_prior_stands() -> None:
    cell_mean, cell_sd, key_mean, key_sd = fit(trial(np.zeros((2, 3, 4)), 0, 1), n_fits=1)

    assert np.abs(cell_mean).max() == 0
    assert np.abs(key_mean).max() == 0
    np.testing.assert_allclose(key_sd[0], PART_SD[0] * VARIANCE**0.5, rtol=0.1)
    np.testing.assert_allclose(cell_sd, VARIANCE**0.5 * np.sqrt((PART_SD[:3] ** 2).sum()), rtol=0.1)


def test_much_evidence_speaks_for_itself_in_every_cell() -> None:
    truth = np.zeros((3, 2, 4))
    truth[:, :, 0] = 0.3
    truth[1, :, 1] = 0.3
    truth[:, 1, 2] = -0.3
    cell_mean, cell_sd, _, _ = fit(trial(truth, 20_000, 1))

    np.testing.assert_allclose(cell_mean, truth, atol=0.03)
    assert cell_sd.max() < 0.02


def test_an_effect_everywhere_is_an_org_wide_one() -> None:
    _, _, key_mean, key_sd = fit(trial(np.full((4, 2, 1), 0.2), 1000, 1))

    assert key_mean[0, 0] / key_sd[0, 0] > 2.5
    np.testing.assert_allclose(key_mean[:, 0], 0.2, atol=0.04)


def test_intervals_cover_effects_drawn_from_the_prior() -> None:
    rng = np.random.default_rng(3)
    covered = []
    for seed in range(20):
        org = rng.normal(0, PART_SD[0], 6)
        types = rng.normal(0, PART_SD[1], (3, 1, 6))
        truth = (org + types) * VARIANCE**0.5 * np.ones((3, 2, 6))
        cell_mean, cell_sd, _, _ = fit(trial(truth, 400, seed), n_fits=1)
        covered.append(np.abs(cell_mean - truth) < 1.96 * cell_sd)

    assert np.mean(covered) > 0.9


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1)])
def test_a_single_stratum_has_no_part_of_its_own(shape: tuple[int, int]) -> None:
    cell_mean, _, key_mean, _ = fit(trial(np.full((*shape, 2), 0.2), 2000, 1))

    assert cell_mean.shape == (*shape, 2)
    assert key_mean.shape == (1 + sum(shape), 2)
    np.testing.assert_allclose(cell_mean, 0.2, atol=0.06)


def test_what_changed_is_as_it_was_but_less_sure_and_the_others_are_what_is_left_without_it() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, 3)) @ np.array([[1.0, -0.8, 0.0], [0.0, 0.5, 0.3], [0.0, 0.0, 1.0]])
    score = rows @ np.array([0.4, -0.2, 0.1]) + rng.normal(0, 0.5, 500)
    sums = Regression({"q": 1, "s": 1, "f": 3})
    sums.gram[0, 0, 0] = rows.T @ rows
    sums.cross[0, 0, 0, :, 0] = rows.T @ score
    before = sums.gram[0, 0, 0].copy()
    mean = np.linalg.solve(before, sums.cross[0, 0, 0, :, 0])

    sums.discount((slice(None), slice(None)), 0, 0.2)

    after = sums.gram[0, 0, 0]
    added = np.linalg.inv(after) - np.linalg.inv(before)
    np.testing.assert_allclose(np.linalg.solve(after, sums.cross[0, 0, 0, :, 0]), mean)
    np.testing.assert_allclose(after[0, 0], 0.2 * before[0, 0])
    np.testing.assert_allclose(added[1:], 0.0, atol=1e-12)
    assert added[0, 0] > 0

    sums.discount((slice(None), slice(None)), 0, 0.0)

    without = np.delete(np.delete(np.linalg.inv(before), 0, 0), 0, 1)
    np.testing.assert_allclose(np.linalg.inv(sums.gram[0, 0, 0][1:, 1:]), without)
