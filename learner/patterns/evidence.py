"""What randomised exposure says about one pattern: intent-to-treat contrasts, clustered by user, anytime-valid.

For a row on which the coin of the pattern's dimension fell on the pattern or on none,
``psi = (1{arm = v} - p_v / (p_v + p_0)) * weight * residual``: its expectation is 0 when the pattern does nothing,
whatever else differs between rows. Source: PATTERNS, section 4.6.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from learner.patterns.normal import Floats, cdf

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

EFFECTS: Final = ((0.05, 2 / 3), (0.2, 1 / 3))  # in standard deviations of a residual, that the e-value bets on, and
# how much it puts on each: alone, the bet on small effects needs three times the responses to see a large one
INTERVAL_SD: Final = 0.1  # the effect at whose detection the interval is narrowest
COVERAGE: Final = 0.95  # of the interval


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
class Contrast:
    """Sums over rows: ``score`` of psi, ``variance`` of it under "does nothing", ``information`` of the coin."""

    score: float
    variance: float
    information: float
    spread: float  # variance of the score around its own estimate: for intervals
    n_treated: int
    n_control: int
    n_treated_rated: int
    n_users: int

    @property
    def lift(self) -> float | None:
        """Return treated minus control in satisfaction, or None without information."""
        return self.score / self.information if self.information > 0 else None


def contrast(rows: Rows, decay: Floats | None = None) -> Contrast:
    """Return the contrast of *rows*, each counted with its *decay* (k,) when given.

    A user's rows count as one block: the variance is at least the sum over users of the squared sum of psi, so no
    single account can ever exceed one standard error.
    """
    weight = rows.weight if decay is None else rows.weight * decay
    coin = rows.treated - rows.propensity
    psi = coin * weight * rows.residual
    information = coin**2 * weight
    score, total = float(psi.sum()), float(information.sum())
    estimate = score / total if total > 0 else 0.0
    error = psi - estimate * information
    return Contrast(
        score=score,
        variance=_clustered_variance(psi, rows.cluster),
        information=total,
        spread=_clustered_variance(error, rows.cluster),
        n_treated=int(rows.treated.sum()),
        n_control=int((~rows.treated).sum()),
        n_treated_rated=int((rows.treated & rows.is_rated).sum()),
        n_users=len(np.unique(rows.cluster[rows.is_rated])),
    )


def _clustered_variance(terms: Floats, cluster: Integers) -> float:
    if not len(terms):
        return 0.0
    by_user = np.bincount(cluster, terms)
    return max(float((terms**2).sum()), float((by_user**2).sum()))


def log_e_value(score: float, variance: float, residual_variance: float) -> float:
    """Return the logarithm of the e-value against "does not help"; a value of 20 has odds of at most 1 in 20 ever.

    The mean (again an e-value) of bets on effects of two sizes, each mixed over a half-normal:
    ``2 Phi(S / sqrt(V + rho)) sqrt(rho / (V + rho)) exp(S^2 / (2 (V + rho)))`` with rho = residual variance / size^2.
    Source: PATTERNS, section 4.6; Robbins 1970, Ann. Math. Stat. 41(5).

    >>> log_e_value(40.0, 100.0, 1.0) > math.log(20)
    True
    """
    logs = [math.log(share) + _log_bet(score, variance, residual_variance / size**2) for size, share in EFFECTS]
    top = max(logs)
    return top + math.log(sum(math.exp(one - top) for one in logs))


def _log_bet(score: float, variance: float, rho: float) -> float:
    spread = variance + rho
    tail = max(2 * float(cdf(score / math.sqrt(spread))), 1e-300)
    return 0.5 * math.log(rho / spread) + score * score / (2 * spread) + math.log(tail)


def lift_interval(found: Contrast, residual_variance: float) -> tuple[float, float] | None:
    """Return the 95 % interval of the lift, valid at every look, or None without information.

    A normal-mixture confidence sequence around the plain intent-to-treat contrast (not shrunk): half width
    ``sqrt((V + rho) log((V + rho) / (rho a^2))) / I`` with a = 0.05, V clustered by user.
    Source: Howard, Ramdas, McAuliffe & Sekhon 2021, Ann. Stat. 49(2), eq. 14.
    """
    lift = found.lift
    if lift is None:
        return None
    rho = residual_variance / INTERVAL_SD**2
    # Two clusters at least, else V is 0 around its own estimate.
    spread = max(found.spread, found.variance / max(found.n_users, 1)) + rho
    half = math.sqrt(spread * math.log(spread / (rho * (1 - COVERAGE) ** 2))) / found.information
    return lift - half, lift + half


def harm_z(rows: Rows, now_s: float, half_life_days: float) -> float:
    """Return how many standard errors below control the pattern is of late (negative: harm); 0 without rows."""
    recent = contrast(rows, decay(rows.created_s, now_s, half_life_days))
    return recent.score / math.sqrt(recent.variance) if recent.variance > 0 else 0.0


def decay(created_s: Floats, now_s: float, half_life_days: float) -> Floats:
    """Return each row's weight (k,) in (0, 1]: half after *half_life_days*."""
    age_days = np.maximum(now_s - created_s, 0.0) / 86_400
    return np.asarray(0.5 ** (age_days / half_life_days), np.float64)
