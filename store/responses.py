"""Tables ``responses`` and, for traffic, ``conversations``. Written by the recorder alone."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from store.daily_sums import add_responses
from store.database import Database, Row
from store.injection_sets import SingleItems, insert_sets
from store.records import InjectionSet, ResponseRecord


@dataclass(frozen=True, slots=True)
class ResponseRow:
    """What a signal, a transcript or a continued conversation needs of one response."""

    seq: int
    id: str
    tenant_id: str
    conversation_id: str
    upstream_id: str | None
    user_id: str
    question_type: str
    outcome: str
    is_holdout: bool
    messages_json: str
    reply_json: str | None
    history_hash: str
    request_hash: str
    created_at: str
    completed_at: str


@dataclass(frozen=True, slots=True)
class OpeningFacts:
    """A known conversation and the facts of its first response, by which its patterns were drawn."""

    conversation_id: str
    question_type: str
    data_source: str
    prompt_template: str
    segment: str


# Values by position: names cost as much as the insertion itself.
_COLUMNS = tuple(
    name for name in ResponseRecord.__struct_fields__ if name not in ("injections", "drawn", "trace_parent")
)
_response_values = attrgetter(*_COLUMNS)

_INSERT_RESPONSE = f"""
INSERT INTO responses (injection_sets_json, {", ".join(_COLUMNS)})
VALUES (?, {", ".join("?" for _ in _COLUMNS)})
ON CONFLICT DO NOTHING
"""

_conversation_values = attrgetter(
    "tenant_id", "conversation_id", "user_id", "is_holdout", "tags_json", "created_at", "completed_at"
)

_INSERT_CONVERSATION = """
INSERT INTO conversations (tenant_id, id, source, user_id, is_holdout, tags_json, created_at, updated_at)
VALUES (?, ?, 'proxy', ?, ?, ?, ?, ?)
ON CONFLICT (tenant_id, id) DO UPDATE SET
  user_id = CASE WHEN conversations.user_id = '' THEN excluded.user_id ELSE conversations.user_id END,
  tags_json = CASE WHEN conversations.tags_json = '[]' THEN excluded.tags_json ELSE conversations.tags_json END,
  created_at = min(conversations.created_at, excluded.created_at),
  updated_at = max(conversations.updated_at, excluded.updated_at)
"""


def insert_records(
    db: Database,
    records: Sequence[ResponseRecord],
    *,
    sets: Iterable[InjectionSet] = (),
    items: SingleItems | None = None,
) -> None:
    """Write *records* in one transaction; one that is there already changes nothing.

    Args:
        db: the database.
        records: of any tenants.
        sets: what their ``drawn`` refers to, unless it is there already.
        items: what is known to be written, for callers that write again and again.

    Raises:
        UnavailableError: the database is missing, locked or damaged; nothing was written.
        sqlite3.IntegrityError: a record breaks a rule of the schema; nothing was written.
    """
    items = SingleItems() if items is None else items
    try:
        with db.transaction():
            insert_sets(db, sets)
            after = _last_seq(db)
            db.execute_many(_INSERT_CONVERSATION, map(_conversation_values, records))
            db.execute_many(
                _INSERT_RESPONSE, [(items.references(db, record), *_response_values(record)) for record in records]
            )
            until = _last_seq(db)
            items.note(db, after=after, until=until)
            add_responses(db, after=after, until=until)
    except BaseException:
        items.forget()
        raise


def _last_seq(db: Database) -> int:
    return int(db.value("SELECT coalesce(max(seq), 0) FROM responses") or 0)


def find_response(db: Database, tenant_id: str, name: str) -> ResponseRow | None:
    """Return the tenant's response called *name*: our id, else the newest with this id in its body, else None."""
    row = db.row(
        "SELECT * FROM responses WHERE id = :name AND tenant_id = :tenant_id", {"tenant_id": tenant_id, "name": name}
    ) or db.row(
        """
        SELECT * FROM responses WHERE tenant_id = :tenant_id AND upstream_id = :name ORDER BY seq DESC LIMIT 1
        """,
        {"tenant_id": tenant_id, "name": name},
    )
    return _row(row) if row is not None else None


