"""The sums of a day are at any moment what its responses and signals add up to."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils import Database as Tool

from store.clock import iso
from store.config import Config, load_config
from store.database import Database, migrate, open_database
from store.feedback import Signal, record_signal, record_traffic_signals, withdraw_signal
from store.migrated_sums import FILL_SUMS
from store.migrations import MIGRATIONS
from store.responses import insert_records
from store.tenants import ensure_tenant
from tests.conftest import NOW_S, SECRET
from tests.store.test_statistics import DAY_S, response

ROUNDED = 9  # digits: sums of floats differ in the last bits with the order that they are made in


def kept(db: Database) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return both tables, rows that hold nothing left out."""
    days = db.rows("SELECT * FROM daily_sums WHERE n_responses > 0 OR n_conversations > 0 ORDER BY tenant_id, day, 3")
    conversations = db.rows("SELECT * FROM conversation_sums ORDER BY 1, 2, 3")
    return rounded(days), rounded(conversations)


def rounded(rows: list[Any]) -> list[tuple[Any, ...]]:
    return [tuple(round(v, ROUNDED) + 0.0 if isinstance(v, float) else v for v in row) for row in rows]


def added_up_anew(db: Database) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return both tables as the records alone say, without changing anything."""
    db.execute("BEGIN")
    try:
        db.execute("DROP TRIGGER conversation_sums_add_up")
        db.execute("DROP TRIGGER conversation_sums_go")
        # A conversation keeps the day on which it was first seen: that its first response was forgotten since does
        # not move it.
        days = {tuple(row)[:3]: row["day"] for row in db.rows("SELECT * FROM conversation_sums")}
        db.execute("DELETE FROM daily_sums")
        db.execute("DELETE FROM conversation_sums")
        statements = FILL_SUMS.split(";\n\n")
        db.execute(statements[0])
        for (tenant_id, conversation_id, arm), day in days.items():
            db.execute(
                """
                UPDATE conversation_sums SET day = :day
                WHERE tenant_id = :t AND conversation_id = :c AND is_holdout = :a
                """,
                {"day": day, "t": tenant_id, "c": conversation_id, "a": arm},
            )
        for statement in statements[1:]:
            db.execute(statement)
        return kept(db)
    finally:
        db.connection.rollback()


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("respond"),
            st.integers(0, 5),  # conversation
            st.integers(0, 2),  # days ago
            st.sampled_from(["ok", "ok", "ok", "error", "cancelled"]),
            st.sampled_from([None, 0, 70]),  # prompt tokens
        ),
        st.tuples(
            st.just("signal"),
            st.integers(0, 20),
            st.sampled_from(["thumbs_up", "thumbs_down", "copy", "regenerate", "correction", "dwell_time"]),
            st.sampled_from(["ann", "bob", ""]),
        ),
        st.tuples(  # a page of several, also of the same response and conversation
            st.just("traffic"),
            st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["follow_up", "regenerate"])), max_size=6),
        ),
        st.tuples(st.just("withdraw"), st.integers(0, 20)),
        st.tuples(st.just("forget"), st.integers(0, 20)),
    ),
    max_size=40,
)


def chosen(values: list[str], which: int) -> list[str]:
    return [values[which % len(values)]] if values else []


class History:
    """Carries out steps, and remembers what they made."""

    def __init__(self, db: Database, config: Config) -> None:
        self.db, self.config = db, config
        self.responses: list[str] = []
        self.signals: list[str] = []
        self.n_made = 0

    def do(self, name: str, *values: Any) -> None:
        getattr(self, name)(*values)

    def respond(self, conversation: int, days_ago: int, outcome: str, prompt_tokens: int | None) -> None:
        self.n_made += 1
        one = response(
            self.n_made,
            conversation_id=f"talk-{conversation}",
            is_holdout=conversation == 0,
            outcome=outcome,
            created_at=iso(NOW_S - days_ago * DAY_S),
            prompt_tokens=prompt_tokens,
            injected_tokens=7,
        )
        insert_records(self.db, [one, one])  # the second changes nothing
        self.responses.append(one.id)

    def signal(self, which: int, kind: Any, user: str) -> None:
        for response_id in chosen(self.responses, which):
            self.signals.append(f"sig-{len(self.signals)}")
            given_ = Signal(response_id=response_id, signal=kind, user=user, id=self.signals[-1], value=90.0)
            record_signal(self.db, "default", given_, self.config.feedback, source="api", now_s=NOW_S)

    def traffic(self, page: list[tuple[int, Any]]) -> None:
        found = [
            (Signal(response_id=response_id, signal=kind, user="ann", id=f"t-{response_id}-{kind}"), NOW_S)
            for which, kind in page
            for response_id in chosen(self.responses, which)
        ]
        record_traffic_signals(self.db, "default", found, self.config.feedback)

    def withdraw(self, which: int) -> None:
        for signal_id in chosen(self.signals, which):
            if self.db.value("SELECT 1 FROM response_feedback WHERE id = :id", {"id": signal_id}):
                withdraw_signal(self.db, "default", signal_id)

    def forget(self, which: int) -> None:
        """As forgetting a person does; its signals go with the response."""
        for response_id in chosen(self.responses, which):
            self.db.execute("DELETE FROM responses WHERE id = :id", {"id": response_id})
            self.responses.remove(response_id)


@settings(max_examples=50)
@given(steps=STEPS)
def test_the_sums_are_what_the_records_add_up_to_after_any_history(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    config = load_config(None, {"store": {"url": f"sqlite:///{tmp_path_factory.mktemp('sums')}/t.db"}})
    with open_database(config.store) as db:
        ensure_tenant(db, "default", NOW_S, secret=SECRET)
        history = History(db, config)
        for step in steps:
            history.do(*step)
        assert kept(db) == added_up_anew(db)


def test_an_older_database_has_the_sums_of_its_records_once_it_is_opened(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        MIGRATIONS.apply(Tool(connection), stop_before="m020_daily_sums")
        db = Database(connection, tmp_path / "old.db")
        fill_old(db)

        migrate(db)

        days, conversations = kept(db)
        # tenant, day, arm, responses, signals, satisfaction; with thumbs up, down, follow-up, regenerate; tokens
        # put in, of prompts, of replies, cached; conversations that began, and their squares and products
        assert days == [
            ("default", "2026-11-20", 0, 1, 0, 0.0, 0, 0, 0, 0, 0, 100, 0, 0, 1, 9.0, 1.0, 3.0),
            ("default", "2026-11-21", 0, 2, 3, 1.0, 1, 0, 1, 0, 0, 200, 0, 0, 0, 0.0, 0.0, 0.0),
        ]
        assert conversations == [("default", "talk", 0, "2026-11-20", 3, 1.0)]
        assert (days, conversations) == added_up_anew(db)


def fill_old(db: Database) -> None:
    """Three good responses of one conversation and a failed one, in the shape of the schema of then."""
    db.execute("INSERT INTO tenants (id, name, secret, created_at) VALUES ('default', '', '00', '2026-11-20')")
    db.execute("INSERT INTO conversations VALUES ('default', 'talk', 'proxy', '', 0, NULL, '[]', NULL, '', '')")
    for number, (day, outcome) in enumerate((("20", "ok"), ("21", "ok"), ("21", "ok"), ("21", "error"))):
        db.execute(
            """
            INSERT INTO responses (id, tenant_id, conversation_id, endpoint, upstream, model, user_id, segment, agent,
              question, question_type, data_source, prompt_template, tool_set, response_format, length_band, outcome,
              status, is_stream, is_holdout, generation, injected_tokens, prompt_tokens, latency_ms, tags_json,
              messages_json, history_hash, request_hash, created_at, completed_at)
            VALUES (:id, 'default', 'talk', '', '', '', '', '', 'ai', '', '', '', '', '', '', '', :outcome, 200, 0, 0,
              0, 0, 100, 1.0, '[]', '[]', '', '', :at, :at)
            """,
            {"id": f"resp-{number}", "outcome": outcome, "at": f"2026-11-{day}T10:00:0{number}.000Z"},
        )
    signals = ((1, "thumbs_up", 1.0), (1, "copy", 0.3), (2, "follow_up", 0.0), (3, "thumbs_up", 1.0))
    for number, kind, weight in signals:
        db.execute(
            """
            INSERT INTO response_feedback (id, tenant_id, response_id, user_id, signal_type, family, weight,
              metadata_json, source, created_at)
            VALUES (:id, 'default', :response_id, '', :kind, :kind, :weight, '{}', 'api', '')
            """,
            {"id": f"{number}-{kind}", "response_id": f"resp-{number}", "kind": kind, "weight": weight},
        )
