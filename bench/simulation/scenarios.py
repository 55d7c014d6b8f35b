"""The worlds that are run, and one run of a learner in one of them.

Seeds are fresh: the algorithm's defaults were chosen on 0 to 3 and looked at on 100 to 105.
"""

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.simulation.loading import Simworld
from bench.simulation.tenant import ProductLearner
from bench.simulation.watching import Watched
from store.config import load_config

PRODUCT = "product"
ORIGIN, ORIGIN_FIXED, REFERENCE = "a", "b", "e"
FIRST_SEED = 200
N_PROCESSES = 2
BREVITY_DAY = 30.0


@dataclass(frozen=True)
class Scenario:
    """One kind of world; ``seeds`` and ``quick`` are how many of it are run, ``beside`` the world's own learners."""

    name: str
    seeds: int
    quick: int
    world: Mapping[str, Any] = field(default_factory=dict)
    beside: Sequence[str] = ()
    beside_seeds: int = 0  # how many worlds the others run in; 0: all
    is_brevity: bool = False


BREVITY = {"kind": "brevity_only", "brevity_from": BREVITY_DAY, "shock": False}
SCENARIOS = (
    Scenario("mixed", 6, 2, beside=(ORIGIN, ORIGIN_FIXED, REFERENCE)),
    Scenario("null", 10, 2, {"kind": "null"}, beside=(ORIGIN_FIXED,), beside_seeds=2),
    Scenario("flooder", 3, 1, {"adversaries": 1}),
    Scenario("five flooders", 3, 1, {"adversaries": 5}),
    Scenario("brevity", 4, 1, BREVITY, is_brevity=True),
    Scenario("brevity 100k", 1, 0, {**BREVITY, "signals": 100_000}, is_brevity=True),
    Scenario("one effect of 0.4", 3, 1, {"kind": "single", "effect": 0.4}),
    Scenario("one effect of 0.2", 3, 1, {"kind": "single", "effect": 0.2}),
    Scenario("1k signals", 4, 1, {"signals": 1000}, beside=(ORIGIN_FIXED, REFERENCE)),
    Scenario("100k signals", 1, 0, {"signals": 100_000}, beside=(ORIGIN_FIXED, REFERENCE)),
)


@dataclass(frozen=True)
class Task:
    scenario: Scenario
    learner: str
    seed: int
    folder: Path


def tasks(folder: Path, *, is_quick: bool, only: Sequence[str] = (), first_seed: int = FIRST_SEED) -> list[Task]:
    """Return all runs from seed *first_seed* on, the longest first."""
    found = []
    for scenario in SCENARIOS:
        n = scenario.quick if is_quick else scenario.seeds
        if only and scenario.name not in only:
            continue
        for learner in (PRODUCT, *scenario.beside):
            most = n if learner == PRODUCT or not scenario.beside_seeds else min(n, scenario.beside_seeds)
            found += [Task(scenario, learner, first_seed + i, folder) for i in range(most)]
    return sorted(found, key=lambda task: -task.scenario.world.get("signals", 12_000))


def run_all(
    chosen: Sequence[Task], *, n_processes: int = N_PROCESSES, minutes: float = math.inf
) -> Iterator[tuple[Task, dict[str, Any]]]:
    """Yield each run with its figures as it ends; none begins after *minutes*.

    Those that have to end soon go by seed, so that something of each kind has run.
    """
    ordered = chosen if math.isinf(minutes) else sorted(chosen, key=lambda task: task.seed)
    until_s = time.monotonic() + 60 * minutes
    with ProcessPoolExecutor(min(n_processes, os.cpu_count() or 1)) as pool:
        futures = {pool.submit(run_one, task): task for task in ordered}
        for future in as_completed(futures):
            if time.monotonic() > until_s:
                for waiting in futures:
                    waiting.cancel()
            if not future.cancelled():
                yield futures[future], future.result()


def run_one(task: Task) -> dict[str, Any]:
    """Return the figures of one learner in one world: the world's own and those of ``Watched``."""
    simworld = Simworld(task.folder)
    watched: list[Watched] = []
    label, kind, options = simworld.experiments.LEARNERS.get(task.learner, (PRODUCT, None, {}))
    dimensions = simworld.world.DIMS

    def make(world: Any, **others: Any) -> Watched:
        learner = kind(world, **others) if kind else ProductLearner(world, dimensions, load_config())
        watched.append(Watched(learner, world, dimensions, simworld.experiments.cell_weights(world)))
        return watched[0]

    simworld.experiments.LEARNERS["watched"] = (label, make, options)
    how = {"force_brevity": BREVITY_DAY} if task.scenario.is_brevity else {}
    figures = simworld.experiments.one(("watched", {"seed": task.seed, **task.scenario.world}, how))
    return {**figures, **watched[0].figures()}
