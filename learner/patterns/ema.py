"""The score that people see: an exponential moving average, debiased exactly while its alpha changes.

It describes the responses that had a pattern. Two patterns that are injected together see the same responses and get
the same score, so it never proves anything (PATTERNS, section 2).
"""

from dataclasses import dataclass

import numpy as np

from learner.patterns.normal import Floats


@dataclass(frozen=True, slots=True)
class Ema:
    """The average after some signals; ``remaining`` is the weight that the empty start still has."""

    score: float = 0.0
    remaining: float = 1.0
    n_signals: int = 0


def alphas(n: int, *, after: int, start: float, end: float, over: int) -> Floats:
    """Return the weights of *n* signals that follow *after* earlier ones (n,): from *start* to *end* in a line.

    >>> alphas(3, after=0, start=0.15, end=0.05, over=2).tolist()
    [0.15, 0.1, 0.05]
    """
    places = after + np.arange(n)
    return np.asarray(np.where(places < over, start - (start - end) * places / over, end), np.float64)


def extend(ema: Ema, signals: Floats, *, start: float, end: float, over: int) -> Ema:
    """Return the average after the *signals* (n,), in order of time.

    The score is the weighted mean of all signals with the weights ``alpha_i * prod(1 - alpha_j, j > i)``, scaled to
    sum 1: exactly unbiased for any sequence of alphas, and the same in whatever parts they come.
    Source: DESIGN, section 7.
    """
    if not len(signals):
        return ema
    weights = alphas(len(signals), after=ema.n_signals, start=start, end=end, over=over)
    kept = np.cumprod((1 - weights)[::-1])[::-1]  # what later signals leave of this one and all before it
    parts = weights * np.append(kept[1:], 1.0)
    remaining = ema.remaining * float(kept[0])
    memory = ema.score * (1 - ema.remaining) * float(kept[0]) + float(parts @ signals)
    return Ema(memory / (1 - remaining), remaining, ema.n_signals + len(signals))
