"""From texts with their embeddings and intents to a calibrated classifier."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from learner.nlu.regression import Labels, fit
from store.calibration import calibrated_mix, softmax
from store.config import NluSection
from store.embedding import Embedder, Vector
from store.intent_classifier import Confidence, IntentClassifier, log_odds, name_of
from store.word_evidence import WordEvidence, WordTable, evidence_scores, fit_evidence, tabulated

SMALL_SET: Final = 5000  # texts up to which the folds are fine: their models should be nearly as good as the last one
LARGE_SET: Final = 20_000  # texts from which on one part of CALIBRATION_TEXTS is enough to calibrate on
FINE_FOLDS: Final = 10
COARSE_FOLDS: Final = 5
CALIBRATION_TEXTS: Final = 10_000
PRIOR_PRECISION: Final = 1.0
NEWTON_STEPS: Final = 20
CURVE_TEXTS: Final = 4000  # from which on more than a line is read off them
LEAST_SLOPE: Final = 0.1  # more probable answers stay the more confident ones
MOST_ODDS: Final = 30.0
SURE_ENOUGH: Final = 0.9  # a confidence that is never asked to be more, however sure a model is of what it knows
LEAST_FAMILIAR: Final = 0.05  # cosine; never 0, by which nothing can be divided
NAME_COUNTS: Final = 1.0  # an intent's name, as one more text of it: half a point to a point with ten texts each


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts (m) with their embeddings (m, d), their labels (m,) and what each counts (m,)."""

    texts: Sequence[str]
    embeddings: Vector
    labels: Labels
    importance: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, rows: NDArray[np.bool_]) -> "Labelled":
        texts = [text for text, is_wanted in zip(self.texts, rows.tolist(), strict=True) if is_wanted]
        return Labelled(texts, self.embeddings[rows], self.labels[rows], self.importance[rows])

    def with_first(self, others: "Labelled") -> "Labelled":
        return Labelled(
            [*others.texts, *self.texts],
            np.concatenate([others.embeddings, self.embeddings]),
            np.concatenate([others.labels, self.labels]),
            np.concatenate([others.importance, self.importance]),
        )


@dataclass(frozen=True, slots=True)
class Unseen:
    """What models said about texts that they had not seen."""

    labels: Labels
    logits: Vector  # (k, n), of the linear model
    word_scores: Vector  # (k, n)
    similarities: Vector  # (k,), cosine to the nearest centre


def names_of(intents: Sequence[str], embedder: Embedder) -> Labelled:
    """Return the names of *intents* as texts: whoever named them said in a few words what they are about."""
    texts = [name_of(intent) for intent in intents]
    counts = np.full(len(intents), NAME_COUNTS, dtype=np.float32)
    return Labelled(texts, embedder.embed(texts), np.arange(len(intents)), counts)


def train(data: Labelled, names: Labelled, section: NluSection, intents: tuple[str, ...]) -> IntentClassifier:
    """Return the classifier of *data*; what its confidence means is found on folds that each model has not seen."""
    n_intents = len(intents)
    everything = data.with_first(names)
    table = tabulated(everything.texts, section.max_features)
    unseen = _out_of_fold(everything, len(names), table, n_intents, section.penalty)
    sharpness, word_weight = calibrated_mix(unseen.logits, unseen.word_scores, unseen.labels)
    logits = np.float32(sharpness) * unseen.logits + np.float32(word_weight) * unseen.word_scores
    familiar = max(float(np.quantile(unseen.similarities, section.unfamiliar)), LEAST_FAMILIAR)
    is_right = logits.argmax(axis=1) == unseen.labels
    plausible = softmax(logits).max(axis=1) * np.clip(unseen.similarities / familiar, 0.0, 1.0)
    odds = log_odds(plausible)
    confidence = calibrated(odds, is_right)
    model = fit(everything.embeddings, everything.labels, n_intents, everything.importance, section.penalty)
    rows = np.ones(len(everything), dtype=bool)
    evidence = fit_evidence(table, everything.labels, everything.importance, n_intents, rows)
    return IntentClassifier(
        intents,
        model.weights * np.float32(sharpness),
        model.bias * np.float32(sharpness),
        centres(everything.embeddings, everything.labels, n_intents),
        WordEvidence(table.vocabulary, evidence.scaled(word_weight)),
        familiar_similarity=familiar,
        confidence=confidence,
        least_confidence=min(float(np.quantile(confidence.of_all(odds), section.unsure)), SURE_ENOUGH),
    )


