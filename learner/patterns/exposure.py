"""From what was in play for each response to the rows that each pattern's evidence is made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learner.patterns.evidence import Rows
from learner.patterns.normal import Floats
from learner.patterns.outcomes import Outcomes

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Exposure:
    """All k appearances of patterns, by pattern."""

    places: dict[str, Integers]  # pattern -> its rows
    response: Integers  # (k,)
    treated: Booleans  # (k,)
    propensity: Floats  # (k,) P(pattern | pattern or none of the dimension)
    is_contrast: Booleans  # (k,) the coin fell on the pattern or on none, and could have fallen on either

    def used(self, pattern_id: str) -> Integers:
        """Return the responses (u,) that had the pattern, in order of time."""
        place = self.places.get(pattern_id, np.zeros(0, np.int64))
        return self.response[place[self.treated[place]]]

    def rows(self, pattern_id: str, outcomes: Outcomes, created_s: Floats, since_s: float) -> Rows:
        """Return the rows of one pattern's contrast from *since_s* on."""
        place = self.places.get(pattern_id, np.zeros(0, np.int64))
        place = place[self.is_contrast[place]]
        place = place[created_s[self.response[place]] >= since_s]
        response = self.response[place]
        return Rows(
            treated=self.treated[place],
            propensity=self.propensity[place],
            residual=outcomes.residual[response],
            weight=outcomes.weight[response],
            cluster=outcomes.cluster[response],
            created_s=created_s[response],
            is_rated=outcomes.is_rated[response],
        )


def expose(
    *,
    response: Integers,
    item: Integers,
    items: Sequence[str],
    dimension: Integers,
    propensity: Floats,
    treated: Booleans,
    is_holdout: Booleans,
) -> Exposure:
    """Return the exposure of k appearances.

    ``response`` (k,) points into n responses, ``item`` (k,) into the names ``items``; ``is_holdout`` is (n,).

    Rows on which the dimension's coin fell on another pattern say nothing about this one against none. Holdout
    conversations never tossed the coin: they are the price tag of all patterns together, not of one.
    """
    key = response * (int(dimension.max(initial=0)) + 1) + dimension
    _, group = np.unique(key, return_inverse=True)
    n_drawn = np.bincount(group, treated.astype(np.float64))[group] if len(group) else np.zeros(0)
    none = 1 - np.bincount(group, propensity)[group] if len(group) else np.zeros(0)
    is_contrast = (treated | (n_drawn == 0)) & (propensity > 0) & (none > 1e-9) & ~is_holdout[response]
    order = np.argsort(item, kind="stable")
    bounds = np.searchsorted(item[order], np.arange(len(items) + 1))
    return Exposure(
        places={name: order[bounds[code] : bounds[code + 1]] for code, name in enumerate(items)},
        response=response,
        treated=treated,
        propensity=np.asarray(propensity / np.maximum(propensity + none, 1e-12), np.float64),
        is_contrast=is_contrast,
    )


def instructed(
    *, response: Integers, dimension: Integers, dimensions: Sequence[str], treated: Booleans, n_responses: int
) -> dict[str, Booleans]:
    """Return for each dimension which of the n responses had one of its patterns."""
    found = {}
    for code, name in enumerate(dimensions):
        mask = np.zeros(n_responses, np.bool_)
        mask[response[(dimension == code) & treated]] = True
        found[name] = mask
    return found
