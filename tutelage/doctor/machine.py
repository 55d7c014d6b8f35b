"""Checks of this machine: the disk, the database file, records that wait, the models that run here."""

import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from store.config import Config, database_path, segment_directory
from store.database import Database, open_database
from store.embedding import load_local_embedder
from store.errors import StoreError
from store.segments import backlog_bytes, read_trouble
from store.tokens import load_token_counter
from tutelage.doctor.finding import Finding, fail, ok, warn

LOW_BYTES: Final = 5e9  # free on the disk; a busy installation writes some hundred MB a day
EMPTY_BYTES: Final = 5e8
MUCH_WAITING_BYTES: Final = 1e8
LONG_LOG_BYTES: Final = 1e9  # of SQLite's write-ahead log, which is written back at 16 MB
CHECKED_BYTES: Final = 2e9  # of a database; a larger one would take minutes to read


def check_disk(config: Config) -> Iterator[Finding]:
    """Yield what free space there is where data goes, each disk once."""
    seen = set()
    for path in (database_path(config.store), segment_directory(config)):
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if folder.stat().st_dev in seen:
            continue
        seen.add(folder.stat().st_dev)
        free = shutil.disk_usage(folder).free
        said = f"{free / 1e9:.1f} GB free at {folder}"
        if free < EMPTY_BYTES:
            yield fail("disk", said, "make room: records are dropped and signals refused when the disk is full")
        elif free < LOW_BYTES:
            yield warn("disk", said, "make room soon")
        else:
            yield ok("disk", said)


def check_database(config: Config) -> Iterator[Finding]:
    """Yield whether the database can be used, and by whom it can be read."""
    path = database_path(config.store)
    if not path.exists():
        yield warn("database", f"{path} does not exist yet", "the first start makes it; check [store] url if it should")
        return
    try:
        with open_database(config.store, create=False) as db:
            yield _integrity(db, path)
    except StoreError as exc:
        yield fail("database", str(exc), "see who holds or moved it; tutelage restore puts a backup into service")
        return
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size > LONG_LOG_BYTES:
        yield warn(
            "database",
            f"its write-ahead log has {log.stat().st_size / 1e9:.1f} GB",
            "something reads it for very long: look for an open sqlite3 or Datasette, and close it",
        )
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield warn("database", f"others can read {path} (mode {mode:o})", f"chmod 600 {path}*")


def _integrity(db: Database, path: Path) -> Finding:
    size = path.stat().st_size
    if size > CHECKED_BYTES:
        return ok("database", f"{path}, {size / 1e9:.1f} GB, opens (too large to check every page here)")
    found = db.value("PRAGMA quick_check(1)")
    if found != "ok":
        return fail("database", f"{path} is damaged: {found}", "tutelage restore FOLDER --replace")
    return ok("database", f"{path}, {size / 1e6:.0f} MB, whole and up to date")


def check_records(config: Config) -> Iterator[Finding]:
    """Yield whether records reach the database."""
    directory = segment_directory(config)
    trouble = read_trouble(directory)
    if trouble:
        yield fail("records", f"they do not reach the database: {trouble}", "mend that; nothing is lost meanwhile")
    waiting = backlog_bytes(directory)
    if waiting > MUCH_WAITING_BYTES:
        yield warn("records", f"{waiting / 1e6:.0f} MB wait in {directory}", "start the proxy, which takes them in")
    elif not trouble:
        yield ok("records", f"{waiting / 1e6:.1f} MB wait")
    rejected = sorted(directory.glob("*.rejected"))
    if rejected:
        yield warn("records", f"{len(rejected)} files of records that no table could hold", f"look at {rejected[0]}")


def check_models_here(config: Config) -> Iterator[Finding]:
    """Yield whether the local embedding and the token counter load."""
    for name, load in (("embedding", lambda: load_local_embedder(config.embedding)), ("tokens", load_token_counter)):
        began = time.perf_counter()
        try:
            load()
        except StoreError as exc:
            yield fail(name, str(exc), "install Tutelage again: a data file of a package is missing")
        else:
            yield ok(name, f"loaded in {time.perf_counter() - began:.1f} s, without a network")
