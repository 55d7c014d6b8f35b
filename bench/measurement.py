"""What was loaded, how, and what was seen: the values of the gateway's benchmark."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.installation import Installation
from bench.processes import IdleRate


@dataclass(frozen=True)
class Target:
    name: str
    port: int
    pid: int | None  # None: nothing stands between the driver and the upstream
    installation: Installation | None = None
    idle: IdleRate | None = None


@dataclass(frozen=True)
class Cell:
    """One way to load a target."""

    name: str
    is_stream: bool
    connections: int
    rate: int = 0  # requests a second; 0: the next as soon as the reply is there


@dataclass(frozen=True)
class Measurement:
    requests_per_s: float
    p50_us: float
    p99_us: float
    first_byte_us: float
    cpu_us: float  # of all processes of the target, per request
    serving_cpu_us: float  # of the process that serves, without the one that moves records into the database
    memory_mb: float
    failed: int


def median(measurements: Sequence[Measurement]) -> Measurement:
    """Return the median of each figure, and the sum of the failures."""
    names = ("requests_per_s", "p50_us", "p99_us", "first_byte_us", "cpu_us", "serving_cpu_us", "memory_mb")
    middle = {name: statistics.median(getattr(item, name) for item in measurements) for name in names}
    return Measurement(**middle, failed=sum(item.failed for item in measurements))
