"""Turns: what was said lately, and pairs of a response and the turn that followed it in its conversation.

Reads ``responses`` and its signals only.
"""

from collections.abc import Iterator

import msgspec

from store.database import Database

PAGE = 1000  # pairs in memory at once


class FollowedResponse(msgspec.Struct, frozen=True):
    """A response that was answered by another turn of the same conversation."""

    response_id: str
    user_id: str
    completed_at: str
    request_hash: str
    reply_json: str | None
    next_messages_json: str  # what the following turn added
    next_request_hash: str
    next_created_at: str
    families: frozenset[str]  # of the signals that it has already


class Turn(msgspec.Struct, frozen=True):
    """What was said in one turn."""

    messages_json: str
    question: str
    answer: str


def recent_turns(db: Database, tenant_id: str, *, limit: int) -> Iterator[Turn]:
    """Yield the tenant's newest turns, the newest first, at most *limit*."""
    rows = db.batches(
        """
        SELECT messages_json, question, coalesce(iif(json_valid(reply_json), reply_json ->> '$.content', ''), '')
        FROM responses WHERE tenant_id = :tenant_id ORDER BY created_at DESC LIMIT :limit
        """,
        {"tenant_id": tenant_id, "limit": limit},
        size=PAGE,
    )
    for batch in rows:
        for messages, question, answer in batch:
            yield Turn(messages, question, str(answer))


def newest_response(db: Database, tenant_id: str, *, after: int = 0) -> int:
    """Return the ``seq`` of the tenant's newest response; *after* when none came after it."""
    # By seq alone: what came since a cursor is little, and no index has a tenant's responses in this order.
    found = db.value("SELECT max(seq) FROM responses WHERE +tenant_id = :t AND seq > :a", {"t": tenant_id, "a": after})
    return after if found is None else int(found)


def newest_signal(db: Database, tenant_id: str, *, after: int = 0) -> int:
    """Return the ``seq`` of the tenant's newest signal; *after* when none came after it."""
    sql = "SELECT max(seq) FROM response_feedback WHERE +tenant_id = :t AND seq > :a"
    found = db.value(sql, {"t": tenant_id, "a": after})
    return after if found is None else int(found)


def followed_responses(db: Database, tenant_id: str, *, after: int, until: int) -> Iterator[FollowedResponse]:
    """Yield each complete response whose following turn arrived in ``after < seq <= until``, in order of arrival."""
    cursor = after
    while True:
        rows = db.rows(
            """
            SELECT n.seq, p.id, p.user_id, p.completed_at, p.request_hash, p.reply_json,
              n.messages_json AS next_messages_json, n.request_hash AS next_request_hash,
              n.created_at AS next_created_at,
              (SELECT group_concat(f.family) FROM response_feedback AS f WHERE f.response_id = p.id) AS families
            FROM responses AS n JOIN responses AS p ON p.seq = (
              SELECT max(e.seq) FROM responses AS e
              WHERE e.tenant_id = n.tenant_id AND e.conversation_id = n.conversation_id AND e.seq < n.seq)
            WHERE +n.tenant_id = :tenant_id AND n.seq > :after AND n.seq <= :until AND p.outcome = 'ok'
            ORDER BY n.seq LIMIT :limit
            """,
            {"tenant_id": tenant_id, "after": cursor, "until": until, "limit": PAGE},
        )
        for _, *row, families in rows:
            fields = [*row, frozenset(families.split(",") if families else ())]
            yield FollowedResponse(*fields)
        if len(rows) < PAGE:
            return
        cursor = rows[-1]["seq"]
