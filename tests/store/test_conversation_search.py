"""Conversations are found by what names them and by words of their questions, page by page, and nobody else's."""

import pytest

from store.clock import iso
from store.conversation_search import MAX_READ, search_conversations
from store.database import Database
from store.errors import InvalidError
from store.responses import insert_records
from store.tenants import ensure_tenant
from tests.conftest import NOW_S
from tests.store.test_pattern_evidence import record


def fill(db: Database, n: int) -> None:
    insert_records(
        db,
        [
            record(
                number,
                f"chat-{number}",
                user_id=f"user-{number % 3}",
                question=f"Is Ümit's order {number} late?",
                upstream_id=f"up-{number}",
                created_at=iso(NOW_S + number),
            )
            for number in range(n)
        ],
    )


@pytest.mark.parametrize("text", ["chat-4", "resp-4", "up-4"])
def test_an_id_of_a_conversation_or_a_response_names_it(db: Database, text: str) -> None:
    fill(db, 8)
    assert [one.id for one in search_conversations(db, "default", text).by_name] == ["chat-4"]


def test_a_user_names_their_conversations_the_newest_first(db: Database) -> None:
    fill(db, 8)
    assert [one.id for one in search_conversations(db, "default", "user-1").by_name] == ["chat-7", "chat-4", "chat-1"]


def test_words_are_found_in_questions_page_by_page(db: Database) -> None:
    fill(db, 8)
    found = search_conversations(db, "default", "ORDER", limit=3)
    assert [row.id for row, _ in found.by_words] == ["chat-7", "chat-6", "chat-5"]
    assert found.by_words[0][1] == "Is Ümit's order 7 late?"
    names = []
    while found.next_cursor is not None:
        found = search_conversations(db, "default", "ORDER", limit=3, cursor=found.next_cursor)
        names += [row.id for row, _ in found.by_words]
    assert names == ["chat-4", "chat-3", "chat-2", "chat-1", "chat-0"]


def test_a_page_looks_through_so_many_questions_and_says_how_far(db: Database) -> None:
    fill(db, 8)
    found = search_conversations(db, "default", "order 1 ", most=5)
    assert (found.by_words, found.until) == ([], iso(NOW_S + 3))
    found = search_conversations(db, "default", "order 1 ", cursor=found.next_cursor, most=5)
    assert ([row.id for row, _ in found.by_words], found.next_cursor) == (["chat-1"], None)


def test_nobody_finds_anothers_conversations(db: Database) -> None:
    fill(db, 3)
    ensure_tenant(db, "other", NOW_S)
    for text in ("chat-1", "resp-1", "up-1", "user-1", "order"):
        found = search_conversations(db, "other", text)
        assert (found.by_name, found.by_words, found.until, found.next_cursor) == ([], [], None, None)


@pytest.mark.parametrize("cursor", ["made-up", "WzFd", "WzEsMl0", "WyJhIiwiYiJd"])
def test_a_made_up_cursor_is_refused(db: Database, cursor: str) -> None:
    with pytest.raises(InvalidError):
        search_conversations(db, "default", "x", cursor=cursor)


def test_the_newest_questions_are_read_by_the_index_of_time(db: Database) -> None:
    plan = db.rows(
        """
        EXPLAIN QUERY PLAN SELECT question FROM responses
        WHERE tenant_id = 'default' AND (created_at, seq) < ('9999', 0) ORDER BY created_at DESC, seq DESC LIMIT :n
        """,
        {"n": MAX_READ},
    )
    assert [row["detail"] for row in plan] == [
        "SEARCH responses USING INDEX responses_by_time (tenant_id=? AND created_at<?)"
    ]
