"""How long the proxy takes from its start to its first served request, and that litellm is not imported on the way."""

import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.bars import Part, at_most
from bench.gateway import build
from bench.installation import Installation, install
from bench.machine import machine
from bench.measurement import CHAT_PATH, MODEL
from bench.processes import free_port, process_tree, running, tutelage_command, usage

N_WARM, N_COLD = 7, 3
POLL_S = 0.002
GIVE_UP_S = 60.0
STOP_S = 20.0
LIMIT_S = 1.5
IMPORTED = re.compile(r"import time:\s+\d+ \|\s+\d+ \|\s*([\w.]+)")
TEXT = """From `exec` of `tutelage proxy` to the end of its first chat request's reply, injection and recording on,
1,000 patterns and 1,000 contexts in the database: {warm}. With the page cache emptied of the interpreter's packages,
the code and the database (`posix_fadvise`; pages that other processes map stay): {cold}. Beside it, an interpreter
that imports nothing: {bare} s.

Python's own list of imports (`PYTHONPROFILEIMPORTTIME`) of proxy and recorder until then has {n_modules:,} modules,
{n_litellm} of them litellm's.{mapped}

Machine: {machine}.
"""


def run(*, is_quick: bool) -> Part:
    """Return how long a start takes, and the bars on it."""
    n_warm, n_cold = (2, 1) if is_quick else (N_WARM, N_COLD)
    with tempfile.TemporaryDirectory(prefix="tutelage-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        mock, _ = build(folder)
        port = free_port()
        stack.enter_context(running([mock, str(port)], core=None, port=port, log=folder / "m.log"))
        made = install(folder / "proxy", free_port(), port, is_learning=True)
        _start(made, {})
        warm = [_start(made, {}) for _ in range(n_warm)]
        cold = []
        for _ in range(n_cold):
            _forget(made)
            cold.append(_start(made, {}))
        watched = _start(made, {"PYTHONPROFILEIMPORTTIME": "1"})
        modules = IMPORTED.findall((made.folder / "start.log").read_text(encoding="utf-8", errors="replace"))
    return part(warm, cold, modules, watched.n_litellm_mapped)


@dataclass(frozen=True)
class Started:
    """One start until its first reply."""

    seconds: float
    serving_cpu_s: float
    n_litellm_mapped: int  # processes that had a file of litellm's mapped


def _start(made: Installation, environment: Mapping[str, str]) -> Started:
    """Return what it took from the command to the first reply."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "What does a new card cost?"}]})
    command = [str(word) for word in tutelage_command(made.config_path)]
    with (made.folder / "start.log").open("wb") as log:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})
        try:
            while not _is_served(made.port, body):
                if process.poll() is not None or time.monotonic() - started > GIVE_UP_S:
                    raise RuntimeError(f"the proxy did not start: {process.returncode}")
                time.sleep(POLL_S)
            seconds = time.monotonic() - started
            serving_cpu_s = usage(process.pid).serving_cpu_ns / 1e9
            n_mapped = sum("/litellm/" in _maps(pid) for pid in process_tree(process.pid))
        finally:
            process.terminate()
            process.wait(STOP_S)
    return Started(seconds, serving_cpu_s, n_mapped)


def _is_served(port: int, body: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-bench"}
        connection.request("POST", CHAT_PATH, body, headers)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    except OSError:
        return ""


def _files(made: Installation) -> Iterator[Path]:
    here = Path(__file__).parents[1]
    folders = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    for folder in (*folders, *(here / name for name in ("proxy", "store", "tutelage")), made.folder):
        yield from (path for path in folder.rglob("*") if path.is_file())


def _forget(made: Installation) -> None:
    """Drop the files that a start reads from the page cache; what others map stays."""
    for path in _files(made):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _bare_s() -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", ""], check=True)
    return time.monotonic() - started


def part(warm: Sequence[Started], cold: Sequence[Started], modules: Sequence[str], n_mapped: int) -> Part:
    """Return the part of the page, with its bars.

    Raises:
        RuntimeError: the interpreter listed no imports, so nothing is known of them.
    """
    if not modules:
        raise RuntimeError("no list of imports was printed")
    n_litellm = sum(name.split(".")[0] == "litellm" for name in modules)
    text = TEXT.format(
        warm=_shown(warm),
        cold=_shown(cold),
        bare=f"{min(_bare_s() for _ in range(5)):.2f}",
        n_modules=len(modules),
        n_litellm=n_litellm,
        mapped=f" Processes with a file of litellm's mapped: {n_mapped}.",
        machine=machine(),
    )
    bars = [
        at_most(
            "start to the first served request, warm / cold page cache",
            "within 1.5 s",
            LIMIT_S,
            [statistics.median(one.seconds for one in starts) for starts in (warm, cold)],
            "{:.2f} s",
        ),
        at_most("modules of litellm imported on the way", "0", 0, [n_litellm], "{:.0f}"),
    ]
    return Part("start", "Start", text, bars)


def _shown(starts: Sequence[Started]) -> str:
    seconds, cpu_s = [one.seconds for one in starts], [one.serving_cpu_s for one in starts]
    return (
        f"**{statistics.median(seconds):.2f} s** (median of {len(starts)}, {min(seconds):.2f} to {max(seconds):.2f}; "
        f"{statistics.median(cpu_s):.2f} s on a core)"
    )
