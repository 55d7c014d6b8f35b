"""Keeps one recorder process running, restarted when it dies."""

import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

MIN_RESTART_S: Final = 1.0  # between starts, so that one that fails at once does not fill the machine

logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """A started recorder; ``proxy.recorder.RecorderHandle`` is one."""

    @property
    def is_alive(self) -> bool: ...

    def stop(self, timeout_s: float) -> bool: ...


class RecorderKeeper:
    """Starts a recorder with *start* and again whenever ``check`` finds it dead."""

    def __init__(self, start: Callable[[], Recorder], monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._start = start
        self._monotonic_s = monotonic_s
        self._recorder: Recorder | None = None
        self._started_s = float("-inf")

    @property
    def problem(self) -> str | None:
        """Why records do not reach the database just now; None when the recorder runs."""
        return None if self._recorder is not None and self._recorder.is_alive else "the recorder does not run"

    def check(self) -> None:
        """Start the recorder unless it runs or was started just now."""
        if self.problem is None or self._monotonic_s() - self._started_s < MIN_RESTART_S:
            return
        if self._recorder is not None:
            logger.error("the recorder died; it is started again")
        self._started_s = self._monotonic_s()
        try:
            self._recorder = self._start()
        except OSError:
            logger.exception("the recorder cannot be started; records wait in their segments")

    def stop(self, timeout_s: float) -> None:
        """Let it move the last records and end, for at most *timeout_s*."""
        if self._recorder is not None and not self._recorder.stop(timeout_s):
            logger.warning("the recorder still moves records; it goes on by itself")
