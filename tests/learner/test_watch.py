"""A watch looks until it is told to stop, whatever happens to a look or to the file."""

import threading
from pathlib import Path

from learner.watch import Watch
from store.config import load_config
from store.database import Database, open_database

LOOKS_S = 20.0  # generous: a loaded machine


class Looks:
    """The user versions of the files that were looked at, in order."""

    def __init__(self, path: Path, n_wanted: int) -> None:
        self.store = load_config(None, {"store": {"url": f"sqlite:///{path}"}}).store
        self.seen: list[int] = []
        self.n_wanted = n_wanted
        self.is_enough = threading.Event()

    def look(self, db: Database) -> None:
        self.seen.append(int(db.value("PRAGMA user_version")))
        if len(self.seen) == self.n_wanted:
            self.is_enough.set()
        if len(self.seen) == 1:
            raise ValueError("the first look fails")

    def watch(self) -> Watch:
        return Watch(
            "looks", self.look, open_database=lambda: open_database(self.store), poll_s=0.01, problem="no look"
        )


def test_after_a_look_that_failed_the_next_one_comes(tmp_path: Path) -> None:
    looks = Looks(tmp_path / "tutelage.db", 3)
    watch = looks.watch()
    watch.start()
    assert looks.is_enough.wait(LOOKS_S)
    watch.stop()
    assert watch.is_over()


def test_a_file_that_was_put_in_the_place_of_the_database_is_looked_at_from_then_on(tmp_path: Path) -> None:
    path, other = tmp_path / "tutelage.db", tmp_path / "other.db"
    with open_database(load_config(None, {"store": {"url": f"sqlite:///{other}"}}).store) as db:
        db.execute("PRAGMA user_version = 7")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    looks = Looks(path, 3)
    watch = looks.watch()
    watch.start()
    assert looks.is_enough.wait(LOOKS_S)
    is_new = threading.Event()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).rename(tmp_path / f"aside.db{suffix}")
    path.rename(tmp_path / "aside.db")
    other.rename(path)
    for _ in range(2000):
        if looks.seen[-1] == 7:
            is_new.set()
            break
        is_new.wait(0.01)
    watch.stop()
    assert is_new.is_set()


def test_what_a_look_waits_for_is_cut_short_at_the_end(tmp_path: Path) -> None:
    store = load_config(None, {"store": {"url": f"sqlite:///{tmp_path / 'tutelage.db'}"}}).store
    is_looking, is_cut = threading.Event(), threading.Event()

    def look(_: Database) -> None:
        is_looking.set()
        is_cut.wait(LOOKS_S)

    watch = Watch(
        "waits", look, open_database=lambda: open_database(store), poll_s=0.01, problem="", interrupt=is_cut.set
    )
    watch.start()
    assert is_looking.wait(LOOKS_S)
    watch.stop()
    assert is_cut.is_set()
