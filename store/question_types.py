"""General question types before any training: a small classifier over embedding and words, fitted when it loads.

Ridge regression on one-hot types, because its leave-one-out answers have a closed form: the confidence is calibrated
on questions that the weights behind each answer have not seen, in milliseconds and without a second data set. Beside
it what the words say (``word_evidence.py``): "how to" and "what is" tell types apart, and a mean of vectors hardly
sees them.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from store.calibration import calibrated_mix
from store.embedding import Embedder, Vector
from store.word_evidence import WordEvidence, evidence_scores, fit_evidence, tabulated

SEEDS_FILE: Final = Path(__file__).with_name("question_types.toml")
OF_ONE: Final = 10.0  # what brings outputs between 0 and 1 to the size of logits
RIDGE: Final = 3.0  # best leave-one-out log loss among 0.1, 0.3, 1, 3, 10
FOLDS: Final = 10  # of what the words say, which has no closed form
MAX_FEATURES: Final = 10_000  # more than the phrasings have
# Cosine to the nearest seed phrasing under which the confidence shrinks in proportion. Key-mashing has .16 to .36,
# 95 % of held-out questions more than .28.
FAMILIAR_SIMILARITY: Final = 0.35

Matrix = NDArray[np.float64]


class QuestionClassifier:
    """Question and its embedding -> (type, confidence); an immutable value."""

    least_confidence: Final = 0.0
    """Confidences are as they are: the configured threshold alone says what is "unknown"."""

    def __init__(self, types: Sequence[str], weights: Vector, bias: Vector, seeds: Vector, words: WordEvidence) -> None:
        self.types = tuple(types)
        self._n_types = len(types)
        self._rows = np.concatenate([weights, seeds])  # (types + seeds, d): one product gives logits and likenesses
        self._bias = bias
        self._words = words

    @classmethod
    def fit(cls, phrasings: Mapping[str, Sequence[str]], embedder: Embedder) -> Self:
        """Return the classifier of the types in *phrasings*, about 20 each, calibrated by leave-one-out."""
        types = tuple(phrasings)
        texts = [text for of_type in phrasings.values() for text in of_type]
        seeds = embedder.embed(texts)
        labels = np.repeat(np.arange(len(types)), [len(of_type) for of_type in phrasings.values()])
        weights, held_out = _ridge(seeds.astype(np.float64), np.eye(len(types))[labels])
        table, importance = tabulated(texts, MAX_FEATURES), np.ones(len(texts), dtype=np.float32)
        said = np.zeros((len(texts), len(types)), dtype=np.float32)
        for fold in range(FOLDS):
            is_unseen = np.arange(len(texts)) % FOLDS == fold
            evidence = fit_evidence(table, labels, importance, len(types), ~is_unseen)
            said[is_unseen] = evidence_scores(evidence, table, is_unseen)
        sharpness, word_weight = calibrated_mix(held_out.astype(np.float32) * OF_ONE, said, labels)
        weights = weights * (sharpness * OF_ONE)
        evidence = fit_evidence(table, labels, importance, len(types), np.ones(len(texts), dtype=bool))
        words = WordEvidence(table.vocabulary, evidence.scaled(word_weight))
        return cls(types, weights[:-1].T.astype(np.float32), weights[-1].astype(np.float32), seeds, words)

    def classify(self, text: str, embedding: Vector) -> tuple[str, float]:
        """Return the most probable type and its confidence in [0, 1].

        The confidence is the calibrated probability, made smaller when *embedding* resembles no question that the
        classifier knows: there the probabilities of a linear model mean nothing. A text without words has 0. Whoever
        calls turns a confidence under ``[question_types] min_confidence`` into "unknown".
        """
        scores = self._rows @ embedding
        logits = scores[: self._n_types] + self._bias + self._words.scores(text)
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
