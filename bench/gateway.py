"""What Tutelage adds to a request: latency, and CPU time on a core, beside nginx and beside no proxy at all.

CPU time (the kernel's ``schedstat``, every process of the target, until it is idle again) is the figure to trust: it
hardly depends on what else the machine does. Targets take turns within a round; medians over rounds are shown.
"""

import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.installation import DATA_SOURCE, N_CONTEXTS, N_PATTERNS, Installation, install, write_bodies
from bench.processes import free_port, running, settled_usage, usage

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
SERVER_CORE, LOAD_CORE = 0, 1
WARM_S = 0.4
HEADERS = ("Authorization: Bearer sk-bench", f"x-tutelage-data-source: {DATA_SOURCE}")
CONNECTIONS = (1, 16, 64)
OPEN_LOOP_RATE = 100  # requests a second, for latency without saturation
NGINX_CONFIG = """
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000; keepalive_timeout 600; client_body_buffer_size 64k; tcp_nodelay on;
  upstream bench {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Target:
    name: str
    port: int
    pid: int | None  # None: nothing stands between the driver and the upstream
    installation: Installation | None = None


@dataclass(frozen=True)
class Cell:
    """One way to load a target."""

    name: str
    is_stream: bool
    connections: int
    rate: int = 0  # requests a second; 0: the next as soon as the reply is there


CELLS = (
    *(Cell(f"whole, {n} connections", False, n) for n in CONNECTIONS),
    *(Cell(f"50 chunks, {n} connections", True, n) for n in CONNECTIONS),
    Cell(f"whole, {OPEN_LOOP_RATE} requests/s", False, 16, OPEN_LOOP_RATE),
)


@dataclass(frozen=True)
class Measurement:
    requests_per_s: float
    p50_us: float
    p99_us: float
    first_byte_us: float
    cpu_us: float  # of all processes of the target, per request
    memory_mb: float
    failed: int


def measure(target: Target, cell: Cell, driver: Path, bodies: Path, seconds: float) -> Measurement:
    """Return one measurement of one target."""
    before = usage(target.pid) if target.pid else None
    arguments = [target.port, bodies, cell.connections, seconds, WARM_S, cell.rate, *HEADERS]
    printed = subprocess.run(
        ["taskset", "-c", str(LOAD_CORE), driver, *map(str, arguments)], capture_output=True, text=True, check=True
    ).stdout
    seen = json.loads(printed)
    cpu_us = memory_mb = 0.0
    if target.pid and before:
        after = settled_usage(target.pid)
        cpu_us = (after.cpu_ns - before.cpu_ns) / 1e3 / max(1, seen["total"])
        memory_mb = after.memory_mb
    return Measurement(
        seen["requests_per_s"], seen["p50_us"], seen["p99_us"], seen["first_byte_us"], cpu_us, memory_mb, seen["failed"]
    )


def median(measurements: Sequence[Measurement]) -> Measurement:
    """Return the median of each figure, and the sum of the failures."""
    names = ("requests_per_s", "p50_us", "p99_us", "first_byte_us", "cpu_us", "memory_mb")
    middle = {name: statistics.median(getattr(item, name) for item in measurements) for name in names}
    return Measurement(**middle, failed=sum(item.failed for item in measurements))


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
def targets(folder: Path, upstream_port: int) -> Iterator[list[Target]]:
    """Run every target side by side and yield them."""
    with ExitStack() as stack:
        found = [Target("direct", upstream_port, None)]
        nginx = shutil.which("nginx")
        if nginx:
            port = free_port()
            config = folder / "nginx.conf"
            config.write_text(NGINX_CONFIG.format(folder=folder, port=port, upstream=upstream_port))
            process = stack.enter_context(
                running(
                    [nginx, "-c", config, "-e", folder / "e.log"], core=SERVER_CORE, port=port, log=folder / "n.log"
                )
            )
            found.append(Target("nginx", port, process.pid))
        for name, is_learning in (("tutelage, learning off", False), ("tutelage, all on", True)):
            installation = install(folder / name.replace(" ", "-"), free_port(), upstream_port, is_learning=is_learning)
            process = stack.enter_context(
                running(
                    [Path(sys.executable).with_name("tutelage"), "--config", installation.config_path, "proxy"],
                    core=SERVER_CORE,
                    port=installation.port,
                    log=installation.folder / "log",
                )
            )
            found.append(Target(name, installation.port, process.pid, installation))
        yield found


def run(seconds: float, rounds: int, cells: Sequence[Cell] = CELLS) -> None:
    """Measure everything, print the table and write it to RESULTS.md."""
    with tempfile.TemporaryDirectory(prefix="tutelage-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        mock, driver = build(folder)
        bodies = {is_stream: folder / f"bodies-{is_stream}.jsonl" for is_stream in (False, True)}
        for is_stream, path in bodies.items():
            write_bodies(path, is_stream=is_stream)
        upstream_port = free_port()
        stack.enter_context(
            running([mock, str(upstream_port)], core=LOAD_CORE, port=upstream_port, log=folder / "m.log")
        )
        found = stack.enter_context(targets(folder, upstream_port))
        seen: dict[tuple[Cell, Target], list[Measurement]] = {}
        for number in range(rounds):
            for cell in cells:
                for target in found:
                    result = measure(target, cell, driver, bodies[cell.is_stream], seconds)
                    seen.setdefault((cell, target), []).append(result)
                    _show_progress(number, rounds, cell, target, result)
        text = report({key: median(values) for key, values in seen.items()}, found, seconds, rounds)
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


def _show_progress(number: int, rounds: int, cell: Cell, target: Target, result: Measurement) -> None:
    print(
        f"round {number + 1}/{rounds}  {cell.name:28} {target.name:24} {result.requests_per_s:9.0f}/s "
        f"p50 {result.p50_us:8.0f} us  cpu {result.cpu_us:7.1f} us  failed {result.failed}",
        file=sys.stderr,
        flush=True,
    )


def report(
    seen: Mapping[tuple[Cell, Target], Measurement], found: Sequence[Target], seconds: float, rounds: int
) -> str:
    """Return the text of RESULTS.md."""
    lines = [
        "# What a request costs",
        "",
        (
            f"`python -m bench gateway`: {rounds} rounds of {seconds:g} s a cell, targets taking turns, medians. "
            f"Servers on core {SERVER_CORE}, load driver and mock upstream (C, `bench/*.c`) on core {LOAD_CORE}. "
            "CPU is the kernel's count for all processes of the target until they are idle again, so the moving of "
            "records into the database is in it. `added` is the difference to direct in the same cell."
        ),
        "",
        (
            f"`all on`: {N_PATTERNS:,} patterns (20 match, more than the block holds), {N_CONTEXTS:,} contexts, "
            f"every question different, every second one answered by an entry; {_injected(found)}; every response "
            "recorded. `learning off`: the tenant's switch; a pure relay."
        ),
        "",
        f"Machine: {_machine()}.",
        "",
    ]
    has_nginx = any(target.name == "nginx" for target in found)
    if not has_nginx:
        lines += ["nginx is not installed here: its rows and the ratios to it are left out.", ""]
    cells = list(dict.fromkeys(cell for cell, _ in seen))
    for cell in cells:
        lines += [
            f"## {cell.name}",
            "",
            "| target | requests/s | p50 us | p99 us | added p50 | added first byte | CPU us | x nginx | MB | failed |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        direct = seen[cell, found[0]]
        nginx_us = next((seen[cell, target].cpu_us for target in found if target.name == "nginx"), 0.0)
        for target in found:
            lines.append(_row(target, seen[cell, target], direct, nginx_us))
        lines.append("")
    return "\n".join(lines)


def _row(target: Target, got: Measurement, direct: Measurement, nginx_us: float) -> str:
    cells = [target.name, f"{got.requests_per_s:,.0f}", f"{got.p50_us:,.0f}", f"{got.p99_us:,.0f}"]
    if target.pid is None:
        return f"| {' | '.join([*cells, '', '', '', '', '', str(got.failed)])} |"
    ratio = f"{got.cpu_us / nginx_us:.1f}" if nginx_us else ""
    cells += [f"{got.p50_us - direct.p50_us:,.0f}", f"{got.first_byte_us - direct.first_byte_us:,.0f}"]
    return f"| {' | '.join([*cells, f'{got.cpu_us:,.0f}', ratio, f'{got.memory_mb:,.0f}', str(got.failed)])} |"


def _injected(found: Sequence[Target]) -> str:
    """Return what was recorded, so that a table without injection cannot pass for one with it."""
    path = next((t.installation.database_path for t in found if t.installation and "all on" in t.name), None)
    if path is None:
        return "not run"
    with sqlite3.connect(path) as connection:
        n, tokens, share = connection.execute(
            """
            SELECT count(*), avg(injected_tokens),
              avg(id IN (SELECT response_id FROM injections WHERE kind = 'context'))
            FROM responses
            """
        ).fetchone()
    return f"{n:,} responses recorded, {tokens or 0:.0f} tokens injected in the mean, contexts in {share or 0:.0%}"


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    names = ("uvicorn", "uvloop", "httptools", "msgspec", "numpy", "starlette")
    nginx = shutil.which("nginx")
    shown = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=False).stderr.strip() if nginx else ""
    versions = ", ".join(
        [f"{name} {version(name)}" for name in names] + ([shown.removeprefix("nginx version: ")] * bool(shown))
    )
    return (
        f"{os.cpu_count()} cores of {model}, Linux {platform.release()}, load {os.getloadavg()[0]:.1f} at the end; "
        f"Python {platform.python_version()}, {versions}"
    )
