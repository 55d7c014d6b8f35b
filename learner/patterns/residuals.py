"""What of each response's signals nobody could have predicted, and how much each user's word counts.

Everything is compared with what earlier chunks of records say, so that no response is compared with itself.
Source: PATTERNS, section 4.1.
"""

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from learner.patterns.axes import N_BUCKETS
from learner.patterns.coded import Coded
from learner.patterns.normal import Floats
from learner.patterns.observations import FAMILIES, Integers
from learner.patterns.sums import Shape, Sums

THUMB: Final = FAMILIES.index("thumb")
RATING: Final = len(FAMILIES)  # place, after the families, of "a thumb was given"
N_OUTCOMES: Final = RATING + 1

RATE_PRIOR: Final = 10.0  # responses of a user after which the own rating rate counts as much as the tenant's
MIN_RATE: Final = 0.01  # of ratings, so that the first thumb of a tenant is no flood
MAX_RATE_RATIO: Final = 3.0  # who rates this many times as often as the tenant's mean counts less per thumb
TYPE_PRIOR: Final = 20.0  # responses after which a question type's own mean counts as much as the tenant's
USER_PRIOR: Final = 40.0  # responses after which a user's own mean counts half
MIN_RESPONSES: Final = 30.0  # before the tenant's mean and variance are used
ENERGY_SHARE: Final = 0.02  # of all evidence: the most that one user may bring ...
ENERGY_USERS: Final = 3.0  # ... or this many times an equal share, whichever is more
MIN_ENERGY: Final = 5.0  # squared score of all users before any is capped
MIN_VARIANCE: Final = 1e-3
UNKNOWN_VARIANCE: Final = 0.11  # of a residual score, while fewer than 30 are known. Source: PATTERNS, section 4.3


@dataclass(frozen=True, slots=True)
class Residuals:
    """n responses; outcomes are the families and then whether a thumb was given."""

    outcomes: Floats  # (n, N_OUTCOMES)
    weight: Floats  # (n,) in (0, 1]: less for users with more than their share of evidence
    score: Floats  # (n,) the residual in the decision score


