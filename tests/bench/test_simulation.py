import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.simulation.loading import Simworld
from bench.simulation.scenarios import Task, tasks
from bench.simulation.summary import Figures, bars, of_oracle, share, what_ran
from bench.simulation.tenant import ProductLearner
from bench.simulation.watching import Dimensions, Watched
from store.config import load_config

DIMENSIONS: Dimensions = [
    ("length", "response_format", ["short", "long"]),
    ("table", "response_format", ["none", "all"]),
]
WEIGHTS = np.array([[0.25, 0.25], [0.4, 0.1]])  # two question types, two segments


def world(**others: Any) -> Any:
    effects = np.zeros((2, 2, 2, 2))  # type, dimension, value, segment
    effects[0, 0, 0, :] = 0.4  # short answers help the first type
    effects[:, 1, 1, 0] = -0.3  # tables harm the first segment
    return SimpleNamespace(
        Q=2,
        S=2,
        tokens=np.full((2, 2), 50),
        planted=[("helpful", "length", "short", [0], 0.4, [0, 1])],
        cell_effects=lambda _day: effects,
        **others,
    )


class Learner:
    """Has two patterns from the start: a true one that is proven, and a harmful one."""

    events: list[Any] = []  # noqa: RUF012
    proofs = [(0, (0, 0, 0)), (3, (3, 1, 1))]  # noqa: RUF012
    max_tokens = 300
    beliefs = SimpleNamespace(
        strata=SimpleNamespace(scopes=["all", "one type"]),
        columns=["short", "table"],
        log_e=np.array([[0.0, -np.inf], [0.0, -np.inf]]),
    )

    def update(self, log: Any) -> None:
        pass

    def active_keys(self) -> set[tuple[int, int, int]]:
        return {(0, 0, 0), (3, 1, 1)}

    def proven_keys(self) -> set[tuple[int, int, int]]:
        return {(0, 0, 0)}

    def active_cells(self) -> Any:
        cells = np.zeros((2, 2, 2, 2), bool)
        cells[0, :, 0, 0] = True
        return cells

    served_cells = active_cells

    def worst_draw_z(self) -> float:
        return 1.0


def test_a_patterns_effect_is_its_mean_over_the_traffic_of_its_scope() -> None:
    watched = Watched(Learner(), world(), DIMENSIONS, WEIGHTS)
    effects = world().cell_effects(0)

    assert watched.effect((0, 0, 0), effects) == pytest.approx(0.4)  # its type alone
    assert watched.effect((2, 0, 0), effects) == pytest.approx(0.2)  # everywhere
    assert watched.effect((3, 1, 1), effects) == pytest.approx(-0.3)  # one segment
    assert watched.effect((2, 1, 1), effects) == pytest.approx(-0.3 * 0.65)


def test_proofs_harm_and_helpers_are_counted_once_a_day() -> None:
    watched = Watched(Learner(), world(), DIMENSIONS, WEIGHTS)

    for run in range(8):
        watched.update({"run": run})

    figures = watched.figures()
    assert (figures["active"], figures["active_false"], figures["harmful_days"]) == (4, 2, 2)
    assert (figures["proofs"], figures["proofs_false"], figures["proven_false"]) == (2, 1, 0)
    assert (figures["helpers"], figures["helpers_active"], figures["helper_days_served"]) == (
        1,
        1,
        [("helpful", 0.4, 0.75)],
    )


def test_the_worlds_thumbs_count_as_the_product_counts_them() -> None:
    learner = ProductLearner(world(cfg=SimpleNamespace(seed=1)), DIMENSIONS, load_config())
    signals = {name: np.zeros(40) for name in ("down", "copy", "follow", "dwell")}
    context = {"n": 40, "conv": np.arange(40), "user": np.arange(40), "q": np.zeros(40, int), "seg": np.zeros(40, int)}
    learner.assign(context)

    learner.update({**context, **signals, "run": 0, "up": np.arange(40) % 2, "val": np.zeros((40, 2), int)})

    assert learner.beliefs.weights["thumb"] == load_config().feedback.weights["thumbs_up"]
    assert learner.beliefs.variance > 0.1  # of thumbs alone: nothing else was signalled


def test_what_ran_is_said_of_every_kind_of_world_and_nothing_is_left_out_silently(tmp_path: Path) -> None:
    wanted = tasks(tmp_path, is_quick=False, only=["mixed", "flooder"], first_seed=300)
    done: list[tuple[Task, Figures]] = [(task, {}) for task in wanted if task.learner == "product" and task.seed == 300]

    said = what_ran(wanted, done)

    assert "(seeds 300)" in said
    assert "flooder, Tutelage: 1 of 3" in said
    assert "mixed, reference e: 0 of 6" in said


def test_e_values_of_worlds_where_nothing_helps_are_held_against_their_promise() -> None:
    watched = Watched(Learner(), world(), DIMENSIONS, WEIGHTS)

    watched.update({"run": 0})
    Learner.beliefs.log_e[:, 0] = [3.5, 0.0]
    watched.update({"run": 1})
    Learner.beliefs.log_e[:, 0] = [0.0, 0.0]
    watched.update({"run": 2})

    assert (watched.figures()["tested"], watched.figures()["tested_passed"]) == (2, 1)


def test_shares_of_sums_are_unknown_where_there_is_nothing() -> None:
    assert math.isnan(share([{"a": 0, "b": 0}], "a", "b"))
    assert of_oracle([{"auc": 1.0, "orc": 4.0}, {"auc": 2.0, "orc": 2.0}], "auc") == pytest.approx(50.0)
    assert bars({}) == []


def test_a_folder_without_the_world_is_named(tmp_path: Any) -> None:
    with pytest.raises(FileNotFoundError, match="no simulated world in"):
        Simworld(tmp_path)
