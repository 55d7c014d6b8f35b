"""Questions that came through the proxy become examples: each wording once, of complete answers alone."""

import dataclasses
from typing import Any

import pytest

from store.config import Config, TrainingSection
from store.database import Database
from store.datasets import (
    NEEDS_REVIEW,
    SELF_LABELLED,
    ExampleRow,
    labelled_texts,
    list_examples,
    review_example,
)
from store.errors import NotFoundError
from store.forgetting import Subject, forget
from store.responses import insert_records
from store.tenants import ensure_tenant, set_learning
from store.traffic_examples import TRAFFIC, collect_traffic
from tests.conftest import NOW_S
from tests.store.test_conversations import record


@pytest.fixture
def training(config: Config) -> TrainingSection:
    return dataclasses.replace(config.training, audit_share=0.0)


def said(db: Database, number: int, question: str, **facts: Any) -> None:
    values = {"question": question, "conversation_id": f"c-{number}", "user_id": "ann", **facts}
    insert_records(db, [record(number, [{"role": "user", "content": question}], "Sure.", **values)])


def collected(db: Database, training: TrainingSection) -> list[ExampleRow]:
    collect_traffic(db, training, now_s=NOW_S)
    return list_examples(db, "default", training.dataset_id, tag=TRAFFIC)[0]


def test_a_question_becomes_an_example_with_type_confidence_and_conversation(
    db: Database, training: TrainingSection
) -> None:
    said(db, 1, "How do I pay?", question_type="how-to", question_type_confidence=0.8)
    said(db, 2, "asdf", question_type="unknown", question_type_confidence=0.2)
    said(db, 3, "Refund me", question_type="refund", question_type_confidence=None)
    paid, odd, refund = collected(db, training)
    assert (paid.input, paid.intent, paid.confidence, paid.conversation_id) == ("How do I pay?", "how-to", 0.8, "c-1")
    assert paid.tags == ("confidence:80", "source:proxy", TRAFFIC, SELF_LABELLED)
    assert refund.tags == ("confidence:100", "source:proxy", TRAFFIC)
    assert (odd.intent, odd.needs_review) == ("unknown", True)
    assert (refund.confidence, refund.needs_review) == (1.0, False)
    assert "ann" not in paid.user_hash


def test_what_the_classifier_itself_said_teaches_nothing_until_a_person_looked(
    db: Database, training: TrainingSection
) -> None:
    said(db, 1, "How do I pay?", question_type="how-to", question_type_confidence=0.99)
    said(db, 2, "Refund me", question_type="refund", question_type_confidence=None)
    guessed, _ = collected(db, training)
    learned = labelled_texts(db, "default", training.dataset_id, limit=10)
    assert [(one.text, one.intent) for one in learned] == [("Refund me", "refund")]
    review_example(db, "default", guessed.id, needs_review=False, actor="ann", now_s=NOW_S)
    assert len(labelled_texts(db, "default", training.dataset_id, limit=10)) == 2


def test_the_same_wording_is_one_example_whoever_asks_and_however_it_is_spaced(
    db: Database, training: TrainingSection
) -> None:
    said(db, 1, "How do I pay?")
    said(db, 2, "  how do I  PAY?\n")
    assert len(collected(db, training)) == 1
    said(db, 3, "HOW DO I PAY?")
    assert len(collected(db, training)) == 1


@pytest.mark.parametrize(
    "facts", [{"outcome": "cancelled"}, {"outcome": "error"}, {"question": ""}, {"question": " \n"}]
)
def test_what_is_not_a_question_with_a_complete_answer_is_left_out(
    db: Database, training: TrainingSection, facts: dict[str, Any]
) -> None:
    said(db, 1, **{"question": "How do I pay?", **facts})
    said(db, 2, "What is this?")
    assert [example.input for example in collected(db, training)] == ["What is this?"]


def test_a_tenant_that_does_not_learn_gives_no_examples_and_each_has_its_own(
    db: Database, training: TrainingSection
) -> None:
    ensure_tenant(db, "quiet", NOW_S)
    ensure_tenant(db, "other", NOW_S)
    set_learning(db, "quiet", learning=False)
    for number, tenant_id in enumerate(("default", "quiet", "other"), start=1):
        said(db, number, f"Question of {tenant_id}", tenant_id=tenant_id)
    assert [example.input for example in collected(db, training)] == ["Question of default"]
    ((others,), _) = list_examples(db, "other", training.dataset_id)
    assert others.input == "Question of other"
    with pytest.raises(NotFoundError):
        list_examples(db, "quiet", training.dataset_id)


def test_beyond_the_limit_the_oldest_that_nobody_reviewed_make_room(db: Database, training: TrainingSection) -> None:
    few = dataclasses.replace(training, max_traffic_examples=3)
    for number in range(1, 4):
        said(db, number, f"Question {number}")
    review_example(db, "default", collected(db, few)[0].id, intent="kept", actor="ann", now_s=NOW_S)
    for number in range(4, 6):
        said(db, number, f"Question {number}")
    assert [example.input for example in collected(db, few)] == ["Question 1", "Question 4", "Question 5"]


def test_nothing_is_collected_while_it_is_switched_off(db: Database, training: TrainingSection) -> None:
    said(db, 1, "How do I pay?")
    assert collect_traffic(db, dataclasses.replace(training, collect_traffic=False), now_s=NOW_S) == 0
    assert len(collected(db, training)) == 1


def test_a_person_who_is_forgotten_leaves_no_example_and_no_word_in_the_search(
    db: Database, config: Config, training: TrainingSection
) -> None:
    said(db, 1, "My name is Zebulon", question_type="unknown", question_type_confidence=0.1)
    said(db, 2, "How do I pay?", user_id="bob")
    assert len(collected(db, training)) == 2
    forget(db, "default", Subject(user_ids=("ann",)), db.path.parent, compose=None, actor="test", now_s=NOW_S)  # type: ignore[arg-type]  # no entry is touched
    assert [example.input for example in collected(db, training)] == ["How do I pay?"]
    assert list_examples(db, "default", training.dataset_id, tag=NEEDS_REVIEW)[0] == []
    blocks = db.rows("SELECT block FROM examples_search_data")
    assert not any(b"zebulon" in bytes(row["block"]) for row in blocks)
