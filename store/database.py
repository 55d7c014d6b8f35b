"""Connections to the SQLite file: WAL, foreign keys, a busy timeout, and writes that begin IMMEDIATE."""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import sqlite_utils

from store.config import StoreSection, database_path
from store.errors import UnavailableError
from store.files import open_private
from store.migrations import MIGRATIONS

# Of the log before it is written back into the database, 16 MB: pages that change all the time are then written back a
# quarter as often as with SQLite's 1,000. The same for all connections: whoever commits beyond it pays for everybody.
WAL_PAGES = 4000

# Seconds in which another process brings the schema up to date at most: 6 are enough for a million responses.
MIGRATION_WAIT_S = 600.0
SWITCH_WAIT_S = 5.0  # seconds, at least, for another process that makes the file; milliseconds on an idle machine
RETRY_S = 0.05  # between two looks whether it is done, each of which waits busy_timeout_ms too

FETCH_ROWS = 1000  # at once, of a query that is read row by row

log = logging.getLogger(__name__)

Row = sqlite3.Row
Parameters = Mapping[str, Any]


class Database:
    """One connection. Not shared between threads that write at the same time: open one per thread.

    Reads run as they are; writes go through ``transaction()``.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self.path = path
        self._file_id = _file_id(path)

    def is_current(self) -> bool:
        """Return whether the file at ``path`` is still the one that was opened: not deleted, not replaced."""
        return self._file_id is not None and _file_id(self.path) == self._file_id

    def rows(self, sql: str, parameters: Parameters | None = None) -> list[Row]:
        """Return all rows of a query.

        Raises:
            UnavailableError: the database is missing, locked or damaged.
        """
        return list(self._execute(sql, parameters or {}))

    def batches(self, sql: str, parameters: Parameters | None = None, *, size: int) -> Iterator[list[Row]]:
        """Yield all rows of a query, *size* at a time.

        Raises:
            UnavailableError: the database is missing, locked or damaged.
        """
        cursor = self._execute(sql, parameters or {})
        try:
            while batch := cursor.fetchmany(size):
                yield batch
        except sqlite3.DatabaseError as exc:
            raise UnavailableError(f"{self.path}: {exc}") from exc

    def each(self, sql: str, parameters: Parameters | None = None) -> Iterator[Row]:
        """Yield the rows of a query one by one, for more of them than should be in memory at once.

        Raises:
            UnavailableError: the database is missing, locked or damaged.
        """
        for batch in self.batches(sql, parameters, size=FETCH_ROWS):
            yield from batch

    def row(self, sql: str, parameters: Parameters | None = None) -> Row | None:
        """Return the first row of a query, or None."""
        found: Row | None = self._execute(sql, parameters or {}).fetchone()
        return found

    def value(self, sql: str, parameters: Parameters | None = None) -> Any:
        """Return the first column of the first row, or None."""
        found = self.row(sql, parameters)
        return found[0] if found is not None else None

    def execute(self, sql: str, parameters: Parameters | None = None) -> int:
        """Run one statement and return how many rows it changed."""
        return self._execute(sql, parameters or {}).rowcount

    def execute_many(self, sql: str, parameters: Iterable[Parameters | Sequence[Any]]) -> None:
        """Run one statement once for each set of parameters, named or in the order of its ``?``."""
        try:
            self.connection.executemany(sql, parameters)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as exc:
            raise UnavailableError(f"{self.path}: {exc}") from exc

    def _execute(self, sql: str, parameters: Parameters) -> sqlite3.Cursor:
        try:
            return self.connection.execute(sql, parameters)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as exc:
            raise UnavailableError(f"{self.path}: {exc}") from exc

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything inside, or nothing; joins the transaction that is already open.

        BEGIN IMMEDIATE: a deferred BEGIN that reads, then writes, fails at once with SQLITE_BUSY_SNAPSHOT when
        another process committed in between. https://sqlite.org/rescode.html#busy_snapshot
        """
        if self.connection.in_transaction:
            yield
            return
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            # Inside: a commit that fails may leave its transaction open, and the next one would join it unseen.
            self.execute("COMMIT")
        except BaseException:
            self.connection.rollback()
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read everything inside as it was at the first statement, whatever others write meanwhile; write nothing.

        Keep it short: the write-ahead log cannot be taken over into the database while a reader may need it.
        """
        self.execute("BEGIN")
        try:
            yield
        finally:
            self.connection.rollback()

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_database(
    section: StoreSection, *, create: bool = True, durable: bool = False, migration_wait_s: float = MIGRATION_WAIT_S
) -> Database:
    """Return a connection to the configured database, migrated to the newest schema.

    Args:
        section: where the database is and how long to wait for locks.
        create: make the file and its folder when missing.
        durable: fsync each commit (``synchronous = FULL``): for what is acknowledged to a client.
        migration_wait_s: for another process's migrations. Without *create* there is no wait: who only uses what is
            there, as requests do, goes on without it and asks again.

    Raises:
        UnavailableError: the file is missing and *create* is off, or it cannot be opened, migrated or is locked.
    """
    path = database_path(section)
    if not create and not path.exists():
        raise UnavailableError(f"{path} does not exist")
    try:
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(open_private(path, os.O_WRONLY | os.O_CREAT))  # SQLite gives the files beside it the same mode
        connection = sqlite3.connect(
            f"file:{_uri(path)}?mode={'rwc' if create else 'rw'}",
            uri=True,
            isolation_level=None,
            timeout=section.busy_timeout_ms / 1000,
            check_same_thread=False,
            cached_statements=256,
        )
    except OSError as exc:
        raise UnavailableError(f"{path}: {exc.strerror}") from exc
    except sqlite3.Error as exc:
        raise UnavailableError(f"{path}: {exc}") from exc
    try:
        connection.row_factory = Row
        # Of a new file; SQLite does not wait while another process that starts does the same.
        wait_s = max(section.busy_timeout_ms / 1000, SWITCH_WAIT_S)
        _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"), path, wait_s=wait_s)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted or replaced is overwritten in the file too
        connection.execute(f"PRAGMA busy_timeout = {section.busy_timeout_ms:d}")
        database = Database(connection, path)
        migrate(database, wait_s=migration_wait_s if create else 0.0)
    except (sqlite3.Error, UnavailableError) as exc:
        connection.close()
        raise UnavailableError(f"{path}: {exc}") from exc
    return database


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _uri(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def migrate(database: Database, *, wait_s: float = MIGRATION_WAIT_S) -> None:
    """Bring the schema up to date. Two processes may start at once: the second waits, then finds nothing to do.

    It waits longer than for any other write, whatever ``busy_timeout_ms`` says: a migration may read every record.

    Raises:
        UnavailableError: the database is damaged, or another process held it for longer than *wait_s* seconds.
    """
    tool = sqlite_utils.Database(database.connection)

    def apply() -> None:
        if not _is_up_to_date(database, tool):
            with database.transaction():
                MIGRATIONS.apply(tool)

    _patiently(apply, database.path, wait_s=wait_s)


def _patiently(step: Callable[[], object], path: Path, *, wait_s: float) -> None:
    """Carry out *step*, which may find the database held by another process, until it does not, at most *wait_s*."""
    give_up_s = time.monotonic() + wait_s
    has_told = False
    while True:
        try:
            step()
        except (sqlite3.Error, UnavailableError) as exc:
            if not _is_busy(exc):
                raise
            if time.monotonic() >= give_up_s:
                message = f"another process holds the database, and its schema is not up to date after {wait_s:.0f} s"
                raise UnavailableError(message) from exc
        else:
            return
        if not has_told:
            log.warning("%s: waiting until another process has brought the schema up to date", path)
        has_told = True
        time.sleep(RETRY_S)


def _is_up_to_date(database: Database, tool: sqlite_utils.Database) -> bool:
    applied = database.value("SELECT count(*) FROM sqlite_master WHERE name = '_sqlite_migrations'")
    return bool(applied) and not MIGRATIONS.pending(tool)


def _is_busy(exc: sqlite3.Error | UnavailableError) -> bool:
    cause = exc.__cause__ if isinstance(exc, UnavailableError) else exc
    return isinstance(cause, sqlite3.Error) and cause.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
