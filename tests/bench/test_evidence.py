"""The bench of the evidence looks at what the product would hold at each look."""

import numpy as np
import pytest

from bench.evidence import STEP, looks, observed, take_in
from learner.patterns.ledger import SCORE, Ledger
from learner.patterns.residuals import N_OUTCOMES, Residuals


@pytest.mark.parametrize("users", [1, 10, 400])
def test_the_running_sums_of_a_stream_are_those_of_the_ledger(users: int) -> None:
    n, rng = 600, np.random.default_rng(users)
    votes = rng.choice([-1.0, 0.0, 1.0], n)
    stream = take_in(observed(rng.integers(users, size=n), rng.random(n) < 0.5, votes))
    ledger = Ledger({"q": 1, "s": 1, "f": 1, "u": 0})
    end = (n // 2) // STEP * STEP

    seen = looks(stream)

    for start, until in ((0, end), (end, n)):
        rows = stream.coded.between(start, until)
        outcomes = np.zeros((until - start, N_OUTCOMES))
        found = Residuals(outcomes, stream.weight[start:until], stream.score[start:until])
        ledger.take(rows, found, np.zeros((1, 1, 1)))
        score, _, variance = ledger.totals(np.array([0]), SCORE)
        at = until // STEP - 1
        assert seen.score[at] == pytest.approx(float(score[0, 0]))
        assert seen.variance[at] == pytest.approx(float(variance[0, 0]))
        assert seen.n_rated[at] == ledger.n_treated[0, 0]
