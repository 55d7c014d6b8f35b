"""The tenant's words become rules; the names of its people never do."""

import json
from collections.abc import Mapping

import pytest

from learner.patterns.people import declared_people, is_part_of_a_name
from store.clock import iso
from store.config import Config
from store.database import Database
from store.feedback import Signal, record_signal
from store.patterns import PatternRow
from store.records import ResponseRecord
from store.responses import insert_records
from store.vocabulary import DEFAULT_TENANT
from tests.learner.patterns.traffic import World

WITH_TERM = "we have asked the {term} about it and will write as soon as there is an answer to that."
WITHOUT = "we have asked somebody about it and will write as soon as there is an answer to that."


def terms_found(
    db: Database, config: Config, term: str, first: Mapping[str, str] | None = None, question: str = "any news?"
) -> list[PatternRow]:
    """Return the patterns of terms after 200 turns whose users like the replies with *term*.

    *first* is the message of the first turn, and *question* its text.
    """
    world = World(db, config)
    for number in range(200):
        has_term = number % 3 == 1
        text = question if number == 0 else "any news?"
        message = first if first and number == 0 else {"role": "user", "content": text}
        reply = WITH_TERM.format(term=term) if has_term else WITHOUT
        record = ResponseRecord(
            id=f"resp-{number}",
            tenant_id=DEFAULT_TENANT,
            conversation_id=f"chat-{number}",
            endpoint="/v1/chat/completions",
            user_id=f"user-{number % 90}",
            question=text,
            question_type="status",
            response_format="prose",
            length_band="short",
            outcome="ok",
            status=200,
            latency_ms=5.0,
            messages_json=json.dumps([message]),
            reply_json=json.dumps({"role": "assistant", "content": reply}),
            request_hash=str(number),
            created_at=iso(world.now_s + number),
            completed_at=iso(world.now_s + number),
        )
        insert_records(db, [record])
        signal = Signal(response_id=record.id, signal="thumbs_up" if has_term else "thumbs_down", user=record.user_id)
        record_signal(db, DEFAULT_TENANT, signal, config.feedback, source="api", now_s=world.now_s + number)
    world.now_s += 3600
    world.learn()
    return [row for row in world.patterns() if row.type == "domain_knowledge"]


@pytest.mark.parametrize("term", ["chargeback", "SLA", "ARR", "ProPlan"])
def test_a_term_of_good_answers_becomes_a_rule(db: Database, config: Config, term: str) -> None:
    (row,) = terms_found(db, config, term)

    assert (row.rule, row.value) == (f'Use the term "{term}" where it fits.', term)


def test_a_name_that_the_app_gives_a_message_becomes_none(db: Database, config: Config) -> None:
    first = {"role": "user", "content": "any news?", "name": "Zbigniew Kowalczyk"}

    assert terms_found(db, config, "kowalczyk", first=first) == []


def test_the_name_by_which_somebody_introduced_themselves_becomes_none(db: Database, config: Config) -> None:
    assert terms_found(db, config, "kowalczyk", question="Hello, my name is Kowalczyk, any news?") == []


def test_without_anybody_of_that_name_the_same_word_is_a_term(db: Database, config: Config) -> None:
    assert [row.value for row in terms_found(db, config, "kowalczyk")] == ["kowalczyk"]


@pytest.mark.parametrize(
    "messages", ["", "{", "[3]", '[{"role": "user", "name": 5}]', '[{"role": "tool", "name": "x"}]']
)
def test_messages_that_name_nobody_are_passed_over(db: Database, messages: str) -> None:
    record = ResponseRecord(
        id="resp-1",
        tenant_id=DEFAULT_TENANT,
        conversation_id="chat-1",
        endpoint="/v1/chat/completions",
        question_type="status",
        outcome="ok",
        status=200,
        latency_ms=1.0,
        messages_json=messages,
        reply_json="not JSON",
        created_at=iso(0.0),
        completed_at=iso(0.0),
    )
    insert_records(db, [record])

    assert declared_people(db, DEFAULT_TENANT) == frozenset()


def test_a_part_of_a_name_is_a_whole_word_of_it() -> None:
    assert is_part_of_a_name("KOWALCZYK", ["Zbigniew Kowalczyk"])
    assert not is_part_of_a_name("kowal", ["Zbigniew Kowalczyk"])
