"""What a batch of replies was like, as columns: from what is stored of each reply to the matrix that statistics take.

Columns that the model already knows are told whenever a reply has them, so that their sums go on in every batch; new
ones come after them. Few replies differ, so everything is decided once per distinct form.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from learner.patterns.characteristics import EXTRACTORS, MAX_TOOLS, TERMINOLOGY
from learner.patterns.observations import Booleans, Column, Integers, Natural
from learner.patterns.terminology import MAX_TERMS, NOT_READ, tenant_terms

_NO_TEXT: Final = frozenset({"tools"})  # dimensions that a reply without a text may have

Values = Mapping[str, Sequence[str]]


def natural_of(
    characteristics: Sequence[str], terms: Sequence[str], users: Sequence[Hashable], known: Sequence[Column] = ()
) -> Natural:
    """Return the columns that at least one of n replies has: the known ones in their order, then those that are new.

    Args:
        characteristics: (n,) values by dimension as JSON, as ``response_characteristics`` holds them.
        terms: (n,) what may be terms in each reply, separated by spaces, or ``NOT_READ``.
        users: (n,) who read them, as names or codes: a new term needs many.
        known: what the model has. Those in no reply are left out; ``applies`` says where they could have been.

    Raises:
        ValueError: the three differ in length, or a form is no JSON of values by dimension.
    """
    if not len(characteristics) == len(terms) == len(users):
        raise ValueError(f"{len(characteristics)} characteristics, {len(terms)} terms and {len(users)} users differ")
    forms, form_of = _distinct(characteristics)
    decoded: list[Values] = [msgspec.json.decode(form, type=dict[str, list[str]]) for form in forms]
    weights = np.bincount(form_of, minlength=len(forms))
    texts, text_of = _distinct(terms)
    held = [frozenset(text.split()) for text in texts]

    counted = {name: _counted(decoded, weights.tolist(), name) for name, _, _ in EXTRACTORS}
    said = frozenset().union(*held)
    present = [one for one in known if (one.value in said if one.dimension == TERMINOLOGY else _has(counted, one))]
    fresh = [
        Column(name, value)
        for name, counts in counted.items()
        for value in _new(counts, [one.value for one in known if one.dimension == name])
    ]
    taken = {one.value for one in known if one.dimension == TERMINOLOGY}
    new_terms = [term for term in tenant_terms(terms, users) if term not in taken]
    room = max(MAX_TERMS - len(taken), 0)
    columns = [*present, *fresh, *(Column(TERMINOLOGY, term) for term in new_terms[:room])]

    value_at = {(one.dimension, one.value): index for index, one in enumerate(columns)}
    of_forms = _table(
        [[value_at.get((name, value)) for name, found in one.items() for value in found] for one in decoded], columns
    )
    of_texts = _table([[value_at.get((TERMINOLOGY, term)) for term in own] for own in held], columns)
    has = of_forms[form_of] | of_texts[text_of]
    applies = {name: _bools(name in values for values in decoded)[form_of] for name, _, _ in EXTRACTORS}
    has_text = _bools(bool(values.keys() - _NO_TEXT) for values in decoded)[form_of]
    applies[TERMINOLOGY] = has_text & _bools(text != NOT_READ for text in texts)[text_of]
    return Natural(columns, has, applies)


def _distinct(values: Sequence[str]) -> tuple[list[str], Integers]:
    place = {form: index for index, form in enumerate(dict.fromkeys(values))}
    return list(place), np.fromiter(map(place.__getitem__, values), np.int64, len(values))


def _table(places: Sequence[Sequence[int | None]], columns: Sequence[Column]) -> Booleans:
    """Return (rows, columns), True at the *places* of each row."""
    found = np.zeros((len(places), len(columns)), np.bool_)
    row = [index for index, own in enumerate(places) for place in own if place is not None]
    found[row, [place for own in places for place in own if place is not None]] = True
    return found


def _bools(facts: Iterable[bool]) -> Booleans:
    return np.fromiter(facts, np.bool_)


def _counted(decoded: Sequence[Values], weights: Sequence[int], dimension: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for values, weight in zip(decoded, weights, strict=True):
        for value in values.get(dimension, ()):
            counts[value] += weight
    return counts


def _has(counted: Mapping[str, Counter[str]], column: Column) -> bool:
    return column.dimension in counted and column.value in counted[column.dimension]


def _new(counts: Counter[str], known: Sequence[str]) -> list[str]:
    """Return the values that are not known, most used first, as many as there is room for."""
    fresh = sorted(counts.keys() - set(known), key=lambda name: (-counts[name], name))
    return fresh[: max(MAX_TOOLS - len(known), 0)]
