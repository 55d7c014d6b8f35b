"""What a pattern run costs: over a million responses, over what is new since then, and over nothing.

``python -m bench.runs``: records as a proxy leaves them, one tenant; each run in a process of its own, on one core.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench.bars import at_most, print_bar, table
from bench.traffic import DAY_S, Traffic, add_late_votes, add_patterns, add_records
from learner.models import no_models
from learner.report import Collaborators
from learner.run import run_once
from store.clock import ManualClock, parse_iso
from store.config import Config, load_config
from store.database import open_database
from store.embedding import load_local_embedder
from store.learner_states import load_learner_state
from store.tenants import ensure_default_tenant
from store.tokens import load_token_counter
from store.vocabulary import DEFAULT_TENANT

END_S = parse_iso("2026-11-21T12:00:00Z")
DAYS = 80.0
N, QUICK_N = 1_000_000, 20_000
NEW_SHARE = 0.01
FIRST_CPU_S, FIRST_MB, NEXT_CPU_S, IDLE_MS = 60.0, 1024.0, 5.0, 50.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took, its process's start left out; memory is the process's peak, its start included."""

    cpu_s: float
    wall_s: float
    peak_mb: float
    state_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.runs", description=__doc__)
    parser.add_argument("--n", type=int, default=N, help="responses before the first run")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", help="keep the database here, and take one that is there already")
    parser.add_argument("--learn", nargs=2, metavar=("DATABASE", "NOW_S"), help="one run, its cost as JSON")
    arguments = parser.parse_args()
    if arguments.learn:
        print(json.dumps(asdict(_learn(Path(arguments.learn[0]), float(arguments.learn[1])))))
        return
    n = QUICK_N if arguments.quick else arguments.n
    with tempfile.TemporaryDirectory(prefix="tutelage-bench-") as name:
        _report(n, *_measure(Path(arguments.folder or name) / "tutelage.db", n))


def _measure(path: Path, n: int) -> tuple[Cost, Cost, Cost]:
    config = _config(path)
    is_new = not path.exists()
    n_new = int(n * NEW_SHARE)
    later_s = END_S + DAYS * DAY_S * NEW_SHARE
    with open_database(config.store) as db:
        if is_new:
            ensure_default_tenant(db, END_S)
            add_patterns(db, END_S - DAYS * DAY_S)
            add_records(db, Traffic(n, END_S, DAYS))
    first = _in_process(path, END_S)
    with open_database(config.store) as db:
        later = Traffic(n_new, later_s, DAYS * NEW_SHARE, first=n)
        add_records(db, later)
        add_late_votes(db, later)
    return first, _in_process(path, later_s), _in_process(path, later_s + 60)


def _in_process(path: Path, now_s: float) -> Cost:
    command = [sys.executable, "-m", "bench.runs", "--learn", str(path), str(now_s)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def _config(path: Path) -> Config:
    return load_config(None, {"store": {"url": f"sqlite:///{path}"}})


def _learn(path: Path, now_s: float) -> Cost:
    config = _config(path)
    clock = ManualClock(datetime.fromtimestamp(now_s, UTC))
    collaborators = Collaborators(
        embedder=load_local_embedder(config.embedding),
        tokens=load_token_counter(),
        models=no_models(),
        rng=np.random.default_rng(0),
        clock=clock,
    )
    with open_database(config.store) as db:
        cpu_s, wall_s = time.process_time(), time.monotonic()
        run_once(db, config, DEFAULT_TENANT, "patterns", collaborators=collaborators, now_s=now_s)
        cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
        state = load_learner_state(db, DEFAULT_TENANT)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(cpu_s, wall_s, peak_mb, len(state.state) / 2**20 if state else 0.0)


def _report(n: int, first: Cost, later: Cost, idle: Cost) -> None:
    print("## What a pattern run costs\n")
    print(
        f"{n:,} responses of one tenant in {DAYS:.0f} days: prose, Markdown, tables and code of 600 to 1,500 letters. "
        "All are read; 0.6 signals a response, the follow-ups among them found in the traffic; late votes on settled "
        "responses before the second run; six patterns in trial in each conversation. CPU seconds of a run, from "
        "finding signals in the traffic and reading what replies were like to the published generation.\n"
    )
    rows = [
        (f"first, {n:,} responses", first),
        (f"next, {int(n * NEW_SHARE):,} more", later),
        ("next, nothing new", idle),
    ]
    print(
        table(
            ["run", "CPU s", "seconds", "peak MB", "state MB"],
            [[name, f"{c.cpu_s:.3f}", f"{c.wall_s:.3f}", f"{c.peak_mb:.0f}", f"{c.state_mb:.1f}"] for name, c in rows],
        )
    )
    scaled = first.cpu_s * N / n
    print_bar(at_most("a run over 1,000,000 responses, CPU", "60 s", FIRST_CPU_S, [scaled], "{:.1f} s"))
    print_bar(at_most("its memory", "1 GB", FIRST_MB, [first.peak_mb], "{:.0f} MB"))
    print_bar(at_most("a run over 1 % more, CPU", f"{NEXT_CPU_S:.0f} s", NEXT_CPU_S, [later.cpu_s], "{:.2f} s"))
    print_bar(at_most("a run without news", f"{IDLE_MS:.0f} ms", IDLE_MS, [1000 * idle.wall_s], "{:.1f} ms"))


if __name__ == "__main__":
    main()
