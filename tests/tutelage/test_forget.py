"""``tutelage forget``, in-process: what it says, what is left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store.database import Database
from store.run_lock import run_lock
from tests.store.test_forgetting import bytes_with, entry, holding, reply
from tests.tutelage.test_cli import Run, listed, run, settings_file

__all__ = ["listed", "run", "settings_file"]  # fixtures


def test_a_user_is_forgotten_down_to_the_bytes_of_the_files(run: Run, db: Database, tmp_path: Path) -> None:
    reply(db, 1, "ann", "canary " * 500)
    reply(db, 2, "bob", "words of bob")
    alone = entry(db, ["canary?"], "Say canary.", [("talk-1", "ann")])

    said = run("forget", "--user", "ann").stdout

    assert "      1 conversations\n" in said
    assert f"entries withdrawn: {alone}\n" in said
    assert (holding(db, "canary"), bytes_with(tmp_path, "canary")) == ([], [])
    assert len(holding(db, "words of bob")) == 1
    assert "nothing: there is no record" in run("forget", "--user", "ann").stdout


def test_a_dry_run_says_what_would_go(listed: Callable[..., Any], db: Database) -> None:
    reply(db, 1, "ann", "canary")

    told = listed("forget", "--user", "ann", "--dry-run")

    assert (told["is_dry_run"], told["rows"]["responses"], told["conversations"]) == (True, 1, ["talk-1"])
    assert holding(db, "canary") != []


def test_who_still_reads_the_old_text_is_reported(run: Run, db: Database, settings_file: Path, tmp_path: Path) -> None:
    reply(db, 1, "ann", "canary " * 500)
    with settings_file.open("a") as file:
        file.write("busy_timeout_ms = 50\n")
    db.execute("BEGIN")
    assert holding(db, "canary") != []  # a snapshot of before is open now

    assert "may still hold the text" in run("forget", "--user", "ann", "--no-vacuum").stderr

    db.execute("COMMIT")
    assert holding(db, "canary") == []
    assert run("forget", "--user", "ann").stderr == ""
    assert bytes_with(tmp_path, "canary") == []


def test_a_conversation_is_forgotten_alone(listed: Callable[..., Any], run: Run, db: Database) -> None:
    reply(db, 1, "ann", "canary")
    reply(db, 2, "ann", "other words")

    assert listed("forget", "--conversation", "talk-1", "--no-vacuum")["conversations"] == ["talk-1"]

    assert (holding(db, "canary"), len(holding(db, "other words"))) == ([], 1)
    assert "no conversation 'talk-1'" in run("forget", "--conversation", "talk-1", code=1).stderr


@pytest.mark.parametrize("arguments", [[], ["--user", "ann", "--conversation", "c"], ["--user", ""]])
def test_it_must_be_said_who(run: Run, arguments: list[str]) -> None:
    assert "Error: " in run("forget", *arguments, code=1).stderr


def test_a_run_under_way_is_not_disturbed(run: Run, db: Database, settings_file: Path) -> None:
    reply(db, 1, "ann", "canary")
    with settings_file.open("a") as file:
        file.write("[learner]\nrun_wait_s = 0\n")
    with run_lock(db.path, "default", wait_s=1):
        assert "is under way" in run("forget", "--user", "ann", code=1).stderr
    assert holding(db, "canary") != []
