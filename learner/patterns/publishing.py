"""The end of a pattern run: all that it changed, its generation, its sums and its cursor, in one transaction."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from learner.models import Models
from learner.patterns.crash import Crash
from learner.patterns.kept import Cursor, News
from learner.patterns.lifecycle import Change
from learner.patterns.safety import Safety, detail_of
from learner.report import RunReport
from store.alerts import raise_alert
from store.clock import Clock
from store.database import Database
from store.learner_states import LearnerState, save_learner_state
from store.patterns import (
    PatternRow,
    all_patterns,
    harmed_since_activation,
    insert_pattern,
    publish_patterns_if_changed,
    save_pattern,
)
from store.plan import Conditions
from store.removals import forget_removals
from store.reverting import revert
from store.runs import finish_run

log = logging.getLogger(__name__)

ACTOR: Final = "learner"


@dataclass(frozen=True, slots=True)
class Run:
    """Which run this is, and what it works with."""

    id: str
    tenant_id: str
    now_s: float
    clock: Clock
    models: Models
    chance: Callable[[int], bytes]  # random bytes, for ids


@dataclass(frozen=True, slots=True)
class Candidate:
    """A new pattern, ready to be written; ``revives`` is the retired row that it takes up again."""

    row: PatternRow
    revives: PatternRow | None
    reason: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run wants to write."""

    until: Cursor
    changes: Sequence[Change] = ()
    candidates: Sequence[Candidate] = ()
    safety: Safety | None = None
    state: LearnerState | None = None  # None: the sums stay as they are
    news: News = field(default_factory=News)


def publish_run(db: Database, run: Run, outcome: Outcome) -> RunReport:
    """Write what the run found and return its report.

    Raises:
        UnavailableError: the database is missing, locked or damaged; nothing was written.
    """
    costs = run.models.meter.usage
    with db.transaction():
        lines = _write(db, run, outcome)
        if outcome.state is not None:
            save_learner_state(db, run.tenant_id, outcome.state, now_s=run.now_s)
            forget_removals(db, run.tenant_id, until=outcome.until.removal)
        generation = _publish(db, run, outcome)
        counts = _counts(outcome, all_patterns(db, run.tenant_id))
        finish_run(
            db,
            run.tenant_id,
            run.id,
            finished_s=run.clock.now_s(),
            cursor=asdict(outcome.until),
            summary={"counts": counts, "changes": lines, "notes": run.models.meter.notes()},
            generation=generation,
            n_responses=outcome.news.n_responses,
            n_signals=outcome.news.n_signals,
            satisfaction=outcome.news.satisfaction,
            model_calls=costs.calls,
            prompt_tokens=costs.prompt_tokens,
            completion_tokens=costs.completion_tokens,
            cost_usd=costs.cost_usd,
            is_frozen=None if outcome.safety is None else outcome.safety.is_frozen,
        )
    return RunReport("patterns", run.id, generation, counts, tuple(lines), costs)


def _quarantined(outcome: Outcome) -> list[str]:
    """Return the active patterns that a crash put back into trial."""
    return [one.after.id for one in outcome.changes if (one.before.state, one.after.state) == ("active", "trial")]


def _publish(db: Database, run: Run, outcome: Outcome) -> int | None:
    reason, safety = f"pattern run {run.id}", outcome.safety
    if safety is not None and safety.revert_to is not None:
        back = revert(
            db,
            run.tenant_id,
            safety.revert_to,
            actor=ACTOR,
            reason=safety.reason,
            now_s=run.now_s,
            run_id=run.id,
            suspects={*safety.suspects, *_quarantined(outcome), *harmed_since_activation(db, run.tenant_id)},
        )
        if back.generation is not None:
            return back.generation
    return publish_patterns_if_changed(db, run.tenant_id, actor=ACTOR, reason=reason, now_s=run.now_s, run_id=run.id)


def _write(db: Database, run: Run, outcome: Outcome) -> list[str]:
    """Write the changes and return them in words; what a person changed meanwhile stays as the person left it."""
    current = {row.id: row for row in all_patterns(db, run.tenant_id)}
    lines = []
    for change in outcome.changes:
        if current.get(change.before.id) != change.before:
            log.info("pattern %s was changed by a person during the run: left alone", change.before.id)
            continue
        save_pattern(
            db,
            change.before,
            change.after,
            actor=ACTOR,
            reason=change.reason or "",
            now_s=run.now_s,
            run_id=run.id,
            detail=_evidence(change.after),
            is_event=change.reason is not None,
            is_harm=change.is_harm,
        )
        if change.reason is not None:
            lines.append(_line(change.before.state, change.after, change.reason))
    lines.extend(
        _write_candidate(db, run, candidate)
        for candidate in outcome.candidates
        if candidate.revives is None or current.get(candidate.revives.id) == candidate.revives
    )
    if outcome.safety is not None and outcome.safety.crash is not None:
        lines.append(_write_crash(db, run, outcome, outcome.safety, outcome.safety.crash))
    elif outcome.safety is not None and outcome.safety.is_frozen:
        lines.append(f"{outcome.safety.reason}: nothing new is tried or activated")
    return lines


def _write_candidate(db: Database, run: Run, candidate: Candidate) -> str:
    row, reason, now_s = candidate.row, candidate.reason, run.now_s
    before = candidate.revives
    if before is None:
        insert_pattern(db, row, actor=ACTOR, reason=reason, now_s=now_s, run_id=run.id, detail=candidate.detail)
    else:
        save_pattern(db, before, row, actor=ACTOR, reason=reason, now_s=now_s, run_id=run.id, detail=candidate.detail)
    return _line(before.state if before else "new", row, reason)


def _write_crash(db: Database, run: Run, outcome: Outcome, safety: Safety, crash: Crash) -> str:
    assert safety.crash is not None
    reverted = _quarantined(outcome)
    message = f"{safety.reason}; {len(reverted)} recently activated patterns are back in trial"
    if safety.revert_to is not None:
        message += f"; all others are as in generation {safety.revert_to}"
    raise_alert(
        db,
        run.tenant_id,
        kind="crash",
        message=message,
        detail={**detail_of(crash), "patterns": reverted},
        run_id=run.id,
        now_s=run.now_s,
    )
    log.warning("tenant %s: %s", run.tenant_id, message)
    return f"alert: {message}"


def _evidence(row: PatternRow) -> Mapping[str, Any]:
    return {
        "confidence": row.confidence,
        "lift": row.lift,
        "lift_low": row.lift_low,
        "lift_high": row.lift_high,
        "e_value": row.e_value,
        "signal_count": row.signal_count,
        "share": row.share,
    }


def _line(before: str, row: PatternRow, reason: str) -> str:
    fields = {name: getattr(row.conditions, name) for name in Conditions.__struct_fields__}
    named = [f"{name.replace('_', ' ')} {' or '.join(values)}" for name, values in fields.items() if values]
    where = ", ".join(named) or "all conversations"
    return f"{row.id} {row.type} {row.rule!r} ({where}): {before} -> {row.state}: {reason}"


def _counts(outcome: Outcome, rows: Sequence[PatternRow]) -> dict[str, int]:
    counts = {
        "responses": outcome.news.n_responses,
        "signals": outcome.news.n_signals,
        "found": len(outcome.candidates),
    }
    for row in rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    return counts
