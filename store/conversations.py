"""Table ``conversations``: imported transcripts, and transcripts put together from responses.

Written by the recorder (conversations of the proxy) and by the learner and the command (imports).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from store.clock import iso
from store.database import Database, Row
from store.errors import InvalidError, NotFoundError
from store.paging import decode_cursor, encode_cursor, split_page
from store.pseudonyms import hash_phone
from store.tenants import get_tenant

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Transcript:
    """One conversation as it was, in OpenAI's message shape.

    Each message may also hold ``agent`` (``ai`` or ``human``) and, when it is a recorded reply, ``response_id``.
    """

    id: str
    source: Literal["proxy", "import"]
    user_id: str
    tags: tuple[str, ...]
    is_resolved: bool | None
    created_at: str
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class ConversationRow:
    """A conversation without its messages."""

    id: str
    source: Literal["proxy", "import"]
    user_id: str
    tags: tuple[str, ...]
    is_resolved: bool | None
    is_holdout: bool
    n_responses: int
    created_at: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """What is wrong with one item; ``index`` counts from 0 in the order given."""

    index: int
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What came of an import; ``n_known`` were there before, word for word."""

    n_new: int
    n_changed: int
    n_known: int
    problems: tuple[ImportProblem, ...]

    @property
    def n_accepted(self) -> int:
        """Return how many items are in the database now."""
        return self.n_new + self.n_changed + self.n_known


@dataclass(frozen=True, slots=True)
class ParsedConversation:
    chat_id: str
    messages_json: str
    tags_json: str
    is_resolved: bool | None
    user_id: str


def parse_conversation(item: Any, secret: bytes) -> ParsedConversation:
    """Return the conversation in *item*, which has the shape of the bulk ingest.

    ``{"chatId", "messages": [{"role", "content", "agent": "ai|human"}], "tags": [...], "resolved": true}``;
    ``user`` or ``phoneNumber`` (kept as a hash keyed with *secret*) may say whose it is.

    Raises:
        InvalidError: a field is missing or of the wrong type; the error names it.
    """
    if not isinstance(item, Mapping):
        raise InvalidError("", "a conversation must be an object")
    chat_id = item.get("chatId")
    if not isinstance(chat_id, str) or not chat_id.strip():
        raise InvalidError("chatId", "must be a text that is not empty")
    messages = item.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidError("messages", "must be a list that is not empty")
    resolved = item.get("resolved")
    if resolved is not None and not isinstance(resolved, bool):
        raise InvalidError("resolved", "must be true, false or null")
    return ParsedConversation(
        chat_id=chat_id,
        messages_json=_encode(
            [_message(message, f"messages[{index}]") for index, message in enumerate(messages)], "messages"
        ),
        tags_json=_encode(_tags(item.get("tags")), "tags"),
        is_resolved=resolved,
        user_id=_user(item, secret),
    )


def _message(message: Any, field: str) -> Message:
    if not isinstance(message, Mapping):
        raise InvalidError(field, "must be an object")
    if message.get("role") not in ROLES:
        raise InvalidError(f"{field}.role", f"must be one of {', '.join(ROLES)}")
    content = message.get("content")
    is_call = bool(message.get("tool_calls")) and content is None
    if not is_call and not isinstance(content, (str, list)):
        raise InvalidError(f"{field}.content", "must be a text or a list of parts")
    if message.get("agent") not in (None, "ai", "human"):
        raise InvalidError(f"{field}.agent", "must be ai or human")
    return dict(message)


def _tags(tags: Any) -> tuple[str, ...]:
    if tags is None:
        return ()
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidError("tags", "must be a list of texts")
    return tuple(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))


def _encode(value: Any, field: str) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, TypeError) as exc:
        raise InvalidError(field, f"cannot be written as JSON: {exc}") from exc


def _user(item: Mapping[str, Any], secret: bytes) -> str:
    for field in ("user", "phoneNumber"):
        value = item.get(field)
        if value is not None and not isinstance(value, str):
            raise InvalidError(field, "must be a text")
    if item.get("user"):
        return str(item["user"])
    return hash_phone(secret, item["phoneNumber"]) if item.get("phoneNumber") else ""


