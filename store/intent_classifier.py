"""The classifier that a tenant trained on its own examples, as an immutable value and as bytes.

Linear over the embedding that each question has anyway, and over its words: ``word_evidence.py``. Some 20 to 40
microseconds.
"""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from store.embedding import Vector
from store.errors import DamagedModelError
from store.word_evidence import Evidence, WordEvidence

FORMAT: Final = 4
DIGEST_BYTES: Final = 16
LEAST: Final = 1e-6  # of a probability: below, it is none


def name_of(intent: str) -> str:
    """Return what an intent is called, as a text: one more example of it.

    >>> name_of("track_order")
    'track order'
    """
    return " ".join(intent.replace("_", " ").replace("-", " ").split()).lower()


class Confidence(msgspec.Struct, frozen=True, array_like=True):
    """What log odds mean: the probability of being right, by a line in the log odds or by points with lines between.

    Args:
        slope: more than 0; what a unit of log odds counts in those of the confidence.
        offset: of the log odds.
        odds: of points, ascending; none: the line says all.
        values: the confidence at each of them, never falling.
    """

    slope: float = 1.0
    offset: float = 0.0
    odds: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    def of(self, log_odds: float) -> float:
        """Return the confidence, in [0, 1].

        >>> Confidence().of(0.0), Confidence(odds=(-1.0, 1.0), values=(0.25, 0.75)).of(0.5)
        (0.5, 0.625)
        """
        if not self.odds:
            return 1.0 / (1.0 + math.exp(-(self.slope * log_odds + self.offset)))
        after = bisect_right(self.odds, log_odds)
        if after in (0, len(self.odds)):
            return self.values[max(after - 1, 0)]
        left, right = self.odds[after - 1], self.odds[after]
        low, high = self.values[after - 1], self.values[after]
        return low + (high - low) * (log_odds - left) / (right - left)

    def of_all(self, log_odds: Vector) -> Vector:
        """Return the confidences of many, as ``of`` does."""
        if self.odds:
            found = np.interp(log_odds, self.odds, self.values)
        else:
            found = 1.0 / (1.0 + np.exp(-(self.slope * log_odds + self.offset)))
        return np.asarray(found, dtype=np.float32)


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    format: int
    intents: tuple[str, ...]
    dimensions: int
    familiar_similarity: float
    confidence: Confidence
    least_confidence: float
    rows: bytes  # float32, little-endian: weights, then centres
    bias: bytes
    vocabulary: tuple[str, ...]
    spans: bytes  # uint32: how many classes each word has evidence for
    classes: bytes  # uint16
    strengths: bytes  # float32, as the next two
    rarity: bytes
    word_offsets: bytes


