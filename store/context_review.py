"""What becomes of knowledge: approved, rejected, rewritten or retired by a person, flagged, expired.

Tables ``ai_contexts``, ``context_revisions``, ``context_flags``; written by the learner and the command.
"""

from dataclasses import dataclass
from typing import Final

from store.clock import days_before, iso
from store.context_changes import decide, in_state, serve, supersede_approved, supersede_waiting, take_texts
from store.context_proposals import propose_revision
from store.contexts import STANDING, ContextRow, Wording, get_context
from store.contradictions import settle_contradictions
from store.database import Database
from store.errors import ConflictError

EXPIRED: Final = "expired without a review"
FLAGS_TO_REMOVE: Final = 2  # users whose corrections take an entry out of service
PROPOSED_DELETION: Final = "proposed_deletion"  # how the reason of such a flag begins
REMOVED_BY_USERS: Final = "context corrected by users"


@dataclass(frozen=True, slots=True)
class UserGuards:
    """What keeps one user in many accounts from taking entries out of service.

    A user's correction counts towards it only when the user was known *history_h* hours before; users take at most
    *max_removals* entries of a tenant out of service within 24 hours. What does not count still flags, and a reviewer
    still sees it.
    """

    history_h: float = 0.0
    max_removals: int = 1_000_000


NO_GUARDS: Final = UserGuards()


def edit_context(
    db: Database,
    tenant_id: str,
    context_id: str,
    wording: Wording,
    *,
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
            wording,
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
        context = in_state(db, tenant_id, context_id, STANDING, "be approved")
        chosen = _chosen_revision(context, revision)
        if chosen == context.waiting_revision:
            decide(db, context_id, chosen, status="approved", actor=actor, now_s=now_s)
            supersede_approved(db, context_id, chosen)
            take_texts(db, context_id, chosen, now_s)
        answer = get_context(db, tenant_id, context_id).answer
        settle_contradictions(db, context_id, answer, actor=actor, now_s=now_s)
        db.execute(
            """
            UPDATE ai_contexts SET status = 'approved', pending_revision = NULL, flag_count = 0, flag_reason = NULL,
              reviewed_by = :actor, reviewed_at = :now WHERE id = :id
            """,
            {"id": context_id, "actor": actor, "now": iso(now_s)},
        )
        db.execute(
            """
            UPDATE context_flags SET settled_at = :now WHERE context_id = :id AND settled_at IS NULL
            """,
            {"id": context_id, "now": iso(now_s)},
        )
        serve(db, tenant_id, context_id, is_served=True, actor=actor, reason="context approved", now_s=now_s)
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
        context = in_state(db, tenant_id, context_id, STANDING, "be rejected")
        chosen = _chosen_revision(context, revision)
        decide(db, context_id, chosen, status="rejected", actor=actor, now_s=now_s)
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
            serve(db, tenant_id, context_id, is_served=False, actor=actor, reason="context rejected", now_s=now_s)
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
    guards: UserGuards = NO_GUARDS,
) -> ContextRow:
    """Return the entry marked as doubtful: one user's flag leaves it in service, a second's or a person's does not.

    The same conversation counts once, for ever: what a reviewer approved again is not flagged by the old correction.
    All conversations of one user are one voice; one of an unknown user is a voice of its own.

    Raises:
        NotFoundError: no such entry.
        ConflictError: the entry is neither approved nor flagged.
    """
    with db.transaction():
        context = in_state(db, tenant_id, context_id, ("approved", "flagged"), "be flagged")
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
        if context.is_served and by_person:
            serve(db, tenant_id, context_id, is_served=False, actor=actor, reason="context flagged", now_s=now_s)
        elif context.is_served and _is_removed_by_users(db, context, guards, now_s):
            serve(db, tenant_id, context_id, is_served=False, actor=actor, reason=REMOVED_BY_USERS, now_s=now_s)
    return get_context(db, tenant_id, context_id)


