"""Copies of an installation while it runs, and back: the database and the records that still wait for it.

A backup is a folder: ``tutelage.db``, which any SQLite tool reads, and ``segments``. The segments are copied first:
a record that moves into the database meanwhile is then in both, and is taken in once.
"""

import os
import shutil
import sqlite3
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlite_utils

from store.config import Config, database_path, segment_directory
from store.database import open_database
from store.errors import ConflictError, UnavailableError
from store.files import open_private
from store.migrations import MIGRATIONS
from store.run_lock import run_lock
from store.segments import SUFFIX, ingest_orphans
from store.tenants import list_tenants

DATABASE_NAME: Final = "tutelage.db"
SEGMENTS_NAME: Final = "segments"
RUN_WAIT_S: Final = 60.0  # for learning runs that are under way, before a database is replaced
_BESIDE: Final = ("-wal", "-shm")  # what SQLite keeps beside a database


@dataclass(frozen=True, slots=True)
class Backup:
    """A whole backup: its folder, the database's bytes, waiting segments, and how many responses it holds."""

    folder: str
    size_bytes: int
    n_segments: int
    n_responses: int


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back; ``aside`` is where the database that was there before lies now, None when there was none."""

    backup: Backup
    aside: str | None


def back_up(config: Config, folder: Path) -> Backup:
    """Copy the installation to *folder*, which is made; proxy, learner and recorder may be at work.

    A folder that is there is whole: it has its name only once everything in it is on the disk and was checked.

    Raises:
        ConflictError: *folder* is there already.
        UnavailableError: there is no database, or the copy is damaged.
        OSError: the disk cannot take it.
    """
    if folder.exists():
        raise ConflictError(f"{folder} is there already; backups do not replace each other")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / SEGMENTS_NAME).mkdir(mode=0o700, parents=True)
    partial.chmod(0o700)
    n_segments = _copy_segments(segment_directory(config), partial / SEGMENTS_NAME)
    with open_database(config.store, create=False) as db:
        _copy_database(db.connection, partial / DATABASE_NAME)
    n_responses = check_backup(partial)
    _sync(partial)
    partial.rename(folder)
    _sync_folder(folder.parent)
    return Backup(str(folder), (folder / DATABASE_NAME).stat().st_size, n_segments, n_responses)


def restore(config: Config, folder: Path, *, is_replacing: bool, stamp: str) -> Restored:
    """Put the backup in *folder* into service; running processes go over to it by themselves within a second.

    The database that was there keeps everything, under a name with *stamp*. Learning runs that are under way are
    waited for. Records that wait in segments now are kept and go into the restored database.

    Raises:
        ConflictError: there is a database and *is_replacing* is off, or a learning run does not end.
        UnavailableError: the folder holds no whole backup, or one of a newer version of Tutelage.
        OSError: the disk cannot take it.
    """
    n_responses = check_backup(folder)
    path = database_path(config.store)
    if path.exists() and not is_replacing:
        raise ConflictError(f"{path} is there already; --replace puts it aside")
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(path.name + ".incoming")
    incoming.unlink(missing_ok=True)
    with closing(_read_only(folder / DATABASE_NAME)) as source:
        _copy_database(source, incoming)
    aside = None
    with ExitStack() as stack:
        if path.exists():
            aside = path.with_name(f"{path.name}.{stamp}")
            with open_database(config.store) as db:
                for tenant in list_tenants(db):
                    stack.enter_context(run_lock(path, tenant.id, wait_s=RUN_WAIT_S))
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            _put_aside(path, aside)
        incoming.rename(path)
        _sync_folder(path.parent)
    n_segments = _take_in_segments(config, folder / SEGMENTS_NAME, stamp)
    size_bytes = path.stat().st_size
    return Restored(Backup(str(folder), size_bytes, n_segments, n_responses), None if aside is None else str(aside))


def check_backup(folder: Path) -> int:
    """Return how many responses the backup in *folder* holds.

    Raises:
        UnavailableError: it is no backup, it is damaged, or a newer version of Tutelage made it.
    """
    path = folder / DATABASE_NAME
    if not path.is_file():
        raise UnavailableError(f"{folder} is no backup: it holds no {DATABASE_NAME}")
    try:
        with closing(_read_only(path)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise UnavailableError(f"{path} is damaged: {found}")
            known = {migration.name for migration in MIGRATIONS.pending(sqlite_utils.Database(memory=True))}
            applied = {row[0] for row in connection.execute("SELECT name FROM _sqlite_migrations")}
            if applied - known:
                raise UnavailableError(f"{path} was made by a newer version: {', '.join(sorted(applied - known))}")
            return int(connection.execute("SELECT count(*) FROM responses").fetchone()[0])
    except sqlite3.Error as exc:
        raise UnavailableError(f"{path}: {exc}") from exc


def _read_only(path: Path) -> sqlite3.Connection:
    # immutable: a backup is nobody's to write, and SQLite would leave files beside it.
    return sqlite3.connect(f"file:{path.absolute().as_posix()}?mode=ro&immutable=1", uri=True)


def _copy_database(source: sqlite3.Connection, target: Path) -> None:
    """Copy a database as it stands now; writers go on meanwhile. *target* needs no other file beside it.

    Raises:
        UnavailableError: it cannot be read or written.
    """
    os.close(open_private(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    try:
        with closing(sqlite3.connect(target, isolation_level=None)) as copy:
            source.backup(copy)  # all pages in one step: one reading transaction, so nobody's write starts it again
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as exc:
        raise UnavailableError(f"{target}: {exc}") from exc


def _copy_segments(source: Path, target: Path) -> int:
    """Copy what waits; return how many segments. One that is taken in meanwhile is in the database by then."""
    n_copied = 0
    for segment in sorted(source.glob(f"*{SUFFIX}")):
        try:
            data = segment.read_bytes()
        except FileNotFoundError:
            continue
        with open(target / segment.name, "xb", opener=open_private) as file:
            file.write(data)
        n_copied += 1
    return n_copied


def _take_in_segments(config: Config, source: Path, stamp: str) -> int:
    """Let the backup's segments wait for the recorder, under names of their own; take them in where there is none."""
    directory = segment_directory(config)
    segments = sorted(source.glob(f"*{SUFFIX}"))
    for segment in segments:
        directory.mkdir(parents=True, exist_ok=True)
        target = directory / f"{segment.stem}-{stamp}{SUFFIX}"
        hidden = target.with_suffix(".new")
        hidden.unlink(missing_ok=True)
        with open(hidden, "xb", opener=open_private) as file:
            file.write(segment.read_bytes())
        hidden.rename(target)
    with open_database(config.store) as db:  # also brings an older backup's schema up to date
        ingest_orphans(db, directory)
    return len(segments)


def _put_aside(path: Path, aside: Path) -> None:
    # The files beside it first: a new database must never meet the old one's log.
    for suffix in _BESIDE:
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    path.rename(aside)


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync_folder(path)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
