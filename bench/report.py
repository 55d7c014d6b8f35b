"""The gateway's benchmark as a page: RESULTS.md."""

import os
import platform
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from bench.installation import N_CONTEXTS, N_PATTERNS
from bench.measurement import Cell, Measurement, Target

COLUMNS = (
    "target",
    "requests/s",
    "p50 us",
    "p99 us",
    "added p50",
    "added first byte",
    "CPU us",
    "of it serving",
    "x nginx",
    "MB",
    "failed",
)
PACKAGES = ("uvicorn", "uvloop", "httptools", "msgspec", "numpy", "starlette")
INTRODUCTION = """# What a request costs

`python -m bench gateway`: {method}, targets taking turns, medians.
Servers share one core, load driver and mock upstream (C, `bench/*.c`) have the other. CPU is the kernel's count for
all processes of the target until they are idle again, so the moving of records into the database is in it; `of it
serving` leaves that out. `added` is the difference to `direct` in the same table, in microseconds.

`all on`: {n_patterns:,} patterns (20 match a request, two in each of 10 dimensions), {n_contexts:,} contexts, every
question different, every response recorded; {injected}.
Idle, it uses {idle}. `learning off`: the tenant's switch; a pure relay.

Machine: {machine}.
"""
NO_NGINX = "nginx is not installed on this machine: its rows and the ratios to it are left out.\n"


def report(seen: Mapping[tuple[Cell, Target], Measurement], targets: Sequence[Target], method: str) -> str:
    """Return the page; *targets* begins with the one that nothing stands in front of."""
    pages = [
        INTRODUCTION.format(
            method=method,
            n_patterns=N_PATTERNS,
            n_contexts=N_CONTEXTS,
            injected=_injected(targets),
            idle=_idle(targets),
            machine=_machine(),
        )
    ]
    nginx = next((target for target in targets if target.name == "nginx"), None)
    if nginx is None:
        pages.append(NO_NGINX)
    for cell in dict.fromkeys(cell for cell, _ in seen):
        nginx_us = seen[cell, nginx].cpu_us if nginx else 0.0
        rows = [_row(target, seen[cell, target], seen[cell, targets[0]], nginx_us) for target in targets]
        pages.append(f"## {cell.name}\n\n{_table(rows)}")
    return "\n".join(pages)


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(target: Target, got: Measurement, direct: Measurement, nginx_us: float) -> list[str]:
    figures = [f"{got.requests_per_s:,.0f}", f"{got.p50_us:,.0f}", f"{got.p99_us:,.0f}"]
    if target.pid is None:
        return [target.name, *figures, "", "", "", "", "", "", str(got.failed)]
    return [
        target.name,
        *figures,
        f"{got.p50_us - direct.p50_us:,.0f}",
        f"{got.first_byte_us - direct.first_byte_us:,.0f}",
        f"{got.cpu_us:,.0f}",
        f"{got.serving_cpu_us:,.0f}",
        f"{got.cpu_us / nginx_us:.1f}" if nginx_us else "",
        f"{got.memory_mb:,.0f}",
        str(got.failed),
    ]


def _idle(targets: Sequence[Target]) -> str:
    (idle,) = (target.idle for target in targets if target.idle and "all on" in target.name)
    return f"{idle.cpu_ns / 1e7:.1f} % of a core"


def _injected(targets: Sequence[Target]) -> str:
    """Return what was recorded, so that a table without injection cannot pass for one with it."""
    (installation,) = (target.installation for target in targets if target.installation and "all on" in target.name)
    with sqlite3.connect(installation.database_path) as connection:
        n_responses, n_tokens, share = connection.execute(
            """
            SELECT count(*), avg(injected_tokens),
              avg(id IN (SELECT response_id FROM injections WHERE kind = 'context'))
            FROM responses
            """
        ).fetchone()
    return (
        f"{n_responses:,} responses recorded, {n_tokens or 0:.0f} tokens injected in the mean, "
        f"contexts in {share or 0:.0%} of the requests"
    )


def _machine() -> str:
    cpu_info = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in cpu_info if line.startswith("model name"))
    parts = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    nginx = shutil.which("nginx")
    if nginx:
        shown = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
        parts.append(shown.strip().removeprefix("nginx version: "))
    return (
        f"{os.cpu_count()} cores of {next(names, platform.machine())}, Linux {platform.release().split('-')[0]}, "
        f"load {os.getloadavg()[0]:.1f} at the end; {', '.join(parts)}"
    )