def _is_removed_by_users(db: Database, context: ContextRow, guards: UserGuards, now_s: float) -> bool:
    """Return whether enough users flagged the entry since its last review, and users may take out one more today."""
    flags = db.rows(
        """
        SELECT coalesce(nullif(c.user_id, ''), f.conversation_id) AS voice, coalesce(c.user_id, '') = '' OR EXISTS (
            SELECT 1 FROM conversations AS e
            WHERE e.tenant_id = f.tenant_id AND e.user_id = c.user_id AND e.user_id <> ''
              AND unixepoch(e.created_at) <= unixepoch(c.created_at) - :history_s) AS is_known
        FROM context_flags AS f
        LEFT JOIN conversations AS c ON c.tenant_id = f.tenant_id AND c.id = f.conversation_id
        WHERE f.context_id = :id AND f.settled_at IS NULL
        """,
        {"id": context.id, "history_s": guards.history_h * 3600},
    )
    if len({flag["voice"] for flag in flags if flag["is_known"]}) < FLAGS_TO_REMOVE:
        return False
    n_removed = db.value(
        """
        SELECT count(*) FROM generations
        WHERE tenant_id = :tenant_id AND created_at > :since AND reason LIKE :reason
        """,
        {"tenant_id": context.tenant_id, "since": days_before(now_s, 1), "reason": f"{REMOVED_BY_USERS}:%"},
    )
    return int(n_removed) < guards.max_removals


def propose_deletion(db: Database, tenant_id: str, context_id: str, *, reason: str, now_s: float) -> bool:
    """Put an approved entry into review as one that keeps failing; return whether it was not there before.

    It goes on serving: what users say does not delete. An approval says that it stays, and evidence begins anew.
    """
    with db.transaction():
        return bool(
            db.execute(
                """
                UPDATE ai_contexts SET status = 'flagged', flag_reason = :reason, updated_at = :now
                WHERE tenant_id = :tenant_id AND id = :id AND status IN ('approved', 'flagged')
                  AND coalesce(flag_reason, '') NOT LIKE :like
                """,
                {
                    "tenant_id": tenant_id,
                    "id": context_id,
                    "reason": f"{PROPOSED_DELETION}: {reason}",
                    "like": f"{PROPOSED_DELETION}:%",
                    "now": iso(now_s),
                },
            )
        )


def retire_context(
    db: Database, tenant_id: str, context_id: str, *, reason: str, actor: str, now_s: float
) -> ContextRow:
    """Return the entry out of service for good; what waited beside it is superseded.

    Raises:
        NotFoundError: no such entry.
        ConflictError: the entry is rejected or retired already.
    """
    with db.transaction():
        context = in_state(db, tenant_id, context_id, STANDING, "be retired")
        supersede_waiting(db, context, actor, now_s)
        db.execute(
            """
            UPDATE ai_contexts SET status = 'retired', pending_revision = NULL, reject_reason = :reason,
              reviewed_by = :actor, reviewed_at = :now, updated_at = :now WHERE id = :id
            """,
            {"id": context_id, "reason": reason, "actor": actor, "now": iso(now_s)},
        )
        if context.is_served:
            serve(db, tenant_id, context_id, is_served=False, actor=actor, reason="context retired", now_s=now_s)
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


def _chosen_revision(context: ContextRow, revision: int | None) -> int:
    """Return the revision that a reviewer decides on, who saw *revision* (None: whatever waits).

    Raises:
        ConflictError: nothing is to be decided, or something else than *revision*.
    """
    if context.waiting_revision is None and context.status == "approved":
        raise ConflictError(f"context {context.id!r} is approved already and no revision waits; it can be retired")
    chosen = context.revision if context.waiting_revision is None else context.waiting_revision
    if revision not in (None, chosen):
        raise ConflictError(f"context {context.id!r} waits with revision {chosen}, not {revision}")
    return chosen
