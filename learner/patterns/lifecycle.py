"""What becomes of a pattern: rows and what was read of them in, changed rows and reasons out.

``candidate -> trial -> active -> warmdown -> retired``; what a person pinned or disabled is measured, never moved.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from learner.patterns.evidence import Contrast
from learner.patterns.posterior import Belief
from store.clock import iso, parse_iso
from store.config import PatternsSection
from store.patterns import PatternRow

DAY_S: Final = 86_400.0
HARM_SHARE: Final = 0.6  # a trial with more than this share is watched like an active pattern
FAMILY_SHARES: Final = {"org": 0.6, "type": 0.2, "group": 0.2}  # of the false-discovery budget
HARMFUL: Final = 0.05  # P(lift > 0) under which a pattern counts as harmful, not as useless
MAX_LOG_E: Final = 700.0  # a REAL holds no larger e-value


@dataclass(frozen=True, slots=True)
class Reading:
    """What a run knows of one pattern."""

    belief: Belief
    prior: Belief  # the same without randomised evidence
    contrast: Contrast
    log_e: float
    interval: tuple[float, float] | None
    harm_z: float
    score: float
    n_used: int
    n_signals: int
    n_users: int
    last_used_s: float | None


@dataclass(frozen=True, slots=True)
class Change:
    """One pattern after the run; ``reason`` is None when nothing happened to it."""

    before: PatternRow
    after: PatternRow
    reason: str | None = None


def measured(row: PatternRow, reading: Reading) -> PatternRow:
    """Return the row with what was read; counts never fall when records leave the window."""
    low, high = reading.interval or (None, None)
    last_used_at = iso(reading.last_used_s) if reading.last_used_s is not None else None
    return replace(
        row,
        confidence=min(max(reading.belief.confidence, 0.0), 1.0),
        score=reading.score if reading.n_signals else row.score,
        use_count=max(row.use_count, reading.n_used),
        signal_count=max(row.signal_count, reading.n_signals),
        user_count=max(row.user_count, reading.n_users),
        lift=reading.contrast.lift,
        lift_low=low,
        lift_high=high,
        e_value=math.exp(min(reading.log_e, MAX_LOG_E)) if reading.contrast.lift is not None else None,
        last_used_at=max(filter(None, (row.last_used_at, last_used_at)), default=None),
    )


def decide(
    row: PatternRow,
    reading: Reading,
    settings: PatternsSection,
    *,
    now_s: float,
    is_proven: bool,
    may_activate: bool,
) -> Change:
    """Return what becomes of a pattern in trial, active or in warm-down.

    Args:
        row: as it was.
        reading: what this run knows.
        settings: thresholds.
        now_s: the run's time.
        is_proven: whether the strict test (weighted e-BH) rejects "does not help".
        may_activate: False in a run that found a crash.
    """
    row_now = measured(row, reading)
    if _is_harmful(row, reading, settings):
        reason = f"harm: {-reading.harm_z:.1f} standard errors below control of late"
        return Change(row, retired(row_now, now_s), reason)
    # What was used since the last run has news to judge it by, however late this run is.
    if row_now.last_used_at == row.last_used_at and _idle_days(row_now, now_s) > settings.prune_idle_days:
        return Change(row, retired(row_now, now_s), f"unused for {settings.prune_idle_days:g} days")
    if row.state == "trial":
        return _decide_trial(row, row_now, reading, settings, now_s=now_s, is_proven=is_proven, may=may_activate)
    graded = replace(row_now, grade="proven" if is_proven else row.grade)
    if row.state == "active":
        return _decide_active(row, graded, settings)
    return _decide_warmdown(row, graded, settings, now_s)


def _is_harmful(row: PatternRow, reading: Reading, settings: PatternsSection) -> bool:
    is_watched = row.state in ("active", "warmdown") or row.share > HARM_SHARE
    return is_watched and reading.harm_z < -settings.harm_z


def _idle_days(row: PatternRow, now_s: float) -> float:
    return (now_s - parse_iso(max(filter(None, (row.last_used_at, row.trial_since, row.created_at))))) / DAY_S


def _decide_trial(
    row: PatternRow,
    now: PatternRow,
    reading: Reading,
    settings: PatternsSection,
    *,
    now_s: float,
    is_proven: bool,
    may: bool,
) -> Change:
    n_signals = reading.contrast.n_treated_rated
    if may and is_due_to_activate(now, reading, settings, now_s):
        active = replace(now, state="active", grade="proven" if is_proven else "provisional", warm_step=1)
        return Change(
            row,
            active,
            f"helps: lift {now.lift:+.3f}, confidence {now.confidence:.3f}, e-value {now.e_value:.3g}, "
            f"{n_signals} responses with signals",
        )
    if is_hopeless(now.confidence, n_signals, settings):
        return Change(row, retired(now, now_s), f"confidence {now.confidence:.2f} after {n_signals} signals")
    return Change(row, now)


def is_hopeless(confidence: float, n_signals: float, settings: PatternsSection) -> bool:
    """Return whether a trial is given up: it rather harms after many signals, or surely harms after a few."""
    enough = settings.min_signals if confidence < HARMFUL else settings.prune_min_signals
    return confidence < settings.prune_confidence and n_signals >= enough


def is_due_to_activate(row: PatternRow, reading: Reading, settings: PatternsSection, now_s: float) -> bool:
    """Return whether all gates are open: signals, confidence, e-value, cooldown. Source: PATTERNS, section 4.6."""
    return (
        reading.contrast.n_treated_rated >= settings.min_signals
        and reading.belief.confidence >= settings.activate_confidence
        and reading.log_e >= math.log(settings.activate_e_value)
        and is_cooled_down(row, settings, now_s)
    )


def is_cooled_down(row: PatternRow, settings: PatternsSection, now_s: float) -> bool:
    """Return whether enough days have passed since the pattern was last removed."""
    return row.removed_at is None or now_s - parse_iso(row.removed_at) >= settings.cooldown_days * DAY_S


def _decide_active(row: PatternRow, now: PatternRow, settings: PatternsSection) -> Change:
    if now.confidence < settings.warmdown_below:
        after = replace(now, state="warmdown", warm_step=settings.warmdown_runs)
        return Change(row, after, f"confidence fell to {now.confidence:.2f}")
    return Change(row, replace(now, warm_step=min(row.warm_step + 1, settings.warmup_runs)))


def _decide_warmdown(row: PatternRow, now: PatternRow, settings: PatternsSection, now_s: float) -> Change:
    if now.confidence > settings.warmdown_cancel:
        after = replace(now, state="active", warm_step=settings.warmup_runs)
        return Change(row, after, f"confidence rose to {now.confidence:.2f}: warm-down cancelled")
    if row.warm_step <= 1:
        return Change(row, retired(now, now_s), f"warmed down over {settings.warmdown_runs} runs")
    return Change(row, replace(now, warm_step=row.warm_step - 1))


def retired(row: PatternRow, now_s: float) -> PatternRow:
    """Return the pattern taken out; its cooldown begins."""
    return replace(row, state="retired", grade="none", share=0.0, cells=(), warm_step=0, removed_at=iso(now_s))


def started(row: PatternRow, traffic_s: float) -> PatternRow:
    """Return the candidate in trial: evidence counts from records made after *traffic_s*."""
    return replace(row, state="trial", trial_since=iso(traffic_s), warm_step=0, share=0.0, cells=())


def quarantined(row: PatternRow, now_s: float, traffic_s: float) -> PatternRow:
    """Return an active pattern back in trial after a crash: its evidence starts anew, its cooldown begins."""
    return replace(
        started(row, traffic_s),
        grade="none",
        confidence=0.5,
        lift=None,
        lift_low=None,
        lift_high=None,
        e_value=None,
        removed_at=iso(now_s),
    )


def family_of(row: PatternRow) -> str:
    """Return to which family of hypotheses a pattern belongs: org, type or group."""
    if row.conditions.segment:
        return "group"
    return "type" if row.conditions.question_type else "org"


def proven(log_e: Sequence[float], families: Sequence[str], level: float) -> list[bool]:
    """Return which hypotheses weighted e-BH rejects at a false-discovery rate of *level*, under any dependence.

    Families share the budget 60 / 20 / 20 (org, type, group); a family without members leaves its part to the others.
    Source: Wang & Ramdas 2022, JRSS-B 84(3); PATTERNS, section 4.6.

    >>> proven([5.0, 0.0], ["type", "type"], level=0.05)
    [True, False]
    """
    m = len(log_e)
    if not m:
        return []
    total = sum(FAMILY_SHARES[family] for family in set(families))
    weights = np.array([FAMILY_SHARES[family] / total / families.count(family) * m for family in families])
    weighted = np.array(log_e, np.float64) + np.log(weights)
    order = np.argsort(-weighted, kind="stable")
    passes = weighted[order] >= np.log(m / (level * np.arange(1, m + 1)))
    n_rejected = int(np.nonzero(passes)[0].max()) + 1 if passes.any() else 0
    rejected = set(order[:n_rejected].tolist())
    return [index in rejected for index in range(m)]
