"""Tables ``ai_contexts``, ``context_revisions``, ``context_sources``, ``context_flags``: knowledge and its review.

Written by the learner and the command. Life of an entry::

    pending_approval ─ approve ─> approved ─ flag ─> flagged ─ approve ─> approved
           │                          │                 │
           ├ reject ─> rejected       └──── retire ─────┴──> retired
           └ retire, expire ─> retired

A first flag leaves the entry in service, a second one or a person's takes it out until it is approved again. A
proposed revision waits beside the approved one, which keeps serving. Whatever changes what is served publishes a
generation in the same transaction.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from store.clock import days_before, iso
from store.database import Database, Row
from store.errors import ConflictError, NotFoundError
from store.generations import publish
from store.ids import new_id
from store.vocabulary import ContextStatus

Provenance = Literal["person", "correction", "human_answer", "tool_result", "confirmed_answer", "answer"]
RevisionStatus = Literal["pending_approval", "approved", "rejected", "superseded"]
SourceRole = Literal["representative", "support"]

EXPIRED: Final = "expired without a review"
FLAGS_TO_REMOVE: Final = 2  # flags from different conversations that take an entry out of service


@dataclass(frozen=True, slots=True)
class Source:
    """A conversation that an entry was learned from; *user_id* is '' when unknown."""

    conversation_id: str
    user_id: str = ""
    role: SourceRole = "support"


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of ``context_sources``; *revision* is the one that first rested on the conversation."""

    conversation_id: str
    user_id: str
    role: SourceRole
    revision: int


@dataclass(frozen=True, slots=True)
class ContextRow:
    """One knowledge entry: its texts are those of the approved revision, else of the newest."""

    id: str
    tenant_id: str
    questions: tuple[str, ...]
    answer: str
    tags: tuple[str, ...]
    status: ContextStatus
    is_served: bool
    revision: int
    pending_revision: int | None
    source_chat_id: str | None
    n_users: int
    provenance: Provenance
    tokens: int
    embedding: NDArray[np.float32] = field(repr=False, compare=False)
    embedding_model: str
    flag_reason: str | None
    flag_count: int
    reject_reason: str | None
    changed_generation: int
    reviewed_by: str | None
    reviewed_at: str | None
    created_at: str
    updated_at: str

    @property
    def waiting_revision(self) -> int | None:
        """Return the revision that waits for a person: the first one, or a newer one beside the approved."""
        return self.revision if self.status == "pending_approval" else self.pending_revision


@dataclass(frozen=True, slots=True)
class RevisionRow:
    """One wording of an entry and what became of it."""

    context_id: str
    revision: int
    questions: tuple[str, ...]
    answer: str
    tags: tuple[str, ...]
    status: RevisionStatus
    source_chat_id: str | None
    run_id: str | None
    tokens: int
    embedding: NDArray[np.float32] = field(repr=False, compare=False)
    embedding_model: str
    actor: str
    note: str
    decided_by: str | None
    decided_at: str | None
    created_at: str


@dataclass(frozen=True, slots=True)
class FlagRow:
    """One correction of an entry; *conversation_id* is '' when a person flagged it without one."""

    conversation_id: str
    reason: str
    actor: str
    created_at: str


def encode_embedding(embedding: NDArray[np.float32]) -> bytes:
    """Return the bytes of an ``embedding`` column: float32, little-endian."""
    return np.ascontiguousarray(embedding, dtype="<f4").tobytes()


def decode_embedding(blob: bytes) -> NDArray[np.float32]:
    """Return the vector (d,) in an ``embedding`` column; it cannot be written to."""
    return np.frombuffer(blob, dtype="<f4").astype(np.float32, copy=False)


