"""How much of the matching traffic each pattern of a dimension gets until the next run.

Sharpened probability matching for trials, within caps; a proven best takes the rest, warmed up over some runs. No
sampling: the probabilities are integrals, so a repeated run deals the same shares. Source: PATTERNS, section 4.5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from learner.patterns.normal import Floats, cdf, density
from learner.patterns.posterior import Belief
from store.config import PatternsSection
from store.pattern_review import BESIDE_SHARE
from store.plan import Conditions
from store.vocabulary import PatternState

SHARPNESS: Final = 4.0  # exponent on P(best)
FLOOR: Final = 0.01  # a smaller share gets nothing
PROBATION: Final = 0.9  # P(lift > 0) of one trial at which its dimension may pass the cap of trials
PROVING_SIGNALS: Final = 100  # treated responses with signals before that: a strong effect is proven by then, and half
# as many responses prove it at even odds as at nine to one
LOCKED_BESIDE_ACTIVE: Final = 0.3  # trials keep this part of their shares beside an active pattern
HOLD_CONFIDENCE: Final = 0.8  # an active pattern below gets no more than a trial would
GRID: Final = 801  # points of the integral
ELSEWHERE: Final = ""  # stands for all question types that no pattern of the dimension names


@dataclass(frozen=True, slots=True)
class Arm:
    """One pattern of a dimension as the shares see it."""

    id: str
    conditions: Conditions
    state: PatternState
    belief: Belief
    warmth: float  # 0 .. 1: how far an active one is warmed up, or what is left of one that is warmed down
    share: float  # of the last run
    n_signals: int  # treated responses with signals
    is_asked: bool = False  # a person wants to know: what is known already must not keep it from being tried


def best_shares(beliefs: Sequence[Belief]) -> tuple[Floats, float]:
    """Return P(best and better than nothing) of each belief (k,), and P(none is better than nothing).

    >>> best_shares([Belief(0.0, 1.0)])[1]
    0.5
    """
    none = float(np.prod([1 - belief.confidence for belief in beliefs]))
    mean, sd = np.array([b.mean for b in beliefs]), np.array([b.sd for b in beliefs])
    top = float((mean + 8 * sd).max(initial=0.0))
    if top <= 0:
        return np.zeros(len(beliefs)), none
    x = np.linspace(0, top, GRID)
    below = np.stack([cdf((x - m) / s) for m, s in zip(mean, sd, strict=True)])
    best = np.array(
        [
            np.trapezoid(density((x - mean[k]) / sd[k]) / sd[k] * np.delete(below, k, 0).prod(0), x)
            for k in range(len(beliefs))
        ]
    )
    total = best.sum()
    return np.asarray(best * ((1 - none) / total if total > 0 else 0.0), np.float64), none


def sharpened(best: Floats, none: float) -> Floats:
    """Return shares (k,) in proportion to P(best)^4, nothing for those under the floor."""
    powers = best**SHARPNESS
    shares = powers / max(float(powers.sum()) + none**SHARPNESS, 1e-300)
    return np.asarray(np.where(shares < FLOOR, 0.0, shares), np.float64)


def deal(arms: Sequence[Arm], settings: PatternsSection) -> dict[str, float]:
    """Return the share of each arm of one dimension.

    Arms meet where their conditions overlap: shares are dealt per question type that an arm names, and elsewhere. A
    trial gets the least of what its types leave it, an active one the most; the proxy scales what is more than all.
    """
    types = {name for arm in arms for name in arm.conditions.question_type} | {ELSEWHERE}
    dealt: dict[str, list[float]] = {arm.id: [] for arm in arms}
    for name in sorted(types):
        matching = [arm for arm in arms if _matches(arm.conditions, name)]
        for arm_id, share in _deal_type(matching, settings).items():
            dealt[arm_id].append(share)
    return {arm.id: (min if arm.state == "trial" else max)(dealt[arm.id], default=0.0) for arm in arms}


def _matches(conditions: Conditions, question_type: str) -> bool:
    return not conditions.question_type or question_type in conditions.question_type


def _deal_type(arms: Sequence[Arm], settings: PatternsSection) -> Mapping[str, float]:
    most = min(settings.active_share, 1 - settings.hold_back)
    if not arms:
        return {}
    if len(arms) == 1 and arms[0].state == "trial" and arms[0].share == 0:
        return {arms[0].id: settings.trial_share}
    shares = sharpened(*best_shares([arm.belief for arm in arms]))
    is_trial = np.array([arm.state == "trial" for arm in arms])
    unlocked = [arm for arm in arms if arm.state in ("active", "warmdown")]
    cap = settings.trial_share
    if any(_is_promising(arm) for arm in arms):
        cap = most
    trials = np.where(is_trial, shares, 0.0)
    trials = trials * min(1.0, cap / max(float(trials.sum()), 1e-12))
    if unlocked:
        trials = trials * LOCKED_BESIDE_ACTIVE
    trials = np.maximum(trials, [BESIDE_SHARE if _is_owed(arm, settings) else 0.0 for arm in arms])
    trials = trials * min(1.0, cap / max(float(trials.sum()), 1e-12))
    dealt = {arm.id: float(share) for arm, share in zip(arms, trials, strict=True)}
    if unlocked:
        best = max(unlocked, key=lambda arm: (arm.belief.mean, arm.id))
        dealt[best.id] = min(_proven_share(best, settings, most), max(most - float(trials.sum()), 0.0))
    return dealt


def _is_promising(arm: Arm) -> bool:
    return arm.state == "trial" and arm.belief.confidence >= PROBATION and arm.n_signals >= PROVING_SIGNALS


def _is_owed(arm: Arm, settings: PatternsSection) -> bool:
    return arm.is_asked and arm.state == "trial" and arm.n_signals < settings.prune_min_signals


def _proven_share(arm: Arm, settings: PatternsSection, most: float) -> float:
    if arm.state == "warmdown":
        return arm.warmth * most
    if arm.belief.confidence < HOLD_CONFIDENCE:
        return settings.trial_share
    # Never less than it had: a trial on probation may have had more than warm-up begins with.
    return max(settings.trial_share + (most - settings.trial_share) * arm.warmth, min(arm.share, most))
