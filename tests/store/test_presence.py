"""A process is known to live while it holds its lock, and to have died when nobody does."""

from pathlib import Path

import pytest

from store.presence import has_died, presence


def test_whoever_was_never_there_has_not_died(tmp_path: Path) -> None:
    assert not has_died(tmp_path / "no" / "such.db", "learner")


def test_one_that_stops_is_forgotten_and_the_next_is_known(tmp_path: Path) -> None:
    database = tmp_path / "tutelage.db"
    for _ in range(2):
        with presence(database, "learner"):
            assert not has_died(database, "learner")
        assert not has_died(database, "learner")


def test_one_that_fails_says_goodbye_too(tmp_path: Path) -> None:
    database = tmp_path / "tutelage.db"
    with pytest.raises(SystemExit), presence(database, "learner"):
        raise SystemExit(0)
    assert not has_died(database, "learner")


def test_a_file_that_nobody_holds_tells_of_a_death(tmp_path: Path) -> None:
    database = tmp_path / "tutelage.db"
    (tmp_path / "tutelage.db.locks").mkdir()
    (tmp_path / "tutelage.db.locks" / "learner.alive").touch()
    assert has_died(database, "learner")
    with presence(database, "learner"):
        assert not has_died(database, "learner")
