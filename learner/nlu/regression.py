"""Multinomial logistic regression by L-BFGS, in numpy: seconds for ten thousand texts and a hundred intents."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from store.calibration import softmax
from store.embedding import Vector

HISTORY: Final = 10  # pairs of steps and changes of the gradient that stand for the curvature
MAX_STEPS: Final = 300
TOLERANCE: Final = 1e-4  # of the loss, relative: a step that gains less is the last; 1e-5 is no more accurate
SUFFICIENT_DECREASE: Final = 1e-4
SMALLEST_STEP: Final = 1e-8
BLOCK: Final = 8192  # texts whose probabilities are in memory at once

Labels = NDArray[np.int64]
Objective = Callable[[Vector], tuple[float, Vector]]  # parameters -> loss and its gradient


@dataclass(frozen=True, slots=True)
class LinearModel:
    """``embeddings @ weights.T + bias`` are the logits; weights (n, d), bias (n,)."""

    weights: Vector
    bias: Vector

    def logits(self, embeddings: Vector) -> Vector:
        return embeddings @ self.weights.T + self.bias


def fit(embeddings: Vector, labels: Labels, n_intents: int, importance: Vector, penalty: float) -> LinearModel:
    """Return the model with the least weighted log loss plus ``penalty / 2`` times the squared weights, bias free.

    Args:
        embeddings: (m, d).
        labels: (m,), 0 to n_intents - 1.
        n_intents: n.
        importance: (m,), what each text's loss counts; mean 1.
        penalty: against one text's loss, so that more texts may say more.
    """
    n_texts, dimensions = embeddings.shape
    share = (importance / importance.sum()).astype(np.float32)
    scaled_penalty = penalty / n_texts

    def objective(flat: Vector) -> tuple[float, Vector]:
        parameters = flat.reshape(n_intents, dimensions + 1)
        weights = np.ascontiguousarray(parameters[:, :-1])
        loss, gradient = 0.5 * scaled_penalty * float(np.vdot(weights, weights)), np.empty_like(parameters)
        gradient[:, :-1] = scaled_penalty * weights
        gradient[:, -1] = 0.0
        for begin in range(0, n_texts, BLOCK):
            rows = slice(begin, begin + BLOCK)
            inputs, part = embeddings[rows], share[rows]
            probabilities = softmax(inputs @ weights.T + parameters[:, -1])
            own = np.arange(len(part)), labels[rows]
            loss -= float(part @ np.log(np.maximum(probabilities[own], 1e-30)))
            probabilities[own] -= 1.0
            probabilities *= part[:, None]
            gradient[:, :-1] += probabilities.T @ inputs
            gradient[:, -1] += probabilities.sum(axis=0)
        return loss, gradient.ravel()

    start = np.zeros(n_intents * (dimensions + 1), dtype=np.float32)
    found = minimise(objective, start).reshape(n_intents, dimensions + 1)
    return LinearModel(np.ascontiguousarray(found[:, :-1]), np.ascontiguousarray(found[:, -1]))


def minimise(objective: Objective, start: Vector) -> Vector:
    """Return where *objective*, which is convex, is least, to TOLERANCE.

    Source: Nocedal & Wright, Numerical Optimization, 2nd ed., algorithms 7.4 and 7.5, with backtracking (3.1).
    """
    point = start
    loss, gradient = objective(point)
    history: deque[tuple[Vector, Vector, float]] = deque(maxlen=HISTORY)
    for _ in range(MAX_STEPS):
        direction = -_times_inverse_hessian(gradient, history)
        slope = float(np.vdot(gradient, direction))
        length = 1.0
        new_loss, new_gradient = objective(point + np.float32(length) * direction)
        while new_loss > loss + SUFFICIENT_DECREASE * length * slope and length > SMALLEST_STEP:
            length /= 2.0
            new_loss, new_gradient = objective(point + np.float32(length) * direction)
        if new_loss >= loss:
            return point
        step, change = np.float32(length) * direction, new_gradient - gradient
        curvature = float(np.vdot(step, change))
        if curvature > 1e-12:
            history.append((step, change, 1.0 / curvature))
        gain = loss - new_loss
        point, loss, gradient = point + step, new_loss, new_gradient
        if gain < TOLERANCE * abs(loss):
            return point
    return point


def _times_inverse_hessian(gradient: Vector, history: deque[tuple[Vector, Vector, float]]) -> Vector:
    result = gradient.copy()
    if not history:
        result /= max(float(np.linalg.norm(gradient)), 1e-12)
        return result
    projections = []
    for step, change, inverse in reversed(history):
        projection = np.float32(inverse * float(np.vdot(step, result)))
        projections.append(projection)
        result -= projection * change
    _, change, inverse = history[-1]
    result /= np.float32(inverse * float(np.vdot(change, change)))
    for (step, change, inverse), projection in zip(history, reversed(projections), strict=True):
        result += (projection - np.float32(inverse * float(np.vdot(change, result)))) * step
    return result
