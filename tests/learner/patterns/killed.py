"""One pattern run in a process of its own, which ends without a word at its n-th SQL statement.

``python -m tests.learner.patterns.killed DATABASE NOW_S STATEMENT``; a negative number: it ends by itself, and tells
how many statements it ran.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from learner.run import run_once
from store.config import load_config
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


def main() -> None:
    path, now_s, statement = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    config = load_config(None, {"store": {"url": f"sqlite:///{path}"}})
    config = replace(config, learner=replace(config.learner, run_wait_s=30.0))
    n_seen = [0]
    with open_database(config.store) as db:
        world = World(db, config, now_s=now_s)
        db.connection.set_trace_callback(dying_at(statement, n_seen))
        run_once(db, config, DEFAULT_TENANT, "patterns", collaborators=world.collaborators, now_s=now_s)
        db.connection.set_trace_callback(None)
    print(n_seen[0])


if __name__ == "__main__":
    main()
