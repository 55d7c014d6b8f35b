"""What the statistics say after a run, for the decisions: values only.

Axes: Q question types, S groups (values of the tenant's second stratum), f columns, K = 1 + Q + S scopes: all
conversations first, then each question type, then each group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from learner.patterns.changes import Days
from learner.patterns.evidence import Contrast
from learner.patterns.normal import Floats, cdf
from learner.patterns.observations import Booleans, Column

GroupField = Literal["segment", "data_source", "prompt_template"]


@dataclass(frozen=True, slots=True)
class Scope:
    """Where an instruction is meant to hold: everywhere, in one question type, or in one group."""

    question_type: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """One hypothesis: an instruction helps in a scope."""

    scope: Scope
    column: Column


@dataclass(frozen=True, slots=True)
class Strata:
    """The cells of the model, in the order of their axes; ``""`` stands for all that have no cell of their own."""

    question_types: Sequence[str]  # (Q,)
    groups: Sequence[str]  # (S,), ("",) when no second stratum is used
    field: GroupField | None  # which of the records' fields groups are values of; None: none

    @property
    def scopes(self) -> list[Scope]:
        """Return the K scopes in order."""
        types = [Scope(question_type=name) for name in self.question_types]
        return [Scope(), *types, *(Scope(group=name) for name in self.groups)]


@dataclass(frozen=True, slots=True)
class Tally:
    """What happened to one pattern so far, by its id."""

    n_used: int = 0
    n_signals: int = 0  # treated responses with signals
    n_users: int = 0  # distinct, behind those
    last_used_s: float | None = None
    score: float = 0.0  # debiased EMA of the satisfaction of treated responses with signals


@dataclass(frozen=True, slots=True)
class Guardrails:
    """What a key does to how people behave, beside the score: differences in rates with z values, (K, f) each.

    ``e`` are logarithms of e-values against "does not make it worse": fewer ratings, more follow-ups, more regenerated.
    """

    metrics: Sequence[str]  # ("rating", "follow_up", "regenerate")
    difference: Mapping[str, Floats]  # treated minus control, in the rate of the metric
    log_e_worse: Mapping[str, Floats]
    rates: Mapping[str, float] = field(default_factory=dict)  # of the tenant's responses, by metric; none: not counted


@dataclass(frozen=True, slots=True)
class Beliefs:
    """The joint posterior of all effects, and the randomised evidence of every key."""

    columns: Sequence[Column]  # (f,)
    strata: Strata
    traffic: Floats  # (Q, S) share of the recent responses, sums to 1
    n_observed: Floats  # (Q, S, f) responses with signals that had the value uninstructed: what a cluster rests on
    natural: Floats  # (Q, S, f) share of uninstructed replies to which the dimension applies that had the value
    cell_mean: Floats  # (Q, S, f) lift of the score
    cell_sd: Floats  # (Q, S, f)
    key_mean: Floats  # (K, f)
    key_sd: Floats  # (K, f)
    log_e: Floats  # (K, f) against "does not help"; -inf without randomised rows
    harm_z: Floats  # (K, f) of late, in standard errors; negative is harm; 0 without rows
    n_treated: Floats  # (K, f) treated responses with signals since the evidence began
    guardrails: Guardrails
    clashes: Booleans  # (f, f) symmetric: the two harm each other, so that only one of them may be in a cell
    variance: float  # of a response's residual score
    weights: Mapping[str, float]  # family -> what a signal of it is worth in the score; a thumb is 1
    n_signals: float  # signals of the last 90 days: under 2,000 shares are dealt for a small tenant
    contrasts: Mapping[Key, Contrast]  # of keys with randomised rows
    tallies: Mapping[str, Tally]  # pattern id -> what happened to it
    observed_users: Floats | None = None  # (K, f) distinct users behind ``n_observed``; None: not counted
    together: Floats | None = None  # (f, f) correlation of the columns in uninstructed replies; None: not counted
    seen_score: Floats | None = None  # (Q, S, f) sum of natural values times residual scores; None: not kept
    seen_information: Floats | None = None  # (Q, S, f) sum of the squared natural values behind it
    days: Days | None = None  # (K, f) randomised evidence day by day, to see changes; None: not watched

    def confidence(self) -> Floats:
        """Return P(lift > 0) of each key (K, f); 0.5 = unknown."""
        return cdf(self.key_mean / self.key_sd)
