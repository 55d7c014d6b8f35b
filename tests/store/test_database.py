"""Connections and transactions: all or nothing, writers wait for each other, a missing file is an error."""

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from store.config import Config, StoreSection
from store.database import Database, migrate, open_database
from store.errors import UnavailableError
from store.tenants import ensure_tenant, list_tenants


@pytest.fixture
def section(config: Config) -> StoreSection:
    return replace(config.store, busy_timeout_ms=50)


@pytest.fixture
def first(section: StoreSection) -> Iterator[Database]:
    with open_database(section) as database:
        yield database


@pytest.fixture
def second(first: Database, section: StoreSection) -> Iterator[Database]:
    with open_database(section, create=False) as database:
        yield database


def names(db: Database) -> list[str]:
    return [tenant.id for tenant in list_tenants(db)]


def test_a_database_is_made_with_its_folder_in_wal_mode_with_foreign_keys(tmp_path: Path) -> None:
    with open_database(StoreSection(url=f"sqlite:///{tmp_path}/new/folder/t.db", busy_timeout_ms=50)) as db:
        assert db.value("PRAGMA journal_mode") == "wal"
        assert db.value("PRAGMA foreign_keys") == 1
        assert db.value("PRAGMA synchronous") == 1  # NORMAL


def test_nobody_but_its_owner_reads_a_new_database(section: StoreSection, tmp_path: Path) -> None:
    with open_database(section) as db:
        ensure_tenant(db, "acme", 0.0)

        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}

    assert modes == {"tutelage.db": 0o600, "tutelage.db-wal": 0o600, "tutelage.db-shm": 0o600}


def test_the_mode_that_an_operator_gave_a_database_stays(section: StoreSection, tmp_path: Path) -> None:
    (tmp_path / "tutelage.db").touch()
    (tmp_path / "tutelage.db").chmod(0o640)

    with open_database(section):
        assert (tmp_path / "tutelage.db").stat().st_mode & 0o777 == 0o640


def test_a_durable_connection_syncs_each_commit(section: StoreSection) -> None:
    with open_database(section, durable=True) as db:
        assert db.value("PRAGMA synchronous") == 2  # FULL


def test_a_missing_file_is_an_error_when_it_may_not_be_made(tmp_path: Path) -> None:
    section = StoreSection(url=f"sqlite:///{tmp_path}/none/t.db", busy_timeout_ms=50)

    with pytest.raises(UnavailableError, match=r"t\.db does not exist"):
        open_database(section, create=False)
    assert not (tmp_path / "none").exists()


def test_a_damaged_file_is_an_error(section: StoreSection, tmp_path: Path) -> None:
    (tmp_path / "tutelage.db").write_bytes(b"this is no database" * 1000)

    with pytest.raises(UnavailableError, match="not a database"):
        open_database(section)


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UnavailableError):
        open_database(StoreSection(url=f"sqlite:///{tmp_path}/file/t.db", busy_timeout_ms=50))


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "what?.db", "a#b.db"])
def test_a_file_name_with_signs_of_a_url_is_that_file(tmp_path: Path, name: str) -> None:
    open_database(StoreSection(url=f"sqlite:///{tmp_path}/{name}", busy_timeout_ms=50)).close()

    assert (tmp_path / name).exists()


def test_what_a_transaction_wrote_is_seen_by_another_connection_after_the_commit(
    first: Database, second: Database
) -> None:
    with first.transaction():
        ensure_tenant(first, "a", 0.0)
        seen_before = names(second)

    assert (seen_before, names(second)) == ([], ["a"])


def add_then_fail(db: Database) -> None:
    with db.transaction():
        ensure_tenant(db, "a", 0.0)  # a transaction of its own, which joins this one
        raise RuntimeError("stop")


def test_an_error_inside_a_transaction_takes_everything_back(first: Database) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        add_then_fail(first)

    assert names(first) == []
    assert not first.connection.in_transaction


