"""The decisions of one run over all patterns of a tenant: rows and beliefs in, changes and finds out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from learner.patterns.beliefs import Beliefs, GroupField, Key
from learner.patterns.dealing import FLOOR, deal
from learner.patterns.finding import Find, find
from learner.patterns.keys import column_of, conditions_of, key_of, overlaps
from learner.patterns.lifecycle import HARMFUL, Change, gets_nothing, is_cooled_down, proven, started
from learner.patterns.readings import Readings
from learner.patterns.states import Reset, Situation, in_figures, is_due, step
from store.clock import DAY_S, parse_iso
from store.pattern_conditions import misfit
from store.patterns import PatternRow, retired
from store.plan import Conditions
from store.vocabulary import SERVED_STATES

UNMEASURED_STATES: Final = ("retired", "disabled")
TRIAL_BEGINS: Final = "trial begins: a random share of matching conversations"
SURPASSED: Final = "no share, and less than 1 % likely to be the best anywhere"
BARRED: Final = "no share, other patterns serve all of its conversations"
TRIAL_WAITS: Final = "trial begins without a share: what else is tried there looks better so far"


@dataclass(frozen=True, slots=True)
class Split:
    """A pattern that is tried everywhere has proven itself in one question type or group: it goes on there alone."""

    parent: PatternRow
    conditions: Conditions
    reason: str
    revives: PatternRow | None = None  # the retired pattern of the same conditions


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a run decided; nothing is written yet."""

    changes: list[Change]  # every pattern that is measured, shares dealt
    finds: list[Find]
    splits: list[Split]  # to be made as patterns in trial
    resets: list[Reset]
    discounts: list[tuple[Key, float]]  # part of what is believed that stays
    priorities: dict[str, float]  # dimension -> worth per token, for the order in which dimensions draw on the budget


def decide(rows: Sequence[PatternRow], beliefs: Beliefs, situation: Situation, rng: np.random.Generator) -> Decisions:
    """Return what becomes of every pattern of a tenant, and what is new.

    Args:
        rows: all of them, in any state.
        beliefs: what the statistics say.
        situation: time, settings, crash.
        rng: of this run: the same run decides the same.
    """
    rows = sorted(rows, key=lambda row: row.id)
    field = beliefs.strata.field
    readings = Readings(beliefs, situation.settings)
    passed = _passed(rows, beliefs, situation.settings.proven_fdr)
    steps = [
        step(row, readings, situation, is_proven=key_of(row, field) in passed)
        for row in rows
        if row.state not in UNMEASURED_STATES
    ]
    changes = _with_trials([one.change for one in steps], situation, field)
    disabled = [row for row in rows if row.state == "disabled"]
    dealt = deal(changes, disabled, readings, situation.settings, rng)
    settled = [_ended(change, dealt.odds, situation.now_s) for change in dealt.changes]
    ended = [one.before for one, served in zip(settled, dealt.changes, strict=True) if one is not served]
    after = {change.after.id: change.after for change in settled}
    rows_now = [after.get(row.id, row) for row in rows]
    return Decisions(
        changes=[_said_truly(change) for change in settled],
        finds=find(rows_now, readings, situation, rng),
        splits=_splits(rows_now, readings, situation, passed),
        resets=[
            Reset(key_of(row, field), situation.traffic_s)
            for row in (*(one.change.before for one in steps if one.reset), *ended)
        ],
        discounts=[(key_of(one.change.before, field), one.keep) for one in steps if one.keep is not None],
        priorities=dealt.priorities,
    )


def resets_by_persons(rows: Sequence[PatternRow], field: GroupField | None) -> list[Reset]:
    """Return the evidence that begins anew because a person restarted or edited a pattern since it was measured.

    To be applied before the beliefs are formed: what was measured before was another instruction, or another time.
    """
    return [
        Reset(key_of(row, field), parse_iso(row.trial_since))
        for row in rows
        if row.state == "trial" and row.is_approved and row.lift is None and row.trial_since is not None
    ]


def _passed(rows: Sequence[PatternRow], beliefs: Beliefs, level: float) -> set[Key]:
    """Return the keys that the strict test rejects, among all that ever were tried: the retired ones count too."""
    field = beliefs.strata.field
    scopes = {scope: index for index, scope in enumerate(beliefs.strata.scopes)}
    columns = {column: index for index, column in enumerate(beliefs.columns)}
    # What is left of an axis ("") is no hypothesis: nothing can be activated for it.
    tested = [key for key in beliefs.contrasts if "" not in (key.scope.question_type, key.scope.group)]
    keys = sorted(tested, key=lambda key: (scopes[key.scope], columns[key.column]))
    log_e = [float(beliefs.log_e[scopes[key.scope], columns[key.column]]) for key in keys]
    families = [_family(key) for key in keys]
    # Evidence that was reset was a hypothesis of its own.
    gone = [row for row in rows if row.state == "retired" and row.e_value]
    past = [math.log(row.e_value) for row in gone if row.e_value]
    results = proven([*log_e, *past], [*families, *(_family(key_of(row, field)) for row in gone)], level)
    return {key for key, is_rejected in zip(keys, results, strict=False) if is_rejected}


