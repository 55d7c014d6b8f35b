"""Table ``audit_log``: who changed what. Written by the learner and the command, beside the change itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from store.clock import iso
from store.database import Database
from store.ids import new_id
from store.paging import decode_cursor, encode_cursor, split_page


@dataclass(frozen=True, slots=True)
class AuditRow:
    id: str
    tenant_id: str
    actor: str
    action: str
    object_id: str
    detail: Mapping[str, Any]
    created_at: str


def record(
    db: Database,
    tenant_id: str,
    *,
    actor: str,
    action: str,
    object_id: str,
    detail: Mapping[str, Any],
    now_s: float,
) -> None:
    """Write down one change; call it inside the transaction of the change.

    Args:
        db: the database.
        tenant_id: whose thing was changed.
        actor: a key's id, ``console``, ``command`` or ``learner``.
        action: what was done, such as ``contexts.approve``.
        object_id: to what.
        detail: what a reader needs to understand it; no message text.
        now_s: seconds since 1970.
    """
    with db.transaction():
        db.execute(
            """
            INSERT INTO audit_log (id, tenant_id, actor, action, object_id, detail_json, created_at)
            VALUES (:id, :tenant_id, :actor, :action, :object_id, :detail_json, :created_at)
            """,
            {
                "id": new_id("audit", now_s),
                "tenant_id": tenant_id,
                "actor": actor,
                "action": action,
                "object_id": object_id,
                "detail_json": msgspec.json.encode(detail).decode(),
                "created_at": iso(now_s),
            },
        )


def list_audit(
    db: Database, tenant_id: str, *, limit: int = 100, cursor: str | None = None
) -> tuple[list[AuditRow], str | None]:
    """Return the tenant's changes, newest first, and the cursor of the next page."""
    before = decode_cursor(cursor, 2) if cursor else [None, None]
    rows = db.rows(
        """
        SELECT id, tenant_id, actor, action, object_id, detail_json, created_at FROM audit_log
        WHERE tenant_id = :tenant_id AND (:before_at IS NULL OR (created_at, id) < (:before_at, :before_id))
        ORDER BY created_at DESC, id DESC LIMIT :limit
        """,
        {"tenant_id": tenant_id, "before_at": before[0], "before_id": before[1], "limit": limit + 1},
    )
    page, has_more = split_page(rows, limit)
    entries = [
        AuditRow(
            id=row["id"],
            tenant_id=row["tenant_id"],
            actor=row["actor"],
            action=row["action"],
            object_id=row["object_id"],
            detail=msgspec.json.decode(row["detail_json"]),
            created_at=row["created_at"],
        )
        for row in page
    ]
    return entries, encode_cursor(entries[-1].created_at, entries[-1].id) if has_more else None
