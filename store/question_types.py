"""General question types before any training: a small linear classifier over the embedding, fitted when it loads.

Ridge regression on one-hot types, because its leave-one-out answers have a closed form: the confidence is calibrated
on questions that the weights behind each answer have not seen, in milliseconds and without a second data set.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from store.embedding import Embedder, Vector

SEEDS_FILE: Final = Path(__file__).with_name("question_types.toml")
RIDGE: Final = 3.0  # best leave-one-out log loss among 0.1, 0.3, 1, 3, 10
TEMPERATURES: Final = np.geomspace(0.01, 2.0, 120)
# Cosine to the nearest seed phrasing under which the confidence shrinks in proportion. Key-mashing has .16 to .36,
# 95 % of held-out questions more than .28.
FAMILIAR_SIMILARITY: Final = 0.35

Matrix = NDArray[np.float64]


class QuestionClassifier:
    """Question embedding -> (type, confidence); an immutable value."""

    def __init__(self, types: Sequence[str], weights: Vector, bias: Vector, seeds: Vector) -> None:
        self.types = tuple(types)
        self._n_types = len(types)
        self._rows = np.concatenate([weights, seeds])  # (types + seeds, d): one product gives logits and likenesses
        self._bias = bias

    @classmethod
    def fit(cls, phrasings: Mapping[str, Sequence[str]], embedder: Embedder) -> Self:
        """Return the classifier of the types in *phrasings*, about 20 each, calibrated by leave-one-out."""
        types = tuple(phrasings)
        seeds = embedder.embed([text for texts in phrasings.values() for text in texts])
        labels = np.repeat(np.arange(len(types)), [len(texts) for texts in phrasings.values()])
        weights, held_out = _ridge(seeds.astype(np.float64), np.eye(len(types))[labels])
        weights /= _calibrated_temperature(held_out, labels)
        return cls(types, weights[:-1].T.astype(np.float32), weights[-1].astype(np.float32), seeds)

    def classify(self, embedding: Vector) -> tuple[str, float]:
        """Return the most probable type and its confidence in [0, 1].

        The confidence is the calibrated probability, made smaller when *embedding* resembles no question that the
        classifier knows: there the probabilities of a linear model mean nothing. A text without words has 0. Whoever
        calls turns a confidence under ``[question_types] min_confidence`` into "unknown".
        """
        scores = self._rows @ embedding
        logits = scores[: self._n_types] + self._bias
        best = int(logits.argmax())
        probability = 1.0 / float(np.exp(logits - logits[best]).sum())
        similarity = float(scores[self._n_types :].max())
        return self.types[best], probability * min(1.0, max(0.0, similarity / FAMILIAR_SIMILARITY))


def load_question_classifier(embedder: Embedder) -> QuestionClassifier:
    """Return the classifier of the built-in types, fitted to *embedder* in about 20 ms."""
    with SEEDS_FILE.open("rb") as file:
        return QuestionClassifier.fit(tomllib.load(file), embedder)


def _ridge(embeddings: Matrix, targets: Matrix) -> tuple[Matrix, Matrix]:
    """Return weights (d + 1, types), the bias last, and the leave-one-out outputs (n, types).

    Source: Hastie, Tibshirani & Friedman, Elements of Statistical Learning, 2nd ed., eq. 7.64: with the hat matrix S,
    the residual of a left-out row is its fitted residual over 1 - S_ii.
    """
    inputs = np.column_stack([embeddings, np.ones(len(embeddings))])
    penalty = np.full(inputs.shape[1], RIDGE)
    penalty[-1] = 1e-6  # the bias is free; not quite zero, so that the matrix stays regular
    projection = np.linalg.solve(inputs.T @ inputs + np.diag(penalty), inputs.T)
    weights = projection @ targets
    leverage = np.einsum("nd,dn->n", inputs, projection)
    residuals = (targets - inputs @ weights) / (1.0 - leverage)[:, None]
    return weights, targets - residuals


def _calibrated_temperature(outputs: Matrix, labels: NDArray[np.int64]) -> float:
    """Return the temperature with the least log loss. Source: Guo et al. 2017, ICML, sec. 4.2."""
    return float(min(TEMPERATURES, key=lambda temperature: _log_loss(outputs / temperature, labels)))


def _log_loss(logits: Matrix, labels: NDArray[np.int64]) -> float:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_totals = np.log(np.exp(shifted).sum(axis=1))
    return float(np.mean(log_totals - shifted[np.arange(len(labels)), labels]))
