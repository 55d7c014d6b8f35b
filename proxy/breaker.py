"""A circuit breaker: an upstream that failed several times in a row rests before it is asked again. Pure.

closed --(n failures in a row)--> open --(open_s later)--> half-open: one probe --answered--> closed
                                                                               --failed----> open

A failure is no connection, a timeout or a status of 5xx. Any other answer, a 429 too, shows that the upstream lives.
"""

from typing import Final, Literal

BreakerState = Literal["closed", "half_open", "open"]
STATES: Final[tuple[BreakerState, ...]] = ("closed", "half_open", "open")  # in the order of ``/metrics``


class Breaker:
    """What one upstream's last answers say of it; every method is told the time, in seconds of any steady clock."""

    def __init__(self, failures: int, open_s: float) -> None:
        """Take how many *failures* in a row open it, at least 1, and for how long."""
        if failures < 1:
            raise ValueError(f"failures must be at least 1, not {failures}")
        self._limit = failures
        self._open_s = open_s
        self._n_failures = 0
        self._opened_at_s: float | None = None
        self._probed_at_s: float | None = None

    def state(self, now_s: float) -> BreakerState:
        """Return ``half_open`` from when a probe may be sent until its outcome is known."""
        if self._opened_at_s is None:
            return "closed"
        return "open" if now_s < self._opened_at_s + self._open_s else "half_open"

    def admits(self, now_s: float) -> bool:
        """Return whether a request may be sent now. In half-open state, asking is taking: the request is the probe."""
        if self._opened_at_s is None:
            return True
        if self.wait_s(now_s) > 0:
            return False
        self._probed_at_s = now_s
        return True

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until a request may be sent if nothing else happens; 0: now."""
        if self._opened_at_s is None:
            return 0.0
        # A probe whose outcome nobody told (its client left) does not keep the others away for ever.
        since_s = self._opened_at_s if self._probed_at_s is None else self._probed_at_s
        return max(since_s + self._open_s - now_s, 0.0)

    def answered(self) -> None:
        """Take note of an answer that is no failure, to whichever request."""
        self._n_failures = 0
        self._opened_at_s = None
        self._probed_at_s = None

    def failed(self, now_s: float) -> None:
        """Take note of a failure. One of a request from before the rest began does not prolong it."""
        self._n_failures += 1
        is_probe = self._probed_at_s is not None
        if is_probe or (self._opened_at_s is None and self._n_failures >= self._limit):
            self._opened_at_s = now_s
            self._probed_at_s = None

    def abandoned(self) -> None:
        """Take note that the outcome of a request will never be known: if it was the probe, the next is one."""
        self._probed_at_s = None

    def problem(self, now_s: float) -> str | None:
        """Return what ``/healthz`` says of it; None when all is well."""
        if self._opened_at_s is None:
            return None
        return f"it failed {self._n_failures} times in a row; tried again in {self.wait_s(now_s):.0f} s"
