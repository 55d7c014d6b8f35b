"""The load driver (load.c) run once."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

WARM_S = 0.4


def drive(
    driver: Path,
    port: int,
    path: str,
    bodies: Path,
    connections: int,
    seconds: float,
    headers: Sequence[str],
    *,
    core: int | None,
    rate: int = 0,
) -> dict[str, float]:
    """Return what the driver prints: requests_per_s, p50_us, p99_us, first_byte_us, total, failed."""
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    arguments = [port, path, bodies, connections, seconds, WARM_S, rate, *headers]
    done = subprocess.run([*pinned, driver, *map(str, arguments)], capture_output=True, text=True, check=True)
    seen: dict[str, float] = json.loads(done.stdout)
    return seen
