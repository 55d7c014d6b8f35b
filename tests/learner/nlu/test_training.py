"""How classifiers are fitted, calibrated and judged."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.nlu.assessment import Assessment, assess, expected_calibration_error
from learner.nlu.examples import choose
from learner.nlu.regression import fit, minimise, softmax
from learner.nlu.training import Labelled, calibrated_temperature, train
from store.config import load_config
from store.datasets import LabelledText
from store.errors import DamagedModelError
from store.intent_classifier import decode_classifier

SECTION = load_config().nlu
INTENTS = ("refund", "greeting", "parcel")
Vector = NDArray[np.float32]


def clouds(n_each: int, noise: float, seed: int = 1) -> tuple[Vector, NDArray[np.int64]]:
    """Return unit vectors (3 n_each, 16) around three axes, and which."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), n_each)
    points = np.eye(16)[labels] + rng.normal(0, noise, (3 * n_each, 16))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), labels


def labelled(n_each: int, noise: float, seed: int = 1) -> Labelled:
    embeddings, labels = clouds(n_each, noise, seed)
    return Labelled(embeddings, labels, np.ones(len(labels), dtype=np.float32))


def test_the_minimum_of_a_quadratic_form_is_found() -> None:
    scale, target = np.array([1, 10, 100], np.float32), np.array([3, -2, 0.5], np.float32)

    def objective(point: Vector) -> tuple[float, Vector]:
        return float(scale @ (point - target) ** 2), 2 * scale * (point - target)

    np.testing.assert_allclose(minimise(objective, np.zeros(3, np.float32)), target, atol=0.01)


def test_at_the_fitted_model_the_loss_has_no_slope() -> None:
    data, penalty = labelled(30, 0.4), 0.1
    model = fit(data.embeddings, data.labels, 3, data.importance, penalty)
    residuals = (softmax(model.logits(data.embeddings)) - np.eye(3)[data.labels]) / len(data.labels)
    gradient = residuals.T @ data.embeddings + penalty / len(data.labels) * model.weights
    assert np.abs(gradient).max() < 0.003
    assert np.abs(residuals.sum(axis=0)).max() < 0.003


def test_what_was_trained_tells_new_texts_apart_and_its_confidence_is_how_often_it_is_right() -> None:
    classifier = train(labelled(150, 0.35), INTENTS, SECTION)
    embeddings, labels = clouds(400, 0.35, seed=2)
    judged = assess(classifier, embeddings, [INTENTS[label] for label in labels])
    assert 0.75 < judged.accuracy < 0.99
    assert judged.calibration_error < 0.06


def test_what_resembles_nothing_known_has_little_confidence() -> None:
    classifier = train(labelled(50, 0.1), INTENTS, SECTION)
    stranger = np.eye(16, dtype=np.float32)[9]
    assert classifier.classify(stranger)[1] < 0.5
    assert classifier.classify(np.zeros(16, np.float32))[1] == pytest.approx(0.0, abs=1e-6)
    intent, confidence = classifier.classify(np.eye(16, dtype=np.float32)[2])
    assert (intent, confidence > 0.8) == ("parcel", True)


def test_one_text_and_many_are_classified_alike_before_and_after_storage() -> None:
    classifier = train(labelled(20, 0.3), INTENTS, SECTION)
    again = decode_classifier(classifier.encode())
    embeddings, _ = clouds(20, 0.5, seed=3)
    best, confidences = classifier.classify_all(embeddings)
    for row, embedding in enumerate(embeddings):
        intent, confidence = again.classify(embedding)
        assert intent == INTENTS[best[row]]
        assert confidence == pytest.approx(float(confidences[row]), abs=1e-4)


def test_training_again_makes_the_same_bytes() -> None:
    assert train(labelled(20, 0.3), INTENTS, SECTION).encode() == train(labelled(20, 0.3), INTENTS, SECTION).encode()


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_classifier_is_never_read(position: int, change: int) -> None:
    data = bytearray(train(labelled(6, 0.2), INTENTS, SECTION).encode())
    data[position % len(data)] ^= change
    with pytest.raises(DamagedModelError):
        decode_classifier(bytes(data))