def create_context(
    db: Database,
    tenant_id: str,
    *,
    questions: Sequence[str],
    answer: str,
    tags: Sequence[str],
    embedding: NDArray[np.float32],
    embedding_model: str,
    tokens: int,
    provenance: Provenance,
    source_chat_id: str | None,
    sources: Iterable[Source] = (),
    run_id: str | None = None,
    actor: str,
    now_s: float,
    is_approved: bool = False,
    note: str = "",
) -> ContextRow:
    """Return a new entry: waiting for a person, or (written by one: *is_approved*) served within a second.

    *embedding* (d,) has unit length: the mean of the phrasings' vectors. *tokens* are those of the rendered entry
    (``blocks.context_entry``), cl100k_base. *source_chat_id* is the conversation that represents it, None when a
    person wrote it. *note* says why it was written, for the reviewer.
    """
    context_id = new_id("ctx", now_s)
    now = iso(now_s)
    with db.transaction():
        db.execute(
            """
            INSERT INTO ai_contexts (id, tenant_id, questions_json, answer, tags_json, status, is_served, revision,
              source_chat_id, n_users, provenance, tokens, embedding, embedding_model, changed_generation,
              reviewed_by, reviewed_at, created_at, updated_at)
            VALUES (:id, :tenant_id, :questions_json, :answer, :tags_json, :status, 0, 1,
              :source_chat_id, 0, :provenance, :tokens, :embedding, :embedding_model, 0,
              :reviewed_by, :reviewed_at, :now, :now)
            """,
            {
                "id": context_id,
                "tenant_id": tenant_id,
                "questions_json": _encode(questions),
                "answer": answer,
                "tags_json": _encode(tags),
                "status": "approved" if is_approved else "pending_approval",
                "source_chat_id": source_chat_id,
                "provenance": provenance,
                "tokens": tokens,
                "embedding": encode_embedding(embedding),
                "embedding_model": embedding_model,
                "reviewed_by": actor if is_approved else None,
                "reviewed_at": now if is_approved else None,
                "now": now,
            },
        )
        _insert_revision(
            db,
            context_id,
            revision=1,
            questions=questions,
            answer=answer,
            tags=tags,
            status="approved" if is_approved else "pending_approval",
            source_chat_id=source_chat_id,
            run_id=run_id,
            tokens=tokens,
            embedding=embedding,
            embedding_model=embedding_model,
            actor=actor,
            note=note,
            now_s=now_s,
        )
        add_sources(db, tenant_id, context_id, sources, revision=1, now_s=now_s)
        if is_approved:
            _serve(db, tenant_id, context_id, is_served=True, actor=actor, reason="context added", now_s=now_s)
    return get_context(db, tenant_id, context_id)


def propose_revision(
    db: Database,
    tenant_id: str,
    context_id: str,
    *,
    questions: Sequence[str],
    answer: str,
    tags: Sequence[str],
    embedding: NDArray[np.float32],
    embedding_model: str,
    tokens: int,
    source_chat_id: str | None,
    sources: Iterable[Source] = (),
    run_id: str | None = None,
    actor: str,
    now_s: float,
    note: str = "",
) -> ContextRow:
    """Return the entry with a newer wording that waits for a person; what is approved keeps serving.

    A wording that waited already is superseded by the new one.

    Raises:
        NotFoundError: no such entry.
        ConflictError: the entry is rejected or retired.
    """
    with db.transaction():
        context = _in_state(
            db, tenant_id, context_id, ("pending_approval", "approved", "flagged"), "take a new revision"
        )
        revision = _next_revision(db, context_id)
        _supersede(db, context, actor, now_s)
        _insert_revision(
            db,
            context_id,
            revision=revision,
            questions=questions,
            answer=answer,
            tags=tags,
            status="pending_approval",
            source_chat_id=source_chat_id,
            run_id=run_id,
            tokens=tokens,
            embedding=embedding,
            embedding_model=embedding_model,
            actor=actor,
            note=note,
            now_s=now_s,
        )
        add_sources(db, tenant_id, context_id, sources, revision=revision, now_s=now_s)
        if context.status == "pending_approval":
            _take_texts(db, context_id, revision, now_s)
        else:
            db.execute(
                """
                UPDATE ai_contexts SET pending_revision = :revision, updated_at = :now WHERE id = :id
                """,
                {"id": context_id, "revision": revision, "now": iso(now_s)},
            )
    return get_context(db, tenant_id, context_id)


