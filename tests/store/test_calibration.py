"""Scores become probabilities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.calibration import calibrated_mix, softmax


@pytest.mark.parametrize("factors", [(1 / 3, 0.0), (1.0, 0.5), (2.0, 0.1)])
def test_the_factors_by_which_labels_were_drawn_are_found(factors: tuple[float, float]) -> None:
    rng = np.random.default_rng(4)
    first, second = (rng.normal(0, 2, (20_000, 4)).astype(np.float32) for _ in range(2))
    # Gumbel's maximum draws from the softmax.
    labels = (factors[0] * first + factors[1] * second + rng.gumbel(size=first.shape)).argmax(axis=1)
    assert calibrated_mix(first, second, labels) == pytest.approx(factors, abs=0.05)


def test_scores_that_say_nothing_count_nothing() -> None:
    rng = np.random.default_rng(4)
    first = rng.normal(0, 2, (2_000, 4)).astype(np.float32)
    labels = (first + rng.gumbel(size=first.shape)).argmax(axis=1)
    sharpness, _ = calibrated_mix(first, np.zeros_like(first), labels)
    assert sharpness == pytest.approx(1, abs=0.15)


@given(st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=1, max_size=5))
def test_probabilities_of_a_row_sum_to_one(rows: list[list[float]]) -> None:
    found = softmax(np.array(rows, dtype=np.float32))
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)
