"""What the beliefs say of one pattern: the figures of its key and its own counts."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from learner.patterns.beliefs import Beliefs, Key, Scope, Tally
from learner.patterns.changes import Worsening, find_change
from learner.patterns.evidence import Contrast, e_value_of, lift_interval
from learner.patterns.guardrails import differences, objection
from learner.patterns.observations import Column
from store.clock import iso
from store.config import PatternsSection
from store.patterns import PatternRow


@dataclass(frozen=True, slots=True)
class Reading:
    """What a run knows of one key; the defaults are those of a key that nothing is known of."""

    confidence: float = 0.5
    elsewhere: float = 0.5  # the largest confidence of the same instruction in one question type or one group
    log_e: float = -math.inf
    harm_z: float = 0.0
    n_treated: float = 0.0
    contrast: Contrast | None = None
    variance: float = 0.0  # of a response's residual score
    objection: str | None = None
    guardrails: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_measured(self) -> bool:
        """Return whether there is randomised evidence."""
        return self.lift is not None

    @property
    def lift(self) -> float | None:
        """Return treated minus control, or None without randomised evidence."""
        return None if self.contrast is None else self.contrast.lift

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the lifts that the evidence does not exclude; worked out when asked for, in two milliseconds."""
        return None if self.contrast is None else lift_interval(self.contrast, self.variance)


UNKNOWN: Final = Reading()


class Readings:
    """Beliefs, looked up by key."""

    def __init__(self, beliefs: Beliefs, settings: PatternsSection) -> None:
        self.beliefs = beliefs
        self.scopes = {scope: index for index, scope in enumerate(beliefs.strata.scopes)}
        self.columns = {column: index for index, column in enumerate(beliefs.columns)}
        self._confidence = beliefs.confidence()
        self._settings = settings

    def confidence(self, scope: Scope, column: Column) -> float:
        """Return P(lift > 0); 0.5 when nothing is known."""
        if scope not in self.scopes or column not in self.columns:
            return 0.5
        return float(self._confidence[self.scopes[scope], self.columns[column]])

    def of(self, key: Key) -> Reading:
        """Return what is known of *key*."""
        if key.scope not in self.scopes or key.column not in self.columns:
            return UNKNOWN
        k, f = self.scopes[key.scope], self.columns[key.column]
        beliefs = self.beliefs
        return Reading(
            confidence=float(self._confidence[k, f]),
            elsewhere=self._elsewhere(f) if key.scope == Scope() else float(self._confidence[k, f]),
            log_e=float(beliefs.log_e[k, f]),
            harm_z=float(beliefs.harm_z[k, f]),
            n_treated=float(beliefs.n_treated[k, f]),
            contrast=beliefs.contrasts.get(key),
            variance=beliefs.variance,
            objection=objection(beliefs.guardrails, k, f, self._settings),
            guardrails=differences(beliefs.guardrails, k, f),
        )

    def _elsewhere(self, f: int) -> float:
        # A tenant without traffic has no narrower scopes yet.
        narrower = self._confidence[1:, f]
        return float(narrower.max()) if narrower.size else UNKNOWN.elsewhere

    def worsening(self, key: Key) -> Worsening | None:
        """Return since when *key* helps no more, though it did; worked out when asked for."""
        days = self.beliefs.days
        if days is None or key.scope not in self.scopes or key.column not in self.columns:
            return None
        place = self.scopes[key.scope], self.columns[key.column]
        return find_change(days.of(*place), self.beliefs.variance, self._settings.change_years)

    def n_treated(self, column: Column) -> float:
        """Return the treated responses with signals of an instruction, wherever it was served."""
        return float(self.beliefs.n_treated[:, self.columns[column]].max()) if column in self.columns else 0.0

    def narrower(self, column: Column) -> Iterable[Key]:
        """Return the keys of one instruction in each named question type and group."""
        named = [scope for scope in self.scopes if scope.question_type or scope.group]
        return [Key(scope, column) for scope in named] if column in self.columns else []


def measured(row: PatternRow, reading: Reading, tally: Tally) -> PatternRow:
    """Return the row with what was read; counts never fall when records leave the window."""
    low, high = reading.interval or (None, None)
    last_used_at = iso(tally.last_used_s) if tally.last_used_s is not None else None
    return replace(
        row,
        confidence=min(max(reading.confidence, 0.0), 1.0),
        score=tally.score if tally.n_signals else row.score,
        use_count=max(row.use_count, tally.n_used),
        signal_count=max(row.signal_count, tally.n_signals),
        user_count=max(row.user_count, tally.n_users),
        lift=reading.lift,
        lift_low=low,
        lift_high=high,
        e_value=e_value_of(reading.log_e) if reading.is_measured else None,
        last_used_at=max(filter(None, (row.last_used_at, last_used_at)), default=None),
        guardrails=dict(reading.guardrails),
    )