def edit_context(
    db: Database,
    tenant_id: str,
    context_id: str,
    *,
    questions: Sequence[str],
    answer: str,
    tags: Sequence[str],
    embedding: NDArray[np.float32],
    embedding_model: str,
    tokens: int,
    actor: str,
    now_s: float,
    note: str = "",
) -> ContextRow:
    """Return the entry as a person rewrote it: an approved or flagged one serves the new text within a second.

    A pending one still waits for its approval. What waited beside an approved one is superseded: its editor saw it.

    Raises:
        NotFoundError: no such entry.
        ConflictError: the entry is rejected or retired.
    """
    with db.transaction():
        before = get_context(db, tenant_id, context_id)
        context = propose_revision(
            db,
            tenant_id,
            context_id,
            questions=questions,
            answer=answer,
            tags=tags,
            embedding=embedding,
            embedding_model=embedding_model,
            tokens=tokens,
            source_chat_id=before.source_chat_id,
            actor=actor,
            now_s=now_s,
            note=note,
        )
        if before.status != "pending_approval":
            context = approve_context(db, tenant_id, context_id, actor=actor, now_s=now_s)
    return context


def approve_context(
    db: Database, tenant_id: str, context_id: str, *, actor: str, now_s: float, revision: int | None = None
) -> ContextRow:
    """Return the entry in service: the waiting revision if there is one, else (flagged) the text as it stands.

    *revision* is what the reviewer saw; None approves whatever waits.

    Raises:
        NotFoundError: no such entry.
        ConflictError: nothing waits for an approval, or another revision than *revision* does.
    """
    with db.transaction():
        context = _in_state(db, tenant_id, context_id, ("pending_approval", "approved", "flagged"), "be approved")
        waiting = context.waiting_revision
        if waiting is None and context.status == "approved":
            raise ConflictError(f"context {context_id!r} is approved already and no revision waits")
        chosen = waiting if waiting is not None else context.revision
        if revision not in (None, chosen):
            raise ConflictError(f"context {context_id!r} waits with revision {chosen}, not {revision}")
        if waiting is not None:
            _decide(db, context_id, waiting, status="approved", actor=actor, now_s=now_s)
            _supersede_approved(db, context_id, waiting)
            _take_texts(db, context_id, waiting, now_s)
        db.execute(
            """
            UPDATE ai_contexts SET status = 'approved', pending_revision = NULL, flag_count = 0, flag_reason = NULL,
              reviewed_by = :actor, reviewed_at = :now WHERE id = :id
            """,
            {"id": context_id, "actor": actor, "now": iso(now_s)},
        )
        _serve(db, tenant_id, context_id, is_served=True, actor=actor, reason="context approved", now_s=now_s)
    return get_context(db, tenant_id, context_id)


def reject_context(
    db: Database, tenant_id: str, context_id: str, *, reason: str, actor: str, now_s: float, revision: int | None = None
) -> ContextRow:
    """Return the entry without what waited: a pending one is rejected, an approved one keeps its approved text.

    A flagged entry beside which nothing waits is rejected and leaves service.

    Raises:
        NotFoundError: no such entry.
        ConflictError: nothing waits, or another revision than *revision* does (retire what is approved).
    """
    with db.transaction():
        context = _in_state(db, tenant_id, context_id, ("pending_approval", "approved", "flagged"), "be rejected")
        waiting = context.waiting_revision
        if waiting is None and context.status == "approved":
            raise ConflictError(f"context {context_id!r} is approved and no revision waits: retire it instead")
        chosen = waiting if waiting is not None else context.revision
        if revision not in (None, chosen):
            raise ConflictError(f"context {context_id!r} waits with revision {chosen}, not {revision}")
        _decide(db, context_id, chosen, status="rejected", actor=actor, now_s=now_s)
        is_whole = chosen == context.revision
        db.execute(
            """
            UPDATE ai_contexts SET status = :status, pending_revision = NULL, reject_reason = :reason,
              reviewed_by = :actor, reviewed_at = :now, updated_at = :now WHERE id = :id
            """,
            {
                "id": context_id,
                "status": "rejected" if is_whole else context.status,
                "reason": reason,
                "actor": actor,
                "now": iso(now_s),
            },
        )
        if is_whole and context.is_served:
            _serve(db, tenant_id, context_id, is_served=False, actor=actor, reason="context rejected", now_s=now_s)
    return get_context(db, tenant_id, context_id)


