"""Whole conversations: imported once, put together from responses, listed page by page."""

import contextlib
import sqlite3
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.conversations import import_conversations, list_conversations, parse_conversation, transcript
from store.database import Database
from store.errors import InvalidError, NotFoundError
from store.records import ResponseRecord
from store.responses import insert_records
from store.tenants import ensure_tenant
from tests.conftest import NOW_S

SECRET = b"secret"


def conversation(chat_id: str = "c1", **changes: Any) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": "Where is my order?"},
        {"role": "assistant", "content": "On its way.", "agent": "human"},
    ]
    return {"chatId": chat_id, "messages": messages, "tags": ["orders"], "resolved": True, **changes}


def record(number: int, messages: list[dict[str, Any]], reply: str | None, **changes: Any) -> ResponseRecord:
    values: dict[str, Any] = {
        "id": f"resp-{number}",
        "tenant_id": "default",
        "conversation_id": "talk",
        "endpoint": "/v1/chat/completions",
        "question_type": "unknown",
        "outcome": "ok",
        "status": 200,
        "latency_ms": 5.0,
        "messages_json": msgspec.json.encode(messages).decode(),
        "reply_json": None if reply is None else msgspec.json.encode({"role": "assistant", "content": reply}).decode(),
        "request_hash": f"hash-{number}",
        "created_at": "2026-11-21T10:00:00.000Z",
        "completed_at": "2026-11-21T10:00:01.000Z",
        **changes,
    }
    return ResponseRecord(**values)


def test_an_imported_conversation_comes_back_word_for_word(db: Database) -> None:
    result = import_conversations(db, "default", [conversation()], now_s=NOW_S)
    assert (result.n_new, result.n_changed, result.n_known, result.problems) == (1, 0, 0, ())
    found = transcript(db, "default", "c1")
    assert found.messages == tuple(conversation()["messages"])
    assert (found.source, found.tags, found.is_resolved) == ("import", ("orders",), True)


def test_the_same_conversation_again_changes_nothing(db: Database) -> None:
    import_conversations(db, "default", [conversation()], now_s=NOW_S)
    result = import_conversations(db, "default", [conversation()], now_s=NOW_S + 60)
    assert (result.n_new, result.n_changed, result.n_known) == (0, 0, 1)
    ((row,), _) = list_conversations(db, "default")
    assert row.updated_at == row.created_at


def test_a_conversation_that_went_on_replaces_what_was_sent_before(db: Database) -> None:
    import_conversations(db, "default", [conversation()], now_s=NOW_S)
    longer = conversation(messages=[*conversation()["messages"], {"role": "user", "content": "Thanks!"}])
    assert import_conversations(db, "default", [longer], now_s=NOW_S + 60).n_changed == 1
    assert transcript(db, "default", "c1").messages[-1]["content"] == "Thanks!"


def test_an_import_without_tags_keeps_those_that_were_known(db: Database) -> None:
    import_conversations(db, "default", [conversation()], now_s=NOW_S)
    import_conversations(db, "default", [conversation(tags=None, resolved=None)], now_s=NOW_S)
    found = transcript(db, "default", "c1")
    assert (found.tags, found.is_resolved) == (("orders",), True)


def test_a_recorded_conversation_takes_over_tags_and_resolved_and_keeps_its_messages(db: Database) -> None:
    insert_records(db, [record(1, [{"role": "user", "content": "Hello"}], "Hi")])
    import_conversations(db, "default", [conversation("talk")], now_s=NOW_S)
    found = transcript(db, "default", "talk")
    assert [message["content"] for message in found.messages] == ["Hello", "Hi"]
    assert (found.source, found.tags, found.is_resolved) == ("proxy", ("orders",), True)


def test_a_transcript_is_put_together_in_the_order_of_the_responses(db: Database) -> None:
    insert_records(
        db,
        [
            record(1, [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], "Hi"),
            record(2, [{"role": "user", "content": "And now?"}], "Go on.", agent="human"),
        ],
    )
    assert transcript(db, "default", "talk").messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi", "agent": "ai", "response_id": "resp-1"},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "Go on.", "agent": "human", "response_id": "resp-2"},
    )


