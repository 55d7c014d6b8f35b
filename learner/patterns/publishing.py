"""The end of a pattern run: all that it changed, its generation and its cursor, in one transaction."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from learner.models import Models
from learner.patterns.crash import Crash
from learner.patterns.discovery import Found
from learner.patterns.lifecycle import Change
from learner.patterns.safety import detail_of
from learner.report import RunReport
from store.alerts import raise_alert
from store.clock import Clock
from store.database import Database
from store.patterns import PatternRow, all_patterns, insert_pattern, publish_patterns_if_changed, save_pattern
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


@dataclass(frozen=True, slots=True)
class Cursor:
    """What was read: the newest ``seq`` of both tables, and how many signals there were, for some are taken back."""

    response: int
    signal: int
    n_signals: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A find with its words, ready to be written; ``revives`` is the retired row that it takes up again."""

    row: PatternRow
    found: Found
    revives: PatternRow | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run wants to write."""

    changes: Sequence[Change] = ()
    candidates: Sequence[Candidate] = ()
    crash: Crash | None = None
    n_responses: int = 0  # since the run before
    n_signals: int = 0
    satisfaction: float | None = None


def publish_run(db: Database, run: Run, outcome: Outcome, until: Cursor) -> RunReport:
    """Write what the run found and return its report.

    Raises:
        UnavailableError: the database is missing, locked or damaged; nothing was written.
    """
    costs = run.models.meter.usage
    with db.transaction():
        lines = _write(db, run, outcome)
        generation = publish_patterns_if_changed(
            db, run.tenant_id, actor=ACTOR, reason=f"pattern run {run.id}", now_s=run.now_s, run_id=run.id
        )
        counts = _counts(outcome, all_patterns(db, run.tenant_id))
        finish_run(
            db,
            run.tenant_id,
            run.id,
            finished_s=run.clock.now_s(),
            cursor=asdict(until),
            summary={"counts": counts, "changes": lines, "notes": run.models.meter.notes()},
            generation=generation,
            n_responses=outcome.n_responses,
            n_signals=outcome.n_signals,
            satisfaction=outcome.satisfaction,
            model_calls=costs.calls,
            prompt_tokens=costs.prompt_tokens,
            completion_tokens=costs.completion_tokens,
            cost_usd=costs.cost_usd,
        )
    return RunReport("patterns", run.id, generation, counts, tuple(lines), costs)


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
        )
        if change.reason is not None:
            lines.append(_line(change.before.state, change.after, change.reason))
    lines.extend(
        _write_candidate(db, run, candidate)
        for candidate in outcome.candidates
        if candidate.revives is None or current.get(candidate.revives.id) == candidate.revives
    )
    if outcome.crash is not None:
        lines.append(_write_crash(db, run, outcome, outcome.crash))
    return lines


def _write_candidate(db: Database, run: Run, candidate: Candidate) -> str:
    found = candidate.found
    reason = (
        f"{found.n_responses} replies with it score {found.cluster.difference:+.3f} against others "
        f"({found.z:.1f} standard errors)"
    )
    detail = {
        "difference": found.cluster.difference,
        "standard_error": found.cluster.standard_error,
        "n_responses": found.n_responses,
        "n_rated": found.n_rated,
    }
    if candidate.revives is None:
        insert_pattern(db, candidate.row, actor=ACTOR, reason=reason, now_s=run.now_s, run_id=run.id, detail=detail)
    else:
        save_pattern(
            db,
            candidate.revives,
            candidate.row,
            actor=ACTOR,
            reason=reason,
            now_s=run.now_s,
            run_id=run.id,
            detail=detail,
        )
    return _line(candidate.revives.state if candidate.revives else "new", candidate.row, reason)


def _write_crash(db: Database, run: Run, outcome: Outcome, crash: Crash) -> str:
    reverted = [c.after.id for c in outcome.changes if c.before.state == "active" and c.after.state == "trial"]
    message = (
        f"satisfaction index fell from {crash.before:.2f} to {crash.now:.2f}; {len(reverted)} recently activated "
        "patterns are back in trial, no activations in this run"
    )
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
    where = ", ".join(row.conditions.question_type) or "all question types"
    return f"{row.id} {row.type} {row.rule!r} ({where}): {before} -> {row.state}: {reason}"


def _counts(outcome: Outcome, rows: Sequence[PatternRow]) -> dict[str, int]:
    counts = {"responses": outcome.n_responses, "signals": outcome.n_signals, "found": len(outcome.candidates)}
    for row in rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    return counts
