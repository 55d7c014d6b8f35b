"""How classifiers are fitted, calibrated and judged."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.nlu.assessment import Assessment, assess, expected_calibration_error
from learner.nlu.examples import choose
from learner.nlu.regression import fit, minimise
from learner.nlu.training import CURVE_TEXTS, Labelled, calibrated, calibrated_line, names_of, train
from store.calibration import softmax
from store.config import load_config
from store.datasets import LabelledText
from store.embedding import load_local_embedder
from store.errors import DamagedModelError
from store.intent_classifier import Confidence, IntentClassifier, decode_classifier

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
    """Return texts whose words say nothing, with the embeddings of ``clouds``."""
    embeddings, labels = clouds(n_each, noise, seed)
    return Labelled(["words"] * len(labels), embeddings, labels, np.ones(len(labels), dtype=np.float32))


def trained(data: Labelled) -> IntentClassifier:
    """Return the classifier of *data*, whose intents have names that say nothing."""
    return train(data, no_names(), SECTION, INTENTS)


def no_names() -> Labelled:
    return Labelled([], np.zeros((0, 16), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))


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
    classifier = trained(labelled(150, 0.35))
    embeddings, labels = clouds(400, 0.35, seed=2)
    judged = assess(classifier, ["words"] * len(labels), embeddings, [INTENTS[label] for label in labels])
    assert 0.75 < judged.accuracy < 0.99
    assert judged.calibration_error < 0.06


def test_of_known_questions_the_configured_share_may_be_unknown_but_never_those_that_are_sure() -> None:
    classifier = trained(labelled(150, 0.35))
    embeddings, _ = clouds(400, 0.35, seed=2)
    _, confidences = classifier.classify_all(["words"] * len(embeddings), embeddings)
    assert (confidences < classifier.least_confidence).mean() == pytest.approx(SECTION.unsure, abs=0.03)
    assert trained(labelled(150, 0.05)).least_confidence == 0.9


def test_what_resembles_nothing_known_has_little_confidence() -> None:
    classifier = trained(labelled(50, 0.1))
    stranger = np.eye(16, dtype=np.float32)[9]
    assert classifier.classify("words", stranger)[1] < 0.5
    assert classifier.classify("words", np.zeros(16, np.float32))[1] == pytest.approx(0.0, abs=1e-6)
    intent, confidence = classifier.classify("words", np.eye(16, dtype=np.float32)[2])
    assert (intent, confidence > 0.8) == ("parcel", True)


def test_one_text_and_many_are_classified_alike_before_and_after_storage() -> None:
    classifier = trained(labelled(20, 0.3))
    again = decode_classifier(classifier.encode())
    embeddings, _ = clouds(20, 0.5, seed=3)
    texts = [f"words {number}" for number in range(len(embeddings))]
    best, confidences = classifier.classify_all(texts, embeddings)
    for row, embedding in enumerate(embeddings):
        intent, confidence = again.classify(texts[row], embedding)
        assert intent == INTENTS[best[row]]
        assert confidence == pytest.approx(float(confidences[row]), abs=1e-4)


def test_training_again_makes_the_same_bytes() -> None:
    assert trained(labelled(20, 0.3)).encode() == trained(labelled(20, 0.3)).encode()


def test_where_embeddings_say_nothing_words_tell_intents_apart() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(120) % 3
    texts = [f"please {('refund', 'hello', 'parcel')[label]} number {row}" for row, label in enumerate(labels)]
    blind = rng.normal(size=(120, 16)).astype(np.float32)
    blind /= np.linalg.norm(blind, axis=1, keepdims=True)
    classifier = trained(Labelled(texts, blind, labels, np.ones(120, np.float32)))
    best, _ = classifier.classify_all(["please refund this", "please hello this", "please parcel this"], blind[:3])
    assert best.tolist() == [0, 1, 2]


def test_an_intents_name_is_one_of_its_texts() -> None:
    names = names_of(("lost_card", "top-up  by Card"), load_local_embedder(load_config().embedding))
    assert names.texts == ["lost card", "top up by card"]
    assert names.labels.tolist() == [0, 1]
    assert np.linalg.norm(names.embeddings, axis=1) == pytest.approx(1, abs=1e-5)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_classifier_is_never_read(position: int, change: int) -> None:
    data = bytearray(trained(labelled(6, 0.2)).encode())
    data[position % len(data)] ^= change
    with pytest.raises(DamagedModelError):
        decode_classifier(bytes(data))


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


@st.composite
def answered(draw: st.DrawFn) -> tuple[Vector, NDArray[np.bool_]]:
    """Log odds and whether they were right, more often the higher they are, but by no line."""
    chance = np.random.default_rng(draw(st.integers(0, 1000)))
    odds = chance.normal(2.0, 2.5, CURVE_TEXTS + draw(st.integers(0, 500)))
    right = chance.random(len(odds)) < np.where(odds > draw(st.floats(0.0, 3.0)), 0.97, 0.55)
    return odds.astype(np.float32), right


@settings(max_examples=10, deadline=None)
@given(answered())
def test_what_is_read_off_many_texts_never_falls_and_is_right_where_a_line_is_not(
    known: tuple[Vector, NDArray[np.bool_]],
) -> None:
    odds, is_right = known
    confidence = calibrated(odds, is_right)
    ordered = confidence.of_all(np.sort(odds))
    assert (np.diff(ordered) >= 0).all()
    assert ordered[0] > 0
    assert ordered[-1] < 1
    line = Confidence(*calibrated_line(odds, is_right))
    errors = [expected_calibration_error(one.of_all(odds), is_right) for one in (confidence, line)]
    assert errors[0] < errors[1]


def test_few_texts_are_not_learned_by_heart() -> None:
    odds = np.linspace(-2, 4, CURVE_TEXTS - 1).astype(np.float32)
    assert calibrated(odds, odds > 0).odds == ()


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=20))
def test_one_confidence_is_as_many_are(odds: list[float]) -> None:
    for confidence in (Confidence(1.3, -0.2), Confidence(odds=(-3.0, 0.0, 5.0), values=(0.1, 0.4, 0.95))):
        many = confidence.of_all(np.array(odds, dtype=np.float32))
        assert [confidence.of(float(np.float32(one))) for one in odds] == pytest.approx(many.tolist(), abs=1e-5)
