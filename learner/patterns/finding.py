"""Which instructions deserve a trial: what the posterior says before anything of them was tried.

Never proof: a find becomes a candidate, and randomised exposure decides. Source: PATTERNS, section 4.4.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from learner.patterns.beliefs import Beliefs, Scope
from learner.patterns.dealing import cells_of, lifts_of, normals
from learner.patterns.keys import column_of, conditions_of, overlaps
from learner.patterns.lifecycle import HARMFUL, is_cooled_down
from learner.patterns.normal import Floats
from learner.patterns.observations import Booleans, Column
from learner.patterns.readings import Readings
from learner.patterns.states import Situation
from store.clock import DAY_S, parse_iso
from store.config import PatternsSection
from store.pattern_conditions import misfit
from store.patterns import PatternRow
from store.plan import Conditions
from store.vocabulary import AVOID, PatternType

LIVE_STATES: Final = ("candidate", "trial", "active", "warmdown", "pinned")
LEAST_BEST: Final = 0.01  # P(best in some cell) of a find
AVOID_CONFIDENCE: Final = 0.9  # P(lift < 0) from which it is worth trying to avoid a characteristic ...
AVOID_OWN_CONFIDENCE: Final = 0.975  # ... and in one question type alone, of which there are many
AVOID_SHARE: Final = 0.2  # ... that this part of the replies there has
STANDS_OUT: Final = 0.9  # P(lift > 0) in one scope that is tried there alone ...
NOT_EVERYWHERE: Final = 0.8  # ... while it is less than this over all
OWN_PART: Final = 0.5  # of the effect in the scope, that the rest does not share
OWN_Z: Final = 3.0  # standard errors from which one question type shows an effect by itself ...
REST_Z: Final = 2.33  # ... that is everybody's when the others show it by so many ...
POOLED_REST_Z: Final = 1.0  # ... or by only so many when all types together are surer than the strongest alone
MIN_OTHERS: Final = 5.0  # rated replies with another value, to compare with
DUPLICATE_CORRELATION: Final = 0.9  # of two characteristics that cannot be told apart


@dataclass(frozen=True, slots=True)
class Find:
    """An instruction that deserves to be a candidate."""

    column: Column  # the value may be ``avoid:`` and another value
    type: PatternType
    conditions: Conditions
    confidence: float  # before any trial
    reason: str
    detail: dict[str, Any]
    revives: PatternRow | None = None  # the retired pattern that asks for the same


@dataclass(frozen=True, slots=True)
class _Option:
    column: Column
    source: Column  # whose replies it rests on
    scope: Scope
    confidence: float
    odds: float  # P(best in some cell)
    lift: float
    sd: float
    n_signals: float


def find(rows: Sequence[PatternRow], readings: Readings, situation: Situation, rng: np.random.Generator) -> list[Find]:
    """Return what deserves to become a candidate, the likeliest best of its dimension first.

    Left out: what is there already (also what a person disabled), what cannot be told apart from it, what was retired
    lately, and what finds its dimension full. Guarded for the number of comparisons: estimates are shrunk together, and
    of all finds at most ``discovery_q`` are expected not to help. Source: Efron 2010, Large-Scale Inference, ch. 5.
    """
    settings, beliefs = situation.settings, readings.beliefs
    room = settings.max_candidates - sum(row.state == "candidate" for row in rows)
    options = _guarded(_options(rows, readings, situation, rng), settings.discovery_q)
    finds: list[Find] = []
    # What is to be avoided comes after the plain value that it may be the same as.
    for option in sorted(options, key=lambda one: (-round(one.odds, 2), one.column != one.source)):
        if len(finds) >= room:
            break
        conditions = conditions_of(option.scope, beliefs.strata.field)
        same = [row for row in rows if _is_same(row, option, conditions)]
        is_full = _n_arms(option.column, conditions, rows, finds) >= settings.max_arms_per_dimension
        is_there = any(one.column == option.column and overlaps(one.conditions, conditions) for one in finds)
        blocked = any(_blocks(row, situation) for row in same)
        if is_full or is_there or blocked or _is_shadow(option, conditions, rows, finds, beliefs):
            continue
        revived = [row for row in same if row.value and row.conditions == conditions and row.state == "retired"]
        finds.append(_find(option, conditions, situation, revived[-1] if revived else None))
    return finds


def _find(option: _Option, conditions: Conditions, situation: Situation, revives: PatternRow | None) -> Find:
    what = "replies without it" if option.column.value.startswith(AVOID) else "replies with it"
    return Find(
        column=option.column,
        type=situation.types[option.column.dimension],
        conditions=conditions,
        confidence=option.confidence,
        reason=(
            f"{what} {'please' if option.lift > 0 else 'may yet please'} more: {option.lift:+.3f} "
            f"(standard error {option.sd:.3f}) expected from "
            f"{option.n_signals:.0f} replies with signals, confidence {option.confidence:.2f} before any trial"
        ),
        detail={
            "difference": round(option.lift, 4),
            "standard_error": round(option.sd, 4),
            "n_rated": round(option.n_signals),
            "confidence": round(option.confidence, 4),
            "p_best": round(option.odds, 4),
        },
        revives=revives,
    )


def _guarded(options: Sequence[_Option], q: float) -> list[_Option]:
    """Return the options of which at most *q* are expected not to help, in order of their odds of being best."""
    by_confidence = sorted(options, key=lambda one: (-one.confidence, one.column.dimension, one.column.value))
    expected_false = np.cumsum([1 - one.confidence for one in by_confidence])
    n_kept = int((expected_false <= q * np.arange(1, len(by_confidence) + 1) + 1e-9).sum())
    return sorted(by_confidence[:n_kept], key=lambda one: (-one.odds, one.column.dimension, one.column.value))


def _options(
    rows: Sequence[PatternRow], readings: Readings, situation: Situation, rng: np.random.Generator
) -> list[_Option]:
    beliefs, settings = readings.beliefs, situation.settings
    odds = _odds(rows, beliefs, rng)
    options: list[_Option] = []
    for index, column in enumerate(beliefs.columns):
        if column.dimension not in situation.types or column.value.startswith(AVOID) or _is_own(column, rows):
            continue
        if float(beliefs.n_observed[:, :, index].sum()) < settings.min_signals:
            continue
        if odds[index] >= LEAST_BEST and _has_others(beliefs, index, Scope()):
            scopes = _scopes(readings, index, situation.types[column.dimension])
            options.extend(_option(readings, column, scope, odds[index]) for scope in scopes)
        if settings.avoid:
            options.extend(_avoiding(readings, column, scope) for scope in _displeased(readings, index, settings))
    return [one for one in options if _has_users(one, readings, settings)]


def _has_others(beliefs: Beliefs, f: int, scope: Scope) -> bool:
    """Return whether *scope* has replies without the value to compare those that have it with."""
    share = _natural_share(beliefs, scope, f)
    return _n_observed(beliefs, scope, f) * (1 - share) >= MIN_OTHERS * share


def _natural_share(beliefs: Beliefs, scope: Scope, f: int) -> float:
    """Return the part of the replies in *scope* that have the value by themselves."""
    is_in = _cells(beliefs, scope)
    traffic = np.where(is_in, beliefs.traffic, 0.0)
    return float((beliefs.natural[:, :, f] * traffic).sum() / max(float(traffic.sum()), 1e-300))


def _is_own(column: Column, rows: Iterable[PatternRow]) -> bool:
    return any(row.id == column.value for row in rows)


def _odds(rows: Sequence[PatternRow], beliefs: Beliefs, rng: np.random.Generator) -> Floats:
    """Return P(best of its dimension) of each column (f,) in the cell that is kindest to it.

    What is retired or disabled competes for its own return alone, not with the others.
    """
    cells = cells_of(beliefs, [])
    gone = {column_of(row, beliefs.strata.field) for row in rows if row.state in ("retired", "disabled")}
    draws = normals(rng, len(beliefs.columns))
    odds = np.zeros(len(beliefs.columns))
    for dimension in dict.fromkeys(column.dimension for column in beliefs.columns):
        columns = [index for index, column in enumerate(beliefs.columns) if column.dimension == dimension]
        lifts = lifts_of(cells.mean[:, columns], cells.sd[:, columns], np.True_, draws[:, columns])
        is_in = np.array([beliefs.columns[index] not in gone for index in columns], np.bool_)
        top = np.maximum(np.where(is_in, lifts, 0.0).max(2, keepdims=True), 0.0)
        is_best = np.where(is_in, lifts == top, lifts > top)
        odds[columns] = is_best.mean(0).max(0)
    return odds


def _scopes(readings: Readings, index: int, type: PatternType) -> list[Scope]:  # noqa: A002
    """Return where one column is worth a trial: everywhere, or only where it stands out and a condition can say so."""
    beliefs = readings.beliefs
    strata = beliefs.strata
    by_type = beliefs.n_observed[:, :, index].sum(1)
    seen = [name for name, n in zip(strata.question_types, by_type, strict=True) if n > 0]
    if len(seen) == 1 and len(strata.question_types) > 1 and seen[0]:
        return [Scope(question_type=seen[0])]
    if own := _own_types(beliefs, index):
        return own
    column = beliefs.columns[index]
    if readings.confidence(Scope(), column) >= NOT_EVERYWHERE:
        return [Scope()]
    named = [
        scope
        for scope in readings.scopes
        if (scope.question_type or scope.group) and misfit(type, conditions_of(scope, strata.field)) is None
    ]
    return [scope for scope in named if _stands_out(readings, index, scope)] or [Scope()]


def _own_types(beliefs: Beliefs, f: int) -> list[Scope]:
    """Return the question types that alone show what a column does, when the others do not share it; else none.

    By the records as they are: what is shrunk towards the other types cannot tell whether they are like it.
    """
    if beliefs.seen_score is None or beliefs.seen_information is None:
        return []
    score, information = beliefs.seen_score[:, :, f].sum(1), beliefs.seen_information[:, :, f].sum(1)
    z = score / np.sqrt(np.maximum(information * beliefs.variance, 1e-12))
    strongest = int(z.argmax())
    if z[strongest] < OWN_Z:
        return []
    rest = np.arange(len(z)) != strongest
    pooled = float(score.sum() / math.sqrt(information.sum() * beliefs.variance))
    rest_z = float(score[rest].sum() / math.sqrt(max(information[rest].sum() * beliefs.variance, 1e-12)))
    if rest_z >= (POOLED_REST_Z if pooled > z[strongest] else REST_Z):
        return []
    named = zip(beliefs.strata.question_types, z.tolist(), strict=True)
    return [Scope(question_type=name) for name, own in named if name and own >= OWN_Z]


def _stands_out(readings: Readings, index: int, scope: Scope) -> bool:
    beliefs = readings.beliefs
    here = float(beliefs.key_mean[readings.scopes[scope], index])
    is_in = _cells(beliefs, scope)
    if not beliefs.n_observed[:, :, index][is_in].sum() > 0 or is_in.all():
        return False
    rest = float(beliefs.cell_mean[:, :, index][~is_in].mean())
    is_sure = readings.confidence(scope, beliefs.columns[index]) >= STANDS_OUT
    return is_sure and here > 0 and here - max(rest, 0.0) >= OWN_PART * here


def _cells(beliefs: Beliefs, scope: Scope) -> Booleans:
    """Return the cells (q, s) that *scope* covers."""
    strata = beliefs.strata
    return np.array(
        [
            [scope.question_type in (None, q) and scope.group in (None, g) for g in strata.groups]
            for q in strata.question_types
        ],
        np.bool_,
    )


def _option(readings: Readings, column: Column, scope: Scope, odds: float) -> _Option:
    beliefs = readings.beliefs
    k, f = readings.scopes[scope], readings.columns[column]
    return _Option(
        column=column,
        source=column,
        scope=scope,
        confidence=readings.confidence(scope, column),
        odds=float(odds),
        lift=float(beliefs.key_mean[k, f]),
        sd=float(beliefs.key_sd[k, f]),
        n_signals=_n_observed(beliefs, scope, f),
    )


def _n_observed(beliefs: Beliefs, scope: Scope, f: int) -> float:
    observed = beliefs.n_observed[:, :, f]
    if scope.question_type is not None:
        return float(observed[list(beliefs.strata.question_types).index(scope.question_type)].sum())
    if scope.group is not None:
        return float(observed[:, list(beliefs.strata.groups).index(scope.group)].sum())
    return float(observed.sum())


def _displeased(readings: Readings, f: int, settings: PatternsSection) -> list[Scope]:
    """Return where a common characteristic displeases: everywhere, else the question types in which it surely does."""
    if _displeases(readings, f, Scope(), settings, AVOID_CONFIDENCE):
        return [Scope()]
    types = [scope for scope in readings.scopes if scope.question_type]
    return [scope for scope in types if _displeases(readings, f, scope, settings, AVOID_OWN_CONFIDENCE)]


def _displeases(readings: Readings, f: int, scope: Scope, settings: PatternsSection, sureness: float) -> bool:
    beliefs, k = readings.beliefs, readings.scopes[scope]
    mean, sd = float(beliefs.key_mean[k, f]), float(beliefs.key_sd[k, f])
    if not mean < 0 < sd or readings.confidence(scope, beliefs.columns[f]) > 1 - sureness:
        return False
    is_seen = _n_observed(beliefs, scope, f) >= settings.min_signals and _has_others(beliefs, f, scope)
    return is_seen and _natural_share(beliefs, scope, f) >= AVOID_SHARE


def _avoiding(readings: Readings, column: Column, scope: Scope) -> _Option:
    seen = _option(readings, column, scope, 0.0)
    avoid = Column(column.dimension, AVOID + column.value)
    # Once it was tried, the trial itself says what avoiding does.
    if avoid in readings.columns:
        tried = _option(readings, avoid, scope, 0.0)
        return replace(tried, source=column, odds=tried.confidence, n_signals=seen.n_signals)
    confidence = 1 - seen.confidence
    return replace(seen, column=avoid, confidence=confidence, odds=confidence, lift=-seen.lift)


def _has_users(option: _Option, readings: Readings, settings: PatternsSection) -> bool:
    users = readings.beliefs.observed_users
    return users is None or users[readings.scopes[option.scope], readings.columns[option.source]] >= settings.min_users


def _is_same(row: PatternRow, option: _Option, conditions: Conditions) -> bool:
    # What a person put into other words is not found in the learner's again.
    if (row.dimension, row.value or row.reworded_from) != (option.column.dimension, option.column.value):
        return False
    # What turns out to help everywhere is tried everywhere, although one question type or group has it already.
    if option.scope == Scope() and option.confidence >= NOT_EVERYWHERE and row.conditions != conditions:
        return False
    return overlaps(row.conditions, conditions)


def _blocks(row: PatternRow, situation: Situation) -> bool:
    """Return whether a pattern that asks for the same keeps a find from being tried."""
    if row.state != "retired" or row.removed_at is None:
        return row.state != "retired"
    settings = situation.settings
    if row.confidence < HARMFUL:
        days = settings.revive_harmful_after_days
    elif row.id in situation.activated_s:  # it helped once: what changed may change again
        return not is_cooled_down(row, settings, situation.now_s)
    else:
        days = settings.revive_after_days
    return situation.now_s - parse_iso(row.removed_at) < days * DAY_S


def _n_arms(column: Column, conditions: Conditions, rows: Sequence[PatternRow], finds: Sequence[Find]) -> int:
    """Return how many other instructions a find would meet in its dimension."""
    live = {
        (row.value or row.id)
        for row in rows
        if row.state in LIVE_STATES and row.dimension == column.dimension and overlaps(row.conditions, conditions)
    }
    found = {
        one.column.value
        for one in finds
        if one.column.dimension == column.dimension and overlaps(one.conditions, conditions)
    }
    return len(live | found)


def _is_shadow(
    option: _Option, conditions: Conditions, rows: Sequence[PatternRow], finds: Sequence[Find], beliefs: Beliefs
) -> bool:
    """Return whether the characteristic cannot be told apart from one that is tried already.

    It always comes together with one of another dimension; or it is to be avoided, and all replies without it have one
    other value of its dimension: to ask for that is the same, and plainer.
    """
    if beliefs.together is None:
        return False
    is_avoiding = option.column != option.source
    place = {column: index for index, column in enumerate(beliefs.columns)}
    tried = [
        Column(row.dimension, row.value)
        for row in rows
        if row.state in LIVE_STATES and row.value and overlaps(row.conditions, conditions)
    ] + [one.column for one in finds if overlaps(one.conditions, conditions)]
    own = place[option.source]
    correlations = [(column, float(beliefs.together[own, place[column]])) for column in tried if column in place]
    return any(
        abs(value) >= DUPLICATE_CORRELATION
        if column.dimension != option.source.dimension
        else is_avoiding and value <= -DUPLICATE_CORRELATION
        for column, value in correlations
    )