def test_a_commit_that_fails_takes_everything_back_and_leaves_nothing_open(first: Database) -> None:
    def add_an_orphan() -> None:
        with first.transaction():
            first.execute("PRAGMA defer_foreign_keys = ON")  # the commit checks, not the statement
            first.execute(
                "INSERT INTO datasets (tenant_id, id, name, type, created_at) VALUES ('x', 'd', 'd', 'nlu', '')"
            )

    with pytest.raises(sqlite3.IntegrityError):
        add_an_orphan()

    assert not first.connection.in_transaction
    ensure_tenant(first, "a", 0.0)
    assert first.value("SELECT count(*) FROM datasets") == 0
    assert names(first) == ["a"]


def test_a_second_writer_gives_up_after_the_busy_timeout(first: Database, second: Database) -> None:
    with first.transaction(), pytest.raises(UnavailableError, match="locked"), second.transaction():
        pass

    ensure_tenant(second, "b", 0.0)  # nothing is left open
    assert names(first) == ["b"]


def test_a_transaction_that_reads_first_still_writes_when_another_process_wrote_in_between(
    first: Database, second: Database, section: StoreSection
) -> None:
    # A deferred BEGIN would take its snapshot at the read and then fail with SQLITE_BUSY_SNAPSHOT.
    def write_once_free() -> None:
        with open_database(replace(section, busy_timeout_ms=10_000)) as third:
            ensure_tenant(third, "b", 0.0)

    writer = threading.Thread(target=write_once_free)
    with first.transaction():
        writer.start()
        n_before = len(names(first))
        ensure_tenant(first, "a", 0.0)
    writer.join()

    assert n_before == 0
    assert names(second) == ["a", "b"]


def test_many_writers_lose_nothing(section: StoreSection) -> None:
    patient = replace(section, busy_timeout_ms=20_000)

    def write(name: str) -> None:
        with open_database(patient) as db:
            for number in range(20):
                ensure_tenant(db, f"{name}{number}", 0.0)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with open_database(patient) as db:
        assert len(names(db)) == 80


def test_opening_again_keeps_the_rows_and_runs_no_migration(first: Database, section: StoreSection) -> None:
    ensure_tenant(first, "a", 0.0)
    applied = first.value("SELECT count(*) FROM _sqlite_migrations")

    with open_database(section) as again:
        migrate(again)
        assert names(again) == ["a"]
        assert again.value("SELECT count(*) FROM _sqlite_migrations") == applied


def test_a_row_that_breaks_a_constraint_is_an_integrity_error_not_an_outage(first: Database) -> None:
    with pytest.raises(sqlite3.IntegrityError), first.transaction():
        first.execute(
            "INSERT INTO datasets (tenant_id, id, name, type, created_at) VALUES (:t, 'd', 'd', 'nlu', '')", {"t": "x"}
        )


def test_reading_helpers_return_rows_a_row_or_a_value(first: Database) -> None:
    ensure_tenant(first, "a", 0.0)
    ensure_tenant(first, "b", 0.0)
    query = "SELECT id FROM tenants WHERE id >= :least ORDER BY id"

    assert [row["id"] for row in first.rows(query, {"least": "a"})] == ["a", "b"]
    assert tuple(first.row(query, {"least": "b"}) or ()) == ("b",)
    assert first.row(query, {"least": "c"}) is None
    assert first.value(query, {"least": "a"}) == "a"
    assert first.value(query, {"least": "c"}) is None


def test_a_statement_that_cannot_run_is_an_outage_with_the_file(first: Database) -> None:
    with pytest.raises(UnavailableError, match=r"tutelage\.db: no such table: nowhere"):
        first.rows("SELECT * FROM nowhere")
    with pytest.raises(UnavailableError, match=r"tutelage\.db: no such table: nowhere"):
        first.execute_many("DELETE FROM nowhere WHERE id = :id", [{"id": 1}])
