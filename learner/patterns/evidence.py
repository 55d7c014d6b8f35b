"""What randomised exposure says about one pattern: intent-to-treat contrasts, clustered by user, anytime-valid.

For a row on which the coin of the pattern's dimension fell on the pattern or on none,
``psi = (1{arm = v} - p_v / (p_v + p_0)) * weight * residual``: its expectation is 0 when the pattern does nothing,
whatever else differs between rows. Source: PATTERNS, section 4.6.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from learner.patterns.normal import Floats, cdf

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

EFFECTS: Final = (0.05, 0.15, 0.45)  # in standard deviations of a residual, that the e-value bets on in equal parts:
# alone, the bet on small effects needs three times the responses to see a large one. Measured by bench/evidence.py
LEVEL: Final = 20.0  # of the e-value at which an effect is excluded: each end of the interval holds with 95 %
LARGEST_LIFT: Final = 2.0  # satisfaction lies in [-1, 1]
LARGEST_END: Final = 4.0  # of an interval around the largest lift, so that an estimate is always inside its own
STEPS: Final = 40  # of a bisection: twelve digits
MAX_LOG_E: Final = 700.0  # a REAL holds no larger e-value
FIRST_STEP: Final = 0.01  # of the search for an excluded effect


@dataclass(frozen=True, slots=True)
class Rows:
    """k rows on which the pattern or nothing of its dimension was drawn, in order of time."""

    treated: Booleans  # (k,) the pattern was in the request
    propensity: Floats  # (k,) P(pattern | pattern or none), strictly between 0 and 1
    residual: Floats  # (k,) unpredictable part of the satisfaction
    weight: Floats  # (k,) in (0, 1]
    cluster: Integers  # (k,) users as codes
    created_s: Floats  # (k,)
    is_rated: Booleans  # (k,)

    def only(self, mask: Booleans) -> "Rows":
        """Return the rows where *mask* (k,) holds."""
        return Rows(
            self.treated[mask],
            self.propensity[mask],
            self.residual[mask],
            self.weight[mask],
            self.cluster[mask],
            self.created_s[mask],
            self.is_rated[mask],
        )


@dataclass(frozen=True, slots=True)
class Squares:
    """Sums over blocks of rows from which the variance around any effect follows: psi^2, psi * coin^2, coin^4."""

    score: float
    cross: float
    information: float

    def around(self, effect: float) -> float:
        """Return the sum over blocks of ``(psi - effect * information)^2``."""
        return self.score - 2 * effect * self.cross + effect * effect * self.information


@dataclass(frozen=True, slots=True)
class Contrast:
    """Sums over rows: ``score`` of psi, ``information`` of the coin, squares of both by row and by user."""

    score: float
    information: float
    by_row: Squares
    by_user: Squares
    n_treated_rated: int
    n_users: int

    @property
    def lift(self) -> float | None:
        """Return treated minus control in satisfaction, in [-2, 2], or None without information."""
        if self.information <= 0:
            return None
        return min(max(self.score / self.information, -LARGEST_LIFT), LARGEST_LIFT)

    def variance(self, effect: float = 0.0) -> float:
        """Return the variance of the score if the pattern's effect is *effect*; 0 without rows.

        A user's rows count as one block: no single account can ever exceed one standard error.
        """
        return max(self.by_row.around(effect), self.by_user.around(effect), 0.0)


def contrast(rows: Rows) -> Contrast:
    """Return the contrast of *rows*: what the ledger keeps as sums, made from the rows themselves."""
    weight = rows.weight
    coin = rows.treated - rows.propensity
    psi = coin * weight * rows.residual
    information = coin**2 * weight
    return Contrast(
        score=float(psi.sum()),
        information=float(information.sum()),
        by_row=_squares(psi, information),
        by_user=_squares(_by_user(psi, rows.cluster), _by_user(information, rows.cluster)),
        n_treated_rated=int((rows.treated & rows.is_rated).sum()),
        n_users=len(np.unique(rows.cluster[rows.is_rated])),
    )


def _by_user(terms: Floats, cluster: Integers) -> Floats:
    return np.asarray(np.bincount(cluster, terms), np.float64)


def _squares(psi: Floats, information: Floats) -> Squares:
    return Squares(float(psi @ psi), float(psi @ information), float(information @ information))


def log_e_value(found: Contrast, residual_variance: float, effect: float = 0.0) -> float:
    """Return the logarithm of the e-value against "lifts by *effect* at most"; 20 has odds of at most 1 in 20 ever.

    With S the score minus what *effect* explains of it and V its variance around that: the mean (again an e-value) of
    equal bets on effects of three sizes, each mixed over a half-normal:
    ``2 Phi(S / sqrt(V + rho)) sqrt(rho / (V + rho)) exp(S^2 / (2 (V + rho)))`` with rho = residual variance / size^2.
    Source: PATTERNS, section 4.6; Robbins 1970, Ann. Math. Stat. 41(5).
    """
    return log_bets(found.score - effect * found.information, found.variance(effect), residual_variance)


def e_value_of(log_e: float) -> float:
    """Return the e-value of its logarithm, at most what a REAL of SQLite holds.

    >>> e_value_of(0.0)
    1.0
    """
    return math.exp(min(log_e, MAX_LOG_E))


def log_bets(score: float, variance: float, residual_variance: float, sizes: Sequence[float] = EFFECTS) -> float:
    """Return the logarithm of the mean of the bets on effects of *sizes*.

    >>> log_bets(40.0, 100.0, 1.0) > math.log(20)
    True
    """
    logs = [_log_bet(score, variance, residual_variance / size**2) for size in sizes]
    top = max(logs)
    return top + math.log(sum(math.exp(one - top) for one in logs) / len(logs))


def log_bets_of(score: Floats, variance: Floats, residual_variance: float) -> Floats:
    """Return ``log_bets`` of many scores at once."""
    logs = []
    for size in EFFECTS:
        rho = residual_variance / size**2
        spread = variance + rho
        tail = np.maximum(2 * cdf(score / np.sqrt(spread)), 1e-300)
        logs.append(0.5 * np.log(rho / spread) + score**2 / (2 * spread) + np.log(tail))
    return np.asarray(np.logaddexp.reduce(logs) - math.log(len(logs)), np.float64)


def _log_bet(score: float, variance: float, rho: float) -> float:
    spread = variance + rho
    tail = max(math.erfc(-score / math.sqrt(2 * spread)), 1e-300)  # 2 Phi(score / sqrt(spread))
    return 0.5 * math.log(rho / spread) + score * score / (2 * spread) + math.log(tail)


def lift_interval(found: Contrast, residual_variance: float) -> tuple[float, float] | None:
    """Return the lifts that the evidence does not exclude, or None without information; the estimate is among them.

    The exact inversion of the e-value: the low end is the effect at which ``log_e_value`` falls to 20, the high end
    the one at which the e-value of the opposite (score and effect negated) does. So the low end is above 0 exactly
    when the e-value against "does not help" is above 20, and each end holds with 95 % at every look, however often
    one looks. Source: Howard, Ramdas, McAuliffe & Sekhon 2021, Ann. Stat. 49(2), section 3.2.
    """
    lift = found.lift
    if lift is None:
        return None
    return _low_end(found, lift, residual_variance), -_low_end(_opposite(found), -lift, residual_variance)


def _opposite(found: Contrast) -> Contrast:
    return replace(
        found,
        score=-found.score,
        by_row=replace(found.by_row, cross=-found.by_row.cross),
        by_user=replace(found.by_user, cross=-found.by_user.cross),
    )


def _low_end(found: Contrast, lift: float, residual_variance: float) -> float:
    """Return the effect nearest 0 between an excluded one and the next that is not; -2 when none is excluded."""

    def is_excluded(effect: float) -> bool:
        return log_e_value(found, residual_variance, effect) >= math.log(LEVEL)

    if is_excluded(0.0):
        return _bisect(is_excluded, 0.0, lift)
    # Far below the estimate the variance grows as fast as the squared score, and the e-value falls again: the search
    # begins near the estimate and doubles its step.
    lowest = -LARGEST_LIFT if lift > -LARGEST_LIFT else -LARGEST_END
    near, step = min(lift, 0.0), FIRST_STEP
    while near > lowest:
        far = max(near - step, lowest)
        if is_excluded(far):
            return _bisect(is_excluded, far, near)
        near, step = far, 2 * step
    return lowest


def _bisect(is_excluded: Callable[[float], bool], excluded: float, allowed: float) -> float:
    for _ in range(STEPS):
        middle = (excluded + allowed) / 2
        if is_excluded(middle):
            excluded = middle
        else:
            allowed = middle
    return (excluded + allowed) / 2
