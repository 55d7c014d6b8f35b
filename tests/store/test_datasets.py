"""Training examples: in once, flagged when unsure, corrected by people."""

import re

import pytest

from store.audit import list_audit
from store.database import Database
from store.datasets import (
    NEEDS_REVIEW,
    ExampleRow,
    NewExample,
    add_examples,
    get_dataset,
    get_example,
    list_datasets,
    list_examples,
    review_example,
)
from store.errors import InvalidError, NotFoundError
from store.tenants import ensure_tenant
from tests.conftest import NOW_S

DATASET = "ds-auto-training"


def example(
    text: str = "track my order", confidence: float = 0.95, occurred_ms: int | None = 1698345600000
) -> NewExample:
    return NewExample(text, "track_order", confidence, "bulk", "main_menu", "a" * 32, occurred_ms)


def add(db: Database, *examples: NewExample, tenant_id: str = "default") -> int:
    return add_examples(db, tenant_id, DATASET, examples, review_below_confidence=0.7, now_s=NOW_S)


def stored(db: Database) -> list[ExampleRow]:
    return list_examples(db, "default", DATASET)[0]


def test_an_example_has_the_id_and_tags_that_its_readers_know(db: Database) -> None:
    add(db, example())
    (row,) = stored(db)
    assert re.fullmatch(r"ex-1698345600000-[0-9a-z]{16}", row.id)
    assert row.tags == ("confidence:95", "source:bulk")
    assert (row.type, row.input, row.intent, row.needs_review) == ("nlu", "track my order", "track_order", False)
    assert row.occurred_at == "2023-10-26T18:40:00.000Z"


@pytest.mark.parametrize(("confidence", "is_flagged"), [(0.69, True), (0.7, False)])
def test_a_confidence_under_seven_tenths_needs_a_review(db: Database, confidence: float, is_flagged: bool) -> None:
    add(db, example(confidence=confidence))
    (row,) = stored(db)
    assert row.needs_review is is_flagged
    assert (NEEDS_REVIEW in row.tags) is is_flagged


def test_the_same_item_twice_is_one_example(db: Database) -> None:
    assert add(db, example(), example()) == 1
    assert add(db, example()) == 0
    assert get_dataset(db, "default", DATASET).size == 1


def test_a_corrected_example_stays_corrected_when_it_is_sent_again(db: Database) -> None:
    add(db, example(confidence=0.3))
    (row,) = stored(db)
    corrected = review_example(db, "default", row.id, intent="refund", actor="someone", now_s=NOW_S)
    assert (corrected.intent, corrected.needs_review, corrected.reviewed_by) == ("refund", False, "someone")
    assert NEEDS_REVIEW not in corrected.tags
    add(db, example(confidence=0.3))
    assert stored(db) == [corrected]
    assert [entry.action for entry in list_audit(db, "default")[0]] == ["examples.review"]


def test_a_review_can_be_asked_for_again(db: Database) -> None:
    add(db, example())
    (row,) = stored(db)
    assert review_example(db, "default", row.id, needs_review=True, actor="someone", now_s=NOW_S).needs_review
    assert [found.id for found in list_examples(db, "default", DATASET, tag=NEEDS_REVIEW)[0]] == [row.id]


def test_an_intent_must_not_be_empty(db: Database) -> None:
    add(db, example())
    with pytest.raises(InvalidError, match="intent"):
        review_example(db, "default", stored(db)[0].id, intent=" ", actor="someone", now_s=NOW_S)


def test_examples_are_found_by_tag_and_page_by_page(db: Database) -> None:
    add(db, *[example(f"message {number}", confidence=0.5 + number / 10) for number in range(5)])
    flagged, cursor = list_examples(db, "default", DATASET, tag=NEEDS_REVIEW, limit=1)
    rest, end = list_examples(db, "default", DATASET, tag=NEEDS_REVIEW, limit=1, cursor=cursor)
    assert ([row.input for row in flagged + rest], end) == (["message 0", "message 1"], None)
    assert [row.input for row in list_examples(db, "default", DATASET, tag="confidence:80")[0]] == ["message 3"]
    ((dataset,), _) = list_datasets(db, "default")
    assert (dataset.size, dataset.n_needs_review) == (5, 2)


def test_another_tenants_dataset_and_examples_are_not_there(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    add(db, example())
    assert list_datasets(db, "other") == ([], None)
    for look in (
        lambda: get_dataset(db, "other", DATASET),
        lambda: get_example(db, "other", stored(db)[0].id),
        lambda: list_examples(db, "other", DATASET),
    ):
        with pytest.raises(NotFoundError):
            look()
