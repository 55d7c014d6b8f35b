"""What is held against the world's truth beside the world's own figures: proofs, harm and helpers, day by day."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.vocabulary import PatternType

EFFECT = 0.02  # as the world has it: less is no help and no harm
EVERY = 4  # runs between looks: a day
IN_TIME_DAY = 60.0  # of 90: a helper that is found later has little left to help with
LEVEL = math.log(20)  # an e-value that a key without effect may ever exceed with odds of 1 in 20
COVER = 0.5  # share of a helper's own traffic that must be served for it to be found

Key = tuple[int, int, int]
Dimensions = Sequence[tuple[str, PatternType, Sequence[str]]]  # name, type, values


class Watched:
    """One of the world's learners, or the product's in their place, looked at once a day."""

    def __init__(self, learner: Any, world: Any, dimensions: Dimensions, cell_weights: NDArray[np.float64]) -> None:
        self._learner = learner
        self._world = world
        self._weights = cell_weights
        self._is_product = hasattr(learner, "proven_keys")
        self._found: dict[tuple[str, int], float] = {}  # ("active" or "served", number of the helper) -> day
        self._harmful_days: dict[Key, int] = {}
        self._tested: dict[Any, bool] = {}  # key with randomised evidence -> whether its e-value ever passed 20
        self._days = dict.fromkeys(("active", "active_false", "proven", "proven_false"), 0)
        self._helpers = list(_helpers(world, dimensions))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)

    def update(self, log: Mapping[str, Any]) -> None:
        """Learn, look at the evidence, and at the result once a day."""
        self._learner.update(log)
        if self._is_product:
            self._look_at_evidence(self._learner.beliefs)
        run = int(log["run"])
        if run % EVERY == EVERY - 1:
            self._look(run / EVERY)

    def _look(self, day: float) -> None:
        effects = self._world.cell_effects(day)
        proven = self._learner.proven_keys() if self._is_product else set()
        for key in {self._key(key) for key in self._learner.active_keys()}:
            effect = self.effect(key, effects)
            self._days["active"] += 1
            self._days["active_false"] += effect <= EFFECT
            if effect < -EFFECT:
                self._harmful_days[key] = self._harmful_days.get(key, 0) + 1
        for key in proven:
            self._days["proven"] += 1
            self._days["proven_false"] += self.effect(key, effects) <= EFFECT
        if not self._helpers:
            return
        cells = {"active": self._learner.active_cells(), "served": self._served()}
        for number, (weights, d, v, _) in enumerate(self._helpers):
            for name, grid in cells.items():
                share = float((weights * self._weights * grid[:, :, d, v]).sum() / (weights * self._weights).sum())
                if share > COVER:
                    self._found.setdefault((name, number), day)

    def _look_at_evidence(self, beliefs: Any) -> None:
        scopes = beliefs.strata.scopes
        for k, f in np.argwhere(np.isfinite(beliefs.log_e)).tolist():
            key = scopes[k], beliefs.columns[f]
            self._tested[key] = self._tested.get(key, False) or bool(beliefs.log_e[k, f] >= LEVEL)

    def _served(self) -> NDArray[np.bool_]:
        if self._is_product:
            return np.asarray(self._learner.served_cells())
        if hasattr(self._learner, "prob"):
            return np.asarray(self._learner.prob > 0.5)
        return np.asarray(self._learner.active_cells())

    def _key(self, key: tuple[int, ...]) -> Key:
        """Return the key with its value: one of the world's learners numbers columns flat."""
        n_values = self._world.tokens.shape[1]
        scope, *rest = (int(part) for part in key)
        d, v = divmod(rest[0], n_values) if len(rest) == 1 else rest
        return scope, d, v

    def effect(self, key: Key, effects: NDArray[np.float64]) -> float:
        """Return the mean effect of an instruction over the traffic of its scope."""
        scope, d, v = key
        n_types = self._world.Q
        weights = self._weights.copy()
        if scope < n_types:
            weights[np.arange(n_types) != scope] = 0
        elif scope > n_types:
            weights[:, np.arange(self._world.S) != scope - n_types - 1] = 0
        return float((weights * effects[:, d, v, :]).sum() / weights.sum())

    def figures(self) -> dict[str, Any]:
        """Return what was seen over the whole time."""
        proofs = [(run, self._key(key)) for run, key in getattr(self._learner, "proofs", [])]
        false = [key for run, key in proofs if self.effect(key, self._world.cell_effects(run / EVERY)) <= EFFECT]
        figures = {
            **self._days,
            "proofs": len(proofs),
            "proofs_false": len(false),
            "harmful_patterns": len(self._harmful_days),
            "harmful_days": sum(self._harmful_days.values()),
            "harmful_longest": max(self._harmful_days.values(), default=0),
            "tested": len(self._tested),
            "tested_passed": sum(self._tested.values()),
            "helpers": len(self._helpers),
            "draw_z": self._learner.worst_draw_z() if self._is_product else None,
            "block_tokens": self._learner.max_tokens if self._is_product else None,
        }
        for name in ("active", "served"):
            days = [self._found.get((name, number)) for number in range(len(self._helpers))]
            figures[f"helpers_{name}"] = sum(day is not None and day <= IN_TIME_DAY for day in days)
            figures[f"helper_days_{name}"] = [
                (what, effect, day) for (_, _, _, (what, effect)), day in zip(self._helpers, days, strict=True)
            ]
        return figures


def _helpers(world: Any, dimensions: Dimensions) -> Iterator[tuple[NDArray[np.float64], int, int, tuple[str, float]]]:
    """Yield each planted helper: its cells (Q, S), dimension, value, and what it is."""
    names = {name: d for d, (name, _, _) in enumerate(dimensions)}
    values = {(name, value): v for name, _, all_values in dimensions for v, value in enumerate(all_values)}
    for what, name, value, types, effect, segments in world.planted:
        if effect <= EFFECT:
            continue
        cells = np.zeros((world.Q, world.S))
        cells[np.ix_(types, segments)] = 1.0
        yield cells, names[name], values[name, value], (what, effect)