def _family(key: Key) -> str:
    if key.scope.question_type is not None:
        return "type"
    return "org" if key.scope.group is None else "group"


def _with_trials(changes: Sequence[Change], situation: Situation, field: GroupField | None) -> list[Change]:
    """Start the trials of candidates that earlier runs found, as far as their dimension has room."""
    served = [change.after for change in changes if change.after.state in SERVED_STATES]
    settled = []
    for change in changes:
        row = change.after
        if row.state != "candidate":
            settled.append(change)
        elif is_startable(row, situation) and _has_room(row, served, situation, field):
            after = started(row, situation.traffic_s)
            served.append(after)
            settled.append(Change(change.before, after, TRIAL_BEGINS))
        elif _has_waited(row, situation):
            settled.append(Change(change.before, retired(row, situation.now_s), "waited too long for a trial"))
        else:
            settled.append(change)
    return settled


def _said_truly(change: Change) -> Change:
    """Return the change with another reason where a trial that begins was dealt nothing."""
    is_waiting = change.reason == TRIAL_BEGINS and gets_nothing(change.after)
    return replace(change, reason=TRIAL_WAITS) if is_waiting else change


def _ended(change: Change, odds: Mapping[str, float], now_s: float) -> Change:
    """Return the change, the trial ended that has had no share since the run before and has no prospect of one.

    A trial that a person asked for waits ``futility_days``: what bars it may be the person's next word.
    """
    before, after = change.before, change.after
    is_idle = before.state == after.state == "trial" and gets_nothing(before) and gets_nothing(after)
    if not is_idle or after.is_approved or odds.get(after.id, 0.0) >= FLOOR:
        return change
    reason = SURPASSED if after.id in odds else BARRED
    words = f"futile: {reason} (confidence {after.confidence:.2f})"
    return Change(before, retired(after, now_s), words, is_harm=after.confidence < HARMFUL)


def is_startable(row: PatternRow, situation: Situation) -> bool:
    """Return whether a candidate may be tried: allowed by a person where one is asked, cooled down, nothing frozen."""
    is_allowed = row.is_approved or not situation.needs_approval
    return is_allowed and not situation.is_halted and is_cooled_down(row, situation.settings, situation.now_s)


def _has_waited(row: PatternRow, situation: Situation) -> bool:
    """Return whether a candidate waited too long; one that was tried before is older than its second wait."""
    is_first = row.removed_at is None
    return is_first and situation.now_s - parse_iso(row.created_at) > situation.settings.prune_idle_days * DAY_S


def _has_room(row: PatternRow, served: Sequence[PatternRow], situation: Situation, field: GroupField | None) -> bool:
    own = column_of(row, field)
    rivals = {
        column_of(other, field)
        for other in served
        if other.dimension == row.dimension and overlaps(row.conditions, other.conditions)
    }
    return len(rivals - {own}) < situation.settings.max_arms_per_dimension


def _splits(rows: Sequence[PatternRow], readings: Readings, situation: Situation, passed: set[Key]) -> list[Split]:
    """Return the question types and groups in which a pattern passes all gates while it does not over all."""
    if situation.is_halted:
        return []
    field = readings.beliefs.strata.field
    parents = [row for row in rows if row.state == "trial" and row.value and row.conditions == Conditions()]
    splits = []
    for parent in parents:
        for key in readings.narrower(column_of(parent, field)):
            conditions = conditions_of(key.scope, field)
            if misfit(parent.type, conditions) is not None:
                continue
            same = [
                row
                for row in rows
                if (row.dimension, row.value, row.conditions) == (parent.dimension, parent.value, conditions)
            ]
            reading = readings.of(key)
            is_free = all(row.state == "retired" and _is_back(row, situation) for row in same)
            if is_free and is_due(reading, situation.settings, is_proven=key in passed):
                where = key.scope.question_type or key.scope.group
                reason = f"stands out in {where!r}: {in_figures(reading)}"
                splits.append(Split(parent, conditions, reason, same[-1] if same else None))
    return splits


def _is_back(row: PatternRow, situation: Situation) -> bool:
    return is_cooled_down(row, situation.settings, situation.now_s)
