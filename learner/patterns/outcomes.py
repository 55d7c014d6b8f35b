"""What each response earned, and what of it nobody could have predicted.

One thumb per user and response, less for who votes far more than others, and no user worth more than a few percent of
all evidence. Source: PATTERNS, section 4.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from learner.patterns.normal import Floats

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

RATE_PRIOR: Final = 10.0  # responses of a user after which the own rating rate counts as much as the tenant's
MAX_RATE_RATIO: Final = 3.0  # who rates this many times as often as the tenant's mean counts less per thumb
STRATUM_PRIOR: Final = 20.0  # responses after which a question type's own mean counts as much as the tenant's
USER_PRIOR: Final = 40.0  # responses after which a user's own mean counts half
ENERGY_SHARE: Final = 0.02  # of all evidence: the most that one user may bring ...
ENERGY_USERS: Final = 3.0  # ... or this many times an equal share, whichever is more
BATCH: Final = 50  # responses whose baselines come from earlier batches only
MIN_VARIANCE: Final = 1e-3
UNKNOWN_VARIANCE: Final = 0.11  # of a residual, while fewer than 30 are known. Source: PATTERNS, section 4.3


@dataclass(frozen=True, slots=True)
class Outcomes:
    """n responses in order of arrival; satisfaction lies in [-1, 1], unrated responses have 0."""

    satisfaction: Floats  # (n,) as people see it: the clipped sum of the weights
    earned: Floats  # (n,) the same with capped thumbs: what decisions use
    residual: Floats  # (n,) earned minus a baseline that earlier responses alone determine
    weight: Floats  # (n,) in (0, 1]: less for users with more than their share of evidence
    is_rated: Booleans  # (n,) at least one signal
    cluster: Integers  # (n,) users as codes; a response of nobody known: its only voter, else its conversation
    variance: float  # of a residual


def codes_of(names: Sequence[str]) -> tuple[list[str], Integers]:
    """Return the distinct *names*, sorted, and each one's place among them (n,).

    >>> codes_of(["b", "a", "b"])
    (['a', 'b'], array([1, 0, 1]))
    """
    distinct = sorted(set(names))
    place = {name: index for index, name in enumerate(distinct)}
    return distinct, np.array([place[name] for name in names], np.int64)


def outcomes(
    *,
    users: Sequence[str],
    conversations: Sequence[str],
    question_types: Sequence[str],
    signal_response: Integers,
    signal_weight: Floats,
    signal_families: Sequence[str],
    signal_users: Sequence[str],
) -> Outcomes:
    """Return the outcomes of n responses with m signals; ``signal_response`` (m,) points into the responses."""
    n = len(users)
    satisfaction = _clipped_sums(signal_response, signal_weight, n)
    is_rated = np.bincount(signal_response, minlength=n) > 0
    clusters = _clusters(users, conversations, signal_response, signal_users)
    _, cluster = codes_of(clusters)
    is_thumb = np.array([family == "thumb" for family in signal_families], np.bool_)
    discount = np.ones(len(signal_weight))
    if is_thumb.any():
        discount[is_thumb] = _thumb_discount(
            [user for user, thumb in zip(signal_users, is_thumb, strict=True) if thumb],
            signal_response[is_thumb],
            clusters,
        )
    earned = _clipped_sums(signal_response, signal_weight * discount, n)
    _, conversation = codes_of(conversations)
    _, stratum = codes_of(question_types)
    residual = earned - baselines(earned, stratum=stratum, cluster=cluster, conversation=conversation)
    weight = user_weights(residual, cluster)
    total = float(weight.sum())
    variance = max(float((weight * residual**2).sum()) / total, MIN_VARIANCE) if n >= 30 else UNKNOWN_VARIANCE
    return Outcomes(satisfaction, earned, residual, weight, is_rated, cluster, variance)


def _clipped_sums(response: Integers, weight: Floats, n: int) -> Floats:
    return np.asarray(np.clip(np.bincount(response, weight, n), -1, 1), np.float64)


def _clusters(
    users: Sequence[str], conversations: Sequence[str], signal_response: Integers, signal_users: Sequence[str]
) -> list[str]:
    voters: dict[int, set[str]] = {}
    for response, user in zip(signal_response.tolist(), signal_users, strict=True):
        if user:
            voters.setdefault(response, set()).add(user)
    clusters = []
    for index, (user, conversation) in enumerate(zip(users, conversations, strict=True)):
        voted = voters.get(index, set())
        known = user or (next(iter(voted)) if len(voted) == 1 else "")
        clusters.append(f"user:{known}" if known else f"conversation:{conversation}")
    return clusters


def _thumb_discount(voters: Sequence[str], responses: Integers, clusters: Sequence[str]) -> Floats:
    """Return min(1, 3 r / r_u) for each thumb: r the tenant's rating rate, r_u the voter's, shrunk towards it."""
    named = [f"user:{voter}" if voter else clusters[index] for voter, index in zip(voters, responses, strict=True)]
    names, code = codes_of([*named, *clusters])
    n_thumbs = np.bincount(code[: len(named)], minlength=len(names))
    n_responses = np.bincount(code[len(named) :], minlength=len(names))
    rate = len(np.unique(responses)) / max(len(clusters), 1)
    own = (n_thumbs + RATE_PRIOR * rate) / (n_responses + RATE_PRIOR)
    return np.asarray(np.minimum(1.0, MAX_RATE_RATIO * rate / np.maximum(own, 1e-12))[code[: len(named)]], np.float64)


def baselines(earned: Floats, *, stratum: Integers, cluster: Integers, conversation: Integers) -> Floats:
    """Return what was to be expected of each response (n,): the stratum's mean plus the user's deviation from it.

    Predictable: conversations are put into batches by the moment they began, and a batch's baselines come from earlier
    batches alone, so no response is compared with its own conversation. Means are shrunk: a stratum's towards the
    tenant's, a user's towards 0.
    """
    batch = _batches(conversation)
    n_all, sum_all = _earlier(earned, np.zeros_like(stratum), batch)
    overall = np.where(n_all > 30, sum_all / np.maximum(n_all, 1), 0.0)
    n_stratum, sum_stratum = _earlier(earned, stratum, batch)
    mean = (sum_stratum + STRATUM_PRIOR * overall) / (n_stratum + STRATUM_PRIOR)
    n_user, sum_user = _earlier(earned - mean, cluster, batch)
    return np.asarray(mean + sum_user / (n_user + USER_PRIOR), np.float64)


def _batches(conversation: Integers) -> Integers:
    """Return each response's batch (n,): whole conversations, in the order in which they began."""
    _, first, inverse, counts = np.unique(conversation, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first, kind="stable")
    begun_before = np.empty_like(counts)
    begun_before[order] = np.cumsum(counts[order]) - counts[order]
    return np.asarray(begun_before[inverse] // BATCH, np.int64)


def _earlier(values: Floats, group: Integers, batch: Integers) -> tuple[Floats, Floats]:
    """Return how many responses of the same group earlier batches hold (n,), and the sum of their values (n,)."""
    if not len(values):
        return np.zeros(0), np.zeros(0)
    key = group * (int(batch.max()) + 1) + batch
    distinct, inverse = np.unique(key, return_inverse=True)
    count = np.bincount(inverse).astype(np.float64)
    total = np.bincount(inverse, values)
    before_count, before_total = np.cumsum(count) - count, np.cumsum(total) - total
    # Within a group the cumulative sums begin at the group's first batch.
    starts = np.searchsorted(distinct // (int(batch.max()) + 1), distinct // (int(batch.max()) + 1))
    before_count, before_total = before_count - before_count[starts], before_total - before_total[starts]
    return before_count[inverse], before_total[inverse]


def user_weights(residual: Floats, cluster: Integers) -> Floats:
    """Return min(1, c E / E_u) of each response (n,), c = max(2 %, 3 / users), E_u = the user's sum of squares."""
    if not len(residual):
        return np.ones(0)
    energy = np.bincount(cluster, residual**2)
    cap = max(ENERGY_SHARE, ENERGY_USERS / len(energy)) * float(energy.sum())
    return np.asarray(np.minimum(1.0, cap / np.maximum(energy, 1e-12))[cluster], np.float64)