class IntentClassifier:
    """Question and its embedding -> (intent, confidence).

    Args:
        intents: their names, n.
        weights: (n, d); the temperature is in them already.
        bias: (n,).
        centres: (n, d) unit rows, the mean embedding of each intent's examples.
        words: what words say, in units of the logits.
        familiar_similarity: cosine to the nearest centre under which the probability shrinks in proportion.
        confidence: what the log odds of that mean.
        least_confidence: under which an answer is no answer: most questions of these intents have more.
    """

    def __init__(
        self,
        intents: Sequence[str],
        weights: Vector,
        bias: Vector,
        centres: Vector,
        words: WordEvidence,
        *,
        familiar_similarity: float,
        confidence: Confidence,
        least_confidence: float = 0.0,
    ) -> None:
        self.intents = tuple(intents)
        self.familiar_similarity = familiar_similarity
        self.confidence = confidence
        self.least_confidence = least_confidence
        self._n_intents = len(self.intents)
        self._rows = np.concatenate([weights, centres]).astype(np.float32, copy=False)
        self._bias = bias.astype(np.float32, copy=False)
        self._words = words

    def classify(self, text: str, embedding: Vector) -> tuple[str, float]:
        """Return the most probable intent of *text* and the confidence in it, in [0, 1].

        The confidence is the calibrated probability, made smaller when *embedding* is unlike all that the classifier
        was trained on: there the probabilities of a linear model mean nothing. A text without words has 0.
        """
        scores = self._rows @ embedding
        logits = scores[: self._n_intents] + self._bias + self._words.scores(text)
        best = int(logits.argmax())
        probability = 1.0 / float(np.exp(logits - logits[best]).sum())
        similarity = float(scores[self._n_intents :].max())
        plausible = probability * min(1.0, similarity / self.familiar_similarity)
        if plausible < LEAST:
            return self.intents[best], 0.0
        plausible = min(plausible, 1.0 - LEAST)
        return self.intents[best], self.confidence.of(math.log(plausible / (1.0 - plausible)))

    def classify_all(self, texts: Sequence[str], embeddings: Vector) -> tuple[NDArray[np.int64], Vector]:
        """Return for each of *texts*, with *embeddings* (m, d), the index of its intent and the confidence.

        As ``classify`` does, but for rounding.
        """
        scores = embeddings @ self._rows.T
        logits = scores[:, : self._n_intents] + self._bias
        logits += np.array([self._words.scores(text) for text in texts], dtype=np.float32).reshape(logits.shape)
        best = logits.argmax(axis=1)
        probabilities = 1.0 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
        similarities = scores[:, self._n_intents :].max(axis=1)
        plausible = probabilities * np.minimum(similarities / self.familiar_similarity, 1.0)
        confidences = self.confidence.of_all(log_odds(plausible))
        return best, np.where(plausible < LEAST, 0.0, confidences).astype(np.float32)

    @property
    def vocabulary(self) -> frozenset[str]:
        """Return the words and pairs of words that it knows."""
        return frozenset(self._words.vocabulary)

    def without(self, words: Collection[str]) -> "IntentClassifier":
        """Return the same classifier, as if none of *words* (or pairs of them) had ever been seen."""
        return IntentClassifier(
            self.intents,
            self._rows[: self._n_intents],
            self._bias,
            self._rows[self._n_intents :],
            self._words.without(words),
            familiar_similarity=self.familiar_similarity,
            confidence=self.confidence,
            least_confidence=self.least_confidence,
        )

    def encode(self) -> bytes:
        """Return the classifier as bytes, with a digest before them."""
        evidence = self._words.evidence
        payload = msgspec.msgpack.encode(
            _Stored(
                FORMAT,
                self.intents,
                self._rows.shape[1],
                self.familiar_similarity,
                self.confidence,
                self.least_confidence,
                self._rows.astype("<f4").tobytes(),
                self._bias.astype("<f4").tobytes(),
                self._words.vocabulary,
                np.diff(evidence.starts).astype("<u4").tobytes(),
                evidence.classes.astype("<u2").tobytes(),
                evidence.strengths.astype("<f4").tobytes(),
                evidence.rarity.astype("<f4").tobytes(),
                evidence.offsets.astype("<f4").tobytes(),
            )
        )
        return _digest(payload) + payload


def decode_classifier(blob: bytes) -> IntentClassifier:
    """Return the classifier that ``encode`` wrote.

    Raises:
        DamagedModelError: the bytes are damaged or of another version.
    """
    payload = blob[DIGEST_BYTES:]
    if blob[:DIGEST_BYTES] != _digest(payload):
        raise DamagedModelError("its bytes are damaged")
    try:
        stored = msgspec.msgpack.decode(payload, type=_Stored)
    except msgspec.DecodeError as exc:
        raise DamagedModelError(f"its form is unknown: {exc}") from exc
    if stored.format != FORMAT:
        raise DamagedModelError(f"it is of format {stored.format}, not {FORMAT}")
    rows = _floats(stored.rows).reshape(-1, stored.dimensions)
    evidence = Evidence(
        starts=np.concatenate([[0], np.cumsum(np.frombuffer(stored.spans, dtype="<u4"))]).astype(np.int64),
        classes=np.frombuffer(stored.classes, dtype="<u2").astype(np.int64),
        strengths=_floats(stored.strengths),
        rarity=_floats(stored.rarity),
        offsets=_floats(stored.word_offsets),
    )
    n_intents = len(stored.intents)
    return IntentClassifier(
        stored.intents,
        rows[:n_intents],
        _floats(stored.bias),
        rows[n_intents:],
        WordEvidence(stored.vocabulary, evidence),
        familiar_similarity=stored.familiar_similarity,
        confidence=stored.confidence,
        least_confidence=stored.least_confidence,
    )


def _floats(data: bytes) -> Vector:
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def log_odds(probabilities: Vector) -> Vector:
    """Return the log odds of *probabilities*, which are kept LEAST away from 0 and 1."""
    kept = np.clip(probabilities, LEAST, 1.0 - LEAST)
    found: Vector = np.log(kept / (1.0 - kept))
    return found


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=DIGEST_BYTES).digest()
