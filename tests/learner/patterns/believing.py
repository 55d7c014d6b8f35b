"""Beliefs and patterns made by hand, for tests of what is decided from them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from learner.patterns.beliefs import Beliefs, GroupField, Guardrails, Key, Scope, Strata, Tally
from learner.patterns.evidence import Contrast, Squares
from learner.patterns.observations import Column
from store.clock import iso
from store.patterns import PatternRow, new_pattern
from store.plan import Conditions
from store.vocabulary import PatternState
from tests.conftest import NOW_S

DAY_S = 86_400.0
METRICS = ("rating", "follow_up", "regenerate")
TABLE, LIST, PROSE = (Column("response_format", value) for value in ("table", "list", "prose"))


def beliefs_of(
    columns: Sequence[Column],
    *,
    types: Sequence[str] = ("refund", "comparison"),
    groups: Sequence[str] = ("",),
    field: GroupField | None = None,
    n_signals: float = 10_000,
) -> Beliefs:
    """Return the beliefs of a tenant of whose *columns* nothing is known yet."""
    q, s, f = len(types), len(groups), len(columns)
    k = 1 + q + s
    return Beliefs(
        columns=columns,
        strata=Strata(types, groups, field),
        traffic=np.full((q, s), 1 / (q * s)),
        n_observed=np.full((q, s, f), 50.0),
        natural=np.full((q, s, f), 0.3),
        cell_mean=np.zeros((q, s, f)),
        cell_sd=np.full((q, s, f), 0.02),
        key_mean=np.zeros((k, f)),
        key_sd=np.full((k, f), 0.02),
        log_e=np.full((k, f), -np.inf),
        harm_z=np.zeros((k, f)),
        n_treated=np.zeros((k, f)),
        guardrails=Guardrails(
            METRICS,
            {name: np.zeros((k, f)) for name in METRICS},
            {name: np.full((k, f), -np.inf) for name in METRICS},
        ),
        clashes=np.zeros((f, f), np.bool_),
        variance=0.25,
        weights={"thumb": 1.0},
        n_signals=n_signals,
        contrasts={},
        tallies={},
    )


def learned(
    beliefs: Beliefs,
    column: Column,
    *,
    lift: float,
    sd: float = 0.02,
    log_e: float | None = None,
    n_treated: float = 0.0,
    harm_z: float = 0.0,
    scope: Scope | None = None,
) -> Beliefs:
    """Return *beliefs* with what was learned of one column: everywhere, or in one *scope* alone."""
    f = list(beliefs.columns).index(column)
    scopes = beliefs.strata.scopes
    arrays: dict[str, Any] = {
        name: np.array(getattr(beliefs, name))
        for name in ("cell_mean", "cell_sd", "key_mean", "key_sd", "log_e", "harm_z", "n_treated")
    }
    keys = range(len(scopes)) if scope is None else [scopes.index(scope)]
    for q, question_type in enumerate(beliefs.strata.question_types):
        for s, group in enumerate(beliefs.strata.groups):
            if scope in (None, Scope(), Scope(question_type=question_type), Scope(group=group)):
                arrays["cell_mean"][q, s, f], arrays["cell_sd"][q, s, f] = lift, sd
    contrasts = dict(beliefs.contrasts)
    for k in keys:
        arrays["key_mean"][k, f], arrays["key_sd"][k, f] = lift, sd
        arrays["harm_z"][k, f], arrays["n_treated"][k, f] = harm_z, n_treated
        if log_e is not None:
            arrays["log_e"][k, f] = log_e
            contrasts[Key(scopes[k], column)] = contrast_of(lift, n_treated)
    return replace(beliefs, contrasts=contrasts, **arrays)


def contrast_of(lift: float, n_treated: float) -> Contrast:
    """Return even coins, as many heads as tails, with a residual variance of 0.25."""
    n = 2 * max(n_treated, 1.0)
    information = n / 4
    squares = Squares(n / 16, 0.0, n / 16)
    return Contrast(lift * information, information, squares, squares, int(n_treated), int(n_treated))


def tallied(beliefs: Beliefs, pattern_id: str, tally: Tally) -> Beliefs:
    return replace(beliefs, tallies={**beliefs.tallies, pattern_id: tally})


def pattern(
    state: PatternState = "trial",
    column: Column = TABLE,
    *,
    name: str = "pat_1",
    conditions: Conditions = Conditions(),  # noqa: B008  # immutable
    **changes: object,
) -> PatternRow:
    row = new_pattern(
        name,
        "default",
        type="response_format",
        dimension=column.dimension,
        value=column.value,
        rule=f"Prefer: {column.value}.",
        conditions=conditions,
        tokens=9,
        origin="learned",
        now_s=NOW_S - 5 * DAY_S,
    )
    facts: Mapping[str, object] = {"state": state, "trial_since": iso(NOW_S - 4 * DAY_S), **changes}
    return replace(row, **facts)  # type: ignore[arg-type]
