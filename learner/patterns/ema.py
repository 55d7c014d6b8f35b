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


def alpha_at(n_signals: int, start: float, end: float, over: int) -> float:
    """Return the weight of the signal that follows *n_signals* earlier ones: from *start* to *end* in a line.

    >>> alpha_at(0, 0.15, 0.05, 30), alpha_at(30, 0.15, 0.05, 30), alpha_at(99, 0.15, 0.05, 30)
    (0.15, 0.05, 0.05)
    """
    if n_signals >= over:
        return end
    return start - (start - end) * n_signals / over


def update(ema: Ema, signal: float, alpha: float) -> Ema:
    """Return the average after one more *signal*.

    The score is the weighted mean of all signals with the weights ``alpha_i * prod(1 - alpha_j, j > i)``, scaled to
    sum 1: exactly unbiased for any sequence of alphas. Source: DESIGN, section 7.
    """
    remaining = ema.remaining * (1 - alpha)
    gain = alpha / (1 - remaining)
    return Ema(ema.score + gain * (signal - ema.score), remaining, ema.n_signals + 1)


def extend(ema: Ema, signals: Floats, *, start: float, end: float, over: int) -> Ema:
    """Return the average after the *signals* (n,), in order of time: the same as one ``update`` after the other."""
    if not len(signals):
        return ema
    places = ema.n_signals + np.arange(len(signals))
    alphas = np.where(places < over, start - (start - end) * places / over, end)
    kept = np.cumprod((1 - alphas)[::-1])[::-1]  # what later signals leave of this one and all before it
    parts = alphas * np.append(kept[1:], 1.0)
    remaining = ema.remaining * float(kept[0])
    memory = ema.score * (1 - ema.remaining) * float(kept[0]) + float(parts @ signals)
    return Ema(memory / (1 - remaining), remaining, ema.n_signals + len(signals))


def score_of(signals: Floats, *, start: float, end: float, over: int) -> float:
    """Return the score of *signals* (n,) in order of time; 0 when there are none."""
    ema = Ema()
    for signal in signals.tolist():
        ema = update(ema, signal, alpha_at(ema.n_signals, start, end, over))
    return ema.score
