"""The joint model: what each instruction adds to the score, in each cell of question type and group.

score = sum_v (c_v + o_v / kappa) effect_v + sum_v o_v bias_v + noise, with c_v the centred coin of column v and o_v its
centred natural value. An effect is the sum of an org-wide part, one of the question type and one of the group; the bias
absorbs confounding, so that the trials decide how far the records are believed. Source: PATTERNS, section 4.3.

Coins and natural values are two bodies of evidence: their products, 0 but for chance by design, are left out. With them
the natural values would explain the untreated (who alone have natural values, and whose share of a value is only known
from earlier responses), and take from an instruction what it truly does against none. So what the randomised part says
of an effect is the same contrast that its e-value bets on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from learner.patterns.axes import MAX_GROUPS, MAX_TYPES, N_BUCKETS, N_SCOPES, n_users
from learner.patterns.coded import Coded
from learner.patterns.ledger import CROWDED
from learner.patterns.normal import Floats
from learner.patterns.observations import FAMILIES, Integers
from learner.patterns.residuals import RATING, Residuals
from learner.patterns.sums import Shape, Sums
from store.clock import DAY_S

PARTS: Final = ("org", "question_type", "group", "bias")
PART_SD: Final = np.array([0.05, 0.025, 0.025, 0.05])  # prior, in standard deviations of a residual score
COMPLIANCE: Final = 0.85  # kappa: share of replies that do what a pattern says
OBSERVATIONAL_WEIGHT: Final = 0.5  # of the natural values ...
SMALL_WEIGHT: Final = 1.0  # ... and for a tenant with few signals. Source: PATTERNS, section 4.5
DESIGN_EFFECT: Final = 1.1  # of conversations and users on a variance
POOL_PRIOR: Final = 10.0  # effects that the prior scale is worth
TAIL_DF: Final = 4.0  # Student's: one strong pattern must not widen the prior of all
EM_RATE: Final = 0.25  # of the step towards a new prior scale
FIRST_WIDTH: Final = 100.0  # times the prior variance at which the first solve of a fit begins: from there ...
STEPS: Final = 6  # ... so many solves shrink what is noise, and a large effect of a small tenant stands out at once
MIN_SCALE: Final = 1e-6
NATURAL_PRIOR: Final = 10.0  # responses that the wider share of a value is worth in a narrower stratum
BIAS: Final = N_SCOPES  # place of the biases after the scopes


class NaturalCounts(Sums):
    """How often replies had a value of their own accord."""

    AXES: ClassVar[dict[str, Shape]] = {
        "has": ("q", "s", "f"),
        "applies": ("q", "s", "f"),
        "observed": ("q", "s", "f"),
        "observers": (N_SCOPES, N_BUCKETS, "f"),
    }
    has: Floats
    applies: Floats
    observed: Floats  # those with signals
    observers: Floats  # 1 where a user of the bucket gave one

    def take(self, chunk: Coded) -> Floats:
        """Return the natural values of *chunk* centred by the shares of earlier ones (n, f), then count it."""
        centred = self.centred(chunk)
        n_groups, n_columns = self.has.shape[1:]
        cell = chunk.question_type * n_groups + chunk.group
        one_hot = np.zeros((len(chunk), self.has.shape[0] * n_groups))
        one_hot[np.arange(len(chunk)), cell] = 1.0
        has = chunk.has.astype(np.float64)
        values = np.concatenate([has, chunk.applies, has * chunk.is_rated[:, None]], 1)
        has_sum, applies_sum, observed_sum = np.split((one_hot.T @ values).reshape(-1, n_groups, 3 * n_columns), 3, -1)
        self.has += has_sum
        self.applies += applies_sum
        self.observed += observed_sum
        row, column = np.nonzero(chunk.has & chunk.is_rated[:, None])
        for scope in (0, 1 + chunk.question_type[row], 1 + MAX_TYPES + chunk.group[row]):
            self.observers[scope, chunk.bucket[row], column] = 1.0
        return centred

    def centred(self, chunk: Coded) -> Floats:
        """Return the natural values of *chunk* minus their shares in the cell (n, f); 0 where instructed."""
        return np.where(chunk.applies, chunk.has - self.shares()[chunk.question_type, chunk.group], 0.0)

    def n_observers(self, places: Integers) -> Floats:
        """Return about how many users are behind the observed of the scopes *places* (K, f)."""
        return n_users(self.observers[places].sum(1))

    def shares(self) -> Floats:
        """Return the share of replies with each value (q, s, f), shrunk towards the type's and the tenant's."""
        org = (self.has.sum((0, 1)) + 0.5) / (self.applies.sum((0, 1)) + 1.0)
        by_type = (self.has.sum(1) + NATURAL_PRIOR * org) / (self.applies.sum(1) + NATURAL_PRIOR)
        wider = NATURAL_PRIOR * by_type[:, None]
        return np.asarray((self.has + wider) / (self.applies + NATURAL_PRIOR), np.float64)


class Regression(Sums):
    """Products by cell, each row counted half after the half-life; axes of 2: coins, natural values."""

    AXES: ClassVar[dict[str, Shape]] = {
        "gram": ("q", "s", 2, "f", "f"),
        "cross": ("q", "s", 2, "f", len(FAMILIES)),
        "responses": ("q", "s"),
        "as_of_s": (1,),
    }
    gram: Floats
    cross: Floats
    responses: Floats
    as_of_s: Floats  # the moment at which a row counts fully

    def take(self, chunk: Coded, coins: Floats, natural: Floats, found: Residuals, half_life_days: float) -> None:
        """Add *chunk* with its *coins* (n, f) and centred *natural* values (n, f)."""
        self._age(float(chunk.created_s.max()), half_life_days)
        age = self._decay(chunk, half_life_days)
        weight = (found.weight * age)[:, None]
        n_groups = self.responses.shape[1]
        cell = chunk.question_type * n_groups + chunk.group
        order = np.argsort(cell, kind="stable")
        bounds = np.searchsorted(cell[order], np.arange(self.responses.size + 1))
        for index in np.flatnonzero(np.diff(bounds)).tolist():
            rows = order[bounds[index] : bounds[index + 1]]
            place = divmod(index, n_groups)
            for index_of_part, design in enumerate((coins[rows], natural[rows])):
                left = (design * weight[rows]).T
                self.gram[(*place, index_of_part)] += left @ design
                self.cross[(*place, index_of_part)] += left @ found.outcomes[rows, :RATING]
        self.responses += np.bincount(cell, age, self.responses.size).reshape(self.responses.shape)

    def amend(self, chunk: Coded, coins: Floats, natural: Floats, found: Residuals, half_life_days: float) -> None:
        """Add what late signals of earlier responses add to the products with outcomes."""
        age = self._decay(chunk, half_life_days) * found.weight
        n_columns = coins.shape[1]
        design = np.concatenate([coins, natural], 1)
        products = design[:, :, None] * (found.outcomes[:, :RATING] * age[:, None])[:, None, :]
        np.add.at(self.cross, (chunk.question_type, chunk.group), products.reshape(-1, 2, n_columns, len(FAMILIES)))

    def together(self) -> Floats:
        """Return how natural values go together within cells: correlations (f, f), 0 for those never seen."""
        products = self.gram[:, :, 1].sum((0, 1))
        size = np.sqrt(np.diag(products))
        return np.asarray(products / np.maximum(np.outer(size, size), 1e-12), np.float64)

    def discount(self, cells: tuple[slice, slice], column: int, keep: float) -> None:
        """Keep the part *keep* of what is known about *column* in *cells*: its effect has changed since.

        What the sums say of it is as it was, but less sure; what they say of the others is what is left when it is not
        known.
        """
        for gram, cross in zip(_flat(self.gram[cells]), _flat(self.cross[cells]), strict=True):
            _forget(gram, cross, column, keep)

    def thinned(self, crowding: Floats) -> "Regression":
        """Return sums in which each column's coins (q, s, f) weigh as much as independent responses would."""
        crowded = np.argwhere(crowding > CROWDED)
        if not len(crowded):
            return self
        thin = self.copy()
        for q, s, column in crowded.tolist():
            _forget(thin.gram[q, s, 0], thin.cross[q, s, 0], column, 1 / float(crowding[q, s, column]))
        return thin

    def seen(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return scores and information (q, s, f) of what replies were like of their own accord, without any prior."""
        information = np.einsum("qsff->qsf", self.gram[:, :, 1])
        return self.cross[:, :, 1] @ weights, np.array(information, np.float64)

    def fading(self, now_s: float, half_life_days: float) -> float:
        """Return what a row that counted fully counts at *now_s*."""
        return float(0.5 ** (max(now_s - float(self.as_of_s[0]), 0.0) / DAY_S / half_life_days))

    def _age(self, moment_s: float, half_life_days: float) -> None:
        if moment_s <= self.as_of_s[0]:
            return
        factor = self.fading(moment_s, half_life_days)
        self.gram *= factor
        self.cross *= factor
        self.responses *= factor
        self.as_of_s[0] = moment_s

    def _decay(self, chunk: Coded, half_life_days: float) -> Floats:
        age_days = np.maximum(self.as_of_s[0] - chunk.created_s, 0.0) / DAY_S
        return np.asarray(0.5 ** (age_days / half_life_days), np.float64)


class Scales(Sums):
    """How large effects are expected to be, by part. 0: not yet known."""

    AXES: ClassVar[dict[str, Shape]] = {"variance": (len(PARTS),)}
    variance: Floats


@dataclass(frozen=True, slots=True)
class Effects:
    """The posterior; Q, S, f as in ``Beliefs``."""

    cell_mean: Floats  # (Q, S, f)
    cell_sd: Floats
    key_mean: Floats  # (K, f)
    key_sd: Floats


def solve(
    sums: Regression,
    scales: Scales,
    weights: Floats,
    variance: float,
    *,
    fading: float,
    is_small: bool,
    crowding: Floats | None = None,
) -> Effects:
    """Return the posterior of all effects, and move *scales* one step towards what it shows.

    A part that would be the same for all responses (of the only question type, or the only group) is left out.
    *crowding* (q, s, f) says how many times as large the variance of a column's contrast is as that of as many
    independent responses: what one account says a thousand times is little evidence. None: nowhere larger.
    """
    n_types, n_groups = sums.responses.shape
    n_columns = sums.cross.shape[3]
    places = np.array(
        [0]
        + [1 + q for q in range(n_types) if n_types > 1]
        + [1 + MAX_TYPES + s for s in range(n_groups) if n_groups > 1]
        + [BIAS]
    )
    part = np.searchsorted([1, 1 + MAX_TYPES, 1 + MAX_TYPES + MAX_GROUPS], places, side="right")
    seen = sums if crowding is None else sums.thinned(crowding)
    matrix, vector = _normal_equations(seen, weights, fading, SMALL_WEIGHT if is_small else OBSERVATIONAL_WEIGHT)
    base = PART_SD**2 * variance
    scales.variance = np.where(scales.variance > 0, scales.variance, base)
    wide = scales.variance[part][:, None]
    local = np.repeat(FIRST_WIDTH * wide, n_columns, 1)
    noise = variance * DESIGN_EFFECT
    shape = (len(places), n_columns)
    for _ in range(STEPS):
        precision = matrix / noise
        precision[np.diag_indices(local.size)] += 1 / local.ravel()
        covariance = np.linalg.inv(precision)
        mean = (covariance @ (vector / noise)).reshape(shape)
        second = mean**2 + np.diag(covariance).reshape(shape)
        local = _tails(second, wide)
    _pool(scales, second, part, base)
    return _read(mean, np.einsum("ifjf->ijf", covariance.reshape(shape * 2)), n_types, n_groups)


def _normal_equations(sums: Regression, weights: Floats, fading: float, observational: float) -> tuple[Floats, Floats]:
    """Return the matrix and the vector of all blocks: org-wide, types, groups, biases."""
    n_types, n_groups = sums.responses.shape
    f = sums.cross.shape[3]
    root = observational**0.5
    natural = root / COMPLIANCE
    coins, seen = sums.gram[:, :, 0] * fading, sums.gram[:, :, 1] * fading
    effect = coins + natural**2 * seen
    effect_bias = root * natural * seen
    cross = (sums.cross * fading) @ weights
    score = cross[:, :, 0] + natural * cross[:, :, 1]
    types = range(n_types) if n_types > 1 else range(0)
    groups = range(n_groups) if n_groups > 1 else range(0)
    scopes: list[tuple[int | None, int | None]] = [
        (None, None),
        *((q, None) for q in types),
        *((None, s) for s in groups),
    ]
    size = (len(scopes) + 1) * f
    matrix, vector = np.zeros((size, size)), np.zeros(size)

    def over(values: Floats, q: int | None, s: int | None) -> Floats:
        chosen = values[slice(None) if q is None else slice(q, q + 1), slice(None) if s is None else slice(s, s + 1)]
        return np.asarray(chosen.sum((0, 1)), np.float64)

    last = slice(len(scopes) * f, size)
    for i, (q, s) in enumerate(scopes):
        at = slice(i * f, (i + 1) * f)
        vector[at] = over(score, q, s)
        matrix[at, last] = over(effect_bias, q, s)
        matrix[last, at] = matrix[at, last].T
        for j, (q2, s2) in enumerate(scopes[: i + 1]):
            if (q is not None and q2 is not None and q != q2) or (s is not None and s2 is not None and s != s2):
                continue
            product = over(effect, q if q is not None else q2, s if s is not None else s2)
            matrix[at, j * f : (j + 1) * f] = product
            matrix[j * f : (j + 1) * f, at] = product.T
    vector[last] = root * over(cross[:, :, 1], None, None)
    matrix[last, last] = observational * over(seen, None, None)
    return matrix, vector


def _flat(sums: Floats) -> Iterator[Floats]:
    """Yield each cell's and part's sums, to be changed in place: q, s and the part are the first axes."""
    for place in np.ndindex(sums.shape[:3]):
        yield sums[place]


def _forget(gram: Floats, cross: Floats, column: int, keep: float) -> None:
    """Keep the part *keep* of the information on *column* in *gram* (f, f) and *cross* (f, ...), changed in place.

    Source: Kalman's prediction step in information form, G' = (G^-1 + q e e^T)^-1 with q such that G'_ee = keep G_ee,
    and h' = G' G^-1 h.
    """
    own = float(gram[column, column])
    if own > 0:
        lost = (1 - keep) / own * gram[column]
        cross -= np.multiply.outer(lost, cross[column])
        gram -= np.outer(lost, gram[column])


def _tails(second: Floats, variance: Floats) -> Floats:
    """Return the prior variance of each effect under Student's tails, given its second moment."""
    return np.asarray(variance * (TAIL_DF + second / variance) / (TAIL_DF + 1), np.float64)


def _pool(scales: Scales, second: Floats, part: Integers, base: Floats) -> None:
    """Empirical Bayes with Student weights, worth ``POOL_PRIOR`` effects of the prior's scale."""
    for index in range(len(PARTS)):
        values = second[part == index]
        if not values.size:
            continue
        tail = (TAIL_DF + 1) / (TAIL_DF + values / scales.variance[index])
        seen = (POOL_PRIOR * base[index] + (tail * values).sum()) / (POOL_PRIOR + values.size)
        scales.variance[index] = max((1 - EM_RATE) * scales.variance[index] + EM_RATE * seen, MIN_SCALE)


def _read(mean: Floats, blocks: Floats, n_types: int, n_groups: int) -> Effects:
    """Return cells and keys from the parts' *mean* (b, f) and the diagonals of their covariances (b, b, f)."""
    f = mean.shape[1]
    first_group = 1 + (n_types if n_types > 1 else 0)
    types = slice(1, first_group)
    groups = slice(first_group, first_group + n_groups) if n_groups > 1 else slice(first_group, first_group)

    def spread(values: Floats, n: int) -> Floats:
        return values if len(values) else np.zeros((n, f))

    own = np.einsum("iif->if", blocks)
    type_mean, group_mean = spread(mean[types], n_types), spread(mean[groups], n_groups)
    type_own = spread(own[types] + 2 * blocks[0, types], n_types)
    group_own = spread(own[groups] + 2 * blocks[0, groups], n_groups)
    both = blocks[types, groups] if n_types > 1 and n_groups > 1 else np.zeros((n_types, n_groups, f))
    cell_variance = own[0] + type_own[:, None] + group_own[None] + 2 * both
    key_variance = own[0] + np.concatenate([np.zeros((1, f)), type_own, group_own])
    return Effects(
        cell_mean=mean[0] + type_mean[:, None] + group_mean[None],
        cell_sd=np.sqrt(np.maximum(cell_variance, 1e-12)),
        key_mean=mean[0] + np.concatenate([np.zeros((1, f)), type_mean, group_mean]),
        key_sd=np.sqrt(np.maximum(key_variance, 1e-12)),
    )
