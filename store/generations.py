"""Table ``generations``: what the proxy serves, one number after the other. Written by the learner and the command."""

from dataclasses import dataclass

from store.clock import iso
from store.database import Database
from store.errors import NotFoundError
from store.paging import decode_number, encode_cursor, split_page
from store.plan import EMPTY_PLAN, Plan, decode_plan, encode_plan


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """One generation without its plan; ``has_plan`` is False when only knowledge changed."""

    number: int
    has_plan: bool
    run_id: str | None
    actor: str
    reason: str
    created_at: str


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


def list_generations(
    db: Database, tenant_id: str, *, limit: int = 100, cursor: str | None = None
) -> tuple[list[GenerationRow], str | None]:
    """Return generations, the newest first, and where the next page begins."""
    rows = db.rows(
        """
        SELECT number, plan_json IS NOT NULL AS has_plan, run_id, actor, reason, created_at FROM generations
        WHERE tenant_id = :tenant_id AND (:cursor IS NULL OR number < :cursor)
        ORDER BY number DESC LIMIT :limit
        """,
        {"tenant_id": tenant_id, "cursor": decode_number(cursor) if cursor else None, "limit": limit + 1},
    )
    page, has_more = split_page(rows, limit)
    found = [GenerationRow(**{**dict(row), "has_plan": bool(row["has_plan"])}) for row in page]
    return found, encode_cursor(found[-1].number) if has_more else None


def get_generation(db: Database, tenant_id: str, number: int) -> GenerationRow:
    """Return one generation.

    Raises:
        NotFoundError: the tenant has no such generation.
    """
    row = db.row(
        """
        SELECT number, plan_json IS NOT NULL AS has_plan, run_id, actor, reason, created_at FROM generations
        WHERE tenant_id = :tenant_id AND number = :number
        """,
        {"tenant_id": tenant_id, "number": number},
    )
    if row is None:
        raise NotFoundError(f"no generation {number}")
    return GenerationRow(**{**dict(row), "has_plan": bool(row["has_plan"])})


def plans_since(db: Database, tenant_id: str, since_s: float) -> list[GenerationRow]:
    """Return the generations with a plan that were published since *since_s*, and the last one before, by number."""
    rows = db.rows(
        """
        SELECT number, 1 AS has_plan, run_id, actor, reason, created_at FROM generations
        WHERE tenant_id = :tenant_id AND plan_json IS NOT NULL AND number >= coalesce((
          SELECT max(number) FROM generations
          WHERE tenant_id = :tenant_id AND plan_json IS NOT NULL AND created_at < :since), 0)
        ORDER BY number
        """,
        {"tenant_id": tenant_id, "since": iso(since_s)},
    )
    return [GenerationRow(**{**dict(row), "has_plan": True}) for row in rows]


def plan_of(db: Database, tenant_id: str, number: int) -> Plan:
    """Return the patterns that generation *number* served: its own plan, or the last before it.

    Raises:
        NotFoundError: the tenant has no such generation.
    """
    if not 1 <= number <= current_number(db, tenant_id):
        raise NotFoundError(f"no generation {number}")
    text = db.value(
        """
        SELECT plan_json FROM generations
        WHERE tenant_id = :tenant_id AND plan_json IS NOT NULL AND number <= :number
        ORDER BY number DESC LIMIT 1
        """,
        {"tenant_id": tenant_id, "number": number},
    )
    return decode_plan(text) if text else EMPTY_PLAN
