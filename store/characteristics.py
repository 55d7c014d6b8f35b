"""Table ``response_characteristics``: what each reply was like, read once. Written by the learner alone."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from store.database import Database

RECENT: Final = 50  # replies of a conversation that are looked through for the one whose results came


class UnreadReply(msgspec.Struct, frozen=True):
    """A complete reply of the assistant whose characteristics nobody has read yet."""

    seq: int
    question: str
    response_format: str
    length_band: str
    tool_set: str
    messages_json: str  # what was added to the conversation; '' where it has neither tools nor names
    reply_json: str
    conversation_id: str
    created_at: str


class Characteristics(msgspec.Struct, frozen=True):
    """What the extractors found in one reply."""

    seq: int
    values_json: str
    terms: str  # separated by spaces, or a mark that says that they were not looked for


class CallingReply(msgspec.Struct, frozen=True):
    """A reply that called tools, as it was read."""

    seq: int
    created_at: str
    reply_json: str
    values_json: str


def last_read(db: Database, tenant_id: str, version: int) -> int:
    """Return the ``seq`` up to which replies were read by extractors of *version*; 0 when they changed since."""
    row = db.row(
        """
        SELECT seq, version FROM response_characteristics WHERE tenant_id = :tenant_id ORDER BY seq DESC LIMIT 1
        """,
        {"tenant_id": tenant_id},
    )
    return int(row["seq"]) if row is not None and row["version"] == version else 0


def unread_replies(
    db: Database, tenant_id: str, *, after: int, until: int, since_at: str, limit: int
) -> list[UnreadReply]:
    """Return the next replies with ``after < seq <= until`` from *since_at* on, in order of arrival."""
    rows = db.rows(
        """
        SELECT seq, question, response_format, length_band, tool_set,
          iif(tool_set = '' AND NOT instr(messages_json, '"tool"') AND NOT instr(messages_json, '"name"'), '',
            messages_json),
          coalesce(reply_json, '') AS reply_json, conversation_id, created_at
        FROM responses
        WHERE +tenant_id = :tenant_id AND seq > :after AND seq <= :until AND created_at >= :since_at
          AND outcome = 'ok' AND agent = 'ai'
        ORDER BY seq LIMIT :limit
        """,
        {"tenant_id": tenant_id, "after": after, "until": until, "since_at": since_at, "limit": limit},
    )
    return [UnreadReply(*row) for row in rows]


def first_of_newest(db: Database, tenant_id: str, *, until: int, n: int) -> int:
    """Return a ``seq`` from which on the tenant's *n* newest responses up to ``seq`` *until* are found; 0 for none."""
    found = db.value(
        """
        SELECT min(seq) FROM (
          SELECT seq FROM responses WHERE tenant_id = :tenant_id AND seq <= :until ORDER BY created_at DESC LIMIT :n)
        """,
        {"tenant_id": tenant_id, "until": until, "n": n},
    )
    return 0 if found is None else int(found)


def before_first(db: Database, tenant_id: str, *, since_at: str) -> int:
    """Return a ``seq`` before all responses of the tenant since *since_at*: a reader need not look further back."""
    found = db.value(
        "SELECT min(seq) FROM responses WHERE tenant_id = :tenant_id AND created_at >= :since_at",
        {"tenant_id": tenant_id, "since_at": since_at},
    )
    return 0 if found is None else int(found) - 1


def recent_calls(
    db: Database, tenant_id: str, conversation_id: str, *, before: int, version: int
) -> list[CallingReply]:
    """Return those of the conversation's last replies before ``seq`` *before* that called tools, the newest first."""
    rows = db.rows(
        """
        SELECT r.seq, r.created_at, coalesce(r.reply_json, '') AS reply_json, c.values_json
        FROM (
          SELECT seq, created_at, reply_json, response_format FROM responses
          WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id AND seq < :before
          ORDER BY seq DESC LIMIT :limit
        ) AS r JOIN response_characteristics AS c ON c.seq = r.seq
        WHERE r.response_format = 'tool_calls' AND c.version = :version
        ORDER BY r.seq DESC
        """,
        {
            "tenant_id": tenant_id,
            "conversation_id": conversation_id,
            "before": before,
            "version": version,
            "limit": RECENT,
        },
    )
    return [CallingReply(*row) for row in rows]


def save_characteristics(
    db: Database,
    tenant_id: str,
    version: int,
    found: Iterable[Characteristics],
    answers: Mapping[int, int] | None = None,
) -> None:
    """Write what was found; what another version had found is replaced.

    *answers* says which replies are steps of a turn, and the ``seq`` of the reply that ends each as far as it went.
    """
    with db.transaction():
        db.execute_many(
            """
            INSERT INTO response_characteristics (seq, tenant_id, version, values_json, terms)
            VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (seq) DO UPDATE SET version = excluded.version, values_json = excluded.values_json,
              terms = excluded.terms, answer_seq = NULL
            """,
            [(one.seq, tenant_id, version, one.values_json, one.terms) for one in found],
        )
        # A step may have steps before it, of earlier pages and runs.
        db.execute_many(
            """
            UPDATE response_characteristics SET answer_seq = :answer
            WHERE tenant_id = :tenant_id AND (seq = :step OR answer_seq = :step)
            """,
            [{"tenant_id": tenant_id, "step": step, "answer": answer} for step, answer in (answers or {}).items()],
        )
