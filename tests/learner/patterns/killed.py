"""Pattern runs in processes of their own, each of which ends without a word at its n-th SQL statement.

``python -m tests.learner.patterns.killed NOW_S DATABASE STATEMENT [DATABASE STATEMENT]...``; a negative number: it ends
by itself. A line for each database, in order, says how it ended: how many statements it ran, or ``died``. The processes
are forks of this one, so that all is loaded once.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from learner.report import Collaborators
from learner.run import run_once
from store.config import Config, load_config
from store.database import open_database
from store.vocabulary import DEFAULT_TENANT
from tests.learner.patterns.traffic import World

DIED = 9


def dying_at(statement: int, n_seen: list[int]) -> Callable[[str], None]:
    """Return a callback of SQLite that ends the process when it is called for the *statement*-th time."""

    def on_statement(_: str) -> None:
        n_seen[0] += 1
        if n_seen[0] == statement:
            os._exit(DIED)

    return on_statement


def settings_of(path: str) -> Config:
    config = load_config(None, {"store": {"url": f"sqlite:///{Path(path)}"}})
    return replace(config, learner=replace(config.learner, run_wait_s=30.0))


def run(path: str, now_s: float, statement: int, collaborators: Collaborators) -> NoReturn:
    config, n_seen = settings_of(path), [0]
    with open_database(config.store) as db:
        db.connection.set_trace_callback(dying_at(statement, n_seen))
        run_once(db, config, DEFAULT_TENANT, "patterns", collaborators=collaborators, now_s=now_s)
        db.connection.set_trace_callback(None)
    print(n_seen[0], flush=True)
    os._exit(0)


def main() -> None:
    now_s, paths, statements = float(sys.argv[1]), sys.argv[2::2], map(int, sys.argv[3::2])
    config = settings_of(paths[0])
    with open_database(config.store) as db:
        collaborators = World(db, config, now_s=now_s).collaborators
    for path, statement in zip(paths, statements, strict=True):
        child = os.fork()
        if child == 0:
            run(path, now_s, statement, collaborators)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code:
            print("died" if code == DIED else f"failed: {code}", flush=True)


if __name__ == "__main__":
    main()
