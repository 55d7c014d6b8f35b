"""Open WebUI's feedback export: thumbs on recorded answers become signals, other rated chats conversations."""

import copy
from typing import Any

import pytest

from learner.open_webui import Imported, import_ratings, read_rating
from store.clock import iso
from store.config import Config
from store.database import Database
from store.errors import InvalidError
from store.responses import insert_records
from store.tenants import ensure_tenant
from tests.conftest import NOW_S
from tests.store.test_segments import record

ANSWER = "Open Settings, then Security."
QUESTION = "How do I reset my password?"


def rated(answer: str = ANSWER, *, rating: int | str = 1, at_s: float = NOW_S, name: str = "1") -> dict[str, Any]:
    """Return one record as Open WebUI exports it, cut down to what its versions share."""
    messages = {
        "m1": {"id": "m1", "parentId": None, "role": "user", "content": QUESTION, "timestamp": int(at_s) - 2},
        "m2": {
            "id": "m2",
            "parentId": "m1",
            "role": "assistant",
            "content": f'<details type="reasoning" done="true">\n> hm\n</details>\n{answer}\n',
            "timestamp": int(at_s),
            "annotation": {"rating": rating},
        },
        "m3": {"id": "m3", "parentId": "m1", "role": "assistant", "content": "Made again.", "timestamp": int(at_s)},
    }
    return {
        "id": f"aaaa-{name}",
        "user_id": "user-1",
        "version": 0,
        "type": "rating",
        "data": {"rating": rating, "model_id": "m", "reason": "accurate_information", "comment": "Thanks", "tags": []},
        "meta": {"chat_id": f"chat-{name}", "message_id": "m2", "message_index": 2, "arena": False},
        "snapshot": {"chat": {"id": f"chat-{name}", "chat": {"history": {"messages": messages, "currentId": "m3"}}}},
        "created_at": int(at_s) + 60,
        "updated_at": int(at_s) + 60,
    }


@pytest.fixture(autouse=True)
def responses(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    reply = '{"role":"assistant","content":"Open Settings, then Security.\\n"}'
    made = {"reply_json": reply, "created_at": iso(NOW_S + 1), "outcome": "ok"}
    insert_records(
        db,
        [
            record(1, question=QUESTION, **made),
            record(2, question="Another question with the same answer", **made),
            record(3, question=QUESTION, tenant_id="other", **made),
            record(4, question=QUESTION, **{**made, "created_at": iso(NOW_S + 90_000)}),
        ],
    )


def load(db: Database, config: Config, *items: Any) -> Imported:
    return import_ratings(db, "default", items, config, now_s=NOW_S)


def signals(db: Database) -> list[tuple[Any, ...]]:
    query = "SELECT response_id, user_id, signal_type, comment FROM response_feedback ORDER BY seq"
    return [tuple(row) for row in db.rows(query)]


def test_a_thumb_is_put_on_the_answer_that_says_the_same_to_the_same_question_at_that_time(
    db: Database, config: Config
) -> None:
    done = load(db, config, rated())
    assert (done.n_signals, done.n_conversations, done.problems) == (1, 0, ())
    assert signals(db) == [("resp_000001", "user-1", "thumbs_up", "accurate_information: Thanks")]


def test_the_same_export_again_changes_nothing_and_a_changed_rating_replaces(db: Database, config: Config) -> None:
    for item in (rated(), rated(), {**rated(rating="-1"), "updated_at": int(NOW_S) + 600}):
        load(db, config, item)
    assert [row[2] for row in signals(db)] == ["thumbs_down"]


def test_a_rated_chat_that_was_not_recorded_is_kept_as_a_conversation(db: Database, config: Config) -> None:
    done = load(db, config, rated("Nobody recorded this.", rating=-1, name="9"), rated("Nor this.", name="8"))
    rows = db.rows("SELECT id, is_resolved, user_id, messages_json FROM conversations WHERE source = 'import'")
    found = {row["id"]: (row["is_resolved"], row["user_id"]) for row in rows}
    again = load(db, config, rated("Nor this.", name="8"))
    assert (done.n_signals, done.n_conversations, again.n_known) == (0, 2, 1)
    assert found == {"open-webui-chat-9": (0, "user-1"), "open-webui-chat-8": (1, "user-1")}
    assert all("reasoning" not in row["messages_json"] and "Made again" not in row["messages_json"] for row in rows)


@pytest.mark.parametrize("place", ["chat.chat", "chat", "snapshot"])
@pytest.mark.parametrize("as_list", [True, False])
def test_a_snapshot_is_read_however_deep_a_version_nests_it(place: str, as_list: bool) -> None:
    item = rated()
    history = item["snapshot"]["chat"]["chat"]["history"]
    if as_list:
        history["messages"] = list(history["messages"].values())
    item["snapshot"] = {
        "chat.chat": {"chat": {"chat": {"history": history}}},
        "chat": {"chat": {"history": history}},
        "snapshot": {"chat": {"id": "c", "title": "t"}, "history": history},
    }[place]
    rating = read_rating(item)
    assert (rating.question, rating.answer) == (QUESTION, ANSWER)


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("data", "rating"), None, "data.rating"),
        (("data", "rating"), 7, "data.rating"),
        (("data",), [], "data"),
        (("meta", "message_id"), "gone", "meta.message_id"),
        (("meta", "chat_id"), None, "meta.chat_id"),
        (("snapshot",), None, "snapshot"),
        (("snapshot",), {"chat": {}}, "snapshot"),
        (("updated_at",), "yesterday", "updated_at"),
        (("id",), "", "id"),
    ],
)
def test_a_bad_record_is_named_and_the_good_ones_are_stored(
    db: Database, config: Config, path: tuple[str, ...], value: Any, field: str
) -> None:
    bad = copy.deepcopy(rated())
    *parents, last = path
    holder = bad
    for name in parents:
        holder = holder[name]
    holder[last] = value
    with pytest.raises(InvalidError) as caught:
        read_rating(bad)
    done = load(db, config, bad, rated())
    assert caught.value.field == field
    assert (done.n_signals, [index for index, _ in done.problems]) == (1, [0])


def test_messages_that_are_each_others_parents_end(db: Database, config: Config) -> None:
    item = rated()
    item["snapshot"]["chat"]["chat"]["history"]["messages"]["m1"]["parentId"] = "m2"
    assert load(db, config, item).n_signals == 1
