"""Two processes that start over an older store: one brings it up to date, the other waits for it."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database as Tool

from store.config import load_config
from store.database import Database, migrate, open_database
from store.errors import UnavailableError
from store.migrations import MIGRATIONS

FIRST = """
import sqlite3, sys
from sqlite_utils import Database as Tool
from store.migrations import MIGRATIONS
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("begun", flush=True)
sys.stdin.readline()
MIGRATIONS.apply(Tool(connection))
connection.execute("COMMIT")
"""
SECOND = """
import logging, sys
from store.config import load_config
from store.database import open_database
logging.basicConfig(level=logging.WARNING)
with open_database(load_config(None, {"store": {"url": sys.argv[1], "busy_timeout_ms": 10}}).store) as db:
    print(db.value("SELECT count(*) FROM daily_sums"))
"""
BOTH = """
import sys
from store.config import load_config
from store.database import open_database
print("ready", flush=True)
sys.stdin.readline()
with open_database(load_config(None, {"store": {"url": sys.argv[1], "busy_timeout_ms": 10}}).store) as db:
    print(db.value("SELECT count(*) FROM daily_sums"))
"""


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """Return a store as it was before there were sums by day."""
    path = tmp_path / "t.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        MIGRATIONS.apply(Tool(connection), stop_before="m020_daily_sums")
    return path


@pytest.fixture
def first(older: Path) -> Iterator["subprocess.Popen[str]"]:
    """Return a process that has begun to bring the store up to date and goes on when it is told to."""
    with started(FIRST, str(older)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process
        process.kill()


def started(program: str, argument: str) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", program, argument], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_a_process_that_starts_meanwhile_waits_and_says_so(older: Path, first: "subprocess.Popen[str]") -> None:
    with started(SECOND, f"sqlite:///{older}") as second:
        assert second.stderr is not None
        assert "waiting until another process has brought the schema up to date" in second.stderr.readline()
        first.communicate("go on\n")
        out, err = second.communicate()

    assert (first.returncode, second.returncode, out, err) == (0, 0, "0\n", "")


def test_one_that_waits_in_vain_says_what_for(older: Path, first: "subprocess.Popen[str]") -> None:
    with closing(sqlite3.connect(older, isolation_level=None, timeout=0.01)) as connection:
        connection.row_factory = sqlite3.Row
        with pytest.raises(UnavailableError, match="another process holds the database, and its schema is not up to"):
            migrate(Database(connection, older), wait_s=0.0)

    assert first.poll() is None


@pytest.mark.parametrize("how", [{"create": False}, {"migration_wait_s": 0.0}])
def test_who_serves_requests_does_not_wait_for_it(
    older: Path, first: "subprocess.Popen[str]", how: dict[str, Any]
) -> None:
    section = load_config(None, {"store": {"url": f"sqlite:///{older}", "busy_timeout_ms": 10}}).store
    with pytest.raises(UnavailableError, match="another process holds the database"):
        open_database(section, **how)
    first.communicate("go on\n")

    with open_database(section, **how) as db:
        assert db.value("SELECT count(*) FROM daily_sums") == 0


@pytest.mark.parametrize("is_new", [False, True])
def test_two_that_start_at_once_both_go_on(older: Path, *, is_new: bool) -> None:
    if is_new:
        older.unlink()
    both = [started(BOTH, f"sqlite:///{older}") for _ in range(2)]
    for one in both:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    found = [one.communicate("go on\n") for one in both]

    assert [(one.returncode, out) for one, (out, _) in zip(both, found, strict=True)] == [(0, "0\n")] * 2
    with closing(sqlite3.connect(older)) as connection:
        assert not MIGRATIONS.pending(Tool(connection))
