"""Applies migrations that a database has not seen, and notes which it has in table ``_sqlite_migrations``.

The table is that of sqlite-utils, whose command can list it; the package itself is not needed: it takes 50 ms and 5 MB
of every process that opens a database.
"""

import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from store.migrations import MIGRATIONS

Migration = Callable[[sqlite3.Connection], None]

SET: Final = "tutelage"


def pending(connection: sqlite3.Connection) -> list[Migration]:
    """Return the migrations that were not applied yet, in order; reads only."""
    table = connection.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone()
    if table is None:
        return list(MIGRATIONS)
    rows = connection.execute("SELECT name FROM _sqlite_migrations WHERE migration_set = :set", {"set": SET})
    applied = {name for (name,) in rows}
    return [migration for migration in MIGRATIONS if migration.__name__ not in applied]


def apply(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Apply *migrations*, as ``pending`` returned them, in the transaction that is open."""
    connection.execute(
        """
        CREATE TABLE IF NOT EXISTS "_sqlite_migrations" (
          "id" INTEGER PRIMARY KEY,
          "migration_set" TEXT,
          "name" TEXT,
          "applied_at" TEXT
        )
        """
    )
    connection.execute(
        """
        CREATE UNIQUE INDEX IF NOT EXISTS "idx__sqlite_migrations_migration_set_name"
          ON "_sqlite_migrations" ("migration_set", "name")
        """
    )
    for migration in migrations:
        migration(connection)
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (:set, :name, :now)",
            {"set": SET, "name": migration.__name__, "now": str(datetime.now(UTC))},
        )
