"""What a signal of each family is worth: learnt from how families go together with thumbs.

One factor, satisfaction, stands behind all families; a family's weight is its loading over its own variance, as in
Bartlett's factor scores. Source: PATTERNS, section 4.1.
"""

from typing import ClassVar, Final

import numpy as np

from learner.patterns.coded import Coded
from learner.patterns.normal import Floats
from learner.patterns.observations import FAMILIES, Booleans
from learner.patterns.residuals import THUMB
from learner.patterns.sums import Shape, Sums

MAX_RATING_RATE: Final = 0.5  # who rates more than this says little about how families go together
MIN_RATED: Final = 30.0  # rated responses before anything is learnt
MIN_SEEN: Final = 30.0  # responses with a family before its weight is learnt
RATED_PRIOR: Final = 300.0  # rated responses after which what is learnt counts half
LEAST_PART: Final = 0.2  # of the configured weight that a family keeps
LARGEST_WEIGHT: Final = 2.0  # of a family, in thumbs: a broken signal must not take over
LEAST_OWN: Final = 0.3  # part of a family's variance that is its own at least
FIRST_LOADING: Final = 0.2  # where the search begins, with the sign of the configured weight
ROUNDS: Final = 100


class Moments(Sums):
    """Sums of products of families: thumbs where given, all others everywhere."""

    AXES: ClassVar[dict[str, Shape]] = {
        "count": (1,),
        "total": (len(FAMILIES),),
        "products": (len(FAMILIES), len(FAMILIES)),
        "seen": (len(FAMILIES),),
        "rated": (1,),
        "rated_total": (len(FAMILIES),),
        "rated_products": (len(FAMILIES),),
    }
    count: Floats
    total: Floats
    products: Floats
    seen: Floats
    rated: Floats
    rated_total: Floats
    rated_products: Floats  # thumb times family

    def take(self, chunk: Coded, rating_rate: Floats) -> None:
        """Add *chunk*; *rating_rate* (n,) is the share of their responses that its voters rate."""
        signals = chunk.signals
        self.count += len(chunk)
        self.total += signals.sum(0)
        self.products += signals.T @ signals
        self.seen += (signals != 0).sum(0)
        rated = signals[(signals[:, THUMB] != 0) & (rating_rate < MAX_RATING_RATE)]
        thumbs = np.sign(rated[:, THUMB])
        self.rated += len(rated)
        self.rated_total += rated.sum(0)
        self.rated_products += thumbs @ rated

    def weights(self, configured: Floats) -> Floats:
        """Return the weights of the families, shrunk to the *configured* ones and never of another sign."""
        is_used = (self.seen >= MIN_SEEN) & (configured != 0)
        if self.rated[0] < MIN_RATED or not is_used[THUMB] or is_used.sum() < 3:
            return configured
        covariance = self._covariance()
        loading = _loadings(covariance, self._pairs(), is_used, np.sign(configured))
        own = np.maximum(np.diag(covariance) - loading**2, LEAST_OWN * np.diag(covariance))
        weight = np.where(is_used, loading / np.maximum(own, 1e-12), 0.0)
        if weight[THUMB] <= 0:
            return configured
        weight *= configured[THUMB] / weight[THUMB]
        sign, size = np.sign(configured), np.abs(configured)
        bounded = sign * np.clip(weight * sign, LEAST_PART * size, np.maximum(LARGEST_WEIGHT * size[THUMB], size))
        bounded[THUMB] = configured[THUMB]
        learnt = self.rated[0] / (self.rated[0] + RATED_PRIOR)
        return np.asarray(np.where(is_used, (1 - learnt) * configured + learnt * bounded, configured), np.float64)

    def _covariance(self) -> Floats:
        mean = self.total / self.count
        covariance = self.products / self.count - np.outer(mean, mean)
        rated_mean = self.rated_total / self.rated
        with_thumb = self.rated_products / self.rated - rated_mean[THUMB] * rated_mean
        covariance[THUMB], covariance[:, THUMB] = with_thumb, with_thumb
        covariance[THUMB, THUMB] = 1 - rated_mean[THUMB] ** 2
        return np.asarray(covariance, np.float64)

    def _pairs(self) -> Floats:
        pairs = np.full((len(FAMILIES), len(FAMILIES)), self.count[0])
        pairs[THUMB], pairs[:, THUMB] = self.rated[0], self.rated[0]
        return pairs


def _loadings(covariance: Floats, pairs: Floats, is_used: Booleans, sign: Floats) -> Floats:
    """Return the loadings (families,) that fit the covariances of pairs best, by coordinate steps."""
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    correlation = covariance / np.outer(scale, scale)
    weight = pairs * np.outer(is_used, is_used)
    np.fill_diagonal(weight, 0.0)
    loading = np.where(is_used, FIRST_LOADING * sign, 0.0)
    for _ in range(ROUNDS):
        for j in np.flatnonzero(is_used).tolist():
            fit = float(weight[j] @ loading**2)
            step = float(weight[j] @ (correlation[j] * loading)) / max(fit, 1e-12)
            loading[j] = min(max(step, -1.0), 1.0)
    if loading[THUMB] < 0:
        loading = -loading
    return np.asarray(loading * scale, np.float64)
