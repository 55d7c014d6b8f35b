"""The moves of a pattern's life that ``states`` and ``deciding`` share, what bars one, and the strict test."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from store.clock import DAY_S, iso, parse_iso
from store.config import PatternsSection
from store.patterns import PatternRow, without_evidence

HARMFUL: Final = 0.05  # P(lift > 0) under which a pattern counts as harmful, not as useless
HARM_SHARE: Final = 0.6  # a trial with more than this share is watched like an active pattern
FAMILY_SHARES: Final = {"org": 0.6, "type": 0.2, "group": 0.2}  # of the false-discovery budget


@dataclass(frozen=True, slots=True)
class Change:
    """One pattern after the run; ``reason`` is None when nothing happened to it."""

    before: PatternRow
    after: PatternRow
    reason: str | None = None
    is_harm: bool = False  # the pattern is taken out because it did harm


def is_cooled_down(row: PatternRow, settings: PatternsSection, now_s: float) -> bool:
    """Return whether enough days have passed since the pattern was last removed."""
    return row.removed_at is None or now_s - parse_iso(row.removed_at) >= settings.cooldown_days * DAY_S


def is_hopeless(confidence: float, n_signals: float, settings: PatternsSection) -> bool:
    """Return whether a trial is given up: it rather harms after many signals, or surely harms after a few."""
    enough = settings.min_signals if confidence < HARMFUL else settings.prune_min_signals
    return confidence < settings.prune_confidence and n_signals >= enough


def gets_nothing(row: PatternRow) -> bool:
    """Return whether the pattern has no share anywhere."""
    return row.share <= 0 and not any(cell.share > 0 for cell in row.cells)


def started(row: PatternRow, traffic_s: float) -> PatternRow:
    """Return the candidate in trial: evidence counts from records made after *traffic_s*."""
    return replace(row, state="trial", trial_since=iso(traffic_s), warm_step=0, share=0.0, cells=())


def quarantined(row: PatternRow, now_s: float, traffic_s: float) -> PatternRow:
    """Return an active pattern back in trial after a crash: its evidence starts anew, its cooldown begins."""
    return replace(without_evidence(started(row, traffic_s)), removed_at=iso(now_s))


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