def find_answer(db: Database, tenant_id: str, text: str, question: str, *, since: str, until: str) -> str | None:
    """Return our id of a response of the tenant that says *text*, made between two times; None when there is none.

    Of several, the one to the same question goes first, then the newest. Space around a text does not count.
    """
    found = db.value(
        """
        SELECT id FROM responses
        WHERE tenant_id = :tenant_id AND created_at BETWEEN :since AND :until AND outcome = 'ok'
          AND trim(json_extract(reply_json, '$.content'), :space) = :text
        ORDER BY trim(question, :space) = :question DESC, seq DESC LIMIT 1
        """,
        {
            "tenant_id": tenant_id,
            "since": since,
            "until": until,
            "space": " \t\r\n",
            "text": text.strip(" \t\r\n"),
            "question": question.strip(" \t\r\n"),
        },
    )
    return None if found is None else str(found)


def newest_response_at(db: Database, tenant_id: str) -> str | None:
    """Return when the tenant's newest response was asked for, None without any."""
    found = db.value("SELECT max(created_at) FROM responses WHERE tenant_id = :tenant_id", {"tenant_id": tenant_id})
    return None if found is None else str(found)


def find_history(db: Database, tenant_id: str, history_hashes: Sequence[str]) -> tuple[OpeningFacts, int] | None:
    """Return the conversation with a turn that ended with one of *history_hashes*, and which; the first known wins."""
    for index, history_hash in enumerate(history_hashes):
        conversation_id = db.value(
            """
            SELECT conversation_id FROM responses
            WHERE tenant_id = :tenant_id AND history_hash = :history_hash ORDER BY seq DESC LIMIT 1
            """,
            {"tenant_id": tenant_id, "history_hash": history_hash},
        )
        facts = conversation_id and opening_facts(db, tenant_id, conversation_id)
        if facts:
            return facts, index
    return None


def find_reply(db: Database, tenant_id: str, upstream_id: str) -> OpeningFacts | None:
    """Return the conversation of the tenant's newest response with this id in its body, or None."""
    conversation_id = db.value(
        """
        SELECT conversation_id FROM responses
        WHERE tenant_id = :tenant_id AND upstream_id = :upstream_id ORDER BY seq DESC LIMIT 1
        """,
        {"tenant_id": tenant_id, "upstream_id": upstream_id},
    )
    return opening_facts(db, tenant_id, conversation_id) if conversation_id is not None else None


def opening_facts(db: Database, tenant_id: str, conversation_id: str) -> OpeningFacts | None:
    """Return the facts of the conversation's first response, or None when it has none."""
    row = db.row(
        """
        SELECT conversation_id, question_type, data_source, prompt_template, segment
        FROM responses WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id ORDER BY seq LIMIT 1
        """,
        {"tenant_id": tenant_id, "conversation_id": conversation_id},
    )
    return OpeningFacts(*row) if row is not None else None


def names_a_user(db: Database, tenant_id: str, word: str) -> bool:
    """Return whether *word* is a user's name, or a part of one that consists of letters; case does not matter."""
    rows = db.rows(
        """
        SELECT DISTINCT user_id FROM conversations
        WHERE tenant_id = :tenant_id AND user_id <> '' AND instr(lower(user_id), :word)
        """,
        {"tenant_id": tenant_id, "word": word.lower()},
    )
    names = [row["user_id"].lower() for row in rows]
    return any(word.lower() in (name, *_NO_LETTERS.split(name)) for name in names)


_NO_LETTERS: Final = re.compile(r"[\W\d_]+")


def _row(row: Row) -> ResponseRow:
    return ResponseRow(
        seq=row["seq"],
        id=row["id"],
        tenant_id=row["tenant_id"],
        conversation_id=row["conversation_id"],
        upstream_id=row["upstream_id"],
        user_id=row["user_id"],
        question_type=row["question_type"],
        outcome=row["outcome"],
        is_holdout=bool(row["is_holdout"]),
        messages_json=row["messages_json"],
        reply_json=row["reply_json"],
        history_hash=row["history_hash"],
        request_hash=row["request_hash"],
        created_at=row["created_at"],
        completed_at=row["completed_at"],
    )
