"""docs/datasette.yaml describes the schema that is there, and its queries run."""

import re
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from store.database import Database
from store.pattern_review import add_pattern, set_state
from store.plan import Conditions
from tests.conftest import NOW_S

ROOT = Path(__file__).parents[1]
METADATA: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "datasette.yaml").read_text(encoding="utf-8"))
TABLES: dict[str, Any] = METADATA["databases"]["tutelage"]["tables"]
QUERIES: dict[str, Any] = METADATA["databases"]["tutelage"]["queries"]


def test_every_table_and_view_is_described_and_no_other(db: Database) -> None:
    rows = db.rows(
        """
        SELECT name FROM sqlite_master
        WHERE type IN ('table', 'view') AND name NOT IN (SELECT name FROM pragma_table_list WHERE type = 'shadow')
          AND name NOT LIKE 'sqlite%' AND name NOT LIKE '\\_sqlite%' ESCAPE '\\'
        """
    )

    assert set(TABLES) == {row["name"] for row in rows}
    assert all(table["description"] for table in TABLES.values())


@pytest.mark.parametrize("name", TABLES)
def test_every_column_that_is_named_exists(db: Database, name: str) -> None:
    columns = {row["name"] for row in db.rows("SELECT name FROM pragma_table_info(:name)", {"name": name})}
    table = TABLES[name]

    named = {*table.get("columns", {}), *table.get("facets", []), *filter(None, [table.get("sort_desc")])}

    assert named <= columns


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_runs_and_only_reads(db: Database, name: str) -> None:
    sql = QUERIES[name]["sql"]
    parameters = dict.fromkeys(re.findall(r":([a-z]+)", sql), "default")
    db.execute("PRAGMA query_only = ON")

    assert db.rows(sql, parameters) == []
    assert QUERIES[name]["title"]


def test_the_tables_with_secrets_are_hidden() -> None:
    assert {name for name, table in TABLES.items() if table.get("hidden")} == {"tenants", "api_keys"}


def add(db: Database, rule: str, state: Literal["candidate", "trial"]) -> str:
    return add_pattern(
        db,
        "default",
        type="response_format",
        rule=rule,
        conditions=Conditions(),
        state=state,
        tokens=5,
        actor="command",
        now_s=NOW_S,
    ).id


def test_a_false_start_is_a_pattern_that_was_served_and_taken_out(db: Database) -> None:
    tried, waiting = add(db, "Use a table.", "trial"), add(db, "Use a list.", "candidate")
    for pattern_id in (tried, waiting):
        set_state(db, "default", pattern_id, state="disabled", actor="command", reason="no use", now_s=NOW_S + 1)

    found = db.rows(QUERIES["false_starts"]["sql"], {"tenant": "default"})

    assert [(row["id"], row["reason"]) for row in found] == [(tried, "no use")]
