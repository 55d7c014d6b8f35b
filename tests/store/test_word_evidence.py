"""What words say about classes, for one text and for many."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.word_evidence import (
    DENSE_CELLS,
    HALF_WORDS,
    WordEvidence,
    evidence_scores,
    features_of,
    fit_evidence,
    tabulated,
)

TEXTS = ("where is my parcel", "my parcel is late", "refund my money", "a refund please", "hello", "hello there")
LABELS = np.array([0, 0, 1, 1, 2, 2])
ALL = np.ones(6, dtype=bool)
EVEN = np.ones(6, dtype=np.float32)
WORDS = st.lists(st.sampled_from(("where", "is", "my", "parcel", "refund", "hello", "unseen", "?")), max_size=12)


def test_a_class_scores_highest_for_its_own_words() -> None:
    table = tabulated(TEXTS, 100)
    words = WordEvidence(table.vocabulary, fit_evidence(table, LABELS, EVEN, 3, ALL))
    asked = ("is the parcel here", "REFUND", "hello you")
    assert [int(words.scores(text).argmax()) for text in asked] == [0, 1, 2]


@given(st.lists(WORDS.map(" ".join), min_size=1, max_size=4))
def test_one_text_and_many_score_alike(texts: list[str]) -> None:
    table = tabulated([*TEXTS, *texts], 60)
    rows = np.concatenate([ALL, np.zeros(len(texts), dtype=bool)])
    labels, importance = np.concatenate([LABELS, np.zeros(len(texts), np.int64)]), np.ones(len(rows), np.float32)
    evidence = fit_evidence(table, labels, importance, 3, rows)
    words = WordEvidence(table.vocabulary, evidence)
    together = evidence_scores(evidence, table, ~rows)
    for text, scores in zip(texts, together, strict=True):
        assert words.scores(text) == pytest.approx(scores, abs=1e-4)


@given(WORDS.map(" ".join))
def test_few_words_are_added_up_as_many_are(text: str) -> None:
    table = tabulated(TEXTS, 100)
    evidence = fit_evidence(table, LABELS, EVEN, 3, ALL)
    small = WordEvidence(table.vocabulary, evidence)
    unused = tuple(f"unused{number}" for number in range(DENSE_CELLS // 3))
    no_classes = np.full(len(unused), evidence.starts[-1])
    large = WordEvidence(
        table.vocabulary + unused,
        replace(
            evidence,
            starts=np.concatenate([evidence.starts, no_classes]),
            rarity=np.concatenate([evidence.rarity, np.zeros(len(unused), np.float32)]),
        ),
    )
    assert small.scores(text) == pytest.approx(large.scores(text), abs=1e-6)


def test_texts_that_are_left_out_teach_nothing() -> None:
    table = tabulated(TEXTS, 100)
    seen = LABELS != 2
    without = fit_evidence(table, LABELS, EVEN, 3, seen)
    other_labels = np.where(seen, LABELS, 0)
    again = fit_evidence(table, other_labels, EVEN, 3, seen)
    assert without.strengths.tolist() == again.strengths.tolist()
    assert WordEvidence(table.vocabulary, without).scores("hello").tolist() == [0, 0, 0]


def test_a_model_knows_as_many_words_as_it_may_and_those_in_most_texts() -> None:
    assert tabulated(TEXTS, 2).vocabulary == ("my", "hello")


def test_of_a_long_text_the_first_and_the_last_words_are_read() -> None:
    found = features_of(" ".join(f"w{number}" for number in range(200)))
    assert [word for word in found if " " not in word] == [
        *(f"w{number}" for number in range(HALF_WORDS)),
        *(f"w{number}" for number in range(200 - HALF_WORDS, 200)),
    ]


def test_without_a_known_word_nothing_is_said() -> None:
    table = tabulated(TEXTS, 100)
    words = WordEvidence(table.vocabulary, fit_evidence(table, LABELS, EVEN, 3, ALL))
    assert words.scores("").tolist() == [0, 0, 0]
    assert words.scores("xyz").tolist() == [0, 0, 0]