def flag_context(
    db: Database,
    tenant_id: str,
    context_id: str,
    *,
    reason: str,
    actor: str,
    now_s: float,
    conversation_id: str = "",
    by_person: bool = False,
) -> ContextRow:
    """Return the entry marked as doubtful: the first flag leaves it in service, the second or a person's does not.

    The same conversation counts once, for ever: what a reviewer approved again is not flagged by the old correction.

    Raises:
        NotFoundError: no such entry.
        ConflictError: the entry is neither approved nor flagged.
    """
    with db.transaction():
        context = _in_state(db, tenant_id, context_id, ("approved", "flagged"), "be flagged")
        is_new = db.execute(
            """
            INSERT INTO context_flags (context_id, tenant_id, conversation_id, reason, actor, created_at)
            VALUES (:id, :tenant_id, :conversation_id, :reason, :actor, :now)
            ON CONFLICT (context_id, conversation_id) DO NOTHING
            """,
            {
                "id": context_id,
                "tenant_id": tenant_id,
                "conversation_id": conversation_id,
                "reason": reason,
                "actor": actor,
                "now": iso(now_s),
            },
        )
        if not is_new and conversation_id:
            return context
        db.execute(
            """
            UPDATE ai_contexts SET status = 'flagged', flag_count = flag_count + 1, flag_reason = :reason,
              updated_at = :now WHERE id = :id
            """,
            {"id": context_id, "reason": reason, "now": iso(now_s)},
        )
        if context.is_served and (by_person or context.flag_count + 1 >= FLAGS_TO_REMOVE):
            _serve(db, tenant_id, context_id, is_served=False, actor=actor, reason="context flagged", now_s=now_s)
    return get_context(db, tenant_id, context_id)


def retire_context(
    db: Database, tenant_id: str, context_id: str, *, reason: str, actor: str, now_s: float
) -> ContextRow:
    """Return the entry out of service for good; what waited beside it is superseded.

    Raises:
        NotFoundError: no such entry.
        ConflictError: the entry is rejected or retired already.
    """
    with db.transaction():
        context = _in_state(db, tenant_id, context_id, ("pending_approval", "approved", "flagged"), "be retired")
        _supersede(db, context, actor, now_s)
        db.execute(
            """
            UPDATE ai_contexts SET status = 'retired', pending_revision = NULL, reject_reason = :reason,
              reviewed_by = :actor, reviewed_at = :now, updated_at = :now WHERE id = :id
            """,
            {"id": context_id, "reason": reason, "actor": actor, "now": iso(now_s)},
        )
        if context.is_served:
            _serve(db, tenant_id, context_id, is_served=False, actor=actor, reason="context retired", now_s=now_s)
    return get_context(db, tenant_id, context_id)


def expire_pending(
    db: Database, tenant_id: str, *, pending_days: float, now_s: float, actor: str = "learner"
) -> list[str]:
    """Return the ids of entries whose waiting text nobody looked at for *pending_days*: it waits no longer.

    An entry that was never approved is retired; an approved one goes on with its approved text.
    """
    parameters = {
        "tenant_id": tenant_id,
        "before": days_before(now_s, pending_days),
        "reason": EXPIRED,
        "actor": actor,
        "now": iso(now_s),
    }
    with db.transaction():
        rows = db.rows(
            """
            SELECT c.id FROM ai_contexts AS c
            JOIN context_revisions AS r ON r.context_id = c.id AND r.status = 'pending_approval'
            WHERE c.tenant_id = :tenant_id AND r.created_at < :before
            ORDER BY c.id
            """,
            parameters,
        )
        for row in rows:
            expired = {**parameters, "id": row["id"]}
            db.execute(
                """
                UPDATE context_revisions SET status = 'superseded', decided_by = :actor, decided_at = :now
                WHERE context_id = :id AND status = 'pending_approval'
                """,
                expired,
            )
            db.execute(
                """
                UPDATE ai_contexts SET pending_revision = NULL, updated_at = :now,
                  reject_reason = CASE status WHEN 'pending_approval' THEN :reason ELSE reject_reason END,
                  status = CASE status WHEN 'pending_approval' THEN 'retired' ELSE status END
                WHERE id = :id
                """,
                expired,
            )
    return [row["id"] for row in rows]


