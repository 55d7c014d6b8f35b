"""Whether satisfaction fell so far and so surely that what was activated last must go."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from learner.patterns.normal import Floats

RECENT_H: Final = 24.0  # hours that are judged ...
REFERENCE_DAYS: Final = 7.0  # ... against the days before them
DESIGN_EFFECT: Final = 1.5  # of conversations and users on the variance
PSEUDO_SIGNALS: Final = 1.0  # good and bad weight added to each side: one bad vote alone is not a fall of 100 %
MIN_RATED: Final = 10  # responses with signals in each span


@dataclass(frozen=True, slots=True)
class Crash:
    """The fall: shares of good weight before and now, and how many standard errors lie between (negative)."""

    before: float
    now: float
    z: float


def find_crash(
    *, good: Floats, bad: Floats, created_s: Floats, now_s: float, drop: float, min_z: float
) -> Crash | None:
    """Return the crash of the last 24 hours against the 7 days before, or None.

    The index is W+ / (W+ + W-): a mean of weights may be near 0 or below, where a relative fall means nothing. It
    must fall by more than *drop* AND by more than *min_z* standard errors (delta method, design effect 1.5).
    Source: PATTERNS, section 4.7.

    Args:
        good: (n,) sum of the positive weights of each response.
        bad: (n,) sum of the negative weights of each response, as a positive number.
        created_s: (n,) seconds since 1970.
        now_s: the run's time, seconds since 1970.
        drop: relative fall, 0 .. 1.
        min_z: standard errors, positive.
    """
    age_h = (now_s - created_s) / 3600
    is_rated = good + bad > 0
    recent = is_rated & (age_h <= RECENT_H)
    reference = is_rated & (age_h > RECENT_H) & (age_h <= RECENT_H + 24 * REFERENCE_DAYS)
    if min(int(recent.sum()), int(reference.sum())) < MIN_RATED:
        return None
    now, now_variance = _index(good, bad, recent)
    before, before_variance = _index(good, bad, reference)
    z = (now - before) / math.sqrt(now_variance + before_variance)
    return Crash(before, now, z) if (before - now) > drop * before and z < -min_z else None


def _index(good: Floats, bad: Floats, mask: NDArray[np.bool_]) -> tuple[float, float]:
    plus, minus = good[mask], bad[mask]
    p, n = float(plus.sum()) + PSEUDO_SIGNALS, float(minus.sum()) + PSEUDO_SIGNALS
    total = p + n
    # d(p / (p + n)) = (n dp - p dn) / total^2, one term per response, and one for the added weights.
    terms = float(((n * plus - p * minus) ** 2).sum()) + (n * PSEUDO_SIGNALS) ** 2 + (p * PSEUDO_SIGNALS) ** 2
    return p / total, DESIGN_EFFECT * terms / total**4
