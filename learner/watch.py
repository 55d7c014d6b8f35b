"""Looks at the database again and again, in a thread of its own that neither runs nor requests wait for."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from store.database import Database

STOP_WAIT_S: Final = 2.0  # that a look gets to end at shutdown; what it had not committed is done the next time

log = logging.getLogger(__name__)


class Watch:
    """Calls *look* every *poll_s* until told to stop; a failure is logged, and the next look comes.

    Args:
        name: of the thread.
        look: what to do each time. It asks ``is_over`` between its steps.
        open_database: opens it; once, and again after a failure or when a backup was put in its place.
        poll_s: seconds between two looks.
        problem: what a failure means, for the log.
        interrupt: cuts short what a look is waiting for.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[Database], object],
        *,
        open_database: Callable[[], Database],
        poll_s: float,
        problem: str,
        interrupt: Callable[[], None] | None = None,
    ) -> None:
        self._look = look
        self._open_database = open_database
        self._poll_s = poll_s
        self._problem = problem
        self._interrupt = interrupt
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def is_over(self) -> bool:
        """Return whether it was told to stop."""
        return self._stop.is_set()

    def start(self) -> None:
        """Begin in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let no other look begin, and wait a little for the one under way."""
        self._stop.set()
        if self._interrupt is not None:
            self._interrupt()
        if self._thread.is_alive():
            self._thread.join(STOP_WAIT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._open_database() as db:
                    while not self._stop.is_set() and db.is_current():
                        self._look(db)
                        self._stop.wait(self._poll_s)
            except Exception:
                log.exception(self._problem)
                self._stop.wait(self._poll_s)
