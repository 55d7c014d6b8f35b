"""The steps that changes of knowledge are made of, each inside the transaction of its change.

Tables ``ai_contexts`` and ``context_revisions``; written by the learner and the command.
"""

from collections.abc import Sequence

from store.clock import iso
from store.contexts import ContextRow, RevisionStatus, get_context
from store.database import Database
from store.errors import ConflictError
from store.generations import publish
from store.vocabulary import ContextStatus


def in_state(db: Database, tenant_id: str, context_id: str, states: Sequence[ContextStatus], change: str) -> ContextRow:
    """Return the entry, which is in one of *states*.

    Raises:
        NotFoundError: the tenant has no such entry.
        ConflictError: it is in another state and cannot *change*.
    """
    context = get_context(db, tenant_id, context_id)
    if context.status not in states:
        raise ConflictError(f"context {context_id!r} is {context.status} and cannot {change}")
    return context


def decide(db: Database, context_id: str, revision: int, *, status: RevisionStatus, actor: str, now_s: float) -> None:
    """Give one revision its *status*, and say who decided when."""
    db.execute(
        """
        UPDATE context_revisions SET status = :status, decided_by = :actor, decided_at = :now
        WHERE context_id = :id AND revision = :revision
        """,
        {"id": context_id, "revision": revision, "status": status, "actor": actor, "now": iso(now_s)},
    )


def supersede_waiting(db: Database, context: ContextRow, actor: str, now_s: float) -> None:
    """Settle the revision that waits, if one does: it waits no longer."""
    if context.waiting_revision is not None:
        decide(db, context.id, context.waiting_revision, status="superseded", actor=actor, now_s=now_s)


def supersede_approved(db: Database, context_id: str, revision: int) -> None:
    """Settle the revision that was approved before *revision*."""
    db.execute(
        """
        UPDATE context_revisions SET status = 'superseded'
        WHERE context_id = :id AND status = 'approved' AND revision <> :revision
        """,
        {"id": context_id, "revision": revision},
    )


def take_texts(db: Database, context_id: str, revision: int, now_s: float) -> None:
    """Make the texts of *revision* those of the entry."""
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


def serve(
    db: Database, tenant_id: str, context_id: str, *, is_served: bool, actor: str, reason: str, now_s: float
) -> None:
    """Put the entry in service or take it out, and publish the generation that says so."""
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
