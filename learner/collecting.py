"""Takes what came through the proxy into the training data, in a thread of its own, off the request path."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from store.clock import Clock
from store.config import Config
from store.database import Database
from store.traffic_examples import collect_traffic

STOP_WAIT_S: Final = 2.0  # that a chunk in work gets at shutdown; what it had not committed is done the next time

log = logging.getLogger(__name__)


class Collector:
    """Looks every ``[learner] poll_s`` for new records; ``run`` repeats that until told to stop."""

    def __init__(self, config: Config, *, open_database: Callable[[], Database], clock: Clock) -> None:
        self._config = config
        self._open_database = open_database
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.run, name="collector", daemon=True)

    def start(self) -> None:
        """Begin in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Make ``run`` return soon, and wait a little for it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_WAIT_S)

    def run(self) -> None:
        """Look until ``stop``; a failure of one look is logged, and the next look comes."""
        while not self._stop.is_set():
            try:
                with self._open_database() as db:
                    while not self._stop.is_set():
                        collect_traffic(db, self._config.training, now_s=self._clock.now_s())
                        self._stop.wait(self._config.learner.poll_s)
            except Exception:
                log.exception("the proxy's records could not be taken into the training data")
                self._stop.wait(self._config.learner.poll_s)