def import_conversations(
    db: Database, tenant_id: str, conversations: Iterable[Mapping[str, Any]], *, now_s: float
) -> ImportResult:
    """Take in whole conversations in the bulk-ingest shape and return what came of them; bad items are left out.

    The same ``chatId`` again is the same conversation: equal changes nothing, longer replaces. One that came through
    the proxy keeps its recorded messages and takes over tags and ``resolved`` only.

    Raises:
        NotFoundError: there is no such tenant.
    """
    secret = get_tenant(db, tenant_id).secret
    counts = {"new": 0, "changed": 0, "known": 0}
    problems = []
    with db.transaction():
        for index, item in enumerate(conversations):
            try:
                parsed = parse_conversation(item, secret)
            except InvalidError as exc:
                problems.append(ImportProblem(index, exc.field, str(exc)))
            else:
                counts[_store(db, tenant_id, parsed, iso(now_s))] += 1
    return ImportResult(counts["new"], counts["changed"], counts["known"], tuple(problems))


def _store(db: Database, tenant_id: str, parsed: ParsedConversation, now: str) -> Literal["new", "changed", "known"]:
    values = {
        "tenant_id": tenant_id,
        "id": parsed.chat_id,
        "user_id": parsed.user_id,
        "is_resolved": None if parsed.is_resolved is None else int(parsed.is_resolved),
        "tags_json": parsed.tags_json,
        "messages_json": parsed.messages_json,
        "now": now,
    }
    is_known = db.value("SELECT 1 FROM conversations WHERE tenant_id = :tenant_id AND id = :id", values)
    changed = db.execute(
        """
        INSERT INTO conversations (tenant_id, id, source, user_id, is_holdout, is_resolved, tags_json, messages_json,
          created_at, updated_at)
        VALUES (:tenant_id, :id, 'import', :user_id, 0, :is_resolved, :tags_json, :messages_json, :now, :now)
        ON CONFLICT (tenant_id, id) DO UPDATE SET
          user_id = CASE conversations.user_id WHEN '' THEN excluded.user_id ELSE conversations.user_id END,
          is_resolved = coalesce(excluded.is_resolved, conversations.is_resolved),
          tags_json = CASE WHEN excluded.tags_json = '[]' THEN conversations.tags_json ELSE excluded.tags_json END,
          messages_json = CASE conversations.source WHEN 'import' THEN excluded.messages_json END,
          updated_at = excluded.updated_at
        WHERE coalesce(excluded.is_resolved, conversations.is_resolved) IS NOT conversations.is_resolved
          OR excluded.tags_json NOT IN ('[]', conversations.tags_json)
          OR (conversations.user_id = '' AND excluded.user_id <> '')
          OR (conversations.source = 'import' AND excluded.messages_json IS NOT conversations.messages_json)
        """,
        values,
    )
    if not is_known:
        return "new"
    return "changed" if changed else "known"


def transcript(db: Database, tenant_id: str, conversation_id: str) -> Transcript:
    """Return the whole conversation: as imported, or put together from its responses in the order they came.

    A reply that the user had made again is left out for the later one.

    Raises:
        NotFoundError: the tenant has no such conversation.
    """
    row = db.row(
        """
        SELECT id, source, user_id, tags_json, is_resolved, created_at, messages_json FROM conversations
        WHERE tenant_id = :tenant_id AND id = :id
        """,
        {"tenant_id": tenant_id, "id": conversation_id},
    )
    if row is None:
        raise NotFoundError(f"no conversation {conversation_id!r}")
    messages = (
        _decoded(row["messages_json"])
        if row["messages_json"] is not None
        else _recorded_messages(db, tenant_id, conversation_id)
    )
    return Transcript(
        id=row["id"],
        source=row["source"],
        user_id=row["user_id"],
        tags=tuple(msgspec.json.decode(row["tags_json"])),
        is_resolved=None if row["is_resolved"] is None else bool(row["is_resolved"]),
        created_at=row["created_at"],
        messages=tuple(messages),
    )


