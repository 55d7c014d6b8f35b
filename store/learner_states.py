"""Table ``learner_states``: what the pattern learner keeps of the records between runs. Written by the learner alone.

Nothing in it is lost for good: it can be made anew from the records at any time.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from store.clock import iso
from store.database import Database


@dataclass(frozen=True, slots=True)
class LearnerState:
    """The state of one tenant's learner."""

    version: int
    state: bytes  # empty: dropped, see forget_learner_state
    cursor: Mapping[str, Any]  # up to where the sums hold
    group_field: str = ""  # '' for none
    priorities: Mapping[str, float] = field(default_factory=dict)


def load_learner_state(db: Database, tenant_id: str) -> LearnerState | None:
    """Return the state that the last run left, or None before the first."""
    row = db.row("SELECT * FROM learner_states WHERE tenant_id = :tenant_id", {"tenant_id": tenant_id})
    if row is None:
        return None
    return LearnerState(
        row["version"],
        row["state"],
        json.loads(row["cursor_json"]),
        row["group_field"],
        json.loads(row["priorities_json"]),
    )


def save_learner_state(db: Database, tenant_id: str, state: LearnerState, *, now_s: float) -> None:
    """Write the state; call it inside the transaction that publishes what was made of it."""
    with db.transaction():
        db.execute(
            """
            INSERT INTO learner_states (tenant_id, version, state, cursor_json, group_field, priorities_json,
              updated_at)
            VALUES (:tenant_id, :version, :state, :cursor_json, :group_field, :priorities_json, :updated_at)
            ON CONFLICT (tenant_id) DO UPDATE SET version = excluded.version, state = excluded.state,
              cursor_json = excluded.cursor_json, group_field = excluded.group_field,
              priorities_json = excluded.priorities_json, updated_at = excluded.updated_at
            """,
            {
                "tenant_id": tenant_id,
                "version": state.version,
                "state": state.state,
                "cursor_json": json.dumps(dict(state.cursor)),
                "group_field": state.group_field,
                "priorities_json": json.dumps(dict(state.priorities)),
                "updated_at": iso(now_s),
            },
        )


def forget_learner_state(db: Database, tenant_id: str) -> None:
    """Drop the sums: the next run makes them anew from the records that are left.

    What is served by groups, and which evidence began anew when, is told by nobody's records alone and stays.
    """
    with db.transaction():
        db.execute("UPDATE learner_states SET state = x'' WHERE tenant_id = :tenant_id", {"tenant_id": tenant_id})


def has_lost_sums(db: Database, tenant_id: str) -> bool:
    """Return whether the sums were dropped and not made anew since."""
    sql = "SELECT 1 FROM learner_states WHERE tenant_id = :tenant_id AND state = x''"
    return db.value(sql, {"tenant_id": tenant_id}) is not None


def plan_strata(db: Database, tenant_id: str) -> tuple[str, Mapping[str, float]]:
    """Return which field groups are values of ('' for none) and what dimensions are worth per token."""
    row = db.row(
        "SELECT group_field, priorities_json FROM learner_states WHERE tenant_id = :tenant_id",
        {"tenant_id": tenant_id},
    )
    return ("", {}) if row is None else (row["group_field"], json.loads(row["priorities_json"]))
