"""Whether a stream stands between two events, so that one of our own may follow."""

from typing import Final, Self

_N_BYTES: Final = 4  # of the longest empty line: CR LF CR LF
_ENDS: Final = (b"\n\n", b"\r\r", b"\n\r\n")


class EventBoundary:
    """Follows the bytes of a stream; costs the copy of a few bytes per chunk."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b""

    @classmethod
    def of(cls, content_type: bytes | None) -> Self | None:
        """Return one for a body of *content_type*, None when that is no stream of events."""
        return cls() if content_type is not None and content_type.startswith(b"text/event-stream") else None

    def feed(self, chunk: bytes) -> None:
        """Take note of the next bytes that go to the client."""
        self._tail = chunk[-_N_BYTES:] if len(chunk) >= _N_BYTES else (self._tail + chunk)[-_N_BYTES:]

    @property
    def is_here(self) -> bool:
        """Whether what was fed ends with an event; so it does before the first byte."""
        return not self._tail or self._tail.endswith(_ENDS)
