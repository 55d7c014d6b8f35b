"""Tables ``ai_contexts``, ``context_revisions``, ``context_sources``, ``context_flags``: knowledge, to read.

``context_proposals`` writes entries and new wordings, ``context_review`` what becomes of them. Life of an entry::

    pending_approval ─ approve ─> approved ─ flag ─> flagged ─ approve ─> approved
           │                          │                 │
           ├ reject ─> rejected       └──── retire ─────┴──> retired
           └ retire, expire ─> retired

A first flag leaves the entry in service, a second one or a person's takes it out until it is approved again. A
proposed revision waits beside the approved one, which keeps serving. Whatever changes what is served publishes a
generation in the same transaction.
"""

import json
from dataclasses import dataclass, field
from typing import Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from store.database import Database, Row
from store.errors import NotFoundError
from store.paging import decode_cursor, encode_cursor, split_page
from store.vectors import decode_vector
from store.vocabulary import ContextStatus

Provenance = Literal["person", "correction", "human_answer", "tool_result", "confirmed_answer", "answer"]
RevisionStatus = Literal["pending_approval", "approved", "rejected", "superseded"]
SourceRole = Literal["representative", "support"]

STANDING: Final = ("pending_approval", "approved", "flagged")  # the rest was turned down or is over


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
class Wording:
    """The texts of an entry and what follows from them; ``wordings.compose`` makes one.

    *tokens* are those of the rendered entry (``blocks.context_entry``), cl100k_base; *embedding* (d,) has unit
    length, or is zeros for texts without words.
    """

    questions: tuple[str, ...]
    answer: str
    tags: tuple[str, ...]
    tokens: int
    embedding: NDArray[np.float32] = field(repr=False, compare=False)
    embedding_model: str


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
    # No "or" about the status: its index could not be used.
    rows = db.rows(
        f"""
        SELECT * FROM ai_contexts
        WHERE tenant_id = :tenant_id {"" if status is None else "AND status = :status"}
          AND (:cursor IS NULL OR id < :cursor)
        ORDER BY id DESC LIMIT :limit
        """,
        {"tenant_id": tenant_id, "status": status, "cursor": _place(cursor), "limit": limit + 1},
    )
    page, has_more = split_page([_context(row) for row in rows], limit)
    return page, encode_cursor(page[-1].id) if has_more else None


def list_waiting(
    db: Database, tenant_id: str, *, limit: int = 100, cursor: str | None = None
) -> tuple[list[tuple[ContextRow, RevisionRow]], str | None]:
    """Return what waits for a person, oldest first: each entry with the revision to decide on (new or changed)."""
    rows = db.rows(
        """
        SELECT c.id, r.revision FROM context_revisions AS r CROSS JOIN ai_contexts AS c ON c.id = r.context_id
        WHERE r.status = 'pending_approval' AND c.tenant_id = :tenant_id AND r.context_id > :after
        ORDER BY r.context_id LIMIT :limit
        """,
        {"tenant_id": tenant_id, "after": _place(cursor) or "", "limit": limit + 1},
    )
    page, has_more = split_page(rows, limit)
    waiting = [
        (get_context(db, tenant_id, row["id"]), get_revision(db, tenant_id, row["id"], row["revision"])) for row in page
    ]
    return waiting, encode_cursor(page[-1]["id"]) if has_more else None


def find_waiting_of_run(db: Database, tenant_id: str, run_id: str) -> list[str]:
    """Return the ids of entries with a text that *run_id* proposed and that still waits, in order."""
    rows = db.rows(
        """
        SELECT c.id FROM ai_contexts AS c
        JOIN context_revisions AS r ON r.context_id = c.id AND r.status = 'pending_approval'
        WHERE c.tenant_id = :tenant_id AND r.run_id = :run_id ORDER BY c.id
        """,
        {"tenant_id": tenant_id, "run_id": run_id},
    )
    return [row["id"] for row in rows]


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


def wording_to_review(db: Database, context: ContextRow) -> ContextRow | RevisionRow:
    """Return what a reviewer looks at: the wording that waits, or the entry's own when none does."""
    if context.waiting_revision is None:
        return context
    return get_revision(db, context.tenant_id, context.id, context.waiting_revision)


def list_revisions(
    db: Database, tenant_id: str, context_id: str, *, limit: int = 100, cursor: str | None = None
) -> tuple[list[RevisionRow], str | None]:
    """Return the wordings of an entry, newest first, and the cursor of the next page."""
    rows = db.rows(
        """
        SELECT r.* FROM context_revisions AS r JOIN ai_contexts AS c ON c.id = r.context_id
        WHERE c.tenant_id = :tenant_id AND c.id = :id AND (:cursor IS NULL OR r.revision < :cursor)
        ORDER BY r.revision DESC LIMIT :limit
        """,
        {"tenant_id": tenant_id, "id": context_id, "cursor": _place(cursor), "limit": limit + 1},
    )
    page, has_more = split_page([_revision(row) for row in rows], limit)
    return page, encode_cursor(page[-1].revision) if has_more else None


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
        {"tenant_id": tenant_id, "id": context_id, "cursor": _place(cursor), "limit": limit + 1},
    )
    sources = [
        SourceRow(row["conversation_id"], row["user_id"], cast("SourceRole", row["role"]), row["revision"])
        for row in rows
    ]
    page, has_more = split_page(sources, limit)
    return page, encode_cursor(page[-1].conversation_id) if has_more else None


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
        embedding=decode_vector(row["embedding"]),
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
        embedding=decode_vector(row["embedding"]),
        embedding_model=row["embedding_model"],
        actor=row["actor"],
        note=row["note"],
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
        created_at=row["created_at"],
    )


def _place(cursor: str | None) -> str | int | None:
    return decode_cursor(cursor, 1)[0] if cursor else None
