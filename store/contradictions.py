"""Table ``contradictions``: what a conversation says against an entry, and what a person made of it.

Written by the learner and the command. A conversation contradicts an entry once, for ever: what was resolved is not
opened by the same conversation again.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from store.clock import iso
from store.contexts import Provenance
from store.database import Database, Row
from store.errors import ConflictError, NotFoundError
from store.ids import new_id
from store.paging import decode_cursor, encode_cursor, split_page

ContradictionStatus = Literal["open", "resolved"]
Resolution = Literal["keep", "replace", "retire_both", "no_contradiction"]
CONTRADICTION_STATUSES: tuple[ContradictionStatus, ...] = ("open", "resolved")
RESOLUTIONS: tuple[Resolution, ...] = ("keep", "replace", "retire_both", "no_contradiction")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a conversation says: the texts of the entry that it would be."""

    questions: tuple[str, ...]
    answer: str
    tags: tuple[str, ...]
    conversation_id: str
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class ContradictionRow:
    """One contradiction; *said_before* is the entry's answer when it was opened."""

    id: str
    tenant_id: str
    context_id: str
    said_before: str
    questions: tuple[str, ...]
    answer: str
    tags: tuple[str, ...]
    conversation_id: str
    user_id: str
    provenance: Provenance
    status: ContradictionStatus
    resolution: Resolution | None
    note: str
    run_id: str | None
    resolved_by: str | None
    resolved_at: str | None
    created_at: str


def open_contradiction(
    db: Database, tenant_id: str, context_id: str, said_before: str, claim: Claim, *, run_id: str | None, now_s: float
) -> str | None:
    """Return the id of the new contradiction; None when the conversation contradicted the entry before."""
    contradiction_id = new_id("cdn", now_s)
    with db.transaction():
        n_new = db.execute(
            """
            INSERT INTO contradictions (id, tenant_id, context_id, said_before, questions_json, answer, tags_json,
              conversation_id, provenance, status, note, run_id, created_at)
            VALUES (:id, :tenant_id, :context_id, :said_before, :questions_json, :answer, :tags_json,
              :conversation_id, :provenance, 'open', '', :run_id, :now)
            ON CONFLICT (context_id, conversation_id) DO NOTHING
            """,
            {
                "id": contradiction_id,
                "tenant_id": tenant_id,
                "context_id": context_id,
                "said_before": said_before,
                "questions_json": json.dumps(list(claim.questions), ensure_ascii=False),
                "answer": claim.answer,
                "tags_json": json.dumps(list(claim.tags), ensure_ascii=False),
                "conversation_id": claim.conversation_id,
                "provenance": claim.provenance,
                "run_id": run_id,
                "now": iso(now_s),
            },
        )
    return contradiction_id if n_new else None


def get_contradiction(db: Database, tenant_id: str, contradiction_id: str) -> ContradictionRow:
    """Return one contradiction.

    Raises:
        NotFoundError: the tenant has no such contradiction.
    """
    row = db.row(
        """
        SELECT x.*, coalesce(c.user_id, '') AS user_id FROM contradictions AS x
        LEFT JOIN conversations AS c ON c.tenant_id = x.tenant_id AND c.id = x.conversation_id
        WHERE x.tenant_id = :tenant_id AND x.id = :id
        """,
        {"tenant_id": tenant_id, "id": contradiction_id},
    )
    if row is None:
        raise NotFoundError(f"no contradiction {contradiction_id!r}")
    return _contradiction(row)


