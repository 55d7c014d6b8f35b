"""Observations as codes, ordered so that a chunk holds whole conversations, with what was drawn as one row per coin."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from learner.patterns.axes import Axes, bucket_of, codes
from learner.patterns.normal import Floats
from learner.patterns.observations import Booleans, Column, Exposures, Integers, Observations

FIRST_CHUNK: Final = 50  # responses: small tenants need baselines soon
LAST_CHUNK: Final = 2000  # responses: beyond, larger chunks save no time
GROWTH: Final = 10  # a chunk is at most this part of what came before
LEAST_NONE: Final = 1e-9  # probability of no pattern under which a coin says nothing


@dataclass(frozen=True, slots=True)
class Draws:
    """k coins: a column in play for a response; by response."""

    row: Integers  # (k,)
    column: Integers  # (k,)
    dimension: Integers  # (k,)
    treated: Booleans  # (k,)
    coin: Floats  # (k,) treated - P(treated)
    contrast: Floats  # (k,) treated - P(treated | this or none); 0 where another arm was drawn

    def between(self, start: int, end: int) -> "Draws":
        """Return the coins of the rows from *start* to before *end*, counted from *start*."""
        first, last = np.searchsorted(self.row, [start, end]).tolist()
        part = {item.name: getattr(self, item.name)[first:last] for item in fields(self)}
        return Draws(**{**part, "row": part["row"] - start})


@dataclass(frozen=True, slots=True)
class Coded:
    """n responses; whole conversations follow each other in the order in which they began."""

    created_s: Floats  # (n,)
    question_type: Integers  # (n,)
    group: Integers  # (n,)
    user: Integers  # (n,) places on the user axis
    voter: Integers  # (n,) of who gave the thumb
    bucket: Integers  # (n,) of the user
    signals: Floats  # (n, families)
    satisfaction: Floats  # (n,)
    is_rated: Booleans  # (n,)
    has: Booleans  # (n, f) the value, and nothing of its dimension was instructed
    applies: Booleans  # (n, f) could have it, and nothing of its dimension was instructed
    draws: Draws

    def __len__(self) -> int:
        return len(self.created_s)

    def between(self, start: int, end: int) -> "Coded":
        """Return the rows from *start* to before *end*."""
        part = {item.name: getattr(self, item.name)[start:end] for item in fields(self) if item.name != "draws"}
        return Coded(**part, draws=self.draws.between(start, end))


@dataclass(frozen=True, slots=True)
class Uses:
    """k treated appearances of patterns."""

    row: Integers  # (k,)
    pattern: Integers  # (k,)


def encode(observations: Observations, axes: Axes) -> tuple[Coded, Uses, Integers]:
    """Return *observations* in the places of *axes*, the uses of patterns, and the bounds of conversations (c + 1,)."""
    conversations = observations.conversations
    order, bounds = _by_conversation(conversations)
    rank = np.zeros(len(order), np.int64)
    rank[order] = np.arange(len(order))
    names = [user or voter for user, voter in zip(observations.users, observations.thumb_voters, strict=True)]
    voters = [voter or user for user, voter in zip(observations.users, observations.thumb_voters, strict=True)]
    user = axes.user_places(names, conversations)[order]
    named = [name or conversation for name, conversation in zip(names, conversations, strict=True)]
    bucket = {name: bucket_of(name) for name in set(named)}
    dimensions = axes.dimensions
    exposures = observations.exposures
    draws = _draws(exposures, observations.is_holdout, rank, axes, dimensions)
    has, applies = _natural(observations, order, _instructed(exposures, rank, dimensions, len(order)), axes)
    used = np.flatnonzero(exposures.treated)
    coded = Coded(
        created_s=observations.created_s[order],
        question_type=codes(observations.question_types, axes.question_types)[order],
        group=codes(observations.groups, axes.groups)[order],
        user=user,
        voter=user if voters == names else axes.user_places(voters, conversations)[order],
        bucket=np.array([bucket[name] for name in named], np.int64)[order],
        signals=observations.signals[order],
        satisfaction=observations.satisfaction[order],
        is_rated=observations.is_rated[order],
        has=has,
        applies=applies,
        draws=draws,
    )
    return coded, Uses(rank[exposures.response[used]], exposures.pattern[used]), bounds


def chunks(bounds: Integers, n_before: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of chunks of whole conversations, growing with what came before."""
    start, n = 0, int(bounds[-1])
    while start < n:
        size = min(max((n_before + start) // GROWTH, FIRST_CHUNK), LAST_CHUNK)
        end = int(bounds[min(int(np.searchsorted(bounds, start + size)), len(bounds) - 1)])
        yield start, end
        start = end


def _by_conversation(conversations: Sequence[str]) -> tuple[Integers, Integers]:
    first: dict[str, int] = {}
    began = np.array([first.setdefault(name, index) for index, name in enumerate(conversations)], np.int64)
    order = np.argsort(began, kind="stable")
    changes = np.flatnonzero(np.diff(began[order])) + 1
    return order, np.concatenate([[0], changes, [len(order)]]).astype(np.int64)


def _draws(exposures: Exposures, is_holdout: Booleans, rank: Integers, axes: Axes, dimensions: list[str]) -> Draws:
    place = {column: index for index, column in enumerate(axes.columns)}
    pattern_column = np.array([place.get(column, -1) for column in exposures.columns], np.int64)
    dimension_place = {name: index for index, name in enumerate(dimensions)}
    column_dimension = np.array([dimension_place[column.dimension] for column in axes.columns], np.int64)
    column = pattern_column[exposures.pattern] if len(exposures.pattern) else np.zeros(0, np.int64)
    kept = np.flatnonzero((column >= 0) & ~is_holdout[exposures.response])
    key = rank[exposures.response[kept]] * max(len(axes.columns), 1) + column[kept]
    # Two patterns may ask for one column: the proxy drew at most one of them, so their shares add up.
    distinct, inverse = np.unique(key, return_inverse=True)
    share = np.bincount(inverse, exposures.share[kept], len(distinct))
    treated = np.bincount(inverse, exposures.treated[kept], len(distinct)) > 0
    row, column = np.divmod(distinct, max(len(axes.columns), 1))
    dimension = column_dimension[column] if len(column) else np.zeros(0, np.int64)
    coin_of = row * max(len(dimensions), 1) + dimension
    _, tossed = np.unique(coin_of, return_inverse=True)
    none = (1 - np.bincount(tossed, share))[tossed] if len(tossed) else np.zeros(0)
    is_drawn = (np.bincount(tossed, treated) > 0)[tossed] if len(tossed) else np.zeros(0, np.bool_)
    is_contrast = (treated | ~is_drawn) & (share > 0) & (none > LEAST_NONE)
    against_none = treated - share / np.maximum(share + none, LEAST_NONE)
    coin = np.asarray(treated - share, np.float64)
    return Draws(row, column, dimension, treated, coin, np.where(is_contrast, against_none, 0.0))


def _instructed(exposures: Exposures, rank: Integers, dimensions: list[str], n: int) -> Booleans:
    """Return (n, dimensions) whether anything of the dimension was in the request."""
    found = np.zeros((n, len(dimensions) + 1), np.bool_)
    place = {name: index for index, name in enumerate(dimensions)}
    pattern_dimension = np.array([place.get(c.dimension, len(dimensions)) for c in exposures.columns], np.int64)
    used = np.flatnonzero(exposures.treated)
    if len(used):
        found[rank[exposures.response[used]], pattern_dimension[exposures.pattern[used]]] = True
    return found


def _natural(
    observations: Observations, order: Integers, instructed: Booleans, axes: Axes
) -> tuple[Booleans, Booleans]:
    natural = observations.natural
    source: dict[Column, int] = {column: index for index, column in enumerate(natural.columns)}
    has = np.zeros((len(order), len(axes.columns)), np.bool_)
    applies = np.zeros_like(has)
    dimensions = {name: index for index, name in enumerate(axes.dimensions)}
    for place, column in enumerate(axes.columns):
        if column in source:
            free = ~instructed[:, dimensions[column.dimension]]
            applies[:, place] = natural.applies[column.dimension][order] & free
            has[:, place] = natural.has[order, source[column]] & applies[:, place]
    return has, applies