def add_sources(
    db: Database, tenant_id: str, context_id: str, sources: Iterable[Source], *, revision: int, now_s: float
) -> int:
    """Note the conversations that an entry rests on; one noted before is left as it is. Return the distinct users.

    All conversations of unknown users together count as one user: nobody knows that they are more.
    """
    with db.transaction():
        db.execute_many(
            """
            INSERT INTO context_sources (context_id, tenant_id, conversation_id, revision, role, user_id)
            VALUES (:context_id, :tenant_id, :conversation_id, :revision, :role, :user_id)
            ON CONFLICT (context_id, conversation_id) DO NOTHING
            """,
            [
                {
                    "context_id": context_id,
                    "tenant_id": tenant_id,
                    "conversation_id": source.conversation_id,
                    "revision": revision,
                    "role": source.role,
                    "user_id": source.user_id,
                }
                for source in sources
            ],
        )
        parameters = {"id": context_id, "tenant_id": tenant_id, "now": iso(now_s)}
        n_users = db.value(
            """
            SELECT count(DISTINCT user_id) FROM context_sources WHERE context_id = :id AND tenant_id = :tenant_id
            """,
            parameters,
        )
        db.execute(
            """
            UPDATE ai_contexts SET n_users = :n_users, updated_at = :now
            WHERE id = :id AND tenant_id = :tenant_id AND n_users <> :n_users
            """,
            {**parameters, "n_users": n_users},
        )
    return int(n_users)


def get_context(db: Database, tenant_id: str, context_id: str) -> ContextRow:
    """Return one entry.

    Raises:
        NotFoundError: the tenant has no such entry.
    """
    row = db.row(
        """
        SELECT * FROM ai_contexts WHERE tenant_id = :tenant_id AND id = :id
        """,
        {"tenant_id": tenant_id, "id": context_id},
    )
    if row is None:
        raise NotFoundError(f"no context {context_id!r}")
    return _context(row)


