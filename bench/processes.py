"""Processes of a benchmark: started on one core, their CPU time read from the kernel's own books."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_S = 30.0
IDLE_SHARE = 0.015  # of one core: below, what a load left behind is done
SETTLE_STEP_S = 0.2
SETTLE_S = 15.0
STOP_S = 20.0


@dataclass(frozen=True)
class Usage:
    """What a process and its children have used since they started."""

    cpu_ns: int
    serving_cpu_ns: int  # of it, without the process that moves records into the database
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


def is_recorder(pid: int) -> bool:
    """Return whether a process is the one that moves records into the database."""
    try:
        return b"proxy.recorder" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def usage(pid: int) -> Usage:
    """Return what *pid* and its descendants have used."""
    pids = process_tree(pid)
    pages = 0
    for current in pids:
        try:
            pages += int(Path(f"/proc/{current}/statm").read_text().split()[1])
        except OSError:
            continue
    spent = {current: cpu_ns(current) for current in pids}
    serving = sum(nanoseconds for current, nanoseconds in spent.items() if not is_recorder(current))
    return Usage(sum(spent.values()), serving, pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


@dataclass(frozen=True)
class IdleRate:
    """Nanoseconds on a core per second of doing nothing but looking for work."""

    cpu_ns: float
    serving_cpu_ns: float


def idle_rate(pid: int, seconds: float = 2.0) -> IdleRate:
    """Return what an idle process costs."""
    before = settled_usage(pid)
    time.sleep(seconds)
    after = usage(pid)
    return IdleRate((after.cpu_ns - before.cpu_ns) / seconds, (after.serving_cpu_ns - before.serving_cpu_ns) / seconds)


def settled_usage(pid: int, idle: IdleRate | None = None) -> Usage:
    """Return the usage once the processes are idle: work put off to after the reply counts too.

    What merely waiting for that costs is taken off when *idle* says how much it is.
    """
    rate = idle or IdleRate(0, 0)
    idle_ns = (IDLE_SHARE * 1e9 + rate.cpu_ns) * SETTLE_STEP_S
    started, before = time.monotonic(), usage(pid)
    while time.monotonic() - started < SETTLE_S:
        time.sleep(SETTLE_STEP_S)
        now = usage(pid)
        if now.cpu_ns - before.cpu_ns < idle_ns:
            break
        before = now
    waited_s = time.monotonic() - started if idle else 0.0
    return Usage(
        round(now.cpu_ns - waited_s * rate.cpu_ns),
        round(now.serving_cpu_ns - waited_s * rate.serving_cpu_ns),
        now.memory_mb,
    )


def tutelage_command(config_path: Path) -> list[str | Path]:
    """Return what starts the proxy."""
    return [Path(sys.executable).with_name("tutelage"), "--config", config_path, "proxy"]


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
    arguments: Sequence[str | Path],
    *,
    core: int | None,
    port: int | None,
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, on one *core* or any, until the block ends; yields once it listens on *port*, at once without."""
    pinned = [*([] if core is None else ["taskset", "-c", str(core)]), *map(str, arguments)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            pinned, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        try:
            if port is not None:
                wait_for_port(port, process)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
