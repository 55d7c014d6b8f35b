"""One run of a tenant at a time: a lock on a file beside the database, which the system frees when its holder dies."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from store.errors import ConflictError
from store.plan import digest

POLL_S: Final = 0.05  # between tries; a run without news takes milliseconds


@contextmanager
def run_lock(database: Path, tenant_id: str, *, wait_s: float) -> Iterator[None]:
    """Hold the right to run *tenant_id*, after at most *wait_s* seconds.

    Raises:
        ConflictError: another process or thread still runs this tenant.
        OSError: the folder beside *database* cannot be written.
    """
    directory = lock_directory(database)
    directory.mkdir(parents=True, exist_ok=True)
    # Named by a digest: a tenant's id may hold what a file's name may not.
    with (directory / f"{digest(tenant_id)}.lock").open("ab") as lock:
        deadline = time.monotonic() + wait_s
        while not _try_lock(lock):
            if time.monotonic() >= deadline:
                raise ConflictError(f"a run of tenant {tenant_id!r} is under way")
            time.sleep(POLL_S)
        yield


def lock_directory(database: Path) -> Path:
    """Return where the locks of the installation around *database* are."""
    return database.with_name(database.name + ".locks")


def _try_lock(lock: BinaryIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
