"""Table ``alerts``: which of them a webhook has not taken yet. Written by the learner."""

import json
from dataclasses import dataclass
from typing import Any

from store.clock import iso
from store.database import Database


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """An alert that is to be delivered; ``attempts`` counts this try."""

    id: str
    tenant_id: str
    run_id: str | None
    kind: str
    message: str
    detail: dict[str, Any]
    created_at: str
    attempts: int


def claim_pending(
    db: Database, *, now_s: float, retry_s: float, retry_max_s: float, timeout_s: float, give_up_h: float, limit: int
) -> list[PendingAlert]:
    """Return the alerts of all tenants that are due for a try, oldest first, each with its next try put off.

    That next try comes also when this one ends with its process: an alert is delivered at least once, or given up
    *give_up_h* hours after it was raised.

    Args:
        db: the database.
        now_s: seconds since 1970.
        retry_s: seconds to the second try; doubles with each further one ...
        retry_max_s: ... up to this.
        timeout_s: seconds that a try takes at most, on top: nobody else begins one meanwhile.
        give_up_h: hours after which nobody wants to know any more.
        limit: at most so many.
    """
    due = """
        SELECT id, tenant_id, run_id, kind, message, detail_json, created_at, attempts FROM alerts
        WHERE delivered_at IS NULL AND created_at >= :since AND coalesce(next_try_at, '') <= :now
        ORDER BY id LIMIT :limit
        """
    parameters = {"now": iso(now_s), "since": iso(now_s - give_up_h * 3600), "limit": limit}
    if not db.rows(due, parameters):
        return []
    with db.transaction():
        # Looked at again under the write lock: another learner may have taken them just now.
        rows = db.rows(due, parameters)
        for place, row in enumerate(rows):
            wait_s = min(retry_s * 2.0 ** min(row["attempts"], 60), retry_max_s)
            db.execute(
                "UPDATE alerts SET attempts = attempts + 1, next_try_at = :next WHERE id = :id",
                {"id": row["id"], "next": iso(now_s + (place + 1) * timeout_s + wait_s)},
            )
    return [
        PendingAlert(
            id=row["id"],
            tenant_id=row["tenant_id"],
            run_id=row["run_id"],
            kind=row["kind"],
            message=row["message"],
            detail=json.loads(row["detail_json"]),
            created_at=row["created_at"],
            attempts=row["attempts"] + 1,
        )
        for row in rows
    ]


def mark_delivered(db: Database, alert_id: str, *, now_s: float) -> None:
    """Note that the webhook took the alert."""
    with db.transaction():
        db.execute("UPDATE alerts SET delivered_at = :now WHERE id = :id", {"id": alert_id, "now": iso(now_s)})
