"""Training examples: in once, flagged when unsure, corrected by people."""

import dataclasses
import re
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlite_utils import Database as Tool

from store.audit import list_audit
from store.clock import iso
from store.database import Database, migrate
from store.datasets import (
    NEEDS_REVIEW,
    ExampleRow,
    FacetKind,
    NewExample,
    add_examples,
    fingerprint_of,
    get_dataset,
    get_example,
    list_datasets,
    list_examples,
    list_facets,
    review_example,
)
from store.errors import InvalidError, NotFoundError
from store.migrations import MIGRATIONS
from store.tenants import ensure_tenant
from tests.conftest import NOW_S

DATASET = "ds-auto-training"
FACETS: tuple[FacetKind, ...] = ("intent", "tag")


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


def inputs(db: Database, **wanted: Any) -> list[str]:
    return [row.input for row in list_examples(db, "default", DATASET, **wanted)[0]]


def test_words_are_found_in_any_order_and_script_and_beginnings_with_a_star(db: Database) -> None:
    add(db, *map(example, ("Track my ORDER", "where is the order?", "मेरा ऑर्डर कहाँ है", "Über-Größe", 'a "quoted" word')))
    assert inputs(db, search="ord*") == ["Track my ORDER", "where is the order?"]
    assert inputs(db, search="ord") == []
    assert inputs(db, search="order* track") == ["Track my ORDER"]
    assert inputs(db, search="ऑर्डर") == ["मेरा ऑर्डर कहाँ है"]
    assert inputs(db, search="uber-GROßE") == inputs(db, search="GRÖß*") == ["Über-Größe"]
    assert inputs(db, search='"quoted" -') == ['a "quoted" word']
    assert inputs(db, search='order" OR input:*') == []


@pytest.mark.parametrize("search", ["", "?!", "\x00"])
def test_a_search_without_a_word_is_refused(db: Database, search: str) -> None:
    add(db, example())
    with pytest.raises(InvalidError, match="q: "):
        inputs(db, search=search)


def test_tag_intent_and_words_narrow_together(db: Database) -> None:
    add(db, example("cancel order", 0.4), example("track order", 0.4), example("cancel order", 0.9))
    first = list_examples(db, "default", DATASET, search="cancel", tag=NEEDS_REVIEW)[0][0]
    review_example(db, "default", first.id, intent="cancel", needs_review=True, actor="someone", now_s=NOW_S)
    assert inputs(db, tag=NEEDS_REVIEW, intent="cancel") == ["cancel order"]
    assert inputs(db, tag=NEEDS_REVIEW, intent="track_order", search="order") == ["track order"]
    assert inputs(db, tag="source:bulk", intent="track_order") == ["track order", "cancel order"]
    assert inputs(db, tag="nobody:has-it") == []


def test_search_and_labels_page_on_without_repeating(db: Database) -> None:
    add(db, *[example(f"order {number}") for number in range(5)])
    ways: list[dict[str, Any]] = [{"search": "order"}, {"tag": "source:bulk"}, {"intent": "track_order"}, {}]
    for wanted in ways:
        seen: list[str] = []
        cursor = None
        for _ in range(3):
            page, cursor = list_examples(db, "default", DATASET, limit=2, cursor=cursor, **wanted)
            seen += [row.input for row in page]
        assert (seen, cursor) == ([f"order {number}" for number in range(5)], None)


