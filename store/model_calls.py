"""Table ``model_calls``: answers of models that a run paid for, until the run is over. Written by the learner.

A run that is killed leaves them, and whoever repeats it takes them instead of paying again. A run that completes
deletes them: they quote what was said.
"""

import json
from collections.abc import Mapping
from typing import Any

from store.clock import iso
from store.database import Database


def keep_answer(
    db: Database,
    tenant_id: str,
    *,
    request_hash: str,
    turn: int,
    run_id: str,
    answer: Mapping[str, Any],
    prompt_tokens: int,
    completion_tokens: int,
    cost_usd: float,
    now_s: float,
) -> None:
    """Keep an answer; call it outside any transaction, as soon as it is there.

    One statement, which commits by itself: a process that dies a moment later has kept it.
    """
    db.execute(
        """
        INSERT INTO model_calls (tenant_id, request_hash, turn, run_id, answer_json, prompt_tokens, completion_tokens,
          cost_usd, created_at)
        VALUES (:tenant_id, :request_hash, :turn, :run_id, :answer_json, :prompt_tokens, :completion_tokens,
          :cost_usd, :now)
        """,
        {
            "tenant_id": tenant_id,
            "request_hash": request_hash,
            "turn": turn,
            "run_id": run_id,
            "answer_json": json.dumps(dict(answer)),
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "cost_usd": cost_usd,
            "now": iso(now_s),
        },
    )


def kept_answer(db: Database, tenant_id: str, *, request_hash: str, turn: int) -> dict[str, Any] | None:
    """Return what a run that did not complete was answered to this request, or None."""
    kept = db.value(
        """
        SELECT answer_json FROM model_calls
        WHERE tenant_id = :tenant_id AND request_hash = :request_hash AND turn = :turn
        """,
        {"tenant_id": tenant_id, "request_hash": request_hash, "turn": turn},
    )
    if kept is None:
        return None
    answer: dict[str, Any] = json.loads(kept)
    return answer


def forget_answers(db: Database, tenant_id: str) -> None:
    """Delete all kept answers of a tenant."""
    with db.transaction():
        db.execute("DELETE FROM model_calls WHERE tenant_id = :tenant_id", {"tenant_id": tenant_id})
