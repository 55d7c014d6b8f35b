"""Whether a pattern that helped has stopped to: evidence of its last weeks alone, begun anew every day.

What a pattern earned before must not outweigh what it does now. So on every day a bet begins against "it still helps
half as much as it did up to here". Each bet is an e-process, as the one that proves a pattern is, turned round; their
sum, with the weight of a day in ``change_years``, is an e-detector: while the pattern does help half as much, the
expected time until the sum reaches 1 is at least ``change_years``, however often anybody looks. Bets of days since
which it seems to help a quarter as much are left out, which makes alarms only rarer.

Source: Shin, Ramdas & Rinaldo 2024, NEJSDS 2(2), sections 2 and 3 (e-detectors of Shiryaev-Roberts kind).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from learner.patterns.evidence import LARGEST_LIFT, log_bets_of
from learner.patterns.normal import Floats
from learner.patterns.observations import Integers
from store.clock import DAY_S

WATCHED_DAYS: Final = 45  # a slower change is for the fading of old records to see
KEPT: Final = 0.5  # part of what a pattern did before that the bets are against ...
LEFT: Final = 0.25  # ... and that it does no more at most, as far as anybody can tell, when it is called stopped
PRIOR_SD: Final = (
    0.05  # of a lift, in standard deviations of a residual: the best of many trials looks better than it is
)
DAYS_PER_YEAR: Final = 365.0


@dataclass(frozen=True, slots=True)
class Days:
    """The randomised evidence on each of the last d days, oldest first: of one key, or with more axes of many."""

    day: Integers  # (d,) since 1970
    score: Floats  # (d, ...) sum of psi
    information: Floats  # (d, ...)
    variance: Floats  # (d, ...) of the score, as large as accounts that are of one mind make it
    score_before: Floats  # (...) of everything before these days
    information_before: Floats  # (...)

    def of(self, scope: int, column: int) -> "Days":
        """Return the days of one of the keys (K, f)."""
        values = (self.score, self.information, self.variance)
        before = (self.score_before, self.information_before)
        one_day, one = [value[:, scope, column] for value in values], [value[scope, column] for value in before]
        return Days(self.day, one_day[0], one_day[1], one_day[2], np.asarray(one[0]), np.asarray(one[1]))


@dataclass(frozen=True, slots=True)
class Worsening:
    """A pattern helps no more."""

    since_s: float  # when it most likely began, seconds since 1970
    before: float  # lift up to then
    lift: float  # lift since
    odds: float  # sum of the bets: the more above 1, the surer


def find_change(days: Days, residual_variance: float, years: float) -> Worsening | None:
    """Return the change for the worse that *days* show, or None.

    Args:
        days: of one key.
        residual_variance: of a response's score.
        years: in which at most one pattern that still helps half as much is taken for one that does not.
    """
    since = _from_each_day(days.score), _from_each_day(days.information), _from_each_day(days.variance)
    score, information, variance = since
    before = days.score_before + days.score.sum() - score
    information_before = days.information_before + days.information.sum() - information
    shrunk = np.maximum(before, 0.0) / (information_before + 1 / PRIOR_SD**2)
    stopped = np.flatnonzero((information > 0) & (variance > 0) & (score <= LEFT * shrunk * information))
    if not len(stopped):
        return None
    score, information = score[stopped], information[stopped]
    # Votes are skewed: days without a rare one look too sure of themselves.
    variance = np.maximum(variance[stopped], residual_variance * information)
    logs = log_bets_of(KEPT * shrunk[stopped] * information - score, variance, residual_variance)
    odds = math.exp(float(np.logaddexp.reduce(logs)) - math.log(years * DAYS_PER_YEAR))
    if odds < 1:
        return None
    best = int(logs.argmax())
    place = stopped[best]
    earned = float(before[place] / max(information_before[place], 1e-12))
    return Worsening(
        since_s=float(days.day[place]) * DAY_S,
        before=min(max(earned, -LARGEST_LIFT), LARGEST_LIFT),
        lift=max(float(score[best] / information[best]), -LARGEST_LIFT),
        odds=odds,
    )


def _from_each_day(values: Floats) -> Floats:
    """Return the sums from each day to the last."""
    return np.asarray(np.cumsum(values[::-1])[::-1], np.float64)
