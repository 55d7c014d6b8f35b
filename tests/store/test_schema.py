"""schema.sql shows what the migrations make."""

from store.database import Database
from store.schema import SCHEMA_FILE, render_schema


def test_schema_sql_is_what_the_migrations_make() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == render_schema(), "run: python -m store.schema"


def test_every_table_is_strict(db: Database) -> None:
    loose = db.rows("SELECT name FROM pragma_table_list WHERE type = 'table' AND NOT strict AND schema = 'main'")

    # Not ours: SQLite's own and the migrations' book-keeping.
    assert {row["name"] for row in loose} == {"sqlite_schema", "sqlite_sequence", "_sqlite_migrations"}


def test_every_foreign_key_points_to_a_key(db: Database) -> None:
    assert db.rows("PRAGMA foreign_key_check") == []
    assert db.value("PRAGMA integrity_check") == "ok"


def test_the_lift_of_all_patterns_is_counted_in_one_pass_over_the_responses(db: Database) -> None:
    plan = [row["detail"] for row in db.rows("EXPLAIN QUERY PLAN SELECT * FROM v_pattern_lift WHERE tenant_id = 't'")]

    assert [step for step in plan if step.startswith("SCAN")] == [
        "SCAN r",
        "SCAN s VIRTUAL TABLE INDEX 1:",  # the list inside a response
        "SCAN u",  # a row per set
    ]
