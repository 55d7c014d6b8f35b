"""What a run takes in: n responses with what was drawn for them, what they were like and what people made of them.

A column stands for one instruction, wherever it holds: (dimension, value), such as (length, short). Several patterns
can ask for the same column under different conditions; the effect of a column is estimated from all of them together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

FAMILIES: Final = ("thumb", "copy", "follow_up", "dwell_time", "insight_ack", "regenerate", "correction")


@dataclass(frozen=True, slots=True)
class Column:
    """One instruction. ``value`` is the characteristic that it asks for, or the id of a pattern that a person wrote."""

    dimension: str
    value: str


@dataclass(frozen=True, slots=True)
class Natural:
    """What n replies were like, by m columns."""

    columns: Sequence[Column]
    has: Booleans  # (n, m)
    applies: Mapping[str, Booleans]  # dimension -> (n,): it means something for the reply


@dataclass(frozen=True, slots=True)
class Exposures:
    """k appearances of patterns that were in play; arms of one response and dimension share one coin.

    Appearances in holdout conversations are there too, all untreated; statistics leave them out.
    """

    response: Integers  # (k,) into the n responses
    pattern: Integers  # (k,) into the p patterns
    share: Floats  # (k,) P(treated) outside the holdout, given that the dimension was drawn
    treated: Booleans  # (k,)
    pattern_ids: Sequence[str]  # (p,)
    columns: Sequence[Column]  # (p,) what each pattern asks for


@dataclass(frozen=True, slots=True)
class Observations:
    """n responses in order of arrival."""

    created_s: Floats  # (n,) seconds since 1970
    users: Sequence[str]  # '' when unknown
    conversations: Sequence[str]
    question_types: Sequence[str]
    groups: Sequence[str]  # value of the tenant's second stratum (``Strata.field``); '' when there is none
    is_holdout: Booleans  # (n,)
    signals: Floats  # (n, len(FAMILIES)) in [-1, 1]: how often each family was signalled, thumbs down as -1
    thumb_voters: Sequence[str]  # who gave the thumb; '' when nobody did or nobody knows
    satisfaction: Floats  # (n,) in [-1, 1]: the clipped sum of the recorded weights, as people see it
    is_rated: Booleans  # (n,) at least one signal
    natural: Natural
    exposures: Exposures