def find_transcript(db: Database, tenant_id: str, conversation_id: str | None) -> Transcript | None:
    """Return the whole conversation, None when no id is known or the tenant has no such conversation (any more)."""
    try:
        return None if conversation_id is None else transcript(db, tenant_id, conversation_id)
    except NotFoundError:
        return None


def _recorded_messages(db: Database, tenant_id: str, conversation_id: str) -> list[Message]:
    rows = db.rows(
        """
        SELECT id, agent, messages_json, reply_json, request_hash FROM responses
        WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id ORDER BY seq
        """,
        {"tenant_id": tenant_id, "conversation_id": conversation_id},
    )
    messages: list[Message] = []
    for row in _without_replaced(rows):
        messages += _decoded(row["messages_json"])
        if row["reply_json"] is not None:
            reply = msgspec.json.decode(row["reply_json"])
            messages.append({**reply, "agent": row["agent"], "response_id": row["id"]})
    return messages


def _decoded(messages_json: str) -> list[Message]:
    """Return messages as an app sent them; none where a number or a nesting is beyond what can be read."""
    try:
        return msgspec.json.decode(messages_json, type=list[Message])
    except (msgspec.DecodeError, RecursionError):
        return []


def _without_replaced(rows: Sequence[Row]) -> list[Row]:
    """Return *rows* without those that the next one answers again: the same request makes the same hash."""
    return [
        row
        for row, later in zip(rows, [*rows[1:], None], strict=True)
        if later is None or not row["request_hash"] or row["request_hash"] != later["request_hash"]
    ]


_LISTED: Final = """
c.id, c.source, c.user_id, c.tags_json, c.is_resolved, c.is_holdout, c.created_at, c.updated_at,
(SELECT count(*) FROM responses AS r WHERE r.tenant_id = c.tenant_id AND r.conversation_id = c.id) AS n_responses
"""


def _listed(row: Row) -> ConversationRow:
    return ConversationRow(
        id=row["id"],
        source=row["source"],
        user_id=row["user_id"],
        tags=tuple(msgspec.json.decode(row["tags_json"])),
        is_resolved=None if row["is_resolved"] is None else bool(row["is_resolved"]),
        is_holdout=bool(row["is_holdout"]),
        n_responses=row["n_responses"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def find_conversations(db: Database, tenant_id: str, ids: Iterable[str]) -> list[ConversationRow]:
    """Return those of *ids* that the tenant has, in the same order."""
    rows = db.rows(
        f"""
        SELECT {_LISTED} FROM json_each(:ids) AS chosen
        CROSS JOIN conversations AS c ON c.tenant_id = :tenant_id AND c.id = chosen.value ORDER BY chosen.key
        """,
        {"tenant_id": tenant_id, "ids": msgspec.json.encode(list(ids)).decode()},
    )
    return [_listed(row) for row in rows]


def list_conversations(
    db: Database,
    tenant_id: str,
    *,
    source: Literal["proxy", "import"] | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> tuple[list[ConversationRow], str | None]:
    """Return the tenant's conversations, last changed first, and the cursor of the next page."""
    before = decode_cursor(cursor, 2) if cursor else [None, None]
    rows = db.rows(
        f"""
        SELECT {_LISTED} FROM conversations AS c
        WHERE c.tenant_id = :tenant_id AND (:source IS NULL OR c.source = :source)
          AND (:before_at IS NULL OR (c.updated_at, c.id) < (:before_at, :before_id))
        ORDER BY c.updated_at DESC, c.id DESC LIMIT :limit
        """,
        {
            "tenant_id": tenant_id,
            "source": source,
            "before_at": before[0],
            "before_id": before[1],
            "limit": limit + 1,
        },
    )
    page, has_more = split_page(rows, limit)
    found = [_listed(row) for row in page]
    return found, encode_cursor(found[-1].updated_at, found[-1].id) if has_more else None