def list_contradictions(
    db: Database,
    tenant_id: str,
    *,
    status: ContradictionStatus | None = None,
    context_id: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> tuple[list[ContradictionRow], str | None]:
    """Return contradictions, oldest first, and the cursor of the next page (None at the end)."""
    rows = db.rows(
        """
        SELECT x.*, coalesce(c.user_id, '') AS user_id FROM contradictions AS x
        LEFT JOIN conversations AS c ON c.tenant_id = x.tenant_id AND c.id = x.conversation_id
        WHERE x.tenant_id = :tenant_id AND (:status IS NULL OR x.status = :status)
          AND (:context_id IS NULL OR x.context_id = :context_id) AND (:cursor IS NULL OR x.id > :cursor)
        ORDER BY x.id LIMIT :limit
        """,
        {
            "tenant_id": tenant_id,
            "status": status,
            "context_id": context_id,
            "cursor": decode_cursor(cursor, 1)[0] if cursor else None,
            "limit": limit + 1,
        },
    )
    page, has_more = split_page([_contradiction(row) for row in rows], limit)
    return page, encode_cursor(page[-1].id) if has_more else None


def close_contradiction(
    db: Database, tenant_id: str, contradiction_id: str, *, resolution: Resolution, note: str, actor: str, now_s: float
) -> ContradictionRow:
    """Return the contradiction as resolved; what becomes of the entry is the caller's doing, in the same transaction.

    Raises:
        NotFoundError: the tenant has no such contradiction.
        ConflictError: it is resolved already.
    """
    with db.transaction():
        row = get_contradiction(db, tenant_id, contradiction_id)
        if row.status != "open":
            raise ConflictError(f"contradiction {contradiction_id!r} is resolved already: {row.resolution}")
        db.execute(
            """
            UPDATE contradictions SET status = 'resolved', resolution = :resolution, note = :note,
              resolved_by = :actor, resolved_at = :now WHERE id = :id
            """,
            {"id": contradiction_id, "resolution": resolution, "note": note, "actor": actor, "now": iso(now_s)},
        )
    return get_contradiction(db, tenant_id, contradiction_id)


def settle_contradictions(db: Database, context_id: str, answer: str, *, actor: str, now_s: float) -> None:
    """Resolve what said against an entry the very *answer* that a person approved for it now."""
    db.execute(
        """
        UPDATE contradictions SET status = 'resolved', resolution = 'replace', note = 'its answer was approved',
          resolved_by = :actor, resolved_at = :now
        WHERE context_id = :context_id AND answer = :answer AND status = 'open'
        """,
        {"context_id": context_id, "answer": answer, "actor": actor, "now": iso(now_s)},
    )


def forget_contradictions(
    db: Database, tenant_id: str, conversation_ids: str, withdrawn: Iterable[str], trimmed: Iterable[str]
) -> None:
    """Delete what forgotten conversations (a JSON list) said, and keep nothing of what entries said that is gone."""
    values = {
        "tenant_id": tenant_id,
        "ids": conversation_ids,
        "withdrawn": json.dumps(list(withdrawn)),
        "trimmed": json.dumps(list(trimmed)),
    }
    db.execute(
        """
        DELETE FROM contradictions
        WHERE tenant_id = :tenant_id AND (conversation_id IN (SELECT value FROM json_each(:ids))
          OR context_id IN (SELECT value FROM json_each(:withdrawn)))
        """,
        values,
    )
    db.execute(
        """
        UPDATE contradictions SET said_before = (SELECT answer FROM ai_contexts AS c WHERE c.id = context_id)
        WHERE tenant_id = :tenant_id AND context_id IN (SELECT value FROM json_each(:trimmed))
        """,
        values,
    )


def _contradiction(row: Row) -> ContradictionRow:
    return ContradictionRow(
        id=row["id"],
        tenant_id=row["tenant_id"],
        context_id=row["context_id"],
        said_before=row["said_before"],
        questions=tuple(json.loads(row["questions_json"])),
        answer=row["answer"],
        tags=tuple(json.loads(row["tags_json"])),
        conversation_id=row["conversation_id"],
        user_id=row["user_id"],
        provenance=cast("Provenance", row["provenance"]),
        status=row["status"],
        resolution=row["resolution"],
        note=row["note"],
        run_id=row["run_id"],
        resolved_by=row["resolved_by"],
        resolved_at=row["resolved_at"],
        created_at=row["created_at"],
    )
