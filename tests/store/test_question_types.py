"""Built-in question types: right when confident, unsure of what nobody would ask."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from store.config import load_config
from store.embedding import LocalEmbedder, load_local_embedder
from store.question_types import SEEDS_FILE, QuestionClassifier, load_question_classifier

HELD_OUT: dict[str, list[str]] = tomllib.loads(
    Path(__file__).with_name("held_out_questions.toml").read_text(encoding="utf-8")
)
FRESH: dict[str, list[str]] = tomllib.loads(
    Path(__file__).with_name("fresh_questions.toml").read_text(encoding="utf-8")
)
SEEDS: dict[str, list[str]] = tomllib.loads(SEEDS_FILE.read_text(encoding="utf-8"))
MIN_CONFIDENCE = load_config().question_types.min_confidence
TYPES = (
    "how_to",
    "troubleshooting",
    "data_query",
    "definition",
    "comparison",
    "account",
    "order",
    "refund",
    "chit_chat",
    "other",
)


@pytest.fixture(scope="module")
def embedder() -> LocalEmbedder:
    return load_local_embedder(load_config().embedding)


@pytest.fixture(scope="module")
def classifier(embedder: LocalEmbedder) -> QuestionClassifier:
    return load_question_classifier(embedder)


def answers(classifier: QuestionClassifier, embedder: LocalEmbedder, kind: str) -> list[tuple[str, float]]:
    return [classifier.classify(text, embedder.embed_one(text)) for text in HELD_OUT[kind]]


def test_the_built_in_types_are_the_ten_general_ones(classifier: QuestionClassifier) -> None:
    assert classifier.types == TYPES


def test_every_type_has_25_to_40_seed_phrasings_each_once() -> None:
    texts = [text.casefold() for phrasings in SEEDS.values() for text in phrasings]

    assert all(25 <= len(phrasings) <= 40 for phrasings in SEEDS.values())
    assert len(texts) == len(set(texts))


def test_no_held_out_question_is_a_seed() -> None:
    seeds = {text.casefold() for phrasings in SEEDS.values() for text in phrasings}

    for held_out in (HELD_OUT, FRESH):
        assert seeds.isdisjoint(text.casefold() for texts in held_out.values() for text in texts)


def test_of_unseen_questions_answered_confidently_nine_in_ten_are_right(
    classifier: QuestionClassifier, embedder: LocalEmbedder
) -> None:
    confident = [
        found == kind
        for kind in TYPES
        for found, confidence in answers(classifier, embedder, kind)
        if confidence >= MIN_CONFIDENCE
    ]

    assert len(confident) >= 75  # of 100
    assert np.mean(confident) >= 0.9


def test_of_fresh_questions_nine_in_ten_are_right_and_few_unknown(
    classifier: QuestionClassifier, embedder: LocalEmbedder
) -> None:
    found = [
        (answer == kind, confidence)
        for kind in TYPES
        for text in FRESH[kind]
        for answer, confidence in [classifier.classify(text, embedder.embed_one(text))]
    ]
    is_right, confidences = (np.array(column) for column in zip(*found, strict=True))
    is_sure = confidences >= MIN_CONFIDENCE

    assert len(found) == 100
    assert is_right.mean() >= 0.88  # .92 when this was written; .83 by the embedding alone
    assert is_right[is_sure].mean() >= 0.9
    assert 1 - is_sure.mean() <= 0.1
    assert confidences.mean() - is_right.mean() < 0.05  # never boastful; modest is allowed


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_found_more_often_than_not(
    classifier: QuestionClassifier, embedder: LocalEmbedder, kind: str
) -> None:
    found = [name for name, _ in answers(classifier, embedder, kind)]

    assert found.count(kind) >= 6  # of 10


def test_what_nobody_would_ask_is_mostly_unknown(classifier: QuestionClassifier, embedder: LocalEmbedder) -> None:
    confident = [answer for answer in answers(classifier, embedder, "out_of_scope") if answer[1] >= MIN_CONFIDENCE]

    assert len(confident) <= 2  # of 20
    assert "other" not in [name for name, _ in confident]


def test_a_question_without_words_has_no_confidence(classifier: QuestionClassifier) -> None:
    assert classifier.classify("", np.zeros(256, np.float32))[1] == 0.0


def test_a_confidence_means_what_it_says_on_unseen_questions(
    classifier: QuestionClassifier, embedder: LocalEmbedder
) -> None:
    pairs = [(found == kind, p) for kind in TYPES for found, p in answers(classifier, embedder, kind)]
    accuracy, confidence = np.mean(pairs, axis=0)

    assert confidence - accuracy < 0.05  # never boastful; modest is allowed


def test_loading_twice_gives_the_same_answers(classifier: QuestionClassifier, embedder: LocalEmbedder) -> None:
    again = load_question_classifier(embedder)
    text = "how do I share a calendar"
    embedding = embedder.embed_one(text)

    assert again.classify(text, embedding) == classifier.classify(text, embedding)
