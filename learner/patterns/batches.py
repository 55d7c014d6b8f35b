"""Rows of the store as what the statistics take in: a batch of records, or what changed about records that counted."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, cast

import numpy as np

from learner.patterns.history import History
from learner.patterns.keys import Words
from learner.patterns.observations import FAMILIES, Booleans, Exposures, Floats, Integers, Natural, Observations
from store.vocabulary import SignalType, signal_family
from store.windows import Batch, Revised, SignalColumns

FAMILY_AT: Final = {family: index for index, family in enumerate(FAMILIES)}

Reader = Callable[[Batch], Natural]
"""Says what the replies of a batch were like."""


def observations_of(batch: Batch, words: Mapping[str, Words], natural_of: Reader) -> Observations:
    """Return the records of *batch*; *words* are those of each pattern, and others are left out."""
    responses, n = batch.responses, len(batch.responses.seq)
    totals = _Totals(batch.signals, n)
    return Observations(
        created_s=responses.created_s,
        users=responses.users,
        conversations=responses.conversations,
        question_types=responses.question_types,
        groups=responses.groups,
        is_holdout=responses.is_holdout,
        signals=totals.by_family,
        thumb_voters=totals.thumb_voters,
        satisfaction=totals.satisfaction,
        is_rated=totals.is_rated,
        natural=natural_of(batch),
        exposures=_exposures(batch, words),
    )


def differences_of(revised: Revised, words: Mapping[str, Words], natural_of: Reader) -> Observations:
    """Return what changed: signals and satisfaction now minus before, ``is_rated`` where there was no signal before."""
    now = observations_of(revised.now, words, natural_of)
    before = _Totals(revised.before, len(now.created_s))
    return replace(
        now,
        signals=now.signals - before.by_family,
        satisfaction=now.satisfaction - before.satisfaction,
        is_rated=now.is_rated & ~before.is_rated,
    )


def add_to_history(history: History, fresh: History, batch: Batch, is_new: Booleans) -> None:
    """Take the records of *batch* into *history*, and those that *is_new* (n,) says into *fresh*."""
    told = _Totals(batch.signals, len(batch.responses.seq)).told
    _add(history, batch, told)
    _add(fresh, batch, {name: values * is_new for name, values in told.items()})


def revise_history(history: History, revised: Revised) -> None:
    """Take what changed into *history*."""
    n = len(revised.now.responses.seq)
    now, before = _Totals(revised.now.signals, n).told, _Totals(revised.before, n).told
    _add(history, revised.now, {name: values - before[name] for name, values in now.items()})


def _add(history: History, batch: Batch, told: Mapping[str, Floats]) -> None:
    responses, injections = batch.responses, batch.injections
    n = len(responses.seq)
    history.add(
        created_s=responses.created_s,
        users=responses.users,
        conversations=responses.conversations,
        is_holdout=responses.is_holdout,
        is_treated=np.bincount(injections.response[injections.treated], minlength=n) > 0,
        **told,
    )


class _Totals:
    """The signals of n responses, added up."""

    def __init__(self, signals: SignalColumns, n: int) -> None:
        response, weight = signals.response, signals.weight
        self.good = _sums(response, np.maximum(weight, 0), n)
        self.bad = _sums(response, np.maximum(-weight, 0), n)
        self.satisfaction: Floats = np.clip(self.good - self.bad, -1, 1)
        self.is_rated: Booleans = np.bincount(response, minlength=n) > 0
        family, worth = _families(signals)
        flat = _sums(response * len(FAMILIES) + family, worth, n * len(FAMILIES))
        self.by_family: Floats = np.clip(flat.reshape(n, len(FAMILIES)), -1, 1)
        self.thumb_voters = _voters(signals, family, n)

    @property
    def told(self) -> dict[str, Floats]:
        """Return what a history keeps of each response (n,)."""
        return {
            "n_rated": self.is_rated.astype(np.float64),
            "good": self.good,
            "bad": self.bad,
            "n_pleased": (self.good > self.bad).astype(np.float64),
            "n_displeased": (self.good < self.bad).astype(np.float64),
        }


def _families(signals: SignalColumns) -> tuple[Integers, Floats]:
    """Return each signal's family (m,) and what it counts in it (m,): 1, thumbs down -1, what weighs nothing 0."""
    kinds = list(dict.fromkeys(signals.types))
    place = {kind: index for index, kind in enumerate(kinds)}
    codes = np.array([place[kind] for kind in signals.types], np.int64)
    family = np.array([FAMILY_AT[signal_family(cast("SignalType", kind))] for kind in kinds], np.int64)
    worth = np.array([-1.0 if kind == "thumbs_down" else 1.0 for kind in kinds], np.float64)
    # A reply that was read for long without being short has a dwell_time signal of weight 0: it says nothing.
    return family[codes], worth[codes] * (signals.weight != 0)


def _voters(signals: SignalColumns, family: Integers, n: int) -> Sequence[str]:
    voters = [""] * n
    for index in np.nonzero(family == FAMILY_AT["thumb"])[0].tolist():
        voters[signals.response[index]] = signals.users[index]
    return voters


def _sums(place: Integers, values: Floats, n: int) -> Floats:
    return np.asarray(np.bincount(place, values, n), np.float64)


def _exposures(batch: Batch, words: Mapping[str, Words]) -> Exposures:
    injections = batch.injections
    known = [words.get(item) for item in injections.items]
    kept = np.array([one is not None for one in known], np.bool_)[injections.item]
    item, response = injections.item[kept], injections.response[kept]
    since_s = np.array([math.inf if one is None else one.since_s for one in known])
    is_earlier = batch.responses.created_s[response] < since_s[item]
    said = [
        saying for one in known for saying in ((None, None) if one is None else ((one.name, one.column), one.earlier))
    ]
    place = np.cumsum([saying is not None for saying in said]) - 1
    distinct = [saying for saying in said if saying is not None]
    return Exposures(
        response=response,
        pattern=place[2 * item + is_earlier].astype(np.int64),
        share=injections.share[kept],
        treated=injections.treated[kept],
        pattern_ids=[name for name, _ in distinct],
        columns=[column for _, column in distinct],
    )
