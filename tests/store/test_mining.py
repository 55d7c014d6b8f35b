"""What a knowledge run asks of the records costs as much as what changed, however much else there is."""

from store.database import Database
from store.mining import changed_conversations
from store.vocabulary import DEFAULT_TENANT


def plan_of(db: Database, sql: str) -> list[str]:
    return [row["detail"] for row in db.rows(f"EXPLAIN QUERY PLAN {sql}")]


def test_only_conversations_that_were_touched_are_looked_up(db: Database) -> None:
    statements: list[str] = []
    db.connection.set_trace_callback(statements.append)

    changed_conversations(db, DEFAULT_TENANT, since="2026-01-01T00:00:00.000Z")

    db.connection.set_trace_callback(None)
    (plan,) = (plan_of(db, sql) for sql in statements)
    looked_up = [step for step in plan if step.startswith("SEARCH c ")]
    assert looked_up == ["SEARCH c USING INDEX sqlite_autoindex_conversations_1 (tenant_id=? AND id=?)"]
