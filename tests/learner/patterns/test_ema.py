"""The score: exactly debiased, whatever its alphas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.patterns.ema import Ema, alpha_at, extend, score_of, update

SIGNALS = st.lists(st.floats(-1, 1), min_size=1, max_size=200)


@given(SIGNALS)
def test_the_score_is_the_exact_weighted_mean(signals: list[float]) -> None:
    alphas = [alpha_at(i, 0.15, 0.05, 30) for i in range(len(signals))]
    weights = np.array([alpha * np.prod(1 - np.array(alphas[i + 1 :])) for i, alpha in enumerate(alphas)])

    score = score_of(np.array(signals), start=0.15, end=0.05, over=30)

    assert score == pytest.approx(float(weights @ signals / weights.sum()), abs=1e-12)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.01, 0.99)), min_size=1, max_size=100))
def test_it_is_exact_for_any_sequence_of_alphas(steps: list[tuple[float, float]]) -> None:
    ema = Ema()
    for signal, alpha in steps:
        ema = update(ema, signal, alpha)
    weights = np.array([alpha * np.prod([1 - a for _, a in steps[i + 1 :]]) for i, (_, alpha) in enumerate(steps)])

    assert ema.score == pytest.approx(float(weights @ [s for s, _ in steps] / weights.sum()), abs=1e-12)


@given(SIGNALS, st.lists(st.integers(0, 200), max_size=4))
def test_taking_signals_in_pieces_gives_the_score_of_all_of_them(signals: list[float], cuts: list[int]) -> None:
    ema = Ema()
    for piece in np.split(np.array(signals), sorted(min(cut, len(signals)) for cut in cuts)):
        ema = extend(ema, piece, start=0.15, end=0.05, over=30)

    assert ema.n_signals == len(signals)
    assert ema.score == pytest.approx(score_of(np.array(signals), start=0.15, end=0.05, over=30), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 50, 400])
def test_a_constant_signal_is_its_own_score(n: int) -> None:
    assert score_of(np.full(n, 0.3), start=0.15, end=0.05, over=30) == pytest.approx(0.3, abs=1e-12)


def test_the_variant_that_debiases_a_debiased_score_diverges() -> None:
    score = 0.0
    for n in range(50):
        alpha = alpha_at(n, 0.15, 0.05, 30)
        score = (alpha * 0.3 + (1 - alpha) * score) / (1 - (1 - alpha) ** (n + 1))

    assert score == pytest.approx(2234, abs=0.5)


def test_no_signals_score_nothing() -> None:
    assert score_of(np.array([]), start=0.15, end=0.05, over=30) == 0.0
