"""What Tutelage adds to a request: latency, and CPU time on a core, beside nginx, other gateways and no proxy at all.

CPU time (the kernel's ``schedstat``, every process of the target, until it is idle again) is the figure to trust: it
hardly depends on what else the machine does. Targets take turns within a round; medians over rounds are shown.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.bars import Part
from bench.content import check_reply
from bench.gateway_report import part
from bench.installation import DATA_SOURCE, Reply, install, write_bodies
from bench.load import drive
from bench.measurement import Cell, Measurement, Target, median
from bench.processes import free_port, idle_rate, running, settled_usage, tutelage_command, usage
from bench.rivals import KEY, RIVALS

HERE = Path(__file__).parent
SERVER_CORE, LOAD_CORE = 0, 1
HEADERS = (f"Authorization: Bearer {KEY}", f"x-tutelage-data-source: {DATA_SOURCE}")
CONNECTIONS = (1, 16, 64)
OPEN_LOOP_RATE = 100  # requests a second, for latency without saturation
PACED_RATE = 50  # streams a second; each takes half a second
# Kept-open connections both ways, no log, no buffering: what nginx does best as a relay of replies.
NGINX_CONFIG = """
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; multi_accept on; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000; keepalive_timeout 600; client_body_buffer_size 64k; tcp_nodelay on;
  upstream bench {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} reuseport backlog=1024;
    location / {{
      proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


CELLS = (
    *(Cell(f"whole, {n} connections", "whole", n) for n in CONNECTIONS),
    *(Cell(f"50 chunks at once, {n} connections", "chunks", n, with_rivals=n == 16) for n in CONNECTIONS),
    Cell(f"50 chunks 10 ms apart, {PACED_RATE} streams/s", "paced", 128, PACED_RATE, with_rivals=False),
    Cell(f"whole, {OPEN_LOOP_RATE} requests/s", "whole", 16, OPEN_LOOP_RATE),
)


def measure(target: Target, cell: Cell, driver: Path, bodies: Path, seconds: float) -> Measurement:
    """Return one measurement of one target."""
    before = usage(target.pid) if target.pid else None
    headers = (*HEADERS, *target.headers)
    seen = drive(
        driver, target.port, target.path, bodies, cell.connections, seconds, headers, core=LOAD_CORE, rate=cell.rate
    )
    cpu_us = serving_cpu_us = memory_mb = 0.0
    n_requests = max(1, seen["total"])
    if target.pid and before:
        after = settled_usage(target.pid, target.idle)
        cpu_us = (after.cpu_ns - before.cpu_ns) / 1e3 / n_requests
        serving_cpu_us = (after.serving_cpu_ns - before.serving_cpu_ns) / 1e3 / n_requests
        memory_mb = after.memory_mb
    return Measurement(
        requests_per_s=seen["requests_per_s"],
        p50_us=seen["p50_us"],
        p99_us=seen["p99_us"],
        first_byte_us=seen["first_byte_us"],
        cpu_us=cpu_us,
        serving_cpu_us=serving_cpu_us,
        memory_mb=memory_mb,
        failed=round(seen["failed"]),
    )


def build(folder: Path) -> tuple[Path, Path]:
    """Return the compiled mock upstream and load driver.

    Raises:
        SystemExit: there is no C compiler.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        sys.exit("the benchmark needs a C compiler (gcc) for its mock upstream and load driver")
    for name in ("mock_upstream", "load"):
        subprocess.run([compiler, "-O2", "-o", folder / name, HERE / f"{name}.c"], check=True)
    return folder / "mock_upstream", folder / "load"


@contextmanager
def nginx_target(folder: Path, upstream_port: int) -> Iterator[list[Target]]:
    """Run nginx; yields nothing where it is not installed."""
    nginx = shutil.which("nginx")
    if nginx is None:
        yield []
        return
    config, port = folder / "nginx.conf", free_port()
    config.write_text(NGINX_CONFIG.format(folder=folder, port=port, upstream=upstream_port))
    arguments: list[str | Path] = [nginx, "-c", config, "-e", folder / "e.log"]
    with running(arguments, core=SERVER_CORE, port=port, log=folder / "n.log") as process:
        yield [Target("nginx", port, process.pid)]


@contextmanager
def tutelage_target(name: str, folder: Path, upstream_port: int, *, is_learning: bool) -> Iterator[Target]:
    """Run one configuration of Tutelage."""
    made = install(folder / name.replace(" ", "-"), free_port(), upstream_port, is_learning=is_learning)
    command = tutelage_command(made.config_path)
    with running(command, core=SERVER_CORE, port=made.port, log=made.folder / "log") as process:
        yield Target(name, made.port, process.pid, made, idle_rate(process.pid))


@contextmanager
def targets(folder: Path, upstream_port: int) -> Iterator[list[Target]]:
    """Run every target side by side and yield them."""
    with ExitStack() as stack:
        found = [Target("direct", upstream_port, None)]
        found += stack.enter_context(nginx_target(folder, upstream_port))
        for rival in RIVALS:
            if rival.program.exists():
                found.append(stack.enter_context(rival.run(rival.program, folder, upstream_port, SERVER_CORE)))
        for name, is_learning in (("tutelage, learning off", False), ("tutelage, all on", True)):
            found.append(
                stack.enter_context(tutelage_target(name, folder, upstream_port, is_learning=is_learning)),
            )
        yield found


def run(seconds: float, rounds: int, cells: Sequence[Cell] = CELLS) -> Part:
    """Return every figure of every target."""
    with tempfile.TemporaryDirectory(prefix="tutelage-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        mock, driver = build(folder)
        upstream_port = free_port()
        stack.enter_context(
            running([mock, str(upstream_port)], core=LOAD_CORE, port=upstream_port, log=folder / "m.log")
        )
        found = stack.enter_context(targets(folder, upstream_port))
        bodies = _bodies(folder, found, cells)
        for target in found:
            for reply in sorted({cell.reply for cell in cells if target.takes(cell)}):
                check_reply(target, bodies[reply, target.model], (*HEADERS, *target.headers))
        seen: dict[tuple[Cell, Target], list[Measurement]] = {}
        for number in range(rounds):
            for cell in cells:
                for target in found:
                    if not target.takes(cell):
                        continue
                    result = measure(target, cell, driver, bodies[cell.reply, target.model], seconds)
                    seen.setdefault((cell, target), []).append(result)
                    _show_progress(number, rounds, cell, target, result)
        medians = {key: median(values) for key, values in seen.items()}
        return part(medians, found, f"{rounds} rounds of {seconds:g} s a cell")


def _bodies(folder: Path, found: Sequence[Target], cells: Sequence[Cell]) -> Mapping[tuple[Reply, str], Path]:
    paths: dict[tuple[Reply, str], Path] = {}
    for target in found:
        for cell in cells:
            key = (cell.reply, target.model)
            if key not in paths:
                paths[key] = folder / f"bodies-{len(paths)}.jsonl"
                write_bodies(paths[key], cell.reply, target.model)
    return paths


def _show_progress(number: int, rounds: int, cell: Cell, target: Target, result: Measurement) -> None:
    print(
        f"round {number + 1}/{rounds}  {cell.name:36} {target.name:24} {result.requests_per_s:9.0f}/s "
        f"p50 {result.p50_us:8.0f} us  cpu {result.cpu_us:7.1f} us  failed {result.failed}",
        file=sys.stderr,
        flush=True,
    )
