"""Table ``alerts``: what a person should know at once. Written by the learner; acknowledged by a person."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from store.clock import iso
from store.database import Database, Row
from store.errors import NotFoundError
from store.ids import new_id
from store.paging import decode_cursor, encode_cursor, split_page

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alert:
    id: str
    tenant_id: str
    run_id: str | None
    kind: str
    message: str
    detail: dict[str, Any]
    created_at: str
    acknowledged_at: str | None
    delivered_at: str | None  # when the webhook took it
    attempts: int  # tries to deliver it


def raise_alert(
    db: Database,
    tenant_id: str,
    *,
    kind: str,
    message: str,
    detail: Mapping[str, Any],
    run_id: str | None,
    now_s: float,
) -> str:
    """Write an alert and return its id; a webhook gets it from the learner afterwards."""
    alert_id = new_id("alert", now_s)
    with db.transaction():
        db.execute(
            """
            INSERT INTO alerts (id, tenant_id, run_id, kind, message, detail_json, created_at)
            VALUES (:id, :tenant_id, :run_id, :kind, :message, :detail_json, :created_at)
            """,
            {
                "id": alert_id,
                "tenant_id": tenant_id,
                "run_id": run_id,
                "kind": kind,
                "message": message,
                "detail_json": json.dumps(dict(detail)),
                "created_at": iso(now_s),
            },
        )
    log.warning("alert %s of tenant %s: %s", alert_id, tenant_id, kind)  # its words may hold a person's
    return alert_id


def list_alerts(
    db: Database, tenant_id: str, *, is_open: bool = False, limit: int = 100, cursor: str | None = None
) -> tuple[list[Alert], str | None]:
    """Return alerts (*is_open*: those that nobody acknowledged), the newest first, and where the next page begins."""
    rows = db.rows(
        """
        SELECT * FROM alerts
        WHERE tenant_id = :tenant_id AND (:is_open = 0 OR acknowledged_at IS NULL) AND (:cursor IS NULL OR id < :cursor)
        ORDER BY id DESC LIMIT :limit
        """,
        {
            "tenant_id": tenant_id,
            "is_open": int(is_open),
            "cursor": decode_cursor(cursor, 1)[0] if cursor else None,
            "limit": limit + 1,
        },
    )
    page, has_more = split_page(rows, limit)
    alerts = [_alert(row) for row in page]
    return alerts, encode_cursor(alerts[-1].id) if has_more else None


def last_alert(db: Database, tenant_id: str, kind: str) -> Alert | None:
    """Return the newest alert of one kind, or None."""
    row = db.row(
        "SELECT * FROM alerts WHERE tenant_id = :tenant_id AND kind = :kind ORDER BY id DESC LIMIT 1",
        {"tenant_id": tenant_id, "kind": kind},
    )
    return None if row is None else _alert(row)


def alerts_since(db: Database, tenant_id: str, kind: str, since_s: float) -> list[Alert]:
    """Return the alerts of one kind that were raised since *since_s*, oldest first."""
    rows = db.rows(
        """
        SELECT * FROM alerts
        WHERE tenant_id = :tenant_id AND kind = :kind AND created_at >= :since ORDER BY created_at, id
        """,
        {"tenant_id": tenant_id, "kind": kind, "since": iso(since_s)},
    )
    return [_alert(row) for row in rows]


def acknowledge_alert(db: Database, tenant_id: str, alert_id: str, *, now_s: float) -> None:
    """Mark an alert as seen; the first time counts.

    Raises:
        NotFoundError: the tenant has none of this id.
    """
    with db.transaction():
        changed = db.execute(
            """
            UPDATE alerts SET acknowledged_at = coalesce(acknowledged_at, :now)
            WHERE tenant_id = :tenant_id AND id = :id
            """,
            {"tenant_id": tenant_id, "id": alert_id, "now": iso(now_s)},
        )
    if not changed:
        raise NotFoundError(f"no alert {alert_id!r}")


def _alert(row: Row) -> Alert:
    columns = dict(row)
    del columns["next_try_at"]
    columns["detail"] = json.loads(columns.pop("detail_json"))
    return Alert(**columns)
