"""How good a classifier is on texts that it has not seen."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from store.embedding import Vector
from store.intent_classifier import IntentClassifier

BINS: Final = 15  # of the calibration error, as in Guo et al. 2017
MAX_CONFUSIONS: Final = 50  # pairs in a report, the most frequent ones
DIGITS: Final = 4  # of shares in a report


@dataclass(frozen=True, slots=True)
class Assessment:
    """What *classifier* said about texts whose intents are known."""

    truth: tuple[str, ...]
    said: tuple[str, ...]
    confidences: NDArray[np.float32]

    @property
    def accuracy(self) -> float:
        """Return the share of texts with the right intent, whatever the confidence; 0 without texts."""
        return float(np.mean(self._is_right())) if self.truth else 0.0

    @property
    def macro_f1(self) -> float:
        """Return the mean over the intents of these texts of the harmonic mean of precision and recall."""
        scores = [row["f1"] for row in self.by_intent().values() if row["n"]]
        return float(np.mean(scores)) if scores else 0.0

    @property
    def calibration_error(self) -> float:
        return expected_calibration_error(self.confidences, self._is_right())

    def _is_right(self) -> NDArray[np.bool_]:
        return np.array([a == b for a, b in zip(self.truth, self.said, strict=True)], dtype=bool)

    def by_intent(self) -> dict[str, dict[str, float]]:
        """Return precision, recall, F1 and number of texts of each intent."""
        n_true, n_said = Counter(self.truth), Counter(self.said)
        n_right = Counter(a for a, b in zip(self.truth, self.said, strict=True) if a == b)
        found = {}
        for intent in sorted(n_true.keys() | n_said.keys()):
            right, true, said = n_right[intent], n_true[intent], n_said[intent]
            found[intent] = {
                "precision": _share(right, said),
                "recall": _share(right, true),
                "f1": _share(2 * right, true + said),
                "n": true,
            }
        return found

    def report(self, min_confidence: float) -> dict[str, Any]:
        """Return the figures as they are stored; those "sure" are of answers that would not become "unknown"."""
        is_right, is_sure = self._is_right(), self.confidences >= min_confidence
        confused = Counter((a, b) for a, b in zip(self.truth, self.said, strict=True) if a != b)
        return {
            "accuracy": round(self.accuracy, DIGITS),
            "macro_f1": round(self.macro_f1, DIGITS),
            "ece": round(self.calibration_error, DIGITS),
            "sure": _share(int(is_sure.sum()), len(is_sure)),
            "accuracy_when_sure": _share(int(is_right[is_sure].sum()), int(is_sure.sum())),
            "by_intent": self.by_intent(),
            "confusion": [[a, b, n] for (a, b), n in sorted(confused.items(), key=_frequent)[:MAX_CONFUSIONS]],
        }


def _frequent(item: tuple[tuple[str, str], int]) -> tuple[int, tuple[str, str]]:
    return -item[1], item[0]


def _share(part: int, whole: int) -> float:
    return round(part / whole, DIGITS) if whole else 0.0


def assess(classifier: IntentClassifier, texts: Sequence[str], embeddings: Vector, truth: Sequence[str]) -> Assessment:
    """Return what *classifier* says about *texts* with their *embeddings*, whose intents are *truth*."""
    best, confidences = classifier.classify_all(texts, embeddings)
    return Assessment(tuple(truth), tuple(classifier.intents[index] for index in best), confidences)


def expected_calibration_error(confidences: NDArray[np.float32], is_right: NDArray[np.bool_]) -> float:
    """Return the mean distance between confidence and accuracy over equally wide bins, 0 without texts.

    Source: Guo et al. 2017, ICML, eq. 3.

    >>> expected_calibration_error(np.array([0.75, 0.75, 0.75, 0.75], np.float32), np.array([True, True, True, False]))
    0.0
    """
    bins = np.minimum((confidences * BINS).astype(np.int64), BINS - 1)
    error = 0.0
    for number in np.unique(bins):
        inside = bins == number
        gap = float(confidences[inside].mean(dtype=np.float64)) - float(is_right[inside].mean())
        error += float(inside.mean()) * abs(gap)
    return error


def left_out_report(left_out: Mapping[str, int]) -> dict[str, int]:
    """Return the intents with too few texts, the largest first."""
    return dict(sorted(left_out.items(), key=lambda item: (-item[1], item[0])))
