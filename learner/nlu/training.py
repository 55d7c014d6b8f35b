"""From embeddings and intents to a calibrated classifier."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from learner.nlu.regression import Labels, fit, softmax
from store.config import NluSection
from store.embedding import Vector
from store.intent_classifier import IntentClassifier, log_odds

TEMPERATURES: Final = np.geomspace(0.1, 10.0, 200)
SMALL_SET: Final = 5000  # texts up to which the folds are fine: their models should be nearly as good as the last one
FINE_FOLDS: Final = 10
COARSE_FOLDS: Final = 5
PRIOR_PRECISION: Final = 1.0
NEWTON_STEPS: Final = 20
LEAST_SLOPE: Final = 0.1  # more probable answers stay the more confident ones
LEAST_FAMILIAR: Final = 0.05  # cosine; never 0, by which nothing can be divided


@dataclass(frozen=True, slots=True)
class Labelled:
    """Embeddings (m, d), their labels (m,) and what each counts (m,)."""

    embeddings: Vector
    labels: Labels
    importance: NDArray[np.float32]

    def part(self, rows: NDArray[np.bool_]) -> "Labelled":
        return Labelled(self.embeddings[rows], self.labels[rows], self.importance[rows])


def train(data: Labelled, intents: tuple[str, ...], section: NluSection) -> IntentClassifier:
    """Return the classifier of *data*; what its confidence means is found on folds that each model has not seen."""
    n_intents = len(intents)
    logits, similarities = _out_of_fold(data, n_intents, section.penalty)
    temperature = calibrated_temperature(logits, data.labels)
    familiar = max(float(np.quantile(similarities, section.unfamiliar)), LEAST_FAMILIAR)
    said = logits.argmax(axis=1)
    plausible = softmax(logits / np.float32(temperature)).max(axis=1) * np.clip(similarities / familiar, 0.0, 1.0)
    slope, offset = calibrated_line(log_odds(plausible), said == data.labels)
    model = fit(data.embeddings, data.labels, n_intents, data.importance, section.penalty)
    return IntentClassifier(
        intents,
        model.weights / np.float32(temperature),
        model.bias / np.float32(temperature),
        centres(data.embeddings, data.labels, n_intents),
        familiar_similarity=familiar,
        slope=slope,
        offset=offset,
    )


def _out_of_fold(data: Labelled, n_intents: int, penalty: float) -> tuple[Vector, Vector]:
    """Return logits (m, n) by models that had not seen the text, and its cosine (m,) to their nearest centre."""
    logits = np.zeros((len(data.labels), n_intents), dtype=np.float32)
    similarities = np.zeros(len(data.labels), dtype=np.float32)
    folds = _folds(data.labels, n_intents)
    for fold in range(int(folds.max()) + 1):
        seen, unseen = data.part(folds != fold), data.embeddings[folds == fold]
        model = fit(seen.embeddings, seen.labels, n_intents, seen.importance, penalty)
        logits[folds == fold] = model.logits(unseen)
        similarities[folds == fold] = (unseen @ centres(seen.embeddings, seen.labels, n_intents).T).max(axis=1)
    return logits, similarities


def _folds(labels: Labels, n_intents: int) -> NDArray[np.int64]:
    """Return each text's fold; every intent is spread over all of them as evenly as its size allows."""
    n_folds = FINE_FOLDS if len(labels) <= SMALL_SET else COARSE_FOLDS
    folds = np.zeros(len(labels), dtype=np.int64)
    n_before = 0
    for label in range(n_intents):
        rows = np.flatnonzero(labels == label)
        folds[rows] = (np.arange(len(rows)) + n_before) % n_folds
        n_before += len(rows)
    return folds


def centres(embeddings: Vector, labels: Labels, n_intents: int) -> Vector:
    """Return the unit mean embedding of each intent (n, d); zeros for an intent without texts."""
    sums = np.zeros((n_intents, embeddings.shape[1]), dtype=np.float32)
    np.add.at(sums, labels, embeddings)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    found: Vector = np.divide(sums, lengths, out=sums, where=lengths > 0)
    return found


def calibrated_temperature(logits: Vector, labels: Labels) -> float:
    """Return the temperature with the least log loss. Source: Guo et al. 2017, ICML, sec. 4.2."""
    return float(min(TEMPERATURES, key=lambda temperature: _log_loss(logits / np.float32(temperature), labels)))


def calibrated_line(odds: Vector, is_right: NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and offset that make log odds those of being right; slope 1 and offset 0 where little is known.

    Logistic regression on one number, with a normal prior around (1, 0), by Newton's method.
    Source: Platt 1999, Advances in Large Margin Classifiers, sec. 2.
    """
    inputs = np.column_stack([odds, np.ones(len(odds))]).astype(np.float64)
    prior = np.array([1.0, 0.0])
    line = prior.copy()
    for _ in range(NEWTON_STEPS):
        right = 1.0 / (1.0 + np.exp(-inputs @ line))
        slope = inputs.T @ (right - is_right) + PRIOR_PRECISION * (line - prior)
        curvature = (inputs * (right * (1.0 - right))[:, None]).T @ inputs + PRIOR_PRECISION * np.eye(2)
        line -= np.linalg.solve(curvature, slope)
    return max(float(line[0]), LEAST_SLOPE), float(line[1])


def _log_loss(logits: Vector, labels: Labels) -> float:
    own = softmax(logits)[np.arange(len(labels)), labels]
    return -float(np.mean(np.log(np.maximum(own, 1e-30))))