def test_one_tenants_words_do_not_find_anothers(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    add(db, example("secret words"))
    add(db, example("other words"), tenant_id="other")
    found, _ = list_examples(db, "other", DATASET, search="words")
    assert [row.input for row in found] == ["other words"]


def counted(db: Database) -> tuple[dict[tuple[str, str], int], int, int]:
    """Return the facets and sizes as they follow from the examples themselves."""
    rows = list_examples(db, "default", DATASET, limit=1000)[0]
    labels = [("intent", row.intent) for row in rows] + [("tag", tag) for row in rows for tag in set(row.tags)]
    return dict(Counter(labels)), len(rows), sum(row.needs_review for row in rows)


def kept(db: Database) -> tuple[dict[tuple[str, str], int], int, int]:
    facets = [one for kind in FACETS for one in list_facets(db, "default", DATASET, kind=kind, limit=1000)[0]]
    dataset = get_dataset(db, "default", DATASET)
    return {(one.kind, one.value): one.n_examples for one in facets}, dataset.size, dataset.n_needs_review


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.text(max_size=5), st.sampled_from([0.1, 0.5, 0.9])),
            st.tuples(st.just("review"), st.sampled_from(["a", "b", "track_order"]), st.sampled_from([0.0, 1.0])),
            st.tuples(st.just("delete"), st.just(""), st.just(0.0)),
        ),
        max_size=12,
    )
)
def test_counts_that_are_kept_are_those_that_would_be_counted(
    db: Database, steps: list[tuple[str, str, float]]
) -> None:
    with db.transaction():
        db.execute("DELETE FROM examples")
    add(db)
    for step, word, number in steps:
        rows = stored(db)
        match step:
            case "add":
                add(db, example(f"x{word}", number))
            case "review" if rows:
                review_example(
                    db, "default", rows[0].id, intent=word, needs_review=bool(number), actor="someone", now_s=NOW_S
                )
            case "delete" if rows:
                with db.transaction():
                    db.execute("DELETE FROM examples WHERE id = :id", {"id": rows[-1].id})
        assert kept(db) == counted(db)
    assert db.value("SELECT count(*) FROM example_facets") == sum(counted(db)[0].values())
    db.execute("INSERT INTO examples_search (examples_search) VALUES ('integrity-check')")


def test_a_correction_keeps_the_intent_that_was_sent_and_every_step_in_the_audit(db: Database) -> None:
    add(db, example(confidence=0.3))
    (row,) = stored(db)
    for intent in ("refund", "return"):
        corrected = review_example(db, "default", row.id, intent=intent, actor="ann", now_s=NOW_S)
    assert (corrected.intent, corrected.former_intent, corrected.reviewed_by) == ("return", "track_order", "ann")
    steps = [entry.detail for entry in list_audit(db, "default")[0] if entry.actor == "ann"]
    assert sorted((step["from_intent"], step["intent"]) for step in steps) == [
        ("refund", "return"),
        ("track_order", "refund"),
    ]
    back = review_example(db, "default", row.id, intent="track_order", actor="ann", now_s=NOW_S)
    assert back.former_intent is None


def test_a_senders_id_makes_a_repeat_known_whatever_else_it_says(db: Database) -> None:
    named = dataclasses.replace(example(), id="c-1")
    assert add(db, named) == 1
    assert add(db, dataclasses.replace(named, confidence=0.5), dataclasses.replace(named, id="c-2")) == 1


def test_examples_of_the_first_release_are_known_again(db: Database) -> None:
    assert fingerprint_of(example()) == "be83df272869e77f7223d98e2b95d6c6"


def test_the_lot_picks_about_the_audit_share_of_what_is_sure(db: Database) -> None:
    many = [example(f"message {number}", 0.9 if number % 2 else 0.5) for number in range(2000)]
    add_examples(db, "default", DATASET, many, review_below_confidence=0.7, audit_share=0.1, now_s=NOW_S)
    drawn = [row for row in list_examples(db, "default", DATASET, limit=5000)[0] if row.is_audit]
    assert all(not row.needs_review for row in drawn)
    assert 60 < len(drawn) < 140


def test_examples_of_before_are_counted_labelled_and_found(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        MIGRATIONS.apply(Tool(connection), stop_before="m019_training_data")
        old = Database(connection, tmp_path / "old.db")
        ensure_tenant(old, "default", NOW_S)
        old.execute("INSERT INTO datasets VALUES ('default', :id, :id, 'nlu', :at)", {"id": DATASET, "at": iso(NOW_S)})
        for number, tags in enumerate(('["source:bulk"]', '["source:bulk","needs_review"]')):
            old.execute(
                """
                INSERT INTO examples VALUES (NULL, :id, 'default', :dataset, 'nlu', 'track order', 'track', 0.75, :tags,
                  :number, NULL, '', NULL, :id, :at, :at, NULL, NULL)
                """,
                {"id": f"ex-{number}", "dataset": DATASET, "tags": tags, "number": number, "at": iso(NOW_S)},
            )
        migrate(old)
        assert kept(old) == counted(old)
        assert inputs(old, search="order", tag=NEEDS_REVIEW) == ["track order"]
        assert [row.margin for row in stored(old)] == [0.5, 0.5]
        add(old, example("another order"))
        assert kept(old) == counted(old)