class Baselines(Sums):
    """Means by question type and by user, and who brings how much of the evidence."""

    AXES: ClassVar[dict[str, Shape]] = {
        "type_sum": ("q", N_OUTCOMES),
        "type_count": ("q",),
        "user_sum": ("u", N_OUTCOMES),
        "user_count": ("u",),
        "user_thumbs": ("u",),
        "user_energy": ("u",),
        "second_moments": (N_OUTCOMES, N_OUTCOMES),
        "weight_total": (1,),
    }
    type_sum: Floats
    type_count: Floats
    user_sum: Floats
    user_count: Floats
    user_thumbs: Floats
    user_energy: Floats
    second_moments: Floats
    weight_total: Floats

    def take(self, chunk: Coded, weights: Floats) -> Residuals:
        """Return the residuals of *chunk*, then learn from it; *weights* (families,) make the score."""
        outcomes = self._outcomes(chunk)
        above_type = outcomes - self._type_means()[chunk.question_type]
        residual = above_type - self._user_means(chunk.user)
        weight = self.user_weights(chunk.user)
        score = residual[:, :RATING] @ weights
        n_users, n_types = len(self.user_count), len(self.type_count)
        self.user_count += np.bincount(chunk.user, minlength=n_users)
        self.user_thumbs += np.bincount(chunk.voter, chunk.signals[:, THUMB] != 0, n_users)
        self.user_energy += np.bincount(chunk.user, score**2, n_users)
        self.type_count += np.bincount(chunk.question_type, weight, n_types)
        np.add.at(self.type_sum, chunk.question_type, outcomes * weight[:, None])
        np.add.at(self.user_sum, chunk.user, above_type)
        self.second_moments += (residual * weight[:, None]).T @ residual
        self.weight_total += weight.sum()
        return Residuals(residual, weight, score)

    def amend(self, chunk: Coded, weights: Floats) -> Residuals:
        """Return what late signals add to the residuals of responses that were taken in earlier."""
        outcomes = self._outcomes(chunk, is_late=True)
        weight = self.user_weights(chunk.user)
        score = outcomes[:, :RATING] @ weights
        n_users = len(self.user_count)
        self.user_thumbs += np.bincount(chunk.voter, chunk.signals[:, THUMB] != 0, n_users)
        self.user_energy += np.bincount(chunk.user, score**2, n_users)
        np.add.at(self.type_sum, chunk.question_type, outcomes * weight[:, None])
        np.add.at(self.user_sum, chunk.user, outcomes)
        return Residuals(outcomes, weight, score)

    def variance(self, weights: Floats) -> float:
        """Return the variance of a residual score."""
        if self.weight_total[0] < MIN_RESPONSES:
            return UNKNOWN_VARIANCE
        families = self.second_moments[:RATING, :RATING]
        return max(float(weights @ families @ weights) / float(self.weight_total[0]), MIN_VARIANCE)

    def variance_of(self, outcome: int) -> float:
        """Return the variance of the residual of one outcome."""
        if self.weight_total[0] < MIN_RESPONSES:
            return UNKNOWN_VARIANCE
        return max(float(self.second_moments[outcome, outcome]) / float(self.weight_total[0]), MIN_VARIANCE)

    def rate_of(self, outcome: int) -> float:
        """Return how often responses have an outcome, flooders capped."""
        return float(self.type_sum[:, outcome].sum()) / max(float(self.type_count.sum()), 1.0)

    def user_weights(self, users: Integers) -> Floats:
        """Return min(1, c E / E_u) of each user (n,): c = max(2 %, 3 / users), E the sum of squared scores."""
        total = float(self.user_energy.sum())
        if total <= MIN_ENERGY:
            return np.ones(len(users))
        cap = max(ENERGY_SHARE, ENERGY_USERS / max(int(np.count_nonzero(self.user_count)), 1)) * total
        return np.asarray(np.minimum(1.0, cap / np.maximum(self.user_energy[users], 1e-12)), np.float64)

    def rating_rate(self, users: Integers) -> Floats:
        """Return the share of their responses that users (n,) rate, shrunk towards the tenant's."""
        rate = self._rate()
        n_thumbs, n_responses = self.user_thumbs[users], self.user_count[users]
        return np.asarray((n_thumbs + RATE_PRIOR * rate) / (n_responses + RATE_PRIOR), np.float64)

    def _rate(self) -> float:
        return max(float(self.user_thumbs.sum()) / max(float(self.user_count.sum()), 1.0), MIN_RATE)

    def _outcomes(self, chunk: Coded, *, is_late: bool = False) -> Floats:
        """Return signals and whether rated, thumbs discounted by min(1, 3 r / r_u)."""
        thumbs = chunk.signals[:, THUMB]
        discount = np.minimum(1.0, MAX_RATE_RATIO * self._rate() / self.rating_rate(chunk.voter))
        # A late thumb may replace an earlier one: it is no second rating, and which it is cannot be told.
        rated = np.zeros(len(thumbs)) if is_late else (thumbs != 0).astype(np.float64)
        outcomes = np.column_stack([chunk.signals, rated])
        outcomes[:, THUMB] *= discount
        return outcomes

    def _type_means(self) -> Floats:
        total = float(self.type_count.sum())
        overall = self.type_sum.sum(0) / total if total > MIN_RESPONSES else np.zeros(N_OUTCOMES)
        return np.asarray((self.type_sum + TYPE_PRIOR * overall) / (self.type_count + TYPE_PRIOR)[:, None], np.float64)

    def _user_means(self, users: Integers) -> Floats:
        means = self.user_sum[users] / (self.user_count[users] + USER_PRIOR)[:, None]
        means[users < N_BUCKETS] = 0.0  # a bucket is many users: its mean is nobody's
        return np.asarray(means, np.float64)
