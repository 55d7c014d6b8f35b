"""Table ``learning_runs``: what each learning run read, changed and cost. Written by the learner and the command."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from store.clock import iso
from store.database import Database, Row
from store.errors import NotFoundError
from store.ids import new_id
from store.paging import decode_cursor, encode_cursor, split_page

RunKind = Literal["patterns", "knowledge", "nlu"]
RunStatus = Literal["running", "completed", "failed"]


# A run that did not complete has no summary; the answers that it paid for are kept for the next.
_KEPT_COSTS: Final = """
  model_calls = (SELECT count(*) FROM model_calls AS c WHERE c.run_id = learning_runs.id),
  prompt_tokens = (SELECT coalesce(sum(prompt_tokens), 0) FROM model_calls AS c WHERE c.run_id = learning_runs.id),
  completion_tokens =
    (SELECT coalesce(sum(completion_tokens), 0) FROM model_calls AS c WHERE c.run_id = learning_runs.id),
  cost_usd = (SELECT coalesce(sum(cost_usd), 0.0) FROM model_calls AS c WHERE c.run_id = learning_runs.id)
"""


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. ``run_at`` is its time for all that depends on time; the other moments are the machine's."""

    id: str
    tenant_id: str
    kind: RunKind
    status: RunStatus
    run_at: str
    started_at: str
    finished_at: str | None
    generation: int | None
    cursor: dict[str, Any]
    n_responses: int
    n_signals: int
    satisfaction: float | None
    model_calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    summary: dict[str, Any]
    error: str | None
    is_frozen: bool | None  # a crash held back new trials and activations; None: the run did not look


def counted(counts: Mapping[str, int] | None) -> str:
    """Return in words what there was; what there was none of is left out.

    >>> counted({"responses": 1720, "signals": 1, "left_for_next_run": 2, "found": 0}), counted({})
    ('1,720 responses, 1 signal, 2 left for next run', 'nothing')
    """
    words = [f"{number:,} {_noun(name, number)}" for name, number in (counts or {}).items() if number]
    return ", ".join(words) or "nothing"


def _noun(name: str, number: int) -> str:
    return (name.removesuffix("s") if number == 1 else name).replace("_", " ")


def start_run(db: Database, tenant_id: str, kind: RunKind, run_at_s: float, started_s: float) -> str:
    """Write a run that has begun and return its id."""
    run_id = new_id("run", started_s)
    with db.transaction():
        db.execute(
            """
            INSERT INTO learning_runs (id, tenant_id, kind, status, run_at, started_at, cursor_json, summary_json)
            VALUES (:id, :tenant_id, :kind, 'running', :run_at, :started_at, '{}', '{}')
            """,
            {
                "id": run_id,
                "tenant_id": tenant_id,
                "kind": kind,
                "run_at": iso(run_at_s),
                "started_at": iso(started_s),
            },
        )
    return run_id


def finish_run(
    db: Database,
    tenant_id: str,
    run_id: str,
    *,
    finished_s: float,
    cursor: Mapping[str, Any],
    summary: Mapping[str, Any],
    generation: int | None = None,
    n_responses: int = 0,
    n_signals: int = 0,
    satisfaction: float | None = None,
    model_calls: int = 0,
    prompt_tokens: int = 0,
    completion_tokens: int = 0,
    cost_usd: float = 0.0,
    is_frozen: bool | None = None,
) -> None:
    """Complete a run; call it inside the transaction that publishes its results.

    Raises:
        NotFoundError: the tenant has no running run of this id.
    """
    with db.transaction():
        changed = db.execute(
            """
            UPDATE learning_runs SET status = 'completed', finished_at = :finished_at, generation = :generation,
              cursor_json = :cursor_json, n_responses = :n_responses, n_signals = :n_signals,
              satisfaction = :satisfaction, model_calls = :model_calls, prompt_tokens = :prompt_tokens,
              completion_tokens = :completion_tokens, cost_usd = :cost_usd, summary_json = :summary_json,
              is_frozen = :is_frozen
            WHERE tenant_id = :tenant_id AND id = :id AND status = 'running'
            """,
            {
                "tenant_id": tenant_id,
                "id": run_id,
                "finished_at": iso(finished_s),
                "generation": generation,
                "cursor_json": json.dumps(dict(cursor)),
                "n_responses": n_responses,
                "n_signals": n_signals,
                "satisfaction": satisfaction,
                "model_calls": model_calls,
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "cost_usd": cost_usd,
                "summary_json": json.dumps(dict(summary)),
                "is_frozen": None if is_frozen is None else int(is_frozen),
            },
        )
        if not changed:
            raise NotFoundError(f"no running run {run_id!r}")