def _out_of_fold(everything: Labelled, n_names: int, table: WordTable, n_intents: int, penalty: float) -> Unseen:
    """Return what is said of texts by models that had not seen them; the first *n_names* are seen by all."""
    folds = np.concatenate([np.full(n_names, -1), _folds(everything.labels[n_names:], n_intents)])
    n_folds = int(folds.max()) + 1
    found = []
    for fold in range(1 if len(everything) - n_names > LARGE_SET else n_folds):
        is_unseen = folds == fold
        seen, embeddings = everything.part(~is_unseen), everything.embeddings[is_unseen]
        evidence = fit_evidence(table, everything.labels, everything.importance, n_intents, ~is_unseen)
        found.append(
            Unseen(
                everything.labels[is_unseen],
                fit(seen.embeddings, seen.labels, n_intents, seen.importance, penalty).logits(embeddings),
                evidence_scores(evidence, table, is_unseen),
                (embeddings @ centres(seen.embeddings, seen.labels, n_intents).T).max(axis=1),
            )
        )
    return Unseen(
        np.concatenate([one.labels for one in found]),
        np.concatenate([one.logits for one in found]),
        np.concatenate([one.word_scores for one in found]),
        np.concatenate([one.similarities for one in found]),
    )


def _folds(labels: Labels, n_intents: int) -> Labels:
    """Return each text's fold; every intent is spread over all of them as evenly as its size allows."""
    n_folds = FINE_FOLDS if len(labels) <= SMALL_SET else COARSE_FOLDS
    n_folds = max(n_folds, len(labels) // CALIBRATION_TEXTS)
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


def calibrated(odds: Vector, is_right: NDArray[np.bool_]) -> Confidence:
    """Return what log odds (m,) mean, by whether they were right (m,): a line and, of many texts, what differs from it.

    Isotonic regression, by pooling adjacent violators; each pool counts one text more that is as right as the line
    says, so that no confidence is 0 or 1. Few texts would only be learned by heart.
    Source: Zadrozny & Elkan 2002, KDD, sec. 4.
    """
    line = Confidence(*calibrated_line(odds, is_right))
    if len(odds) < CURVE_TEXTS:
        return line
    order = np.argsort(odds, kind="stable")
    ordered = odds[order].tolist()
    pools: list[tuple[int, float, float]] = []  # where each begins; sums of right ones and of what the line says
    for place, (right, expected) in enumerate(
        zip(is_right[order].tolist(), line.of_all(odds[order]).tolist(), strict=True)
    ):
        pool, end = (place, float(right), expected), place + 1
        while pools and pools[-1][1] / (pool[0] - pools[-1][0]) >= pool[1] / (end - pool[0]):
            before = pools.pop()
            pool = (before[0], before[1] + pool[1], before[2] + pool[2])
        pools.append(pool)
    points: list[tuple[float, float]] = []  # both ends of each pool: flat within it, a line to the next
    for (begin, right, expected), end in zip(pools, [*(pool[0] for pool in pools[1:]), len(ordered)], strict=True):
        n = end - begin
        value = max((right + expected / n) / (n + 1), points[-1][1] if points else 0.0)
        points += [(ordered[at], value) for at in dict.fromkeys((begin, end - 1))]
    return Confidence(line.slope, line.offset, tuple(at for at, _ in points), tuple(value for _, value in points))


def calibrated_line(odds: Vector, is_right: NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and offset that make log odds those of being right; slope 1 and offset 0 where little is known.

    Logistic regression on one number, with a normal prior around (1, 0), by Newton's method.
    Source: Platt 1999, Advances in Large Margin Classifiers, sec. 2.
    """
    inputs = np.column_stack([odds, np.ones(len(odds))]).astype(np.float64)
    prior = np.array([1.0, 0.0])
    line = prior.copy()
    for _ in range(NEWTON_STEPS):
        right = 1.0 / (1.0 + np.exp(-np.clip(inputs @ line, -MOST_ODDS, MOST_ODDS)))
        slope = inputs.T @ (right - is_right) + PRIOR_PRECISION * (line - prior)
        curvature = (inputs * (right * (1.0 - right))[:, None]).T @ inputs + PRIOR_PRECISION * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        line -= step / max(float(np.abs(step).max()), 1.0)  # a longer one may overshoot
    return max(float(line[0]), LEAST_SLOPE), float(line[1])
