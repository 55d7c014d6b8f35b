"""``python -m bench.simulation [--simworld FOLDER] [--quick] [--only NAME]``: the learner where truth is known."""

import argparse
import json
import math
import sys
import time
from pathlib import Path

from bench.bars import print_bar
from bench.simulation.loading import DEFAULT_FOLDER, Simworld
from bench.simulation.scenarios import FIRST_SEED, N_PROCESSES, run_all, tasks
from bench.simulation.summary import bars, by_kind, detail_table, main_table, what_ran

INTRODUCTION = """
Tenants whose truth is known (simworld): 150 users, 10 question types, 4 segments, 31 characteristics in 9 dimensions,
confounded observations, grumpy and heavy users, an outage on day 60, effects that drift, one that wins
thumbs and harms. 12,000 signals in 90 days unless said otherwise, a run every 6 hours, seeds that nothing was tuned
on. Shares, draws, statistics and decisions are the product's own functions; only who asks, what is answered and
what an instruction costs in tokens is the world's. The oracle knows every effect. The reference is the published
recommendation (learner e of simworld); it may spend 500 tokens on rules alone, while here the block's frame counts.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulation", description=__doc__)
    parser.add_argument("--simworld", type=Path, default=DEFAULT_FOLDER, help="folder with the simulated world")
    parser.add_argument("--quick", action="store_true", help="few worlds of each kind")
    parser.add_argument("--only", action="append", default=[], help="name of a kind of world; may be repeated")
    parser.add_argument("--out", type=Path, help="file to which every run's figures are added as JSON")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="of the worlds of each kind")
    parser.add_argument("--processes", type=int, default=N_PROCESSES, help="worlds that run at a time")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no world begins any more")
    arguments = parser.parse_args()
    try:
        Simworld(arguments.simworld)
    except FileNotFoundError as exc:
        print(f"Not measured: {exc} (name it with --simworld).")
        return
    start_s = time.monotonic()
    results = []
    chosen = tasks(arguments.simworld, is_quick=arguments.quick, only=arguments.only, first_seed=arguments.first_seed)
    for task, figures in run_all(chosen, n_processes=arguments.processes, minutes=arguments.minutes):
        results.append((task, figures))
        print(f"{task.scenario.name}, {task.learner}, seed {task.seed}: {figures['secs']:.0f} s", file=sys.stderr)
        if arguments.out:
            with arguments.out.open("a", encoding="utf-8") as file:
                line = {"scenario": task.scenario.name, "learner": task.learner, "seed": task.seed, **figures}
                file.write(json.dumps(line, default=float) + "\n")
    runs = by_kind(results)
    print(f"## The learner in a simulated world\n{INTRODUCTION}\n{main_table(runs)}\n{detail_table(runs)}")
    print(what_ran(tasks(arguments.simworld, is_quick=False, first_seed=arguments.first_seed), results))
    print(f"All of it took {(time.monotonic() - start_s) / 60:.0f} minutes in {arguments.processes} processes.")
    for bar in bars(runs):
        print_bar(bar)


if __name__ == "__main__":
    main()