def list_contexts(
    db: Database,
    tenant_id: str,
    *,
    status: ContextStatus | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> tuple[list[ContextRow], str | None]:
    """Return entries, newest first, and the cursor of the next page (None at the end)."""
    rows = db.rows(
        """
        SELECT * FROM ai_contexts
        WHERE tenant_id = :tenant_id AND (:status IS NULL OR status = :status) AND (:cursor IS NULL OR id < :cursor)
        ORDER BY id DESC LIMIT :limit
        """,
        {"tenant_id": tenant_id, "status": status, "cursor": cursor, "limit": limit + 1},
    )
    return [_context(row) for row in rows[:limit]], rows[limit - 1]["id"] if len(rows) > limit else None


def list_waiting(
    db: Database, tenant_id: str, *, limit: int = 100, cursor: str | None = None
) -> tuple[list[tuple[ContextRow, RevisionRow]], str | None]:
    """Return what waits for a person, oldest first: each entry with the revision to decide on (new or changed)."""
    rows = db.rows(
        """
        SELECT c.id, r.revision FROM ai_contexts AS c
        JOIN context_revisions AS r ON r.context_id = c.id AND r.status = 'pending_approval'
        WHERE c.tenant_id = :tenant_id AND (:cursor IS NULL OR c.id > :cursor)
        ORDER BY c.id LIMIT :limit
        """,
        {"tenant_id": tenant_id, "cursor": cursor, "limit": limit + 1},
    )
    waiting = [
        (get_context(db, tenant_id, row["id"]), get_revision(db, tenant_id, row["id"], row["revision"]))
        for row in rows[:limit]
    ]
    return waiting, rows[limit - 1]["id"] if len(rows) > limit else None


def get_revision(db: Database, tenant_id: str, context_id: str, revision: int) -> RevisionRow:
    """Return one wording of an entry.

    Raises:
        NotFoundError: the tenant has no such entry or revision.
    """
    row = db.row(
        """
        SELECT r.* FROM context_revisions AS r JOIN ai_contexts AS c ON c.id = r.context_id
        WHERE c.tenant_id = :tenant_id AND c.id = :id AND r.revision = :revision
        """,
        {"tenant_id": tenant_id, "id": context_id, "revision": revision},
    )
    if row is None:
        raise NotFoundError(f"no revision {revision} of context {context_id!r}")
    return _revision(row)


def list_revisions(
    db: Database, tenant_id: str, context_id: str, *, limit: int = 100, cursor: str | None = None
) -> tuple[list[RevisionRow], str | None]:
    """Return the wordings of an entry, newest first, and the cursor of the next page."""
    rows = db.rows(
        """
        SELECT r.* FROM context_revisions AS r JOIN ai_contexts AS c ON c.id = r.context_id
        WHERE c.tenant_id = :tenant_id AND c.id = :id AND (:cursor IS NULL OR r.revision < CAST(:cursor AS INTEGER))
        ORDER BY r.revision DESC LIMIT :limit
        """,
        {"tenant_id": tenant_id, "id": context_id, "cursor": cursor, "limit": limit + 1},
    )
    return [_revision(row) for row in rows[:limit]], str(rows[limit - 1]["revision"]) if len(rows) > limit else None


def list_sources(
    db: Database, tenant_id: str, context_id: str, *, limit: int = 100, cursor: str | None = None
) -> tuple[list[SourceRow], str | None]:
    """Return the conversations behind an entry by id, and the cursor of the next page."""
    rows = db.rows(
        """
        SELECT conversation_id, user_id, role, revision FROM context_sources
        WHERE tenant_id = :tenant_id AND context_id = :id AND (:cursor IS NULL OR conversation_id > :cursor)
        ORDER BY conversation_id LIMIT :limit
        """,
        {"tenant_id": tenant_id, "id": context_id, "cursor": cursor, "limit": limit + 1},
    )
    sources = [
        SourceRow(row["conversation_id"], row["user_id"], cast("SourceRole", row["role"]), row["revision"])
        for row in rows[:limit]
    ]
    return sources, rows[limit - 1]["conversation_id"] if len(rows) > limit else None


def list_flags(db: Database, tenant_id: str, context_id: str) -> list[FlagRow]:
    """Return the corrections of an entry, oldest first."""
    rows = db.rows(
        """
        SELECT conversation_id, reason, actor, created_at FROM context_flags
        WHERE tenant_id = :tenant_id AND context_id = :id ORDER BY created_at, conversation_id
        """,
        {"tenant_id": tenant_id, "id": context_id},
    )
    return [FlagRow(*tuple(row)) for row in rows]


def known_revisions(db: Database, tenant_id: str) -> list[tuple[ContextRow, RevisionRow]]:
    """Return what a new entry must not repeat: all that is approved or waits, and all that a person turned down.

    A retired entry counts when a person retired it; one that expired unread may come back.
    """
    rows = db.rows(
        """
        SELECT r.* FROM context_revisions AS r JOIN ai_contexts AS c ON c.id = r.context_id
        WHERE c.tenant_id = :tenant_id AND (
          r.status IN ('pending_approval', 'approved', 'rejected')
          OR (c.status = 'retired' AND c.reviewed_by IS NOT NULL AND r.revision = c.revision))
          AND NOT (c.status = 'retired' AND c.reviewed_by IS NULL)
        ORDER BY r.context_id, r.revision
        """,
        {"tenant_id": tenant_id},
    )
    contexts = {
        row["id"]: _context(row)
        for row in db.rows(
            """
            SELECT * FROM ai_contexts WHERE tenant_id = :tenant_id
            """,
            {"tenant_id": tenant_id},
        )
    }
    return [(contexts[row["context_id"]], _revision(row)) for row in rows]


def _encode(texts: Sequence[str]) -> str:
    return json.dumps(list(texts), ensure_ascii=False)


def _in_state(
    db: Database, tenant_id: str, context_id: str, states: Sequence[ContextStatus], change: str
) -> ContextRow:
    context = get_context(db, tenant_id, context_id)
    if context.status not in states:
        raise ConflictError(f"context {context_id!r} is {context.status} and cannot {change}")
    return context


def _next_revision(db: Database, context_id: str) -> int:
    newest = db.value(
        """
        SELECT max(revision) FROM context_revisions WHERE context_id = :id
        """,
        {"id": context_id},
    )
    return int(newest or 0) + 1


def _insert_revision(
    db: Database,
    context_id: str,
    *,
    revision: int,
    questions: Sequence[str],
    answer: str,
    tags: Sequence[str],
    status: RevisionStatus,
    source_chat_id: str | None,
    run_id: str | None,
    tokens: int,
    embedding: NDArray[np.float32],
    embedding_model: str,
    actor: str,
    note: str,
    now_s: float,
) -> None:
    is_decided = status != "pending_approval"
    db.execute(
        """
        INSERT INTO context_revisions (context_id, revision, questions_json, answer, tags_json, status,
          source_chat_id, run_id, tokens, embedding, embedding_model, actor, note, decided_by, decided_at, created_at)
        VALUES (:context_id, :revision, :questions_json, :answer, :tags_json, :status,
          :source_chat_id, :run_id, :tokens, :embedding, :embedding_model, :actor, :note, :decided_by, :decided_at,
          :now)
        """,
        {
            "context_id": context_id,
            "revision": revision,
            "questions_json": _encode(questions),
            "answer": answer,
            "tags_json": _encode(tags),
            "status": status,
            "source_chat_id": source_chat_id,
            "run_id": run_id,
            "tokens": tokens,
            "embedding": encode_embedding(embedding),
            "embedding_model": embedding_model,
            "actor": actor,
            "note": note,
            "decided_by": actor if is_decided else None,
            "decided_at": iso(now_s) if is_decided else None,
            "now": iso(now_s),
        },
    )


def _decide(db: Database, context_id: str, revision: int, *, status: RevisionStatus, actor: str, now_s: float) -> None:
    db.execute(
        """
        UPDATE context_revisions SET status = :status, decided_by = :actor, decided_at = :now
        WHERE context_id = :id AND revision = :revision
        """,
        {"id": context_id, "revision": revision, "status": status, "actor": actor, "now": iso(now_s)},
    )


def _supersede(db: Database, context: ContextRow, actor: str, now_s: float) -> None:
    if context.waiting_revision is not None:
        _decide(db, context.id, context.waiting_revision, status="superseded", actor=actor, now_s=now_s)


def _supersede_approved(db: Database, context_id: str, revision: int) -> None:
    db.execute(
        """
        UPDATE context_revisions SET status = 'superseded'
        WHERE context_id = :id AND status = 'approved' AND revision <> :revision
        """,
        {"id": context_id, "revision": revision},
    )


def _take_texts(db: Database, context_id: str, revision: int, now_s: float) -> None:
    db.execute(
        """
        UPDATE ai_contexts SET (questions_json, answer, tags_json, tokens, embedding, embedding_model, revision,
          source_chat_id) =
          (SELECT r.questions_json, r.answer, r.tags_json, r.tokens, r.embedding, r.embedding_model, r.revision,
             coalesce(r.source_chat_id, ai_contexts.source_chat_id)
           FROM context_revisions AS r WHERE r.context_id = ai_contexts.id AND r.revision = :revision),
          updated_at = :now
        WHERE id = :id
        """,
        {"id": context_id, "revision": revision, "now": iso(now_s)},
    )


def _serve(
    db: Database, tenant_id: str, context_id: str, *, is_served: bool, actor: str, reason: str, now_s: float
) -> None:
    generation = publish(db, tenant_id, plan=None, actor=actor, reason=f"{reason}: {context_id}", now_s=now_s)
    db.execute(
        """
        UPDATE ai_contexts SET is_served = :is_served, changed_generation = :generation, updated_at = :now
        WHERE id = :id AND tenant_id = :tenant_id
        """,
        {
            "id": context_id,
            "tenant_id": tenant_id,
            "is_served": int(is_served),
            "generation": generation,
            "now": iso(now_s),
        },
    )


def _context(row: Row) -> ContextRow:
    return ContextRow(
        id=row["id"],
        tenant_id=row["tenant_id"],
        questions=tuple(json.loads(row["questions_json"])),
        answer=row["answer"],
        tags=tuple(json.loads(row["tags_json"])),
        status=row["status"],
        is_served=bool(row["is_served"]),
        revision=row["revision"],
        pending_revision=row["pending_revision"],
        source_chat_id=row["source_chat_id"],
        n_users=row["n_users"],
        provenance=row["provenance"],
        tokens=row["tokens"],
        embedding=decode_embedding(row["embedding"]),
        embedding_model=row["embedding_model"],
        flag_reason=row["flag_reason"],
        flag_count=row["flag_count"],
        reject_reason=row["reject_reason"],
        changed_generation=row["changed_generation"],
        reviewed_by=row["reviewed_by"],
        reviewed_at=row["reviewed_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _revision(row: Row) -> RevisionRow:
    return RevisionRow(
        context_id=row["context_id"],
        revision=row["revision"],
        questions=tuple(json.loads(row["questions_json"])),
        answer=row["answer"],
        tags=tuple(json.loads(row["tags_json"])),
        status=row["status"],
        source_chat_id=row["source_chat_id"],
        run_id=row["run_id"],
        tokens=row["tokens"],
        embedding=decode_embedding(row["embedding"]),
        embedding_model=row["embedding_model"],
        actor=row["actor"],
        note=row["note"],
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
        created_at=row["created_at"],
    )
