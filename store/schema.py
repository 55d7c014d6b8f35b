"""The schema as one readable script, made from the migrations: ``python -m store.schema`` writes ``schema.sql``."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from store.database import Database, migrate

SCHEMA_FILE: Final = Path(__file__).with_name("schema.sql")
HEADER: Final = (
    "-- Made from the migrations by `python -m store.schema`; do not edit. Times are UTC text, *_json is JSON.\n"
)


def render_schema() -> str:
    """Return the statements of a newly migrated database: each table with its indexes, then the views."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        database = Database(connection, Path(":memory:"))
        migrate(database)
        rows = database.rows(
            """
            SELECT item.sql FROM sqlite_master AS item
            JOIN sqlite_master AS owner ON owner.name = item.tbl_name AND owner.type IN ('table', 'view')
            WHERE item.sql IS NOT NULL AND item.tbl_name NOT LIKE '\\_sqlite\\_%' ESCAPE '\\'
              AND item.tbl_name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
              AND item.tbl_name NOT IN (SELECT name FROM pragma_table_list WHERE type = 'shadow') -- of full-text search
            ORDER BY owner.type, owner.rowid, item.type = 'index', item.rowid
            """
        )
    return HEADER + "".join(f"\n{row['sql']};\n" for row in rows)


if __name__ == "__main__":
    SCHEMA_FILE.write_text(render_schema(), encoding="utf-8")
