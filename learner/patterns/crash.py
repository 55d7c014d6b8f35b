"""Whether satisfaction fell so far and so surely that learning must stop, and whether learning is to blame."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from learner.patterns.history import (
    BAD,
    BIN_S,
    BINS_PER_DAY,
    DISPLEASED,
    GOOD,
    N_ARMS,
    PLEASED,
    RATED,
    TREATED,
    History,
)
from learner.patterns.observations import Floats
from store.config import PatternsSection

WEIGHTS: Final = (GOOD, BAD)  # how far satisfaction fell is told by what signals weigh ...
COUNTS: Final = (PLEASED, DISPLEASED)  # ... how surely, by how many responses pleased: a thumb is no more independent
# of chance than a follow-up question is, and half of the evidence would be lost with its weight
SPANS: Final = {1: 0.2, 2: 0.1, 3: 0.0, 4: 0.0}  # bins of 6 h that a fall may have lasted -> what is added to
# ``crash_z``: there are more looks at short spans that share nothing
REFERENCE_BINS: Final = 28 * BINS_PER_DAY  # before a fall, to measure it against: whole weeks, for their seasons
MIN_RATED: Final = 10  # responses with signals in each span
MIN_BLOCKS: Final = 4  # earlier spans with signals: with fewer nobody knows what is ordinary, and ...
UNKNOWN_SPREAD: Final = 0.05**2  # ... this is taken for it: a variance of the index
MARGIN: Final = 0.8  # standard errors by which a fall may be seen smaller than the limit and still count
OVER: Final = 0.9  # part of a bin that must have passed for it to be looked at like one that is over
EARLY: Final = 1.0  # added to ``crash_z`` in a bin that is under way
CHANCE: Final = 0.6  # part of the variance of as many independent accounts of one mood each that is never gone below
CAP_SHARE: Final = 0.05  # of all weight in a span: the most that a bucket of accounts may bring ...
CAP_ACCOUNTS: Final = 3.0  # ... or this many times an equal share, whichever is more
CAP_STEPS: Final = 8
N_BINS: Final = REFERENCE_BINS + max(SPANS) + 1
RECOVERY: Final = 0.5  # of ``crash_drop``: a fall that is smaller than this is over
RECOVERY_H: Final = 24.0  # hours in which satisfaction must be back


@dataclass(frozen=True, slots=True)
class Crash:
    """The fall: shares of good weight before and now, and how many standard errors lie between (negative)."""

    before: float
    now: float
    z: float
    began_s: float  # when the span begins in which the fall is seen best, seconds since 1970
    blame_z: float | None  # how much further treated fell than untreated (negative); None: nobody can say


def find_crash(history: History, now_s: float, settings: PatternsSection, fresh: History | None = None) -> Crash | None:
    """Return the crash of the newest span against the four weeks before it, or None.

    The index is W+ / (W+ + W-): a mean of weights may be near 0 or below, where a relative fall means nothing. Spans
    of 6 h to a day are looked at. The share of responses that pleased must have fallen significantly (``crash_z``), and
    the index by ``crash_drop``, give or take most of a standard error. No bucket of accounts brings more than a
    twentieth of it all, or three equal shares. The standard error holds accounts together (64 buckets of them; around
    the share before, so that a single one never exceeds 1), is never less than a part of what chance makes of so few of
    them, and adds what the share ordinarily varies from span to span: seasons, overdispersion.

    Where no span can be judged (all records are of a few hours, or of another time than the run's), what this run read
    is held against what the runs before read, like the shortest span.

    Source: PATTERNS, section 4.7; FINDINGS, section 7; measured by ``bench/crash.py``.

    Args:
        history: sums over at least the last weeks.
        now_s: the run's time, seconds since 1970; runs may be irregular.
        settings: thresholds.
        fresh: the part of *history* that is of replies which this run read first; None: only spans are looked at.
    """
    newest = math.floor(now_s / BIN_S)
    is_over = now_s - newest * BIN_S >= OVER * BIN_S
    # Of a bin that is under way every run sees another part: the more runs, the more looks. It must show much more.
    ends = ((0, 0.0),) if is_over else ((1, 0.0), (0, EARLY))
    grid = history.grid(now_s, N_BINS)
    found: tuple[float, int, int, float, float] | None = None
    is_judged = False
    for n_left_out, early in ends:
        total = grid[: len(grid) - n_left_out].sum(axis=1)
        for span, looks in SPANS.items():
            seen, counted = _fall(total, span, WEIGHTS), _fall(total, span, COUNTS)
            if seen is None or counted is None:
                continue
            is_judged = True
            z = counted.z
            if seen.is_large(settings) and z < -(settings.crash_z + looks + early) and (found is None or z < found[0]):
                found = (z, span, n_left_out, seen.before, seen.now)
    if found is None:
        return None if is_judged or fresh is None else _between_runs(history, fresh, settings)
    z, span, n_left_out, before, now = found
    began_s = (newest - n_left_out - span + 1) * BIN_S
    whole = grid[: len(grid) - n_left_out]
    blame_z = _blame(whole[-span:].sum(axis=0), whole[-span - REFERENCE_BINS : -span].sum(axis=0))
    return Crash(before, now, z, began_s, blame_z)


def _between_runs(history: History, fresh: History, settings: PatternsSection) -> Crash | None:
    times = fresh.span_s()
    if times is None:
        return None
    began_s, newest_s = times
    recent, reference = (part.grid(newest_s, N_BINS).sum(axis=0) for part in (fresh, history.without(fresh)))
    seen, counted = (
        _compared(recent.sum(axis=0), reference.sum(axis=0), measure, lambda before: UNKNOWN_SPREAD)
        for measure in (WEIGHTS, COUNTS)
    )
    if seen is None or counted is None or not seen.is_large(settings) or counted.z >= -(settings.crash_z + SPANS[1]):
        return None
    return Crash(seen.before, seen.now, counted.z, began_s, _blame(recent, reference))


def is_recovered(history: History, at_s: float, before: float, settings: PatternsSection) -> bool:
    """Return whether at *at_s* the index of 24 hours was back at *before*, less half of ``crash_drop`` at most."""
    sums = history.grid(at_s, round(RECOVERY_H * 3600 / BIN_S)).sum(axis=(0, 1))
    index = _index(_capped(sums[:, WEIGHTS]))
    is_known = index is not None and sums[:, RATED].sum() >= MIN_RATED
    return is_known and index is not None and index > before * (1 - RECOVERY * settings.crash_drop)


@dataclass(frozen=True, slots=True)
class _Fall:
    """The share of good before and now, and the standard error of their difference."""

    before: float
    now: float
    sd: float

    @property
    def z(self) -> float:
        """Return the difference in standard errors, negative for a fall."""
        return (self.now - self.before) / self.sd

    def is_large(self, settings: PatternsSection) -> bool:
        """Return whether it fell by ``crash_drop`` of what it was, give or take most of a standard error."""
        return self.before - self.now + MARGIN * self.sd > settings.crash_drop * self.before


def _fall(total: Floats, span: int, measure: tuple[int, int]) -> _Fall | None:
    """Return how the newest bins stand to those before; None: not to be judged.

    Args:
        total: (N_BINS, N_BUCKETS, N_SUMS).
        span: how many of the newest bins.
        measure: which sums are good and bad.
    """
    earlier = total[-span - REFERENCE_BINS : -span]
    return _compared(
        total[-span:].sum(axis=0),
        earlier.sum(axis=0),
        measure,
        lambda before: _spread(earlier, span, before, measure),
    )


def _compared(
    recent_sums: Floats, reference_sums: Floats, measure: tuple[int, int], spread: Callable[[float], float]
) -> _Fall | None:
    """Return how *recent_sums* (N_BUCKETS, N_SUMS) stand to *reference_sums*; None: not to be judged.

    *spread* returns the variance from span to span, of the share before.
    """
    if min(recent_sums[:, RATED].sum(), reference_sums[:, RATED].sum()) < MIN_RATED:
        return None
    recent, reference = _capped(recent_sums[:, measure]), _capped(reference_sums[:, measure])
    before, now = _index(reference), _index(recent)
    if before is None or now is None or before <= 0:
        return None
    # Bucket by bucket: who always complains did so before as well.
    deviation = _deviations(recent, before) - _deviations(reference, before)
    weight = recent.sum(axis=-1)
    chance = before * (1 - before) * float((weight**2).sum() / weight.sum() ** 2)
    variance = max(float((deviation**2).sum()), CHANCE * chance) + spread(before)
    return _Fall(before, now, math.sqrt(variance)) if variance > 0 else None


def _index(parts: Floats) -> float | None:
    """Return the share of good in *parts* (..., 2), good and bad."""
    good, bad = float(parts[..., 0].sum()), float(parts[..., 1].sum())
    return good / (good + bad) if good + bad > 0 else None


def _capped(parts: Floats) -> Floats:
    """Return *parts* (..., N_BUCKETS, 2), good and bad, with those of buckets that bring too much scaled down."""
    weight = parts.sum(axis=-1)
    n_present = np.count_nonzero(weight > 0, axis=-1, keepdims=True)
    share = np.maximum(CAP_SHARE, CAP_ACCOUNTS / np.maximum(n_present, 1))
    kept = weight
    for _ in range(CAP_STEPS):
        kept = np.minimum(weight, share * kept.sum(axis=-1, keepdims=True))
    scale = np.where(weight > 0, kept / np.where(weight > 0, weight, 1.0), 1.0)
    return np.asarray(parts * scale[..., None], np.float64)


def _deviations(parts: Floats, center: float) -> Floats:
    """Return each bucket's part of (index - *center*): (N_BUCKETS,) of *parts* (N_BUCKETS, 2)."""
    weight = parts.sum(axis=-1)
    return np.asarray((parts[:, 0] - center * weight) / weight.sum(), np.float64)


def _spread(bins: Floats, span: int, center: float, measure: tuple[int, int]) -> float:
    """Return how much the index of a span varies beyond what its accounts' chance explains: a variance, 0 or more."""
    n = len(bins) // span
    blocks = bins[len(bins) - n * span :].reshape(n, span, *bins.shape[1:]).sum(axis=1)
    blocks = blocks[blocks[..., RATED].sum(axis=1) >= MIN_RATED]
    parts = _capped(blocks[..., measure])
    parts = parts[parts.sum(axis=(1, 2)) > 0]
    if len(parts) < MIN_BLOCKS:
        return UNKNOWN_SPREAD
    deviations = np.stack([_deviations(part, center) for part in parts])
    excess = deviations.sum(axis=1) ** 2 - (deviations**2).sum(axis=1)
    return max(float(excess.mean()), 0.0)


def _blame(recent: Floats, reference: Floats) -> float | None:
    """Return how much further the treated fell than control and holdout together, in standard errors.

    Both are (N_ARMS, N_BUCKETS, N_SUMS), now and before.
    A difference of differences: who is treated need not be alike, and an upstream's outage hits both. The standard
    error is that under "both fell alike". None when either side has too few signals before or now.
    """
    now, before = (_index(_capped(sums[..., WEIGHTS].sum(axis=0))) for sums in (recent, reference))
    untreated = [arm for arm in range(N_ARMS) if arm != TREATED]
    sides = [_side(recent[arms].sum(axis=0), reference[arms].sum(axis=0)) for arms in ([TREATED], untreated)]
    if now is None or before is None or sides[0] is None or sides[1] is None:
        return None
    falls = [side.now - side.before for side in sides if side is not None]
    parts = [
        _deviations(side.recent, side.before + now - before) - _deviations(side.reference, side.before)
        for side in sides
        if side is not None
    ]
    variance = float(((parts[0] - parts[1]) ** 2).sum())
    return (falls[0] - falls[1]) / math.sqrt(variance) if variance > 0 else None


@dataclass(frozen=True, slots=True)
class _Side:
    recent: Floats
    reference: Floats
    now: float
    before: float


def _side(recent: Floats, reference: Floats) -> _Side | None:
    if min(recent[:, RATED].sum(), reference[:, RATED].sum()) < MIN_RATED:
        return None
    recent, reference = _capped(recent[:, WEIGHTS]), _capped(reference[:, WEIGHTS])
    now, before = _index(recent), _index(reference)
    return None if now is None or before is None else _Side(recent, reference, now, before)
