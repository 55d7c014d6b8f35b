"""Which pairs of instructions are kept apart."""

import numpy as np

from learner.patterns.clashes import Pairs
from learner.patterns.normal import Floats
from learner.patterns.observations import Booleans

VARIANCE = 0.25  # of a response's residual score
COIN = 0.25**2  # squared product of two coins at even odds


def found(score: Floats, n_rows: float) -> Booleans:
    """Return what is kept apart of columns of as many dimensions, each pair seen in *n_rows*."""
    n = len(score)
    pairs = Pairs({"f": n})
    pairs.score, pairs.information = score, np.full((n, n), COIN * n_rows)
    pairs.variance = VARIANCE * pairs.information
    return pairs.clashes(np.zeros(n), np.arange(n), VARIANCE)


def one_pair(n: int, n_rows: float, z: float) -> Floats:
    score = np.zeros((n, n))
    score[0, 1] = score[1, 0] = -z * np.sqrt(VARIANCE * COIN * n_rows)
    return score


def test_what_is_sure_of_one_pair_may_be_chance_among_hundreds() -> None:
    assert found(one_pair(2, 1600, z=3.6), 1600)[0, 1]
    assert not found(one_pair(30, 1600, z=3.6), 1600).any()
    assert found(one_pair(30, 1600, z=6.0), 1600)[0, 1]


def test_where_no_pair_clashes_hardly_a_tenant_ever_has_two_patterns_kept_apart() -> None:
    rng = np.random.default_rng(5)
    n, looks, n_rows, tenants = 20, 100, 200, 30
    n_false = 0
    for _ in range(tenants):
        steps = np.triu(rng.normal(0, np.sqrt(VARIANCE * COIN * n_rows), (looks, n, n)), 1)
        scores = (steps + steps.swapaxes(1, 2)).cumsum(0)
        n_false += any(found(score, n_rows * (look + 1)).any() for look, score in enumerate(scores))

    assert n_false <= 3  # of 30; at most 1 in 20 is promised