def test_a_reply_that_was_made_again_is_replaced_by_the_later_one(db: Database) -> None:
    asked = [{"role": "user", "content": "Hello"}]
    insert_records(db, [record(1, asked, "Hm", request_hash="same"), record(2, asked, "Hi", request_hash="same")])
    found = transcript(db, "default", "talk").messages
    assert [(message["content"], message.get("response_id")) for message in found] == [
        ("Hello", None),
        ("Hi", "resp-2"),
    ]


def test_a_request_without_a_reply_stands_in_the_transcript(db: Database) -> None:
    insert_records(db, [record(1, [{"role": "user", "content": "Hello"}], None, outcome="upstream_error", status=502)])
    assert transcript(db, "default", "talk").messages == ({"role": "user", "content": "Hello"},)


def test_another_tenant_does_not_see_a_conversation(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    import_conversations(db, "default", [conversation()], now_s=NOW_S)
    with pytest.raises(NotFoundError):
        transcript(db, "other", "c1")
    assert list_conversations(db, "other") == ([], None)


def test_pages_hold_every_conversation_once_last_changed_first(db: Database) -> None:
    for number in range(7):
        import_conversations(db, "default", [conversation(f"c{number}")], now_s=NOW_S + number // 3)
    seen = []
    cursor: str | None = ""
    while cursor is not None:
        rows, cursor = list_conversations(db, "default", limit=2, cursor=cursor or None)
        seen += [row.id for row in rows]
    assert seen == ["c6", "c5", "c4", "c3", "c2", "c1", "c0"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"chatId": ""}, "chatId"),
        ({"chatId": 7}, "chatId"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "agent": "dog"}]}, "messages[0].agent"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages"),
        ({"tags": "orders"}, "tags"),
        ({"tags": [1]}, "tags"),
        ({"resolved": "yes"}, "resolved"),
        ({"user": 7}, "user"),
        ({"phoneNumber": 7}, "phoneNumber"),
    ],
)
def test_a_bad_field_is_named_and_the_other_items_go_in(db: Database, changes: dict[str, Any], field: str) -> None:
    items = [conversation("good"), conversation("bad", **changes)]
    result = import_conversations(db, "default", items, now_s=NOW_S)
    assert result.n_new == 1
    ((index, name),) = [(problem.index, problem.field) for problem in result.problems]
    assert (index, name) == (1, field)


def test_an_item_that_is_no_object_is_a_problem_not_a_crash(db: Database) -> None:
    items: list[Any] = [7, None, "x", []]
    assert [p.index for p in import_conversations(db, "default", items, now_s=NOW_S).problems] == [0, 1, 2, 3]


def test_a_phone_number_is_kept_as_a_hash_only(db: Database) -> None:
    import_conversations(db, "default", [conversation(phoneNumber="+91 98765 43210")], now_s=NOW_S)
    import_conversations(db, "default", [conversation("c2", phoneNumber="+919876543210")], now_s=NOW_S)
    first, second = transcript(db, "default", "c1").user_id, transcript(db, "default", "c2").user_id
    assert first == second
    assert len(first) == 32
    assert "98765" not in "".join(db_text(db))


def db_text(db: Database) -> list[str]:
    copy = sqlite3.connect(":memory:")
    db.connection.backup(copy)
    return list(copy.iterdump())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("chatId", "messages", "tags", "resolved", "user"), JSON)))
def test_any_item_is_read_or_refused_with_a_field(item: dict[str, Any]) -> None:
    field = "chatId"
    with contextlib.suppress(InvalidError):
        try:
            parse_conversation(item, SECRET)
        except InvalidError as exc:
            field = exc.field
            raise
    assert field.split("[")[0].split(".")[0] in ("chatId", "messages", "tags", "resolved", "user")
