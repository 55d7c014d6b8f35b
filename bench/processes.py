"""Processes of a benchmark: started on one core, their CPU time read from the kernel's own books."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_S = 30.0
IDLE_SHARE = 0.01  # of one core: below, what a load left behind is done
SETTLE_S = 15.0
STOP_S = 20.0


@dataclass(frozen=True)
class Usage:
    """What a process and its children have used since they started."""

    cpu_ns: int
    own_cpu_ns: int  # of the process itself, its children left out
    memory_mb: float


def process_tree(pid: int) -> list[int]:
    """Return *pid* and all of its living descendants."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        for children in Path(f"/proc/{current}/task").glob("*/children"):
            try:
                waiting += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
    return found


def cpu_ns(pid: int) -> int:
    """Return the nanoseconds on a core of one process, all threads, from ``schedstat``: exact, not sampled."""
    total = 0
    for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(schedstat.read_text().split()[0])
        except OSError:
            continue
    return total


def usage(pid: int) -> Usage:
    """Return what *pid* and its descendants have used."""
    pids = process_tree(pid)
    pages = 0
    for current in pids:
        try:
            pages += int(Path(f"/proc/{current}/statm").read_text().split()[1])
        except OSError:
            continue
    spent = [cpu_ns(current) for current in pids]
    return Usage(sum(spent), spent[0], pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


def settled_usage(pid: int) -> Usage:
    """Return the usage once the processes are idle: work put off to after the reply counts too."""
    before, deadline = usage(pid), time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        time.sleep(0.2)
        now = usage(pid)
        if now.cpu_ns - before.cpu_ns < IDLE_SHARE * 0.2e9:
            return now
        before = now
    return before


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> float:
    """Return the seconds until something listens on *port*.

    Raises:
        RuntimeError: *process* ended, or nothing listened in time.
    """
    started = time.monotonic()
    while time.monotonic() - started < START_S:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return time.monotonic() - started
    raise RuntimeError(f"{process.args!r} does not listen on port {port}")


@contextmanager
def running(
    arguments: Sequence[str | Path], *, core: int, port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on one core until the block ends; yields once it listens."""
    pinned = ["taskset", "-c", str(core), *map(str, arguments)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        try:
            wait_for_port(port, process)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
