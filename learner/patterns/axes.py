"""The axes of the model: question types, groups, columns and users, in the order in which they were first met.

They only grow, up to bounds that keep the sums and one solve small; what comes later shares the place of "".
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from learner.patterns.beliefs import Key, Scope
from learner.patterns.normal import Floats
from learner.patterns.observations import Column, Integers, Observations
from learner.patterns.sums import Sizes

MAX_TYPES: Final = 12  # the shipped question types and "": more would leave each with too few responses
MAX_GROUPS: Final = 6  # the same for user segments, data sources or prompt templates
N_SCOPES: Final = 1 + MAX_TYPES + MAX_GROUPS
MAX_COLUMNS: Final = 96  # 12 x 6 cells of (2 x 96)^2 products are 21 MB
MAX_NATURAL: Final = 72  # of them for what replies are like; the rest waits for what is tried out
MAX_VALUES: Final = 8  # natural columns of one dimension
MAX_USERS: Final = 200_000  # with a baseline of their own: 16 MB
N_BUCKETS: Final = 128  # of users: clusters whose sums make the variance; the first places of the user axis are theirs


def bucket_of(name: str) -> int:
    """Return the bucket of a user or conversation, the same in every process."""
    return zlib.crc32(name.encode()) % N_BUCKETS


@dataclass(slots=True)
class Axes:
    """Names by place."""

    question_types: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)
    users: dict[str, int] = field(default_factory=dict)  # name -> place, from N_BUCKETS on

    @property
    def sizes(self) -> Sizes:
        """Return the lengths of the growing axes: q, s, f, u."""
        return {
            "q": len(self.question_types),
            "s": len(self.groups),
            "f": len(self.columns),
            "u": N_BUCKETS + len(self.users),
        }

    @property
    def dimensions(self) -> list[str]:
        """Return the distinct dimensions of the columns, in the order of the columns."""
        return list(dict.fromkeys(column.dimension for column in self.columns))

    @property
    def scope_places(self) -> Integers:
        """Return where the 1 + Q + S scopes in use lie among the ``N_SCOPES`` places that sums by key have."""
        types = 1 + np.arange(len(self.question_types))
        return np.concatenate([[0], types, 1 + MAX_TYPES + np.arange(len(self.groups))]).astype(np.int64)

    def meet(self, observations: Observations) -> None:
        """Give what is new in *observations* a place, while there is room."""
        _meet_names(self.question_types, observations.question_types, MAX_TYPES)
        _meet_names(self.groups, observations.groups, MAX_GROUPS)
        exposed = dict.fromkeys(observations.exposures.columns)
        for column in exposed:
            if column not in self.columns and len(self.columns) < MAX_COLUMNS:
                self.columns.append(column)
        counts = observations.natural.has.sum(0).tolist()
        by_count = sorted(zip(counts, observations.natural.columns, strict=True), key=lambda pair: -pair[0])
        for count, column in by_count:
            n_values = sum(known.dimension == column.dimension for known in self.columns)
            has_room = len(self.columns) < MAX_NATURAL and n_values < MAX_VALUES
            if count and column not in self.columns and has_room:
                self.columns.append(column)
        for user in (*observations.users, *observations.thumb_voters):
            if user and user not in self.users and len(self.users) < MAX_USERS:
                self.users[user] = N_BUCKETS + len(self.users)

    def admit(self, key: Key) -> None:
        """Give *key* a place before any record of it came, while there is room."""
        if key.scope.question_type is not None:
            _meet_names(self.question_types, [key.scope.question_type], MAX_TYPES)
        if key.scope.group is not None:
            _meet_names(self.groups, [key.scope.group], MAX_GROUPS)
        if key.column not in self.columns and len(self.columns) < MAX_COLUMNS:
            self.columns.append(key.column)

    def user_places(self, users: Sequence[str], conversations: Sequence[str]) -> Integers:
        """Return the places (n,) of *users*; without a name or a place it is the bucket of the conversation or user."""
        known = self.users
        return np.array(
            [
                known[user] if user in known else bucket_of(user or conversation)
                for user, conversation in zip(users, conversations, strict=True)
            ],
            np.int64,
        )

    def scope_place(self, scope: Scope) -> int | None:
        """Return where *scope* lies among the ``N_SCOPES`` places, or None when it has none."""
        if scope.question_type is not None:
            return (
                1 + self.question_types.index(scope.question_type)
                if scope.question_type in self.question_types
                else None
            )
        if scope.group is not None:
            return 1 + MAX_TYPES + self.groups.index(scope.group) if scope.group in self.groups else None
        return 0

    def place(self, key: Key) -> tuple[int, int] | None:
        """Return (scope, column) of *key*, or None when the statistics know nothing of it."""
        scope = self.scope_place(key.scope)
        if scope is None or key.column not in self.columns:
            return None
        return scope, self.columns.index(key.column)

    def cells(self, scope: Scope) -> tuple[slice, slice] | None:
        """Return the cells (question types, groups) that *scope* covers, or None when it is unknown."""
        place = self.scope_place(scope)
        if place is None:
            return None
        if place == 0:
            return slice(None), slice(None)
        if place <= MAX_TYPES:
            return slice(place - 1, place), slice(None)
        return slice(None), slice(place - 1 - MAX_TYPES, place - MAX_TYPES)

    def copy(self) -> "Axes":
        """Return the same axes, to be grown apart."""
        return Axes(list(self.question_types), list(self.groups), list(self.columns), dict(self.users))


def n_users(occupied: Floats) -> Floats:
    """Return about how many users fill *occupied* of the buckets; exact for a few.

    Source: Whang, Vander-Zanden & Taylor 1990, ACM TODS 15(2): linear counting.
    """
    empty = np.maximum(1 - occupied / N_BUCKETS, 0.5 / N_BUCKETS)
    return np.asarray(np.maximum(occupied, np.rint(-N_BUCKETS * np.log(empty))), np.float64)


def codes(names: Sequence[str], axis: Sequence[str]) -> Integers:
    """Return the place (n,) of each name on *axis*, that of "" for those without one.

    >>> codes(["a", "x"], ["a", ""]).tolist()
    [0, 1]
    """
    place = {name: index for index, name in enumerate(axis)}
    other = place.get("", 0)
    return np.array([place.get(name, other) for name in names], np.int64)


def _meet_names(axis: list[str], names: Iterable[str], most: int) -> None:
    for name, _ in Counter(names).most_common():
        if name in axis:
            continue
        if len(axis) < most - 1 or not name:
            axis.append(name)
        elif "" not in axis:
            axis.append("")
