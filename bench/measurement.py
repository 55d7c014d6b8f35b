"""What was loaded, how, and what was seen: the values of the gateway's benchmark."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.installation import Installation, Reply
from bench.processes import IdleRate

CHAT_PATH = "/v1/chat/completions"
MODEL = "bench"


@dataclass(frozen=True)
class Target:
    """One server on the machine, and how it wants to be asked."""

    name: str
    port: int
    pid: int | None  # None: nothing stands between the driver and the upstream
    installation: Installation | None = None
    idle: IdleRate | None = None
    path: str = CHAT_PATH
    model: str = MODEL
    headers: tuple[str, ...] = ()
    is_rival: bool = False
    can_stream: bool = True

    def takes(self, cell: "Cell") -> bool:
        """Return whether the target is measured in *cell*."""
        return (self.can_stream or cell.reply == "whole") and (cell.with_rivals or not self.is_rival)


@dataclass(frozen=True)
class Cell:
    """One way to load a target."""

    name: str
    reply: Reply
    connections: int
    rate: int = 0  # requests a second; 0: the next as soon as the reply is there
    with_rivals: bool = True  # False: only nginx and Tutelage, where the bar says nothing of the others


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


FIGURES = ("requests_per_s", "p50_us", "p99_us", "first_byte_us", "cpu_us", "serving_cpu_us", "memory_mb")


def median(measurements: Sequence[Measurement]) -> Measurement:
    """Return the median of each figure, and the sum of the failures."""
    middle = {name: statistics.median(getattr(item, name) for item in measurements) for name in FIGURES}
    return Measurement(**middle, failed=sum(item.failed for item in measurements))
