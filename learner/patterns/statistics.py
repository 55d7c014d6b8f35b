"""What the learner keeps of the records, as sums: it takes observations in and says what they show.

The flow of one chunk of responses: residuals, then regression, evidence by key, pairs and moments of families. What is
predicted for a response comes from earlier chunks and from the last ``refit``. Source: PATTERNS, section 4.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from learner.patterns.axes import N_BUCKETS, Axes
from learner.patterns.beliefs import Beliefs, GroupField, Guardrails, Key, Strata
from learner.patterns.calibration import Moments
from learner.patterns.clashes import Pairs
from learner.patterns.coded import Coded, chunks, encode
from learner.patterns.effects import Effects, NaturalCounts, Regression, Scales, solve
from learner.patterns.evidence import Contrast, log_bets_of
from learner.patterns.ledger import GUARDRAILS, SCORE, Ledger
from learner.patterns.normal import Floats
from learner.patterns.observations import FAMILIES, Column, Observations
from learner.patterns.residuals import Baselines
from learner.patterns.saved import State, pack, unpack
from learner.patterns.sums import Shape, Sums
from learner.patterns.tallies import Account, copied, count_uses
from store.clock import DAY_S
from store.config import PatternsSection

SIGNAL_DAYS: Final = 90.0  # over which signals are counted to tell a small tenant
SMALL_TENANT: Final = 2000.0  # signals. Source: PATTERNS, section 4.5
WEIGHING_DAYS: Final = 7.0  # between two looks at what families are worth
WORSE: Final = {"rating": -1.0, "follow_up": 1.0, "regenerate": 1.0}  # the direction that is feared


class Fit(Sums):
    """The effects that are predicted, and so taken out, when later responses are looked at."""

    AXES: ClassVar[dict[str, Shape]] = {"cell_mean": ("q", "s", "f")}
    cell_mean: Floats


class Statistics:
    """The sums of one tenant.

    Raises:
        ValueError: a weight is of no family, or thumbs, by which the others are measured, have none.
    """

    VERSION: Final = 3

    def __init__(
        self, settings: PatternsSection, family_weights: Mapping[str, float], strata_field: GroupField | None
    ) -> None:
        if "thumb" not in family_weights or not set(family_weights) <= set(FAMILIES):
            raise ValueError(f"weights of thumb and of others of {FAMILIES} are needed, not of {tuple(family_weights)}")
        self.settings = settings
        self.configured = np.array([family_weights.get(name, 0.0) for name in FAMILIES], np.float64)
        self.strata_field = strata_field
        self.axes = Axes()
        sizes = self.axes.sizes
        self.baselines = Baselines(sizes)
        self.natural = NaturalCounts(sizes)
        self.regression = Regression(sizes)
        self.scales = Scales(sizes)
        self.ledger = Ledger(sizes)
        self.pairs = Pairs(sizes)
        self.moments = Moments(sizes)
        self.fit = Fit(sizes)
        self.accounts: dict[str, Account] = {}
        self.signals_by_day: dict[int, float] = {}
        self.weights = self.configured
        self.weighed_s = 0.0
        self.n_responses = 0

    def absorb(self, observations: Observations, *, is_late: bool = False) -> None:
        """Add *observations*.

        With *is_late* they are responses that were added before, and their signals are only what has changed: they add
        to scores, never to counts or information.
        """
        if not len(observations.created_s):
            return
        self.axes.meet(observations)
        self._grow()
        batch, uses, bounds = encode(observations, self.axes)
        for start, end in chunks(bounds, self.n_responses):
            if is_late:
                self._amend(batch.between(start, end))
            else:
                self._take(batch.between(start, end))
        if is_late:
            return
        self.n_responses += len(batch)
        pattern_ids = observations.exposures.pattern_ids
        count_uses(self.accounts, batch, uses, pattern_ids, self.settings)
        self._count_signals(batch)

    def refit(self, now_s: float) -> Beliefs:
        """Return what the sums show at *now_s*, and predict by it from now on."""
        if abs(now_s - self.weighed_s) >= WEIGHING_DAYS * DAY_S:
            self.weights = self.moments.weights(self.configured)
            self.weighed_s = now_s
        n_signals = self._n_signals(now_s)
        variance = self.baselines.variance(self.weights)
        effects = solve(
            self.regression,
            self.scales,
            self.weights,
            variance,
            fading=self.regression.fading(now_s, self.settings.half_life_days),
            is_small=n_signals < SMALL_TENANT,
            crowding=self._crowding(),
        )
        self.fit.cell_mean = effects.cell_mean
        return self._beliefs(effects, variance, n_signals)

    def reset(self, key: Key, at_s: float) -> None:
        """Begin the evidence of *key* anew: responses created before *at_s* never count for it again."""
        self.axes.admit(key)
        self._grow()
        place = self.axes.place(key)
        if place is not None:
            self.ledger.reset(*place, at_s)

    def discount(self, key: Key, keep: float) -> None:
        """Keep only the part *keep* of what is believed of *key*: it turned out to have changed."""
        place, cells = self.axes.place(key), self.axes.cells(key.scope)
        if place is not None and cells is not None:
            self.regression.discount(cells, place[1], keep)

    def adopt(self, other: "Statistics") -> None:
        """Take over fit, prior scales and weights of *other*, a copy that saw more; none of its sums."""
        self.axes = other.axes.copy()
        self._grow()
        self.fit, self.scales = other.fit.copy(), other.scales.copy()
        self.weights, self.weighed_s = other.weights, other.weighed_s

    def copy(self) -> "Statistics":
        """Return statistics of the same state, to be added to apart."""
        twin = object.__new__(Statistics)
        twin.__dict__.update(self.__dict__)
        twin.axes = self.axes.copy()
        for name in self._sums():
            setattr(twin, name, getattr(self, name).copy())
        twin.accounts = copied(self.accounts)
        twin.signals_by_day = dict(self.signals_by_day)
        return twin

    def _sums(self) -> dict[str, Sums]:
        return {name: value for name, value in self.__dict__.items() if isinstance(value, Sums)}

    def _grow(self) -> None:
        sizes = self.axes.sizes
        for sums in self._sums().values():
            sums.grow(sizes)

    def _take(self, chunk: Coded) -> None:
        fit = self.fit.cell_mean
        rate = self.baselines.rating_rate(chunk.voter)
        found = self.baselines.take(chunk, self.weights)
        coins = _dense(chunk, len(self.axes.columns))
        natural = self.natural.take(chunk)
        self.moments.take(chunk, rate)
        self.regression.take(chunk, coins, natural, found, self.settings.half_life_days)
        self.ledger.take(chunk, found, fit)
        self.pairs.take(chunk, coins, found, fit)

    def _amend(self, chunk: Coded) -> None:
        found = self.baselines.amend(chunk, self.weights)
        coins = _dense(chunk, len(self.axes.columns))
        self.regression.amend(chunk, coins, self.natural.centred(chunk), found, self.settings.half_life_days)
        self.ledger.take(chunk, found, self.fit.cell_mean, is_late=True)
        self.pairs.amend(coins, found)

    def _count_signals(self, batch: Coded) -> None:
        days = (batch.created_s // DAY_S).astype(np.int64)
        distinct, inverse = np.unique(days, return_inverse=True)
        counts = np.bincount(inverse, (batch.signals != 0).sum(1))
        for day, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            self.signals_by_day[day] = self.signals_by_day.get(day, 0.0) + count

    def _n_signals(self, now_s: float) -> float:
        last = now_s // DAY_S
        return sum(n for day, n in self.signals_by_day.items() if last - SIGNAL_DAYS < day <= last)

    def _beliefs(self, effects: Effects, variance: float, n_signals: float) -> Beliefs:
        axes, places = self.axes, self.axes.scope_places
        columns = list(axes.columns)
        strata = Strata(list(axes.question_types), list(axes.groups), self.strata_field)
        contrasts = self._contrasts(SCORE)
        score, information, spread = self.ledger.totals(places, SCORE)
        log_e = np.where(information > 0, log_bets_of(score, spread, variance), -np.inf)
        scopes = strata.scopes
        responses = self.regression.responses
        dimensions = axes.dimensions
        codes = np.array([dimensions.index(column.dimension) for column in columns], np.int64)
        seen_score, seen_information = self.regression.seen(self.weights)
        return Beliefs(
            columns=columns,
            strata=strata,
            traffic=responses / max(float(responses.sum()), 1e-300),
            n_observed=self.natural.observed.copy(),
            natural=self.natural.shares(),
            cell_mean=effects.cell_mean,
            cell_sd=effects.cell_sd,
            key_mean=effects.key_mean,
            key_sd=effects.key_sd,
            log_e=log_e,
            harm_z=self.ledger.harm_z(places),
            n_treated=self.ledger.n_treated[places],
            guardrails=self._guardrails(),
            clashes=self.pairs.clashes(effects.key_mean[0], codes, variance),
            variance=variance,
            weights=dict(zip(FAMILIES, self.weights.tolist(), strict=True)),
            n_signals=n_signals,
            contrasts={Key(scopes[scope], columns[column]): found for (scope, column), found in contrasts.items()},
            tallies={pattern_id: account.read() for pattern_id, account in self.accounts.items()},
            observed_users=self.natural.n_observers(places),
            together=self.regression.together(),
            seen_score=seen_score,
            seen_information=seen_information,
            days=self.ledger.days(places),
        )

    def _crowding(self) -> Floats:
        """Return how far accounts crowd each column (q, s, f): the worst of all, its question type and its group."""
        by_key = self.ledger.crowding(self.axes.scope_places)
        n_types = len(self.axes.question_types)
        by_type, by_group = by_key[1 : 1 + n_types], by_key[1 + n_types :]
        return np.asarray(np.maximum(np.maximum(by_type[:, None], by_group[None]), by_key[0]), np.float64)

    def _contrasts(self, outcome: int) -> dict[tuple[int, int], Contrast]:
        found = {}
        for scope, place in enumerate(self.axes.scope_places.tolist()):
            for column in range(len(self.axes.columns)):
                contrast = self.ledger.contrast(place, column, outcome)
                if contrast is not None:
                    found[scope, column] = contrast
        return found

    def _guardrails(self) -> Guardrails:
        difference: dict[str, Floats] = {}
        log_e_worse: dict[str, Floats] = {}
        places = self.axes.scope_places
        for index, (metric, outcome) in enumerate(GUARDRAILS.items(), start=1):
            score, information, spread = self.ledger.totals(places, index)
            is_seen = information > 0
            logs = log_bets_of(WORSE[metric] * score, spread, self.baselines.variance_of(outcome))
            difference[metric] = np.where(is_seen, score / np.where(is_seen, information, 1.0), 0.0)
            log_e_worse[metric] = np.where(is_seen, logs, -np.inf)
        rates = {metric: self.baselines.rate_of(outcome) for metric, outcome in GUARDRAILS.items()}
        return Guardrails(tuple(GUARDRAILS), difference, log_e_worse, rates)

    def encode(self) -> bytes:
        """Return the state as bytes; reading them runs no code."""
        arrays: dict[str, NDArray[Any]] = {
            f"{name}.{field}": a for name, sums in self._sums().items() for field, a in sums.arrays().items()
        }
        names = list(self.accounts)
        arrays |= {f"users.{i}": np.packbits(self.accounts[name].users) for i, name in enumerate(names)}
        axes = self.axes
        state = State(
            version=self.VERSION,
            strata_field=self.strata_field,
            question_types=axes.question_types,
            groups=axes.groups,
            columns=[(column.dimension, column.value) for column in axes.columns],
            users=list(axes.users),
            accounts=[self.accounts[name].saved(name) for name in names],
            signals_by_day=self.signals_by_day,
            configured=self.configured.tolist(),
            weights=self.weights.tolist(),
            weighed_s=self.weighed_s,
            n_responses=self.n_responses,
        )
        return pack(state, arrays)

    @classmethod
    def decode(
        cls,
        data: bytes,
        settings: PatternsSection,
        family_weights: Mapping[str, float],
        strata_field: GroupField | None,
    ) -> "Statistics":
        """Return the statistics that ``encode`` wrote.

        Raises:
            ValueError: *data* is damaged, or of another version, stratum or set of configured weights.
        """
        state, arrays = unpack(data)
        found = cls(settings, family_weights, strata_field)
        kept = (state.version, state.strata_field, state.configured)
        wanted = (cls.VERSION, strata_field, found.configured.tolist())
        if kept != wanted:
            raise ValueError(f"the state was written for {kept}, not for {wanted}")
        columns = [Column(*names) for names in state.columns]
        users = {name: N_BUCKETS + index for index, name in enumerate(state.users)}
        found.axes = Axes(state.question_types, state.groups, columns, users)
        for name, sums in found._sums().items():
            sums.restore({field: arrays.get(f"{name}.{field}", np.zeros(())) for field in sums.AXES})
            sums.check(found.axes.sizes)
        found.accounts = {
            saved.pattern_id: Account.of(saved, arrays[f"users.{index}"]) for index, saved in enumerate(state.accounts)
        }
        found.signals_by_day = dict(state.signals_by_day)
        found.weights = np.array(state.weights, np.float64)
        found.weighed_s, found.n_responses = state.weighed_s, state.n_responses
        return found


def _dense(chunk: Coded, n_columns: int) -> Floats:
    """Return the centred coins of *chunk* as a table (n, f), 0 where a column was not in play."""
    coins = np.zeros((len(chunk), n_columns))
    coins[chunk.draws.row, chunk.draws.column] = chunk.draws.coin
    return coins
