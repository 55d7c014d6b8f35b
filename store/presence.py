"""Whether a process that ought to be there still is: a lock that the system frees when its holder dies.

A process that stops takes its file away; one that is killed leaves it behind with nobody holding it.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store.run_lock import lock_directory


@contextmanager
def presence(database: Path, name: str) -> Iterator[None]:
    """Be known as the living process *name* of the installation around *database*.

    Raises:
        OSError: the folder beside *database* cannot be written.
    """
    path = _path(database, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def has_died(database: Path, name: str) -> bool:
    """Return whether a process *name* was there and ended without a goodbye; False when none was ever there."""
    try:
        with _path(database, name).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, never made, or not to be read: nothing that tells of a death
        return False
    return True


def _path(database: Path, name: str) -> Path:
    return lock_directory(database) / f"{name}.alive"
