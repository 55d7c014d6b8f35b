"""What a pattern run costs: over a thousand to a million responses, over what is new since then, and over nothing.

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
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench.bars import at_most, print_bar, table
from bench.traffic import DAY_S, Traffic, add_late_votes, add_patterns, add_records
from learner.authoring import Author
from learner.forgetting import forget_user
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
SIZES, QUICK_SIZES = (1_000, 12_000, 100_000, 1_000_000), (1_000, 20_000)
BAR_N = 1_000_000
NEW_SHARE = 0.01
FORGOTTEN_USER = "user-0"  # who asks most
FIRST_CPU_S, MOST_MB, NEXT_CPU_S, IDLE_MS = 60.0, 1024.0, 5.0, 50.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run took, its process's start left out; memory is the process's peak, its start included."""

    cpu_s: float
    wall_s: float
    peak_mb: float
    state_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.runs", description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", help="responses before the first run, ascending")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", help="keep the databases here, and take those that are there already")
    parser.add_argument("--learn", nargs=2, metavar=("DATABASE", "NOW_S"), help="one run, its cost as JSON")
    arguments = parser.parse_args()
    if arguments.learn:
        print(json.dumps(asdict(_learn(Path(arguments.learn[0]), float(arguments.learn[1])))))
        return
    sizes = arguments.n or (QUICK_SIZES if arguments.quick else SIZES)
    with tempfile.TemporaryDirectory(prefix="tutelage-bench-") as name:
        folder = Path(arguments.folder or name)
        _report({n: _measure(folder / f"runs-{n}.db", n) for n in sizes})


@dataclass(frozen=True, slots=True)
class Costs:
    """The runs over one database, in their order."""

    first: Cost
    later: Cost
    idle: Cost
    rebuilt: Cost  # after a person was forgotten


def _measure(path: Path, n: int) -> Costs:
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
    next_run, idle = _in_process(path, later_s), _in_process(path, later_s + 60)
    with open_database(config.store) as db:
        author = Author(config.embedding)
        forget_user(db, config, DEFAULT_TENANT, author, user=FORGOTTEN_USER, actor="benchmark", now_s=later_s + 120)
    return Costs(first, next_run, idle, _in_process(path, later_s + 180))


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


def _report(found: Mapping[int, Costs]) -> None:
    print("## What a pattern run costs\n")
    print(
        f"Responses of one tenant in {DAYS:.0f} days: prose, Markdown, tables and code of 600 to 1,500 letters. All "
        "are read; 0.6 signals a response, the follow-ups among them found in the traffic; late votes on settled "
        "responses before the second run; six patterns in trial in each conversation; one person forgotten before the "
        "last. CPU seconds of a run, from finding signals in the traffic and reading what replies were like to the "
        "published generation.\n"
    )
    rows = [
        [name, f"{cost.cpu_s:.3f}", f"{cost.wall_s:.3f}", f"{cost.peak_mb:.0f}", f"{cost.state_mb:.1f}"]
        for n, costs in found.items()
        for name, cost in (
            (f"first, {n:,} responses", costs.first),
            (f"next, {int(n * NEW_SHARE):,} more", costs.later),
            ("next, nothing new", costs.idle),
            ("all sums made anew, somebody forgotten", costs.rebuilt),
        )
    ]
    print(table(["run", "CPU s", "seconds", "peak MB", "state MB"], rows))
    n, costs = max(found.items())
    name = "a run over 1,000,000 responses, CPU" if n >= BAR_N else f"the same, told from {n:,}, CPU"
    every = (costs.first, costs.later, costs.idle, costs.rebuilt)
    print_bar(at_most(name, "60 s", FIRST_CPU_S, [costs.first.cpu_s * BAR_N / n], "{:.1f} s"))
    print_bar(at_most("memory of the largest run", "1 GB", MOST_MB, [one.peak_mb for one in every], "{:.0f} MB"))
    print_bar(at_most("a run over 1 % more, CPU", f"{NEXT_CPU_S:.0f} s", NEXT_CPU_S, [costs.later.cpu_s], "{:.2f} s"))
    idle_ms = [1000 * one.idle.cpu_s for one in found.values()]
    print_bar(at_most("a run without news, CPU", f"{IDLE_MS:.0f} ms", IDLE_MS, idle_ms, "{:.1f} ms"))


if __name__ == "__main__":
    main()
