"""Which characteristics of replies go together with satisfaction: a screen for trials, never proof.

Each value of a dimension is compared with the other values within the same question type, where nothing of the
dimension was instructed. What stands out, guarded for the number of comparisons, deserves a trial.
Source: PATTERNS, section 4.4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from learner.patterns.characteristics import TERMINOLOGY, Membership
from learner.patterns.normal import Floats, cdf
from learner.patterns.posterior import DESIGN_EFFECT, Cluster
from store.vocabulary import PatternType

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

ALL_TYPES: Final = None  # the scope of what holds for every question type
CLUSTER_PRIOR: Final = 5.0  # responses of the stratum's mean that are added to each cluster
VARIANCE_PRIOR: Final = 20.0  # responses of the tenant's variance that are added to each question type's
MIN_USERS: Final = 3  # whose signals a cluster rests on: one account must not decide what is tried
MIN_OTHERS: Final = 5  # responses with another value, to compare with
MIN_TERM_Z: Final = 4.0  # standard errors for a word of the tenant's: there are many, and most come with a topic
ORG_REST_Z: Final = 2.33  # standard errors that must remain without the strongest type, to hold for all types ...
POOLED_REST_Z: Final = 1.0  # ... or only this many, when all types together are surer than the strongest alone
DUPLICATE_CORRELATION: Final = 0.9  # of two characteristics that cannot be told apart


@dataclass(frozen=True, slots=True)
class Found:
    """One comparison: a characteristic within one question type, or within all (None)."""

    dimension: str
    type: PatternType
    value: str
    question_type: str | None
    cluster: Cluster
    n_responses: int
    n_rated: int
    n_users: int  # behind the rated ones
    z: float
    has: Booleans  # (n,) the replies with the characteristic
    scope: Booleans  # (n,) the replies that were compared


@dataclass(frozen=True, slots=True)
class Records:
    """n responses as discovery sees them."""

    earned: Floats  # (n,)
    weight: Floats  # (n,)
    is_rated: Booleans  # (n,)
    cluster: Integers  # (n,) users as codes
    stratum: Integers  # (n,) question types as codes
    question_types: Sequence[str]  # of the codes
    instructed: Mapping[str, Booleans]  # dimension -> (n,) something of it was in the request


def compare(records: Records, members: Sequence[Membership]) -> list[Found]:
    """Return every comparison that can be made: within each question type, and over all types where two or more can."""
    values = records.earned - _user_means(records)
    overall = float(np.var(values)) if len(values) else 0.0
    found: list[Found] = []
    for member in members:
        free = ~records.instructed.get(member.dimension, np.zeros(len(values), np.bool_))
        within = [
            comparison
            for code, name in enumerate(records.question_types)
            if (
                comparison := _within(
                    records, values, overall, member, scope=free & (records.stratum == code), name=name
                )
            )
        ]
        found.extend(within)
        if len(within) > 1:
            found.append(_over_all(within))
    return found


def _user_means(records: Records) -> Floats:
    """Return each response's user's deviation from the mean (n,), shrunk towards 0: grumpy users are not the answer."""
    if not len(records.earned):
        return np.zeros(0)
    deviation = records.earned - records.earned.mean()
    n = np.bincount(records.cluster)
    return np.asarray((np.bincount(records.cluster, deviation) / (n + 40.0))[records.cluster], np.float64)


def _within(
    records: Records, values: Floats, overall: float, member: Membership, *, scope: Booleans, name: str
) -> Found | None:
    has, others = member.has & scope, member.others & scope
    n_has, n_others = int(has.sum()), int(others.sum())
    if not n_has or n_others < MIN_OTHERS:
        return None
    both = has | others
    weight = records.weight
    mean = float(np.average(values[both], weights=weight[both]))
    spread = float(np.average((values[both] - mean) ** 2, weights=weight[both]))
    # The whole spread, not that within the two groups: a perfect split must not look infinitely sure.
    variance = (spread * len(values[both]) + overall * VARIANCE_PRIOR) / (len(values[both]) + VARIANCE_PRIOR)
    # Shrunk towards the stratum's mean.
    sums = float((values[has] * weight[has]).sum())
    mean_has = (sums + mean * CLUSTER_PRIOR) / (float(weight[has].sum()) + CLUSTER_PRIOR)
    difference = mean_has - float(np.average(values[others], weights=weight[others]))
    error = DESIGN_EFFECT * variance * (1 / _effective(weight[has]) + 1 / _effective(weight[others]))
    standard_error = max(error, 1e-12) ** 0.5
    return Found(
        member.dimension,
        member.type,
        member.value,
        name,
        Cluster(difference, standard_error),
        n_has,
        int((has & records.is_rated).sum()),
        len(np.unique(records.cluster[has & records.is_rated])),
        difference / standard_error,
        has,
        both,
    )


def _effective(weight: Floats) -> float:
    return float(weight.sum() ** 2 / (weight**2).sum())


def _over_all(within: Sequence[Found]) -> Found:
    cluster = _pooled(within)
    first = within[0]
    return Found(
        first.dimension,
        first.type,
        first.value,
        ALL_TYPES,
        cluster,
        sum(one.n_responses for one in within),
        sum(one.n_rated for one in within),
        max(one.n_users for one in within),
        cluster.difference / cluster.standard_error,
        np.logical_or.reduce([one.has for one in within]),
        np.logical_or.reduce([one.scope for one in within]),
    )


def _pooled(within: Sequence[Found]) -> Cluster:
    precision = [1 / one.cluster.standard_error**2 for one in within]
    total = sum(precision)
    difference = sum(p * one.cluster.difference for p, one in zip(precision, within, strict=True)) / total
    return Cluster(difference, total**-0.5)


def screen(found: Sequence[Found], *, min_signals: int, q: float) -> list[Found]:
    """Return the comparisons worth a trial, best first: Benjamini-Hochberg at *q* over all one-sided tests.

    A characteristic holds for all types only when it still stands out without the type in which it is strongest;
    then it takes the place of its single types.
    """
    tested = [one for one in found if one.n_rated >= min_signals and one.n_users >= MIN_USERS]
    passed = [
        one
        for one, is_rejected in zip(tested, benjamini_hochberg([one.z for one in tested], q), strict=True)
        if is_rejected and one.z > (MIN_TERM_Z if one.dimension == TERMINOLOGY else 0)
    ]
    general = {
        (one.dimension, one.value) for one in passed if one.question_type is ALL_TYPES and _is_general(one, found)
    }
    kept = [one for one in passed if (one.question_type is ALL_TYPES) == ((one.dimension, one.value) in general)]
    return sorted(kept, key=lambda one: -one.z)


def _is_general(general: Found, found: Sequence[Found]) -> bool:
    within = [
        one
        for one in found
        if one.question_type is not ALL_TYPES and (one.dimension, one.value) == (general.dimension, general.value)
    ]
    strongest = max(within, key=lambda one: one.z)
    rest = _pooled([one for one in within if one is not strongest])
    rest_z = rest.difference / rest.standard_error
    return rest_z >= (POOLED_REST_Z if general.z > strongest.z else ORG_REST_Z)


def benjamini_hochberg(z: Sequence[float], q: float) -> list[bool]:
    """Return which of the one-sided tests are rejected at a false-discovery rate of *q*.

    >>> benjamini_hochberg([3.0, -1.0, 2.5], q=0.05)
    [True, False, True]
    """
    p = 1 - cdf(np.array(z, np.float64))
    order = np.argsort(p, kind="stable")
    passes = p[order] <= q * np.arange(1, len(p) + 1) / max(len(p), 1)
    n_rejected = int(np.nonzero(passes)[0].max()) + 1 if passes.any() else 0
    rejected = set(order[:n_rejected].tolist())
    return [index in rejected for index in range(len(p))]


def is_duplicate(one: Booleans, other: Booleans, scope: Booleans) -> bool:
    """Return whether two characteristics come together so often in *scope* that no trial could tell them apart."""
    a, b = one[scope], other[scope]
    if a.all() or b.all() or not (a.any() and b.any()):
        return False
    return float(np.corrcoef(a, b)[0, 1]) >= DUPLICATE_CORRELATION
