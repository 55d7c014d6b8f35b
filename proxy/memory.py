"""Gives freed memory back to the system.

glibc keeps what lies between two pieces that are still in use: 75 MB of 240 after 100,000 contexts were let go, and
more each time; 540 MB after 1,000 streams whose clients did not read.
"""

import ctypes
import sys
from typing import Final

FLOOD_REQUESTS: Final = 200  # at once; fewer leave less behind than the caches take
EBB_SHARE: Final = 0.25  # of the most requests, at which the flood is over


class Flood:
    """Tells when many requests at once are over, from looks at how many there are."""

    def __init__(self) -> None:
        self._most = 0

    def is_over(self, n_requests: int) -> bool:
        """Return whether far fewer requests are under way than were; once for each flood."""
        self._most = max(self._most, n_requests)
        if self._most < FLOOD_REQUESTS or n_requests > self._most * EBB_SHARE:
            return False
        self._most = n_requests
        return True


def give_back() -> None:
    """Have the C library return what it holds free, where it can; takes 10 ms or so of a thread, without the GIL."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # musl has none and needs none
        trim(0)
