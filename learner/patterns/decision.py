"""The decisions of one run over all patterns of a tenant: rows and a study in, changes and finds out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from learner.patterns.crash import Crash
from learner.patterns.discovery import ALL_TYPES, Found, is_duplicate, screen
from learner.patterns.lifecycle import (
    DAY_S,
    Change,
    Reading,
    decide,
    family_of,
    is_cooled_down,
    measured,
    proven,
    quarantined,
    retired,
    started,
)
from learner.patterns.shares import Arm, deal
from learner.patterns.study import Study
from store.clock import parse_iso
from store.config import PatternsSection
from store.patterns import PatternRow
from store.plan import Conditions
from store.vocabulary import SERVED_STATES

QUARANTINE_DAYS: Final = 7.0  # a crash takes back what was activated this recently
DEALT_STATES: Final = ("trial", "active", "warmdown")  # a run deals their shares; pinned ones have all
MEASURED_STATES: Final = (*DEALT_STATES, "candidate", "pinned")


@dataclass(frozen=True, slots=True)
class Situation:
    """What the decisions depend on beside rows and records."""

    now_s: float
    traffic_s: float  # up to when there can be records: a run's time may be ahead of the machine's clock
    settings: PatternsSection
    crash: Crash | None
    activated_s: Mapping[str, float]  # pattern -> its newest activation
    needs_approval: bool  # a person must allow each trial


def decide_all(rows: Sequence[PatternRow], readings: Mapping[str, Reading], situation: Situation) -> list[Change]:
    """Return what becomes of every pattern that is not retired or disabled, shares dealt."""
    is_proven = _proven_now(rows, readings, situation.settings.proven_fdr)
    changes = [
        _decide_one(row, readings[row.id], situation, is_proven=row.id in is_proven)
        for row in rows
        if row.state in MEASURED_STATES
    ]
    return _with_shares(_with_trials(changes, situation), readings, situation.settings)


def _proven_now(rows: Sequence[PatternRow], readings: Mapping[str, Reading], level: float) -> set[str]:
    """Return the patterns that the strict test rejects, among all that ever were tried: the retired ones count too."""
    tested = [(row, log_e) for row in rows if (log_e := _log_e(row, readings.get(row.id))) is not None]
    results = proven([log_e for _, log_e in tested], [family_of(row) for row, _ in tested], level)
    return {row.id for (row, _), is_rejected in zip(tested, results, strict=True) if is_rejected}


def _log_e(row: PatternRow, reading: Reading | None) -> float | None:
    if reading is not None and reading.contrast.lift is not None:
        return reading.log_e
    return math.log(row.e_value) if row.e_value else None


def _decide_one(row: PatternRow, reading: Reading, situation: Situation, *, is_proven: bool) -> Change:
    now_s, crash = situation.now_s, situation.crash
    if row.state not in DEALT_STATES:
        return Change(row, measured(row, reading))
    if crash is not None and row.state == "active" and _is_fresh(row, situation):
        reason = f"crash: satisfaction index fell from {crash.before:.2f} to {crash.now:.2f} ({crash.z:.1f} sd)"
        return Change(row, quarantined(measured(row, reading), now_s, situation.traffic_s), reason)
    return decide(row, reading, situation.settings, now_s=now_s, is_proven=is_proven, may_activate=crash is None)


def _is_fresh(row: PatternRow, situation: Situation) -> bool:
    activated_s = situation.activated_s.get(row.id)
    return activated_s is not None and situation.now_s - activated_s <= QUARANTINE_DAYS * DAY_S


def _with_trials(changes: Sequence[Change], situation: Situation) -> list[Change]:
    """Start the trials of candidates that earlier runs found, as far as their dimension has room."""
    served = [change.after for change in changes if change.after.state in SERVED_STATES]
    settled = []
    for change in changes:
        row = change.after
        if row.state != "candidate":
            settled.append(change)
        elif is_startable(row, situation) and n_competing(row, served) < situation.settings.max_arms_per_dimension:
            after = started(row, situation.traffic_s)
            served.append(after)
            settled.append(Change(change.before, after, "trial begins: a random share of matching conversations"))
        elif situation.now_s - parse_iso(row.created_at) > situation.settings.prune_idle_days * DAY_S:
            settled.append(Change(change.before, retired(row, situation.now_s), "waited too long for a trial"))
        else:
            settled.append(change)
    return settled


def is_startable(row: PatternRow, situation: Situation) -> bool:
    """Return whether a candidate may be tried: allowed by a person where one is asked, and cooled down."""
    return (row.is_approved or not situation.needs_approval) and is_cooled_down(
        row, situation.settings, situation.now_s
    )


def n_competing(row: PatternRow, others: Sequence[PatternRow]) -> int:
    """Return how many of *others* meet *row* in its dimension."""
    return sum(
        other.id != row.id and other.dimension == row.dimension and overlaps(row.conditions, other.conditions)
        for other in others
    )


def overlaps(one: Conditions, other: Conditions) -> bool:
    """Return whether a conversation can match both conditions.

    >>> overlaps(Conditions(question_type=("a",)), Conditions(question_type=("b",)))
    False
    """
    pairs = [(getattr(one, name), getattr(other, name)) for name in Conditions.__struct_fields__]
    return all(not a or not b or bool(set(a) & set(b)) for a, b in pairs)


def _with_shares(changes: Sequence[Change], readings: Mapping[str, Reading], settings: PatternsSection) -> list[Change]:
    arms: dict[str, list[Arm]] = {}
    for change in changes:
        if change.after.state in DEALT_STATES:
            arms.setdefault(change.after.dimension, []).append(_arm(change, readings[change.after.id], settings))
    shares = {arm_id: share for group in arms.values() for arm_id, share in deal(group, settings).items()}
    return [
        replace(change, after=replace(change.after, share=min(shares[change.after.id], 1.0)))
        if change.after.id in shares
        else change
        for change in changes
    ]


def _arm(change: Change, reading: Reading, settings: PatternsSection) -> Arm:
    row = change.after
    runs = settings.warmdown_runs if row.state == "warmdown" else settings.warmup_runs
    return Arm(
        id=row.id,
        conditions=row.conditions,
        state=row.state,
        # What starts anew has no evidence of its own yet.
        belief=reading.prior if row.lift is None else reading.belief,
        warmth=row.warm_step / max(runs, 1),
        share=row.share,
        n_signals=0 if row.lift is None else reading.contrast.n_treated_rated,
        is_asked=row.is_approved,
    )


def choose(found: Study, rows: Sequence[PatternRow], situation: Situation) -> list[tuple[Found, PatternRow | None]]:
    """Return what deserves to become a candidate, best first, with the retired pattern that it revives, if any.

    Left out: what is there already (also what a person disabled), what cannot be told apart from it, what was
    retired less than the cooldown ago, and what finds its dimension full.
    """
    settings = situation.settings
    known = list(rows)
    chosen: list[tuple[Found, PatternRow | None]] = []
    room = settings.max_candidates - sum(row.state == "candidate" for row in rows)
    taken: list[Found] = []
    for one in screen(found.comparisons, min_signals=settings.min_signals, q=settings.discovery_q):
        if len(chosen) >= room:
            break
        same = [row for row in known if _is_same(row, one)]
        is_back = all(row.state == "retired" and is_cooled_down(row, settings, situation.now_s) for row in same)
        is_full = _n_arms(one, rows, taken) >= settings.max_arms_per_dimension
        if not is_back or is_full or _is_shadow(one, rows, taken, found):
            continue
        taken.append(one)
        chosen.append((one, same[-1] if same else None))
    return chosen


def conditions_of(one: Found) -> Conditions:
    """Return where a find applies."""
    return Conditions() if one.question_type is ALL_TYPES else Conditions(question_type=(one.question_type,))


def _is_same(row: PatternRow, one: Found) -> bool:
    return (row.dimension, row.value) == (one.dimension, one.value) and overlaps(row.conditions, conditions_of(one))


def _n_arms(one: Found, rows: Sequence[PatternRow], taken: Sequence[Found]) -> int:
    conditions = conditions_of(one)
    live = [row.conditions for row in rows if row.state in MEASURED_STATES and row.dimension == one.dimension]
    live += [conditions_of(other) for other in taken if other.dimension == one.dimension]
    return sum(overlaps(conditions, other) for other in live)


def _is_shadow(one: Found, rows: Sequence[PatternRow], taken: Sequence[Found], found: Study) -> bool:
    """Return whether the characteristic always comes together with one that is tried already."""
    conditions = conditions_of(one)
    tried = {
        (row.dimension, row.value)
        for row in rows
        if row.state in MEASURED_STATES and row.value and overlaps(row.conditions, conditions)
    } | {(other.dimension, other.value) for other in taken if overlaps(conditions_of(other), conditions)}
    return any(
        is_duplicate(one.has, member.has, one.scope)
        for member in found.members
        if member.dimension != one.dimension and (member.dimension, member.value) in tried
    )
