"""Whether throughput scales with ``[proxy] workers``, one and two on as many cores as there are."""

import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.bars import Part, at_least, table
from bench.gateway import HEADERS, build
from bench.installation import install, write_bodies, write_config
from bench.load import drive
from bench.machine import machine
from bench.measurement import CHAT_PATH, MODEL
from bench.processes import free_port, idle_rate, running, settled_usage, tutelage_command, usage

WORKERS = (1, 2)
CONNECTIONS = 64
SCALING_LIMIT = 1.2  # of two workers to one; two cores carry the driver, the mock upstream and the recorder, too
TEXT = """{connections} connections, whole replies, all on. Nothing is pinned: workers, recorder, load driver and mock
upstream share {cores} cores, so two workers cannot double anything here. `cores used` is the CPU time of the proxy's
processes per second of load; the bar compares requests per second of wall time.

Machine: {machine}.

"""


@dataclass(frozen=True)
class Seen:
    """Medians with one number of workers."""

    requests_per_s: float
    cpu_us: float
    memory_mb: float
    failed: float


def run(*, is_quick: bool) -> Part:
    """Return the throughput with one and with two workers."""
    rounds, seconds = (1, 1.0) if is_quick else (3, 3.0)
    with tempfile.TemporaryDirectory(prefix="tutelage-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        mock, driver = build(folder)
        port = free_port()
        stack.enter_context(running([mock, str(port)], core=None, port=port, log=folder / "m.log"))
        bodies = folder / "bodies.jsonl"
        write_bodies(bodies, "whole", MODEL)
        ports, processes = {}, {}
        for n in WORKERS:
            made = install(folder / f"workers-{n}", free_port(), port, is_learning=True)
            write_config(made, port, proxy=f"workers = {n}")
            command = tutelage_command(made.config_path)
            process = stack.enter_context(running(command, core=None, port=made.port, log=made.folder / "log"))
            ports[n], processes[n] = made.port, process.pid
        idle = {n: idle_rate(pid) for n, pid in processes.items()}
        seen: dict[int, list[Seen]] = {n: [] for n in WORKERS}
        for _ in range(rounds):
            for n in WORKERS:
                before = usage(processes[n])
                got = drive(driver, ports[n], CHAT_PATH, bodies, CONNECTIONS, seconds, HEADERS, core=None)
                after = settled_usage(processes[n], idle[n])
                cpu_us = (after.cpu_ns - before.cpu_ns) / 1e3 / max(1.0, got["total"])
                seen[n].append(Seen(got["requests_per_s"], cpu_us, after.memory_mb, got["failed"]))
    return part(seen)


def part(seen: dict[int, list[Seen]]) -> Part:
    """Return the part of the page, with its bar."""
    middle = {
        n: Seen(*(median(getattr(one, name) for one in rows) for name in Seen.__dataclass_fields__))
        for n, rows in seen.items()
    }
    rows = [
        [
            str(n),
            f"{one.requests_per_s:,.0f}",
            f"{one.cpu_us:,.0f}",
            f"{one.requests_per_s * one.cpu_us / 1e6:.2f}",
            f"{one.memory_mb:,.0f}",
            f"{one.failed:.0f}",
        ]
        for n, one in middle.items()
    ]
    gain = middle[2].requests_per_s / middle[1].requests_per_s
    text = TEXT.format(connections=CONNECTIONS, cores=os.cpu_count(), machine=machine())
    shown = table(("workers", "requests/s", "CPU us a request", "cores used", "MB, all processes", "failed"), rows)
    bars = [
        at_least(
            "requests/s of 2 workers to 1 (2 cores, shared with the load)", "scales: 1.2x here", SCALING_LIMIT, [gain]
        )
    ]
    return Part("workers", "Workers", text + shown, bars)
