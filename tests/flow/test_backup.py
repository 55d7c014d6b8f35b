"""A backup is taken and put back while everything runs: nothing acknowledged is lost, and nothing is damaged."""

import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.flow.conftest import NewProduct
from tests.flow.product import Product, eventually

RULE = "Answer in one sentence that names the menu."


def pin(product: Product, rule: str) -> None:
    body = {"type": "response_format", "rule": rule, "conditions": {}, "state": "pinned"}
    product.client.post(f"{product.learner_url}/api/patterns", json=body).raise_for_status()


def injected(product: Product) -> int:
    return int(product.response_row(product.chat())["injected_tokens"])


@pytest.fixture
def running(new_product: NewProduct) -> Product:
    product = new_product(settings={"patterns": {"holdout": 0.0}})
    product.start("up")
    return product


def responses(path: Path) -> set[str]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        return {row[0] for row in connection.execute("SELECT id FROM responses")}


def test_a_backup_under_load_holds_every_reply_that_was_seen_before_it_began(running: Product, tmp_path: Path) -> None:
    stop = threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            running.chat()

    seen = {running.chat().headers["x-tutelage-response-id"] for _ in range(20)}
    load = threading.Thread(target=go_on)
    load.start()
    try:
        done = running.command_json("backup", tmp_path / "copy")
    finally:
        stop.set()
        load.join()
    restored = Product(tmp_path / "elsewhere", running.upstream_url)
    restored.command("restore", tmp_path / "copy")
    assert seen <= responses(restored.database_path)
    assert done["n_responses"] <= len(responses(restored.database_path))
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "copy" / "tutelage.db").stat().st_mode) == 0o600


def test_running_processes_go_over_to_a_restored_database(running: Product, tmp_path: Path) -> None:
    before = running.chat().headers["x-tutelage-response-id"]
    running.row("SELECT id FROM responses WHERE id = :id", id=before)
    running.command("backup", tmp_path / "copy")
    pin(running, RULE)
    eventually(lambda: injected(running) > 0)
    done = running.command("restore", tmp_path / "copy", "--replace")
    eventually(lambda: injected(running) == 0)  # the rule is not known any more
    after = running.chat()
    told = running.feedback({"response_id": after.headers["x-tutelage-response-id"], "signal": "thumbs_up"})
    pin(running, RULE)  # the learner's port writes into the restored database too
    eventually(lambda: injected(running) > 0)
    health = running.health().json()
    (aside,) = (path for path in running.folder.glob("tutelage.db.2*") if not path.name.endswith(("-wal", "-shm")))
    assert str(aside) in done.stderr
    assert (told.status_code, health["status"]) == (201, "ok")
    assert before in responses(running.database_path)
    with sqlite3.connect(aside) as old:
        assert old.execute("SELECT count(*) FROM learned_patterns").fetchone()[0] == 1
        assert old.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_learning_goes_on_in_a_restored_database(running: Product, tmp_path: Path) -> None:
    running.response_row(running.chat("What was asked before?"))
    eventually(lambda: running.rows("SELECT 1 FROM examples"))
    running.command("backup", tmp_path / "copy")

    running.command("restore", tmp_path / "copy", "--replace")

    running.response_row(running.chat("What was asked after?"))
    made = running.client.post(f"{running.learner_url}/api/training/jobs", json={"kind": "patterns"}).json()
    eventually(lambda: running.rows("SELECT 1 FROM training_jobs WHERE id = :id AND status = 'completed'", **made))
    eventually(lambda: running.rows("SELECT 1 FROM examples WHERE input = 'What was asked after?'"))


def test_a_database_is_not_replaced_by_accident(product: Product, tmp_path: Path) -> None:
    product.command("tenants", "list")
    product.command("backup", tmp_path / "copy")
    refused = product.command("restore", tmp_path / "copy", check=False)
    again = product.command("backup", tmp_path / "copy", check=False)
    assert (refused.returncode, again.returncode) == (1, 1)
    assert "--replace" in refused.stderr
    assert "is there already" in again.stderr


def _truncated(folder: Path) -> None:
    path = folder / "tutelage.db"
    path.write_bytes(path.read_bytes()[:9000])


def _of_a_newer_version(folder: Path) -> None:
    with sqlite3.connect(folder / "tutelage.db") as connection:
        connection.execute("INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('tutelage', 'm999_future')")


def _no_database(folder: Path) -> None:
    (folder / "tutelage.db").unlink()


@pytest.mark.parametrize("harm", [_truncated, _of_a_newer_version, _no_database])
def test_what_is_no_whole_backup_of_this_version_is_refused_and_changes_nothing(
    product: Product, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    product.command("keys", "create", "--tenant", "acme")
    product.command("backup", tmp_path / "copy")
    harm(tmp_path / "copy")
    refused = product.command("restore", tmp_path / "copy", "--replace", check=False)
    assert refused.returncode == 1
    assert product.rows("SELECT 1 FROM tenants WHERE id = 'acme'")


def test_a_backup_that_was_cut_off_is_not_taken_for_one(product: Product, tmp_path: Path) -> None:
    product.command("tenants", "list")
    (tmp_path / "copy.partial" / "segments").mkdir(parents=True)
    (tmp_path / "copy.partial" / "tutelage.db").write_bytes(b"half")
    product.command("backup", tmp_path / "copy")
    assert not (tmp_path / "copy.partial").exists()
    product.command("restore", tmp_path / "copy", "--replace")
    assert product.rows("SELECT id FROM tenants") == [{"id": "default"}]
