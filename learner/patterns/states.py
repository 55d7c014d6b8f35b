"""What becomes of one pattern: a row and its reading in, the row after the run and the reason out.

``candidate -> trial -> active -> warmdown -> retired``; what a person pinned or disabled is measured, never moved.
Source: PATTERNS, sections 4.6 and 4.7.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from learner.patterns.beliefs import Beliefs, Key, Tally
from learner.patterns.changes import Worsening
from learner.patterns.crash import Crash
from learner.patterns.evidence import e_value_of
from learner.patterns.keys import key_of, name_of
from learner.patterns.lifecycle import (
    HARM_SHARE,
    HARMFUL,
    Change,
    gets_nothing,
    is_cooled_down,
    is_hopeless,
    quarantined,
)
from learner.patterns.readings import Reading, Readings, measured
from store.clock import DAY_S, iso, parse_iso
from store.config import PatternsSection
from store.patterns import PatternRow, retired
from store.vocabulary import PatternType

QUARANTINE_DAYS: Final = 7.0  # a crash takes back what was activated this recently
HARM_KEEP: Final = 0.2  # part of the evidence that stays believed when harm shows that the effect changed
NO_TALLY: Final = Tally()


@dataclass(frozen=True, slots=True)
class Situation:
    """What the decisions depend on beside rows and records."""

    now_s: float
    traffic_s: float  # up to when there can be records: a run's time may be ahead of the machine's clock
    settings: PatternsSection
    crash: Crash | None = None  # found in this run
    is_frozen: bool = False  # after a crash: nothing is activated, no trial begins
    activated_s: Mapping[str, float] = field(default_factory=dict)  # pattern -> its newest activation
    needs_approval: bool = False  # a person must allow each trial
    types: Mapping[str, PatternType] = field(
        default_factory=dict
    )  # of each dimension in which candidates are looked for

    @property
    def is_halted(self) -> bool:
        """Return whether nothing new may be let in."""
        return self.is_frozen or self.crash is not None


@dataclass(frozen=True, slots=True)
class Reset:
    """The evidence of a key begins anew: what was made before *at_s* never counts for it again."""

    key: Key
    at_s: float


@dataclass(frozen=True, slots=True)
class Step:
    """One pattern after the run, and what becomes of the evidence about it."""

    change: Change
    reset: bool = False
    keep: float | None = None  # part of what is believed that stays; None: all


def step(row: PatternRow, readings: Readings, situation: Situation, *, is_proven: bool) -> Step:
    """Return what becomes of a pattern that is measured: any but a retired or disabled one."""
    beliefs: Beliefs = readings.beliefs
    reading = readings.of(key_of(row, beliefs.strata.field))
    now = measured(row, reading, beliefs.tallies.get(name_of(row), NO_TALLY))
    if row.state == "candidate":
        return Step(Change(row, now))
    if row.state == "pinned":
        return Step(Change(row, replace(now, grade="proven" if is_proven else "provisional")))
    return _safety(row, now, readings, situation) or _by_state(row, now, reading, situation, is_proven=is_proven)


def _safety(row: PatternRow, now: PatternRow, readings: Readings, situation: Situation) -> Step | None:
    settings, now_s, crash = situation.settings, situation.now_s, situation.crash
    reading = readings.of(key_of(row, readings.beliefs.strata.field))
    if crash is not None and row.state == "active" and _is_fresh(row, situation):
        reason = f"crash: satisfaction index fell from {crash.before:.2f} to {crash.now:.2f} ({crash.z:.1f} sd)"
        return Step(Change(row, quarantined(now, now_s, situation.traffic_s), reason), reset=True)
    if row.state in ("active", "warmdown"):
        step_out = _taken_out(row, now, readings, situation)
        if step_out is not None:
            return step_out
    elif reading.harm_z < -settings.harm_z and row.share > HARM_SHARE and is_cooled_down(row, settings, now_s):
        # A trial is only believed less, and its share falls by that: among many looks, many alarms are chance.
        return Step(Change(row, replace(now, removed_at=iso(now_s)), _harm(reading)), keep=HARM_KEEP)
    # What was used since the last run has news to judge it by, however late this run is.
    if now.last_used_at == row.last_used_at and idle_days(now, now_s) > settings.prune_idle_days:
        return Step(Change(row, retired(now, now_s), f"unused for {settings.prune_idle_days:g} days"), reset=True)
    return None


def _taken_out(row: PatternRow, now: PatternRow, readings: Readings, situation: Situation) -> Step | None:
    """Return the end of a pattern that is served widely and harms, helps no more, or makes people behave worse."""
    key = key_of(row, readings.beliefs.strata.field)
    reading, gone = readings.of(key), retired(now, situation.now_s)
    if reading.harm_z < -situation.settings.harm_z:
        return Step(Change(row, gone, _harm(reading), is_harm=True), reset=True, keep=HARM_KEEP)
    worsening = readings.worsening(key)
    if worsening is not None:
        is_harm = worsening.lift < 0
        return Step(Change(row, gone, _in_words(worsening), is_harm=is_harm), reset=True, keep=HARM_KEEP)
    if reading.objection is not None:
        return Step(Change(row, gone, reading.objection, is_harm=True), reset=True)
    return None


def _harm(reading: Reading) -> str:
    return f"harm: {-reading.harm_z:.1f} standard errors below control of late"


def _in_words(change: Worsening) -> str:
    return (
        f"changed: since {iso(change.since_s)[:10]} it lifts by {change.lift:+.3f}, before that by {change.before:+.3f}"
    )


def _is_fresh(row: PatternRow, situation: Situation) -> bool:
    activated_s = situation.activated_s.get(row.id)
    return activated_s is not None and situation.now_s - activated_s <= QUARANTINE_DAYS * DAY_S


def idle_days(row: PatternRow, now_s: float) -> float:
    """Return for how many days a pattern was not used, or for how long it has been there unused."""
    return (now_s - parse_iso(max(filter(None, (row.last_used_at, row.trial_since, row.created_at))))) / DAY_S


def _by_state(row: PatternRow, now: PatternRow, reading: Reading, situation: Situation, *, is_proven: bool) -> Step:
    if row.state == "trial":
        return _step_trial(row, now, reading, situation, is_proven=is_proven)
    graded = replace(now, grade="proven" if is_proven else row.grade)
    if row.state == "active":
        return Step(_decide_active(row, graded, situation.settings))
    return _step_warmdown(row, graded, situation)


def _step_trial(row: PatternRow, now: PatternRow, reading: Reading, situation: Situation, *, is_proven: bool) -> Step:
    settings = situation.settings
    is_open = not situation.is_halted and is_cooled_down(row, settings, situation.now_s)
    if is_open and is_due(reading, settings, is_proven=is_proven):
        active = replace(now, state="active", grade="proven" if is_proven else "provisional", warm_step=1)
        return Step(Change(row, active, f"helps: {in_figures(reading)}"))
    reason = _why_hopeless(row, now, reading, situation)
    if reason is None:
        return Step(Change(row, now))
    is_harm = now.confidence < HARMFUL
    return Step(Change(row, retired(now, situation.now_s), reason, is_harm=is_harm), reset=True)


def is_due(reading: Reading, settings: PatternsSection, *, is_proven: bool) -> bool:
    """Return whether the evidence lets a key be active: signals, confidence, e-value, no guardrail against it."""
    passes = {
        "evidence": reading.log_e >= math.log(settings.activate_e_value) or is_proven,
        "posterior": reading.is_measured,
        "never": is_proven,
    }
    return (
        reading.n_treated >= settings.min_signals
        and reading.confidence >= settings.activate_confidence
        and passes[settings.provisional]
        and reading.objection is None
    )


def in_figures(reading: Reading) -> str:
    """Return the evidence for an activation in words."""
    lift = "unknown" if reading.lift is None else f"{reading.lift:+.3f}"
    return (
        f"lift {lift}, confidence {reading.confidence:.3f}, e-value {e_value_of(reading.log_e):.3g}, "
        f"{reading.n_treated:.0f} responses with signals"
    )


def _why_hopeless(row: PatternRow, now: PatternRow, reading: Reading, situation: Situation) -> str | None:
    settings = situation.settings
    is_judged = reading.n_treated >= settings.prune_min_signals
    helps_somewhere = reading.elsewhere >= settings.warmdown_cancel
    if is_hopeless(now.confidence, reading.n_treated, settings) and not helps_somewhere:
        return f"confidence {now.confidence:.2f} after {reading.n_treated:.0f} signals"
    if is_judged and now.lift_high is not None and now.lift_high < settings.least_lift and not helps_somewhere:
        return f"futile: lifts by {now.lift_high:+.3f} at most, after {reading.n_treated:.0f} signals"
    if gets_nothing(row) and idle_days(now, situation.now_s) > settings.futility_days:
        return (
            f"futile: no share for {settings.futility_days:g} days, others of its dimension are better "
            f"(confidence {now.confidence:.2f}, {reading.n_treated:.0f} signals)"
        )
    return None


def _decide_active(row: PatternRow, now: PatternRow, settings: PatternsSection) -> Change:
    if now.confidence < settings.warmdown_below:
        after = replace(now, state="warmdown", warm_step=settings.warmdown_runs)
        return Change(row, after, f"confidence fell to {now.confidence:.2f}")
    if gets_nothing(row) and now.confidence <= settings.warmdown_cancel:
        # Nothing new can be learned of it: without an end it would be called active until the records fade.
        after = replace(now, state="warmdown", warm_step=settings.warmdown_runs)
        return Change(row, after, f"no share is left to it: confidence fell to {now.confidence:.2f}")
    return Change(row, replace(now, warm_step=min(row.warm_step + 1, settings.warmup_runs)))


def _step_warmdown(row: PatternRow, now: PatternRow, situation: Situation) -> Step:
    settings = situation.settings
    if now.confidence > settings.warmdown_cancel:
        after = replace(now, state="active", warm_step=settings.warmup_runs)
        return Step(Change(row, after, f"confidence rose to {now.confidence:.2f}: warm-down cancelled"))
    if row.warm_step <= 1:
        reason = f"warmed down over {settings.warmdown_runs} runs, confidence {now.confidence:.2f}"
        return Step(Change(row, retired(now, situation.now_s), reason), reset=True)
    return Step(Change(row, replace(now, warm_step=row.warm_step - 1)))
