"""How much of each cell's traffic each pattern gets until the next run.

Sharpened probability matching for trials, within caps; a confirmed best takes the rest, warmed up over some runs. A
cell is a question type and a group; a conversation in none of them falls to the rest ("") of either. Axes: N cells,
f columns, k columns of one dimension. Source: PATTERNS, section 4.5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from learner.patterns.beliefs import Beliefs, GroupField, Scope, Strata
from learner.patterns.keys import column_of
from learner.patterns.lifecycle import Change
from learner.patterns.normal import Floats, cdf
from learner.patterns.observations import Booleans, Column, Integers
from learner.patterns.readings import Readings
from store.config import PatternsSection
from store.pattern_review import BESIDE_SHARE
from store.patterns import PatternRow
from store.plan import CellShare, Conditions

N_DRAWS: Final = 1000  # from the posterior, the same for all cells: cells that differ in nothing are dealt the same
PRIOR_SD: Final = 0.06  # of an instruction's effect in a cell, in standard deviations of a residual, before any record
SHARPNESS: Final = 4.0  # exponent on P(best) ...
SMALL_SHARPNESS: Final = 16.0  # ... of a small tenant, that has no traffic to explore with
FLOOR: Final = 0.01  # a smaller share gets nothing
PROBATION: Final = 0.9  # P(lift > 0) of one trial at which its dimension may pass the cap of trials
PROVING_SIGNALS: Final = 100  # treated responses with signals before that: a strong effect is proven by then, and half
# as many responses prove it at even odds as at nine to one
ASKED_SIGNALS: Final = 30  # treated responses with signals that a person who asks for a trial gets in any case
LOCKED_BESIDE_ACTIVE: Final = 0.3  # trials keep this part of their shares beside a confirmed pattern
CELL_CONFIDENCE: Final = 0.8  # in a cell where P(lift > 0) is less, an active pattern gets no more than a trial would
CLASH_SHARE: Final = 0.3  # from this share of the better one on, the worse of two that harm each other gets nothing
STEADY: Final = 0.03  # a share that moves by less stays: plans, and prompts that providers cache, change less often
RANKS: Final = ("trial", "warmdown", "active")  # which of two patterns with one instruction serves a cell
NOBODY: Final = -1


@dataclass(frozen=True, slots=True)
class Cells:
    """What is believed of f columns in N cells, the rest ("") of both axes among them."""

    names: Sequence[tuple[str, str]]  # (N,) question type and group
    field: GroupField | None
    traffic: Floats  # (N,) sums to 1; 0 for cells that the model does not have
    columns: Sequence[Column]  # (f,)
    mean: Floats  # (N, f)
    sd: Floats  # (N, f)

    @property
    def confidence(self) -> Floats:
        """Return P(lift > 0) (N, f)."""
        return cdf(self.mean / self.sd)

    def covered(self, conditions: Conditions) -> Booleans:
        """Return the cells (N,) of which some conversation can match; values without a cell belong to the rest.

        Fields that are no axis of the cells restrict conversations, not cells.
        """
        by_group: tuple[str, ...] = getattr(conditions, self.field) if self.field is not None else ()
        types = self._known(conditions.question_type, axis=0)
        groups = self._known(by_group, axis=1)
        return np.array([(not types or q in types) and (not groups or g in groups) for q, g in self.names], np.bool_)

    def _known(self, values: Sequence[str], axis: int) -> set[str]:
        known = {name[axis] for name in self.names}
        return {value if value in known else "" for value in values}


def cells_of(beliefs: Beliefs, columns: Sequence[Column]) -> Cells:
    """Return what is believed in every cell; *columns* that the beliefs do not know have their prior alone."""
    strata = beliefs.strata
    scopes = {scope: index for index, scope in enumerate(strata.scopes)}
    types = _with_rest(strata.question_types)
    groups = _with_rest(strata.groups)
    names = [(q, g) for q in types for g in groups]
    at = [_place(strata, q, g) for q, g in names]
    mean = [beliefs.cell_mean[p] if p else _by_key(beliefs.key_mean, scopes, n) for p, n in zip(at, names, strict=True)]
    sd = [beliefs.cell_sd[p] if p else _by_key(beliefs.key_sd, scopes, n) for p, n in zip(at, names, strict=True)]
    new = [column for column in dict.fromkeys(columns) if column not in set(beliefs.columns)]
    prior = (len(names), len(new))
    return Cells(
        names=names,
        field=strata.field,
        traffic=np.array([beliefs.traffic[p] if p else 0.0 for p in at], np.float64),
        columns=[*beliefs.columns, *new],
        mean=np.hstack([np.array(mean, np.float64).reshape(len(names), -1), np.zeros(prior)]),
        sd=np.hstack(
            [np.array(sd, np.float64).reshape(len(names), -1), np.full(prior, PRIOR_SD * beliefs.variance**0.5)]
        ),
    )


def _with_rest(names: Sequence[str]) -> list[str]:
    return list(names) if "" in names else [*names, ""]


def _place(strata: Strata, question_type: str, group: str) -> tuple[int, int] | None:
    if question_type not in strata.question_types or group not in strata.groups:
        return None
    return list(strata.question_types).index(question_type), list(strata.groups).index(group)


def _by_key(values: Floats, scopes: Mapping[Scope, int], name: tuple[str, str]) -> Floats:
    """Return (f,) of the narrowest scope that is known of a cell that the model does not have."""
    by_type, by_group = scopes.get(Scope(question_type=name[0])), scopes.get(Scope(group=name[1]))
    return np.asarray(values[by_type if by_type is not None else by_group if by_group is not None else 0], np.float64)


def normals(rng: np.random.Generator, n_columns: int) -> Floats:
    """Return the standard normal draws (N_DRAWS, f) that all comparisons of a run are made with."""
    return rng.standard_normal((N_DRAWS, n_columns))


def best_odds(mean: Floats, sd: Floats, present: Booleans, draws: Floats) -> tuple[Floats, Floats, Floats]:
    """Return P(best and better than nothing) (N, k), P(nothing is best) (N,), and E max(0, best) (N,).

    Args:
        mean: (N, k), k at least 1.
        sd: (N, k).
        present: (N, k) what competes in a cell.
        draws: (n_draws, k) standard normal.
    """
    lifts = lifts_of(mean, sd, present, draws)
    winner, top = lifts.argmax(2), lifts.max(2)
    is_better = top > 0
    best = np.stack([((winner == arm) & is_better).mean(0) for arm in range(mean.shape[1])], axis=1)
    return best, np.asarray(1 - best.sum(1), np.float64), np.asarray(np.maximum(top, 0.0).mean(0), np.float64)


def lifts_of(mean: Floats, sd: Floats, present: Booleans | np.bool_, draws: Floats) -> Floats:
    """Return drawn lifts (n_draws, N, k), minus infinity for what does not compete."""
    return np.where(present, mean + sd * draws[:, None, :], -np.inf)


def sharpened(best: Floats, none: Floats, sharpness: float) -> Floats:
    """Return shares (N, k) in proportion to a power of P(best), nothing for those under the floor.

    >>> sharpened(np.array([[0.7, 0.2]]), np.array([0.1]), 4.0).round(3)
    array([[0.993, 0.   ]])
    """
    powers = best**sharpness
    total = powers.sum(1) + none**sharpness
    shares = powers / np.maximum(total, 1e-300)[:, None]
    return np.asarray(np.where(shares < FLOOR, 0.0, shares), np.float64)


@dataclass(frozen=True, slots=True)
class Dealt:
    """Changes with their shares, and what was seen of them on the way."""

    changes: list[Change]
    priorities: dict[str, float]  # dimension -> what it is worth per token
    odds: dict[str, float]  # pattern -> the largest P(best) of the cells that it may serve; of those that may serve any


def deal(
    changes: Sequence[Change],
    others: Sequence[PatternRow],
    readings: Readings,
    settings: PatternsSection,
    rng: np.random.Generator,
) -> Dealt:
    """Return *changes* with the shares of all that is served dealt.

    Args:
        changes: of every pattern that is measured; the rows after the run are dealt for.
        others: disabled patterns: what they ask for is not served in their scope.
        readings: what is known.
        settings: caps.
        rng: the run's.
    """
    rows = [change.after for change in changes]
    strata = readings.beliefs.strata
    cells = cells_of(readings.beliefs, [column_of(row, strata.field) for row in rows])
    table = _Table(cells, rows, others)
    draws = normals(rng, len(cells.columns))
    shares, odds = np.zeros((2, len(cells.names), len(cells.columns)))
    gains: dict[str, Floats] = {}
    for dimension, columns in table.dimensions.items():
        hands = table.hands(columns)
        best, none, gains[dimension] = best_odds(
            cells.mean[:, columns], cells.sd[:, columns], hands >= 0, draws[:, columns]
        )
        odds[:, columns] = best
        shares[:, columns] = _Dimension(cells, changes, columns, hands, readings, settings).deal(best, none)
    shares = _without_clashes(shares, table, readings.beliefs)
    shares = _steadied(_rounded(shares), changes, table, settings)
    dealt = [_with_shares(change, index, shares, table) for index, change in enumerate(changes)]
    priorities = _priorities([change.after for change in dealt], gains, cells)
    return Dealt(dealt, priorities, table.largest(odds))


class _Table:
    """Which row serves each column in each cell."""

    def __init__(self, cells: Cells, rows: Sequence[PatternRow], disabled: Sequence[PatternRow]) -> None:
        self.cells = cells
        self.rows = rows
        place = {column: index for index, column in enumerate(cells.columns)}
        self.column: Integers = np.array([place[column_of(row, cells.field)] for row in rows], np.int64)
        self.covered = [cells.covered(row.conditions) for row in rows]
        self.server: Integers = np.full((len(cells.names), len(cells.columns)), NOBODY, np.int64)
        dealt = [index for index, row in enumerate(rows) if row.state in RANKS]
        for index in sorted(dealt, key=self._rank):
            self.server[self.covered[index], self.column[index]] = index
        for row in disabled:
            column = place.get(column_of(row, cells.field))
            if column is not None:
                self.server[cells.covered(row.conditions), column] = NOBODY
        self.pinned = np.zeros(self.server.shape, np.bool_)
        for index, row in enumerate(rows):
            if row.state == "pinned" and _is_by_cell(row.conditions, cells.field):
                self.pinned[self.covered[index], self.column[index]] = True
                rivals = np.array([column.dimension == row.dimension for column in cells.columns], np.bool_)
                self.server[np.ix_(self.covered[index], rivals)] = NOBODY

    def _rank(self, index: int) -> tuple[int, int, str]:
        row = self.rows[index]
        return RANKS.index(row.state), row.conditions.specificity, row.id

    @property
    def dimensions(self) -> dict[str, list[int]]:
        """Return the columns that are served somewhere, by dimension."""
        served: dict[str, list[int]] = {}
        for index in np.flatnonzero((self.server >= 0).any(0)).tolist():
            served.setdefault(self.cells.columns[index].dimension, []).append(index)
        return dict(sorted(served.items()))

    def largest(self, values: Floats) -> dict[str, float]:
        """Return the largest of *values* (N, f) of each row that serves a cell, by the id of its pattern.

        Cells that nobody's conversation is in count for those alone that serve no other.
        """
        met: dict[str, float] = {}
        unmet: dict[str, float] = {}
        for cell, column in np.argwhere(self.server >= 0).tolist():
            name = self.rows[self.server[cell, column]].id
            found = met if self.cells.traffic[cell] > 0 else unmet
            found[name] = max(found.get(name, 0.0), float(values[cell, column]))
        return unmet | met

    def hands(self, columns: Sequence[int]) -> Integers:
        """Return the rows (N, k) that serve *columns*."""
        return self.server[:, columns]


def _is_by_cell(conditions: Conditions, field: GroupField | None) -> bool:
    return all(
        not getattr(conditions, name) or name in ("question_type", field) for name in Conditions.__struct_fields__
    )


@dataclass(frozen=True, slots=True)
class _Dimension:
    """The arms of one dimension in all cells."""

    cells: Cells
    changes: Sequence[Change]
    columns: Sequence[int]  # (k,)
    hands: Integers  # (N, k)
    readings: Readings
    settings: PatternsSection

    def deal(self, best: Floats, none: Floats) -> Floats:
        """Return the shares (N, k)."""
        is_small = self.readings.beliefs.n_signals < self.settings.small_signals
        matched = sharpened(best, none, SMALL_SHARPNESS if is_small else SHARPNESS)
        unlocked = self._warmth()
        is_trial = (self.hands >= 0) & (unlocked <= 0)
        is_cooling = self._in_state("warmdown")
        cap = self._cap(is_trial, is_small=is_small)
        trials = np.where(is_trial & ~is_cooling, np.where(self._is_alone() & (best >= FLOOR), 1.0, matched), 0.0)
        trials = _within(trials, cap)
        trials = np.where((unlocked > 0).any(1, keepdims=True), trials * LOCKED_BESIDE_ACTIVE, trials)
        trials = _within(np.maximum(trials, self._owed()), cap)
        cooling = self._cooling() * is_cooling
        return _within(trials + cooling + self._confirmed(unlocked, trials + cooling), np.full(len(cap), self._most))

    @property
    def _most(self) -> float:
        return min(self.settings.active_share, 1 - self.settings.hold_back)

    def _in_state(self, state: str) -> Booleans:
        is_in = np.array([change.after.state == state for change in self.changes] + [False], np.bool_)
        return np.asarray(is_in[self.hands], np.bool_)

    def _warmth(self) -> Floats:
        """Return how far each confirmed arm is warmed up (N, k), in (0, 1]; 0 for all others."""
        level = [change.after.warm_step / max(self.settings.warmup_runs, 1) for change in self.changes]
        warmth = np.array([*level, 0.0])[self.hands] * self._in_state("active")
        is_sure = self.cells.confidence[:, self.columns] > CELL_CONFIDENCE
        return np.asarray(np.where(is_sure, np.minimum(warmth, 1.0), 0.0), np.float64)

    def _cap(self, is_trial: Booleans, *, is_small: bool) -> Floats:
        """Return what all trials of a cell may have together (N,)."""
        settings = self.settings
        competes = is_trial.sum(1) > 1
        cap = np.where(competes & is_small, max(settings.small_trial_share, settings.trial_share), settings.trial_share)
        is_tried = np.array([self.readings.n_treated(self.cells.columns[c]) for c in self.columns]) >= PROVING_SIGNALS
        promising = is_trial & is_tried & (self.cells.confidence[:, self.columns] >= PROBATION)
        cap = np.where(promising.any(1), self._most, cap)
        # What a crash put back into trial this moment must earn a larger share anew.
        is_back = [change.before.state == "active" and change.after.state == "trial" for change in self.changes]
        has_back = np.array([*is_back, False], np.bool_)[self.hands].any(1)
        return np.minimum(np.where(has_back, np.minimum(cap, settings.trial_share), cap), self._most)

    def _is_alone(self) -> Booleans:
        """Return (N, k): a first trial that meets nothing in its cell has the whole share, to learn soonest."""
        is_new = [change.after.share <= 0 and change.after.state == "trial" for change in self.changes]
        alone = (self.hands >= 0).sum(1, keepdims=True) == 1
        return np.asarray(alone & np.array([*is_new, False], np.bool_)[self.hands], np.bool_)

    def _owed(self) -> Floats:
        """Return the least shares (N, k) of trials that a person asked for."""
        is_owed = [
            change.after.is_approved
            and change.after.state == "trial"
            and self.readings.n_treated(column_of(change.after, self.cells.field)) < ASKED_SIGNALS
            for change in self.changes
        ]
        return np.where(np.array([*is_owed, False], np.bool_)[self.hands], BESIDE_SHARE, 0.0)

    def _cooling(self) -> Floats:
        """Return what is left (N, k) of what was served, one step less with each run."""
        left = np.zeros(self.hands.shape)
        for cell, arm in zip(*np.nonzero(self._in_state("warmdown")), strict=True):
            change = self.changes[self.hands[cell, arm]]
            steps = change.after.warm_step
            fall = steps / (steps + 1) if change.before.state == "warmdown" else 1.0
            left[cell, arm] = share_in(change.before, self.cells.names[cell]) * fall
        return left

    def _confirmed(self, unlocked: Floats, trials: Floats) -> Floats:
        """Return the share (N, k) of the best confirmed arm of each cell: what warm-up allows and trials leave."""
        settings, most = self.settings, self._most
        shares = np.zeros(self.hands.shape)
        mean = np.where(unlocked > 0, self.cells.mean[:, self.columns], -np.inf)
        for cell in np.flatnonzero((unlocked > 0).any(1)).tolist():
            arm = int(mean[cell].argmax())
            before = share_in(self.changes[self.hands[cell, arm]].before, self.cells.names[cell])
            warm = settings.trial_share + (most - settings.trial_share) * unlocked[cell, arm]
            # Never less than it had: a trial on probation may have had more than warm-up begins with.
            shares[cell, arm] = max(max(warm, min(before, most)) - trials[cell].sum(), 0.0)
        return shares


def _within(shares: Floats, cap: Floats) -> Floats:
    """Return *shares* (N, k) scaled down so that no cell has more than *cap* (N,)."""
    return np.asarray(shares * np.minimum(1.0, cap / np.maximum(shares.sum(1), 1e-12))[:, None], np.float64)


def share_in(row: PatternRow, cell: tuple[str, str]) -> float:
    """Return the share that a row has in a cell named by question type and group."""
    named = [one.share for one in row.cells if (one.question_type, one.group) == cell]
    return named[0] if named else row.share


def _without_clashes(shares: Floats, table: _Table, beliefs: Beliefs) -> Floats:
    """Return *shares* (N, f) with the worse of two that harm each other left out where the better is served widely."""
    kept = shares.copy()
    weight = np.where(table.pinned, np.inf, table.cells.mean)
    widely = (shares > CLASH_SHARE) | table.pinned
    for one, other in np.argwhere(np.triu(beliefs.clashes, 1)).tolist():
        is_worse = weight[:, one] < weight[:, other]
        kept[:, one] = np.where(is_worse & widely[:, other], 0.0, kept[:, one])
        kept[:, other] = np.where(~is_worse & widely[:, one], 0.0, kept[:, other])
    return kept


def _rounded(shares: Floats) -> Floats:
    """Return *shares* in whole hundredths, rounded down: caps stay kept."""
    return np.asarray(np.floor(shares * 100 + 1e-6) / 100, np.float64)


def _steadied(shares: Floats, changes: Sequence[Change], table: _Table, settings: PatternsSection) -> Floats:
    """Return *shares* (N, f), those kept as they were that hardly moved, where all of a cell still fit together."""
    kept = shares.copy()
    for cell, column in zip(*np.nonzero((table.server >= 0) & (shares > 0)), strict=True):
        change = changes[table.server[cell, column]]
        before = share_in(change.before, table.cells.names[cell])
        is_same = change.before.state == change.after.state and change.after.state != "warmdown"
        if is_same and before > 0 and abs(before - shares[cell, column]) < STEADY:
            kept[cell, column] = before
    most = min(settings.active_share, 1 - settings.hold_back)
    for columns in table.dimensions.values():
        total, wanted = kept[:, columns].sum(1), shares[:, columns].sum(1)
        is_too_much = (total > most + 1e-9) | (total > wanted + STEADY)
        kept[np.ix_(is_too_much, columns)] = shares[np.ix_(is_too_much, columns)]
    return kept


def _with_shares(change: Change, index: int, shares: Floats, table: _Table) -> Change:
    """Return the change with the row's shares by cell, and their mean for conversations in no cell."""
    row, cells = change.after, table.cells
    if row.state not in RANKS:
        return change
    column = table.column[index]
    own = np.where(table.server[:, column] == index, shares[:, column], 0.0)
    covered = table.covered[index]
    traffic = cells.traffic[covered]
    mean = float(np.average(own[covered], weights=traffic)) if traffic.sum() > 0 else float(own[covered].mean())
    share = max(round(mean, 2), 0.01) if own.any() else 0.0
    named = [(name, round(float(own[place]), 2)) for place, name in enumerate(cells.names) if covered[place]]
    by_cell = tuple(CellShare(*name, value) for name, value in named if value != share)
    return replace(change, after=replace(row, share=share, cells=by_cell))


def _priorities(rows: Sequence[PatternRow], gains: Mapping[str, Floats], cells: Cells) -> dict[str, float]:
    """Return what each dimension is worth: (expected best lift per token of the dearest)^3, above 0.

    Source: PATTERNS, section 4.2.
    """
    dearest: dict[str, int] = {}
    for row in rows:
        if row.share > 0 and row.state in RANKS:
            dearest[row.dimension] = max(dearest.get(row.dimension, 1), row.tokens)
    traffic = cells.traffic if cells.traffic.sum() > 0 else np.ones(len(cells.names))
    worth = {name: float(np.average(gains[name], weights=traffic)) / tokens for name, tokens in dearest.items()}
    # In hundredths of a percent per token: the power of a plain lift would vanish beside the least worth.
    return {name: (value * 1e4) ** 3 + 1e-9 for name, value in sorted(worth.items())}
