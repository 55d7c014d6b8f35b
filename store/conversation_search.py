"""Conversations looked for by id, user or words of a question. Reads ``conversations`` and ``responses`` only.

Ids and users have indexes. Words are looked for in the newest questions, so many at a time; the cursor goes on from
there. No index of words: keeping one would cost every recorded response more than its own insertion.
"""

from dataclasses import dataclass
from typing import Final

from store.conversations import ConversationRow, find_conversations
from store.database import Database
from store.errors import InvalidError
from store.paging import decode_cursor, encode_cursor

MAX_READ: Final = 5_000  # questions looked through for one page, about 0.02 s
MAX_OF_USER: Final = 200


@dataclass(frozen=True, slots=True)
class FoundConversations:
    """What was found, the newest first, and how far the questions were looked through."""

    by_name: list[ConversationRow]  # whose id, user or response the text names; on the first page alone
    by_words: list[tuple[ConversationRow, str]]  # with the question that holds the words
    until: str | None  # UTC, of the oldest question that was looked at; None without any
    next_cursor: str | None


def search_conversations(
    db: Database, tenant_id: str, text: str, *, limit: int = 50, cursor: str | None = None, most: int = MAX_READ
) -> FoundConversations:
    """Return conversations that *text* names, and those in which it was asked.

    Args:
        db: the database.
        tenant_id: whose.
        text: an id of a conversation, of a response (ours or the one in its body) or of a user, or words.
        limit: of the conversations with the words; at least 1.
        cursor: of the page before.
        most: questions that are looked through for one page.
    """
    before_at, before_seq = _place(cursor)
    by_name = [] if cursor else find_conversations(db, tenant_id, _named(db, tenant_id, text))
    rows = db.rows(
        """
        SELECT seq, conversation_id, created_at,
          CASE WHEN instr(lower(question), lower(:words)) THEN question END AS question
        FROM responses
        WHERE tenant_id = :tenant_id AND (created_at, seq) < (:before_at, :before_seq)
        ORDER BY created_at DESC, seq DESC LIMIT :most
        """,
        {
            "tenant_id": tenant_id,
            "words": text,
            "before_at": before_at,
            "before_seq": before_seq,
            "most": most,
        },
    )
    found: dict[str, str] = {}
    n_read = 0
    for row in rows:
        n_read += 1
        if row["question"] is not None:
            found.setdefault(row["conversation_id"], row["question"])
            if len(found) == limit:
                break
    conversations = {one.id: one for one in find_conversations(db, tenant_id, found)}
    last = rows[n_read - 1] if n_read else None
    has_more = n_read < len(rows) or len(rows) == most
    return FoundConversations(
        by_name=by_name,
        by_words=[(conversations[one], question) for one, question in found.items() if one in conversations],
        until=last["created_at"] if last is not None else None,
        next_cursor=encode_cursor(last["created_at"], last["seq"]) if last is not None and has_more else None,
    )


def _place(cursor: str | None) -> tuple[str, int]:
    """Return the moment and number before which the page begins."""
    if cursor is None:
        return "9999", 0
    at, seq = decode_cursor(cursor, 2)
    if not isinstance(at, str) or not isinstance(seq, int):
        raise InvalidError("cursor", f"{cursor!r} is not a cursor of this list")
    return at, seq


def _named(db: Database, tenant_id: str, text: str) -> list[str]:
    """Return the ids of conversations that *text* is the id, a user or a response of."""
    rows = db.rows(
        """
        SELECT id FROM conversations WHERE tenant_id = :tenant_id AND id = :text
        UNION ALL
        SELECT conversation_id FROM responses WHERE id = :text AND tenant_id = :tenant_id
        UNION ALL
        SELECT conversation_id FROM responses WHERE tenant_id = :tenant_id AND upstream_id = :text
        UNION ALL
        SELECT id FROM (
          SELECT id FROM conversations WHERE tenant_id = :tenant_id AND user_id = :text AND user_id <> ''
          ORDER BY created_at DESC LIMIT :most)
        LIMIT :most
        """,
        {"tenant_id": tenant_id, "text": text, "most": MAX_OF_USER},
    )
    return list(dict.fromkeys(row[0] for row in rows))
