"""Table ``generations``: what the proxy serves, one number after the other. Written by the learner and the command."""

from store.clock import iso
from store.database import Database
from store.plan import EMPTY_PLAN, Plan, decode_plan, encode_plan


def publish(
    db: Database,
    tenant_id: str,
    *,
    plan: Plan | None,
    actor: str,
    reason: str,
    now_s: float,
    run_id: str | None = None,
) -> int:
    """Write the next generation of *tenant_id* and return its number; the proxy serves it within a second.

    Call it inside the transaction that changes the rows it stands for. ``plan=None`` keeps the patterns as they
    are (a change of contexts only).
    """
    with db.transaction():
        number = current_number(db, tenant_id) + 1
        db.execute(
            """
            INSERT INTO generations (tenant_id, number, plan_json, run_id, actor, reason, created_at)
            VALUES (:tenant_id, :number, :plan_json, :run_id, :actor, :reason, :created_at)
            """,
            {
                "tenant_id": tenant_id,
                "number": number,
                "plan_json": None if plan is None else encode_plan(plan),
                "run_id": run_id,
                "actor": actor,
                "reason": reason,
                "created_at": iso(now_s),
            },
        )
    return number


def current_number(db: Database, tenant_id: str) -> int:
    """Return the newest generation's number; 0 before the first."""
    found = db.value("SELECT max(number) FROM generations WHERE tenant_id = :tenant_id", {"tenant_id": tenant_id})
    return int(found or 0)


def current_plan(db: Database, tenant_id: str) -> Plan:
    """Return the patterns that the newest generation serves."""
    text = db.value(
        """
        SELECT plan_json FROM generations
        WHERE tenant_id = :tenant_id AND plan_json IS NOT NULL
        ORDER BY number DESC LIMIT 1
        """,
        {"tenant_id": tenant_id},
    )
    return decode_plan(text) if text else EMPTY_PLAN
