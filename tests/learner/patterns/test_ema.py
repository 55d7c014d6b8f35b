"""The score: exactly debiased, whatever its alphas."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.patterns.ema import Ema, alphas, extend

SIGNALS = st.lists(st.floats(-1, 1), min_size=1, max_size=200)


def score_of(signals: list[float], start: float = 0.15, end: float = 0.05, over: int = 30) -> float:
    return extend(Ema(), np.array(signals), start=start, end=end, over=over).score


def weighted_mean(signals: list[float], start: float = 0.15, end: float = 0.05, over: int = 30) -> float:
    """Return the mean with the weights of an average that forgets, worked out without rounding."""
    mean, total = Fraction(0), Fraction(0)
    for place, signal in enumerate(signals):
        alpha = start - (start - end) * place / over if place < over else end
        mean = mean * (1 - Fraction(alpha)) + Fraction(alpha) * Fraction(signal)
        total = total * (1 - Fraction(alpha)) + Fraction(alpha)
    return float(mean / total)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60))
def test_the_score_is_the_exact_weighted_mean(signals: list[float]) -> None:
    assert score_of(signals) == pytest.approx(weighted_mean(signals), abs=1e-12)


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(1, 9)
)
def test_it_is_exact_for_any_sequence_of_alphas(signals: list[float], start: float, end: float, over: int) -> None:
    expected = weighted_mean(signals, start, end, over)

    assert score_of(signals, start, end, over) == pytest.approx(expected, abs=1e-12)


@given(SIGNALS, st.lists(st.integers(0, 200), max_size=4))
def test_taking_signals_in_pieces_gives_the_score_of_all_of_them(signals: list[float], cuts: list[int]) -> None:
    ema = Ema()
    for piece in np.split(np.array(signals), sorted(min(cut, len(signals)) for cut in cuts)):
        ema = extend(ema, piece, start=0.15, end=0.05, over=30)

    assert ema.n_signals == len(signals)
    assert ema.score == pytest.approx(score_of(signals), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 50, 400])
def test_a_constant_signal_is_its_own_score(n: int) -> None:
    assert score_of([0.3] * n) == pytest.approx(0.3, abs=1e-12)


def test_the_variant_that_debiases_a_debiased_score_diverges() -> None:
    score = 0.0
    for n, alpha in enumerate(alphas(50, after=0, start=0.15, end=0.05, over=30).tolist()):
        score = (alpha * 0.3 + (1 - alpha) * score) / (1 - (1 - alpha) ** (n + 1))

    assert score == pytest.approx(2234, abs=0.5)


def test_no_signals_score_nothing() -> None:
    assert score_of([]) == 0.0