def test_the_temperature_of_logits_that_are_three_times_too_sure_is_three() -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 2, (20_000, 4)).astype(np.float32)
    # Gumbel's maximum draws from the softmax.
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    assert calibrated_temperature(3 * logits, labels) == pytest.approx(3, rel=0.1)


def test_the_report_of_a_small_case_is_what_one_counts_by_hand() -> None:
    judged = Assessment(("a", "a", "b", "b"), ("a", "b", "b", "b"), np.array([0.9, 0.4, 0.9, 0.9], np.float32))
    report = judged.report(min_confidence=0.5)
    assert (report["accuracy"], report["sure"], report["accuracy_when_sure"]) == (0.75, 0.75, 1.0)
    assert report["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2, abs=1e-4)
    assert report["confusion"] == [["a", "b", 1]]
    assert report["by_intent"]["b"] == {"precision": 0.6667, "recall": 1.0, "f1": 0.8, "n": 2}
    assert report["ece"] == pytest.approx(0.75 * 0.1 + 0.25 * 0.4, abs=1e-4)


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=40))
def test_the_calibration_error_lies_between_0_and_1(pairs: list[tuple[float, bool]]) -> None:
    confidences, is_right = (np.array(column) for column in zip(*pairs, strict=True))
    assert 0 <= expected_calibration_error(confidences.astype(np.float32), is_right) <= 1 + 1e-6


def texts(intent: str, n: int, reviewed_at: str = "") -> list[LabelledText]:
    return [LabelledText(f"{intent} number {number}", intent, reviewed_at) for number in range(n)]


def test_intents_with_too_few_texts_are_left_out() -> None:
    chosen = choose([*texts("a", 8), *texts("b", 5), *texts("c", 4)], replace(SECTION, min_examples=5))
    assert (chosen.intents, chosen.left_out, len(chosen)) == (("a", "b"), {"c": 4}, 13)


def test_a_text_counts_once_with_what_a_person_said_last() -> None:
    said = [LabelledText("Where is it?", "refund", "")] * 9
    reviewed = [LabelledText("where  is it?", "parcel", "2026-02"), LabelledText("where is it?", "other", "2026-01")]
    chosen = choose([*said, *reviewed, *texts("parcel", 6), *texts("refund", 6)], SECTION)
    row = [text.casefold().split() for text in chosen.texts].index(["where", "is", "it?"])
    assert chosen.intents[chosen.labels[row]] == "parcel"
    assert chosen.importance[row] == pytest.approx(3 * chosen.importance[row - 1], rel=0.2)
    assert len(chosen) == 13


def test_rare_intents_count_more_and_the_mean_stays_one() -> None:
    chosen = choose([*texts("common", 80), *texts("rare", 5)], SECTION)
    by_intent = {chosen.intents[label]: weight for label, weight in zip(chosen.labels, chosen.importance, strict=True)}
    assert by_intent["rare"] == pytest.approx(4 * by_intent["common"])
    assert chosen.importance.mean() == pytest.approx(1)


@given(st.lists(st.integers(5, 40), min_size=2, max_size=4), st.floats(0.05, 0.5))
def test_every_intent_is_held_out_in_part_and_never_wholly(sizes: list[int], share: float) -> None:
    examples = [text for number, size in enumerate(sizes) for text in texts(f"i{number}", size)]
    chosen = choose(examples, replace(SECTION, held_out=share))
    for label in range(len(sizes)):
        held = chosen.is_held_out[chosen.labels == label]
        assert held.any()
        assert not held.all()


def test_texts_stay_held_out_when_others_come() -> None:
    few, more = texts("a", 60) + texts("b", 60), texts("a", 120) + texts("b", 120)
    before, after = choose(few, SECTION), choose(more, SECTION)
    held_before = {text for text, held in zip(before.texts, before.is_held_out, strict=True) if held}
    held_after = {text for text, held in zip(after.texts, after.is_held_out, strict=True) if held}
    assert held_before <= held_after
