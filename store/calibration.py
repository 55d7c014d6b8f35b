"""What makes scores into probabilities: factors that are found on texts which the scores' models had not seen."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from store.embedding import Vector

NEWTON_STEPS: Final = 20
START: Final = (1.0, 0.3)  # what kinds of logits usually count
PRIOR_TEXTS: Final = 1.0  # how many texts' worth START is: without it logits that are always right would count for ever
LEAST_FACTOR: Final = 0.05  # of the first kind: the better half of two
SMALLEST_STEP: Final = 1e-3

Labels = NDArray[np.int64]


def calibrated_mix(first: Vector, second: Vector, labels: Labels) -> tuple[float, float]:
    """Return the factors of two kinds of logits, (m, n) each, whose sum has the least log loss, by Newton's method.

    One of them alone would be temperature scaling: Guo et al. 2017, ICML, sec. 4.2. The loss is convex in both.
    """
    kinds, own = (first, second), (np.arange(len(labels)), labels)
    prior, factors = PRIOR_TEXTS / len(labels), np.array(START)
    loss = _log_loss(factors, first, second, labels)
    for _ in range(NEWTON_STEPS):
        chances = softmax(np.float32(factors[0]) * first + np.float32(factors[1]) * second)
        means = np.stack([(chances * one).sum(axis=1, dtype=np.float64) for one in kinds])
        slope = means.mean(axis=1) - np.array([one[own].mean() for one in kinds]) + prior * (factors - START)
        products = [[float(np.sum(chances * one * other, dtype=np.float64)) for one in kinds] for other in kinds]
        curvature = np.array(products) / len(labels) - means @ means.T / len(labels)
        step = np.linalg.solve(curvature + prior * np.eye(2), slope)
        length = 1.0
        while length > SMALLEST_STEP:
            moved = factors - length * step
            new_loss = _log_loss(moved, first, second, labels)
            if new_loss < loss:
                break
            length /= 2.0
        else:
            break
        factors, loss = moved, new_loss
    return max(float(factors[0]), LEAST_FACTOR), max(float(factors[1]), 0.0)


def _log_loss(factors: NDArray[np.float64], first: Vector, second: Vector, labels: Labels) -> float:
    own = softmax(np.float32(factors[0]) * first + np.float32(factors[1]) * second)[np.arange(len(labels)), labels]
    distance = factors - START
    return -float(np.mean(np.log(np.maximum(own, 1e-30)))) + 0.5 * PRIOR_TEXTS / len(labels) * float(
        distance @ distance
    )


def softmax(logits: Vector) -> Vector:
    """Return (m, n) probabilities, each row summing to 1."""
    shifted: Vector = logits - logits.max(axis=1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted
