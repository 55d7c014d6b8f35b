"""Time as a collaborator: the system's clock, or one that a demo or test moves by hand."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import floor
from time import time
from typing import Final, Protocol

DAY_S: Final = 86_400.0


class Clock(Protocol):
    """Tells the time; passed in wherever time matters."""

    def now_s(self) -> float:
        """Return seconds since 1970-01-01T00:00:00Z."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_s(self) -> float:
        return time()


class ManualClock:
    """A clock that stands still until it is moved.

    >>> clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    >>> clock.advance(90)
    >>> iso(clock.now_s())
    '2026-01-01T00:01:30.000Z'
    """

    def __init__(self, start: datetime) -> None:
        self._now_s = start.timestamp()

    def now_s(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        self._now_s += seconds

    def move_to(self, moment_s: float) -> None:
        self._now_s = moment_s


def iso(moment_s: float) -> str:
    """Return *moment_s* as UTC text with milliseconds, the form of every ``*_at`` column; sorts as time does."""
    second = floor(moment_s)
    microseconds = round((moment_s - second) * 1e6)  # to the nearest, as datetime does: a float is seldom exact
    if microseconds == 1_000_000:
        second, microseconds = second + 1, 0
    return f"{_iso_second(second)}.{microseconds // 1000:03d}Z"


@lru_cache(maxsize=64)  # twice a response, and mostly of the same few seconds
def _iso_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]


def parse_iso(text: str) -> float:
    """Return seconds since 1970 of an ISO 8601 moment; one without an offset is UTC.

    Raises:
        ValueError: *text* is not an ISO 8601 moment.

    >>> parse_iso("1970-01-01T00:01:00Z"), parse_iso("1970-01-01T01:00:00+01:00")
    (60.0, 0.0)
    """
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def days_before(moment_s: float, days: float) -> str:
    """Return the UTC text of the moment *days* before *moment_s*."""
    return iso(moment_s - timedelta(days=days).total_seconds())


def day_before(moment_s: float, days: float = 0) -> str:
    """Return the day (UTC) *days* before *moment_s*.

    >>> day_before(parse_iso("2026-03-01T12:00:00Z")), day_before(parse_iso("2026-03-01T12:00:00Z"), 1)
    ('2026-03-01', '2026-02-28')
    """
    return days_before(moment_s, days)[:10]
