"""How often somebody may try to sign in: failed tries are counted by address, in the memory of the one learner."""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

MAX_ADDRESSES: Final = 10_000  # remembered, about 1 kB each at worst; beyond, those that failed longest ago go


@dataclass(slots=True)
class SignInAttempts:
    """Failed tries of the last *window_s* seconds; as many as *limit* of one address are let through.

    Called from the event loop alone.
    """

    limit: int
    window_s: float
    _failed_s: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)

    def wait_s(self, address: str, now_s: float) -> float:
        """Return how many seconds *address* has to wait before it may try, 0 when it may at once.

        >>> attempts = SignInAttempts(limit=2, window_s=60)
        >>> attempts.failed("10.0.0.1", 0); attempts.failed("10.0.0.1", 20)
        >>> attempts.wait_s("10.0.0.1", 30), attempts.wait_s("10.0.0.1", 61), attempts.wait_s("10.0.0.2", 30)
        (30, 0.0, 0.0)
        """
        failed = self._failed_s.get(address, ())
        recent = [at_s for at_s in failed if now_s - at_s < self.window_s]
        return recent[-self.limit] + self.window_s - now_s if len(recent) >= self.limit else 0.0

    def failed(self, address: str, now_s: float) -> None:
        """Count a failed try."""
        self._failed_s.setdefault(address, deque(maxlen=self.limit)).append(now_s)
        self._failed_s.move_to_end(address)
        if len(self._failed_s) > MAX_ADDRESSES:
            self._failed_s.popitem(last=False)
