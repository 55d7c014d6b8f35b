"""What was in play is stored once and shown row by row; nothing of an older database is lost on the way there."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database as Tool

from store.clock import iso
from store.database import Database, migrate
from store.injection_sets import SingleItems
from store.migrations import MIGRATIONS
from store.records import InjectionRecord, ResponseRecord, decode_line, encode_record, make_set
from store.responses import insert_records
from store.tenants import ensure_tenant
from tests.conftest import NOW_S

SHAPE = (
    InjectionRecord("pattern", "pat_1", "shape", 0.4275, 0.45, True, None, 36),
    InjectionRecord("pattern", "pat_2", "shape", 0.4275, 0.45, False, None, 30),
)
LENGTH = (InjectionRecord("pattern", "pat_3", "length", 0.475, 0.5, False, None, 12),)
CONTEXTS = (
    InjectionRecord("context", "ctx_1", "", 1.0, 1.0, True, 0.831234, 57),
    InjectionRecord("context", "ctx_2", "", 1.0, 1.0, True, 0.7, 40),
)
SETS = (make_set(SHAPE), make_set(LENGTH))
ALL = (*SHAPE, *LENGTH, *CONTEXTS)


def record(number: int, **changes: object) -> ResponseRecord:
    fields: dict[str, object] = {
        "id": f"resp_{number:06d}",
        "tenant_id": "default",
        "conversation_id": f"conv_{number}",
        "endpoint": "/v1/chat/completions",
        "question_type": "unknown",
        "outcome": "ok",
        "status": 200,
        "latency_ms": 1.5,
        "created_at": iso(NOW_S + number),
        "completed_at": iso(NOW_S + number + 1),
        "drawn": f"{SETS[0].set},{SETS[1].set}",
        "injections": CONTEXTS,
    }
    return ResponseRecord(**(fields | changes))  # type: ignore[arg-type]


def shown(db: Database, response_id: str) -> list[tuple[object, ...]]:
    rows = db.rows("SELECT * FROM injections WHERE response_id = :id ORDER BY kind DESC, item_id", {"id": response_id})
    return [tuple(row) for row in rows]


def rows_of(response_id: str, items: tuple[InjectionRecord, ...]) -> list[tuple[object, ...]]:
    return [
        (response_id, i.kind, i.item_id, i.dimension, i.propensity, i.share, int(i.treated), i.similarity, i.tokens)
        for i in items
    ]


def test_what_was_in_play_is_shown_row_by_row(db: Database) -> None:
    insert_records(db, [record(1)], sets=SETS)

    columns = [row["name"] for row in db.rows("SELECT name FROM pragma_table_info('injections')")]
    assert columns == [
        "response_id",
        "kind",
        "item_id",
        "dimension",
        "propensity",
        "share",
        "treated",
        "similarity",
        "tokens",
    ]
    assert shown(db, "resp_000001") == rows_of("resp_000001", ALL)


def test_the_same_in_play_again_adds_no_rows(db: Database) -> None:
    items = SingleItems()
    insert_records(db, [record(number) for number in range(50)], sets=SETS, items=items)
    insert_records(db, [record(number) for number in range(50, 100)], sets=SETS)

    assert db.value("SELECT count(DISTINCT set_id) FROM injection_set_items") == 4
    assert db.value("SELECT count(*) FROM injection_set_items") == 5
    assert db.value("SELECT count(*) FROM injections") == 500


def test_a_line_of_an_older_proxy_lands_as_the_same_rows(db: Database) -> None:
    line = encode_record(record(1, drawn="", injections=ALL))
    assert b"drawn" not in line

    old = decode_line(line)
    assert isinstance(old, ResponseRecord)
    insert_records(db, [old, record(2)], sets=SETS)

    assert shown(db, "resp_000001") == rows_of("resp_000001", ALL)
    assert db.value("SELECT count(DISTINCT injection_sets_json) FROM responses") == 1


def test_a_set_whose_transaction_failed_is_written_again(db: Database) -> None:
    items = SingleItems()
    with pytest.raises(sqlite3.IntegrityError):
        insert_records(db, [record(1), record(2, outcome="ok", status=200, tenant_id="nobody")], sets=SETS, items=items)

    insert_records(db, [record(1)], sets=SETS, items=items)

    assert shown(db, "resp_000001") == rows_of("resp_000001", ALL)


def test_a_conversations_injections_are_found_without_reading_other_responses(db: Database) -> None:
    plan = db.rows(
        """
        EXPLAIN QUERY PLAN
        SELECT i.* FROM responses AS r JOIN injections AS i ON i.response_id = r.id
        WHERE r.tenant_id = 't' AND r.conversation_id = 'c'
        """
    )

    assert [row["detail"] for row in plan if row["detail"].startswith("SCAN")] == ["SCAN s VIRTUAL TABLE INDEX 1:"]


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Database]:
    """A database as it was before injections became sets."""
    with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        MIGRATIONS.apply(Tool(connection), stop_before="m007_injection_sets")
        yield Database(connection, tmp_path / "old.db")


def fill(db: Database, numbers: range) -> None:
    ensure_tenant(db, "default", NOW_S)
    for number in numbers:
        values = {"id": f"resp_{number:06d}", "at": iso(NOW_S + number), "treated": number % 2}
        db.execute(
            "INSERT INTO conversations VALUES ('default', :id, 'proxy', '', 0, NULL, '[]', NULL, :at, :at)", values
        )
        db.execute(
            """
            INSERT INTO responses (id, tenant_id, conversation_id, endpoint, upstream, model, user_id, segment, agent,
              question, question_type, data_source, prompt_template, tool_set, response_format, length_band, outcome,
              status, is_stream, is_holdout, generation, injected_tokens, latency_ms, tags_json, messages_json,
              history_hash, request_hash, created_at, completed_at)
            VALUES (:id, 'default', :id, '', '', '', '', '', 'ai', '', '', '', '', '', '', '', 'ok', 200, 0, 0, 0, 0,
              1.0, '[]', '[]', '', '', :at, :at)
            """,
            values,
        )
        for item in ALL[number % 3 :]:
            db.execute(
                """
                INSERT INTO injections VALUES (:id, :kind, :item_id, :dimension, :propensity, :share, :treated,
                  :similarity, :tokens)
                """,
                values | {name: getattr(item, name) for name in item.__struct_fields__ if name != "treated"},
            )


def test_no_injection_is_lost_when_an_older_database_is_opened(old: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.migrated_injections.CHUNK", 7)  # so that responses lie across chunks
    fill(old, range(60))
    every = "SELECT * FROM injections ORDER BY response_id, kind, item_id"
    before = [tuple(row) for row in old.rows(every)]

    migrate(old)

    assert len(before) == 20 * (5 + 4 + 3)
    assert [tuple(row) for row in old.rows(every)] == before
    assert old.rows("PRAGMA foreign_key_check") == []
    assert int(old.value("SELECT count(DISTINCT set_id) FROM injection_set_items")) == 10
    references = json.loads(old.value("SELECT injection_sets_json FROM responses WHERE id = 'resp_000000'"))
    assert [isinstance(reference, list) for reference in references] == [True, True, False, False]


def test_an_injection_without_its_response_goes_as_it_would_have_with_it(old: Database) -> None:
    fill(old, range(3))
    old.execute("PRAGMA foreign_keys = OFF")
    old.execute("DELETE FROM responses WHERE id = 'resp_000001'")
    old.execute("PRAGMA foreign_keys = ON")

    migrate(old)

    assert old.value("SELECT count(*) FROM injections") == 5 + 3


def test_a_migrated_database_takes_records(old: Database) -> None:
    fill(old, range(3))
    migrate(old)

    insert_records(old, [record(100)], sets=SETS)

    assert shown(old, "resp_000100") == rows_of("resp_000100", ALL)
