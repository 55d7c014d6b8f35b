"""Pairs of instructions that harm each other, seen in the products of their centred coins.

A pair that is kept apart shows nothing new: a false alarm would stay. So what is seen must be sure at every look, over
all pairs. Source: PATTERNS, section 4.7.
"""

import math
from typing import ClassVar, Final

import numpy as np

from learner.patterns.coded import Coded
from learner.patterns.evidence import LEVEL, log_bets_of
from learner.patterns.normal import Floats
from learner.patterns.observations import Booleans, Integers
from learner.patterns.residuals import Residuals
from learner.patterns.sums import Shape, Sums

PAIR_SD: Final = 0.05  # prior of an interaction, in standard deviations of a residual score
MIN_INFORMATION: Final = 20.0  # sum of squared products of coins


class Pairs(Sums):
    """Sums over rows for every pair of columns."""

    AXES: ClassVar[dict[str, Shape]] = {"score": ("f", "f"), "information": ("f", "f"), "variance": ("f", "f")}
    score: Floats
    information: Floats
    variance: Floats

    def take(self, chunk: Coded, coins: Floats, found: Residuals, fit: Floats) -> None:
        """Add *chunk* with its *coins* (n, f); *fit* (q, s, f) are the predicted effects of single columns."""
        expected = np.einsum("nf,nf->n", coins, fit[chunk.question_type, chunk.group])
        left = (found.score - expected) * found.weight
        squares = coins**2
        self.score += (coins * left[:, None]).T @ coins
        self.information += (squares * found.weight[:, None]).T @ squares
        self.variance += (squares * (left**2)[:, None]).T @ squares

    def amend(self, coins: Floats, found: Residuals) -> None:
        """Add what late signals add to the scores."""
        left = found.score * found.weight
        self.score += (coins * left[:, None]).T @ coins

    def clashes(self, key_mean: Floats, dimension: Integers, variance: float) -> Booleans:
        """Return which pairs (f, f) of different dimensions are worse together than the better of the two alone.

        *key_mean* (f,) are the org-wide effects, *dimension* (f,) the columns' dimensions as codes.
        """
        information = np.maximum(self.information, 1e-9)
        estimate, error = self.score / information, np.maximum(self.variance / information**2, 1e-12)
        is_known = (self.information > MIN_INFORMATION) & (dimension[:, None] != dimension[None, :])
        sureness = log_bets_of(-self.score, self.variance, variance)
        n_pairs = max(int(is_known.sum()) // 2, 1)
        is_sure = is_known & (sureness >= math.log(LEVEL * n_pairs))  # the odds that any pair is kept apart by chance
        prior = PAIR_SD**2 * variance
        shrunk = estimate * prior / (prior + error)
        lesser = np.minimum(key_mean[:, None], key_mean[None, :])
        found = is_sure & (shrunk + lesser < 0)
        return np.asarray(found | found.T, np.bool_)
