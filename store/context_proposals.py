"""New entries, new wordings of known ones, and the conversations that they rest on.

Tables ``ai_contexts``, ``context_revisions``, ``context_sources``; written by the learner and the command.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from store.clock import iso
from store.context_changes import in_state, serve, supersede_waiting, take_texts
from store.contexts import STANDING, ContextRow, Provenance, RevisionStatus, Source, Wording, get_context
from store.database import Database
from store.ids import new_id
from store.vectors import encode_vector


def create_context(
    db: Database,
    tenant_id: str,
    wording: Wording,
    *,
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

    *source_chat_id* is the conversation that represents it, None when a person wrote it. *note* says why it was
    written, for the reviewer.
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
                **_columns(wording),
                "status": "approved" if is_approved else "pending_approval",
                "source_chat_id": source_chat_id,
                "provenance": provenance,
                "reviewed_by": actor if is_approved else None,
                "reviewed_at": now if is_approved else None,
                "now": now,
            },
        )
        _insert_revision(
            db,
            context_id,
            wording,
            revision=1,
            status="approved" if is_approved else "pending_approval",
            source_chat_id=source_chat_id,
            run_id=run_id,
            actor=actor,
            note=note,
            now_s=now_s,
        )
        add_sources(db, tenant_id, context_id, sources, revision=1, now_s=now_s)
        if is_approved:
            serve(db, tenant_id, context_id, is_served=True, actor=actor, reason="context added", now_s=now_s)
    return get_context(db, tenant_id, context_id)


def propose_revision(
    db: Database,
    tenant_id: str,
    context_id: str,
    wording: Wording,
    *,
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
        context = in_state(db, tenant_id, context_id, STANDING, "take a new revision")
        revision = _next_revision(db, context_id)
        supersede_waiting(db, context, actor, now_s)
        _insert_revision(
            db,
            context_id,
            wording,
            revision=revision,
            status="pending_approval",
            source_chat_id=source_chat_id,
            run_id=run_id,
            actor=actor,
            note=note,
            now_s=now_s,
        )
        add_sources(db, tenant_id, context_id, sources, revision=revision, now_s=now_s)
        if context.status == "pending_approval":
            take_texts(db, context_id, revision, now_s)
        else:
            db.execute(
                """
                UPDATE ai_contexts SET pending_revision = :revision, updated_at = :now WHERE id = :id
                """,
                {"id": context_id, "revision": revision, "now": iso(now_s)},
            )
    return get_context(db, tenant_id, context_id)


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


def _columns(wording: Wording) -> dict[str, Any]:
    return {
        "questions_json": _encode(wording.questions),
        "answer": wording.answer,
        "tags_json": _encode(wording.tags),
        "tokens": wording.tokens,
        "embedding": encode_vector(wording.embedding),
        "embedding_model": wording.embedding_model,
    }


def _encode(texts: Sequence[str]) -> str:
    return json.dumps(list(texts), ensure_ascii=False)


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
    wording: Wording,
    *,
    revision: int,
    status: RevisionStatus,
    source_chat_id: str | None,
    run_id: str | None,
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
            **_columns(wording),
            "status": status,
            "source_chat_id": source_chat_id,
            "run_id": run_id,
            "actor": actor,
            "note": note,
            "decided_by": actor if is_decided else None,
            "decided_at": iso(now_s) if is_decided else None,
            "now": iso(now_s),
        },
    )