def fail_run(db: Database, tenant_id: str, run_id: str, *, error: str, finished_s: float) -> None:
    """Mark a run as failed, with what the answers that it kept had cost; one that has ended stays as it is."""
    with db.transaction():
        db.execute(
            f"""
            UPDATE learning_runs SET status = 'failed', finished_at = :finished_at, error = :error, {_KEPT_COSTS}
            WHERE tenant_id = :tenant_id AND id = :id AND status = 'running'
            """,
            {"tenant_id": tenant_id, "id": run_id, "finished_at": iso(finished_s), "error": error},
        )


def fail_interrupted_runs(db: Database, tenant_id: str, *, finished_s: float) -> int:
    """Mark the runs whose process died as failed and return how many; call it under the tenant's run lock only."""
    with db.transaction():
        return db.execute(
            f"""
            UPDATE learning_runs SET status = 'failed', finished_at = :finished_at, error = 'interrupted', {_KEPT_COSTS}
            WHERE tenant_id = :tenant_id AND status = 'running'
            """,
            {"tenant_id": tenant_id, "finished_at": iso(finished_s)},
        )


def get_run(db: Database, tenant_id: str, run_id: str) -> RunRow:
    """Return one run.

    Raises:
        NotFoundError: the tenant has none of this id.
    """
    row = db.row(
        "SELECT * FROM learning_runs WHERE tenant_id = :tenant_id AND id = :id", {"tenant_id": tenant_id, "id": run_id}
    )
    if row is None:
        raise NotFoundError(f"no run {run_id!r}")
    return _run(row)


def list_runs(
    db: Database, tenant_id: str, *, kind: RunKind | None = None, limit: int = 100, cursor: str | None = None
) -> tuple[list[RunRow], str | None]:
    """Return runs, the newest first, and where the next page begins."""
    rows = db.rows(
        """
        SELECT * FROM learning_runs
        WHERE tenant_id = :tenant_id AND (:kind IS NULL OR kind = :kind) AND (:cursor IS NULL OR id < :cursor)
        ORDER BY id DESC LIMIT :limit
        """,
        {
            "tenant_id": tenant_id,
            "kind": kind,
            "cursor": decode_cursor(cursor, 1)[0] if cursor else None,
            "limit": limit + 1,
        },
    )
    page, has_more = split_page(rows, limit)
    runs = [_run(row) for row in page]
    return runs, encode_cursor(runs[-1].id) if has_more else None


def last_completed_run(db: Database, tenant_id: str, kind: RunKind) -> RunRow | None:
    """Return the run of this kind that completed last, whose cursor the next one begins at, or None."""
    row = db.row(
        """
        SELECT * FROM learning_runs
        WHERE tenant_id = :tenant_id AND kind = :kind AND status = 'completed'
        ORDER BY id DESC LIMIT 1
        """,
        {"tenant_id": tenant_id, "kind": kind},
    )
    return None if row is None else _run(row)


def last_look_at_safety(db: Database, tenant_id: str) -> RunRow | None:
    """Return the completed run that was the last to look whether a crash holds back what is new, or None."""
    row = db.row(
        """
        SELECT * FROM learning_runs
        WHERE tenant_id = :tenant_id AND status = 'completed' AND is_frozen IS NOT NULL
        ORDER BY id DESC LIMIT 1
        """,
        {"tenant_id": tenant_id},
    )
    return None if row is None else _run(row)


def _run(row: Row) -> RunRow:
    columns = dict(row)
    columns["cursor"] = json.loads(columns.pop("cursor_json"))
    columns["summary"] = json.loads(columns.pop("summary_json"))
    columns["is_frozen"] = None if columns["is_frozen"] is None else bool(columns["is_frozen"])
    return RunRow(**columns)
