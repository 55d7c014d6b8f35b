"""Which hypothesis a pattern stands for: its column and its scope."""

import math
from dataclasses import dataclass

from learner.patterns.beliefs import GroupField, Key, Scope
from learner.patterns.observations import Column
from store.clock import parse_iso
from store.patterns import PatternRow
from store.plan import Conditions


def scope_of(conditions: Conditions, field: GroupField | None) -> Scope | None:
    """Return the single scope that *conditions* name, or None.

    >>> scope_of(Conditions(question_type=("refund",)), None)
    Scope(question_type='refund', group=None)
    """
    restricted = [name for name in Conditions.__struct_fields__ if getattr(conditions, name)]
    if not restricted:
        return Scope()
    values: tuple[str, ...] = getattr(conditions, restricted[0])
    if len(restricted) > 1 or len(values) > 1:
        return None
    if restricted[0] == "question_type":
        return Scope(question_type=values[0])
    return Scope(group=values[0]) if restricted[0] == field else None


def conditions_of(scope: Scope, field: GroupField | None) -> Conditions:
    """Return the conditions under which a pattern holds in *scope* alone.

    Raises:
        ValueError: the scope is a group although the tenant has no second stratum.
    """
    if scope.question_type is not None:
        return Conditions(question_type=(scope.question_type,))
    if scope.group is None:
        return Conditions()
    match field:
        case "segment":
            return Conditions(segment=(scope.group,))
        case "data_source":
            return Conditions(data_source=(scope.group,))
        case "prompt_template":
            return Conditions(prompt_template=(scope.group,))
        case None:
            raise ValueError(f"group {scope.group!r} without a second stratum")


@dataclass(frozen=True, slots=True)
class Words:
    """What a pattern says: under which name its uses are counted, which column it asks for, and since when."""

    name: str
    column: Column
    since_s: float = -math.inf
    earlier: tuple[str, Column] | None = None  # name and column of what it said before


def words_of(row: PatternRow, field: GroupField | None) -> Words:
    """Return what a pattern says now, and what stands for all that it ever said before a person's edit."""
    if row.reworded_at is None:
        return Words(row.id, column_of(row, field))
    earlier = (row.id, Column(row.dimension, row.id))
    return Words(name_of(row), column_of(row, field), parse_iso(row.reworded_at), earlier)


def name_of(row: PatternRow) -> str:
    """Return what the pattern's words are known under: its id, with the moment of the last edit by a person."""
    return row.id if row.reworded_at is None else f"{row.id}@{row.reworded_at}"


def column_of(row: PatternRow, field: GroupField | None) -> Column:
    """Return what a pattern asks for: a person's words, or conditions that are no single scope, are their own."""
    is_shared = row.value and scope_of(row.conditions, field) is not None
    return Column(row.dimension, row.value if is_shared else name_of(row))


def key_of(row: PatternRow, field: GroupField | None) -> Key:
    """Return the hypothesis that a pattern stands for."""
    scope = scope_of(row.conditions, field)
    return Key(scope if row.value and scope is not None else Scope(), column_of(row, field))


def overlaps(one: Conditions, other: Conditions) -> bool:
    """Return whether a conversation can match both conditions.

    >>> overlaps(Conditions(question_type=("a",)), Conditions(question_type=("b",)))
    False
    """
    pairs = [(getattr(one, name), getattr(other, name)) for name in Conditions.__struct_fields__]
    return all(not a or not b or bool(set(a) & set(b)) for a, b in pairs)
