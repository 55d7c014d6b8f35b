"""Table ``context_evidence``: what entries did for the replies that had them; and the records it is worked out from.

Written by the learner, anew in each knowledge run, so that late votes count and what was taken back does not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from store.clock import iso
from store.database import Database, Row


@dataclass(frozen=True, slots=True)
class ContextUse:
    """One reply for whose question a served entry was found, since the entry was last reviewed."""

    context_id: str
    treated: bool
    propensity: float
    user: str
    """The user, or the conversation of an unknown one."""
    created_at: str
    satisfaction: float
    is_rated: bool
    is_failed: bool
    """Corrected, regenerated, or with more against than for it."""


@dataclass(frozen=True, slots=True)
class ContextEvidence:
    """What is known about one entry; a row of ``context_evidence``, whose columns say more."""

    context_id: str
    n_uses: int = 0
    n_held_back: int = 0
    n_users: int = 0
    n_failed: int = 0
    n_rated_users: int = 0
    n_failed_users: int = 0
    lift: float | None = None
    lift_low: float | None = None
    lift_high: float | None = None
    harm_e_value: float | None = None
    use_share: float = 0.0
    n_unrelated: int = 0
    proposal: str | None = None


def list_uses(db: Database, tenant_id: str, *, since: str) -> list[ContextUse]:
    """Return the uses of entries that are served, since *since* (UTC text), in order of arrival."""
    rows = db.rows(
        """
        WITH found AS (
          SELECT r.seq, r.id, r.conversation_id, r.user_id, r.created_at, i.item_id, i.treated, i.propensity
          FROM responses AS r
          CROSS JOIN json_each(r.injection_sets_json) AS s -- only contexts stand there with a similarity
          CROSS JOIN injection_set_items AS i ON i.set_id = json_extract(s.value, '$[0]') AND i.kind = 'context'
          WHERE r.tenant_id = :tenant_id AND r.created_at >= :since AND r.outcome = 'ok' AND r.agent = 'ai'
            AND r.injection_sets_json LIKE '%[%[%' AND s.type = 'array'
        )
        SELECT found.item_id, found.treated, found.propensity,
          coalesce(nullif(found.user_id, ''), 'conversation ' || found.conversation_id) AS user, found.created_at,
          max(-1.0, min(1.0, coalesce(sum(f.weight), 0.0))) AS satisfaction, count(f.seq) > 0 AS is_rated,
          coalesce(sum(f.weight), 0.0) < 0
            OR coalesce(max(f.signal_type IN ('correction', 'regenerate')), 0) AS is_failed
        FROM found
        JOIN ai_contexts AS c ON c.id = found.item_id AND c.tenant_id = :tenant_id AND c.is_served = 1
          AND found.created_at > coalesce(c.reviewed_at, '')
        LEFT JOIN response_feedback AS f ON f.response_id = found.id
        GROUP BY found.seq, found.item_id
        ORDER BY found.seq, found.item_id
        """,
        {"tenant_id": tenant_id, "since": since},
    )
    return [
        ContextUse(
            context_id=row["item_id"],
            treated=bool(row["treated"]),
            propensity=row["propensity"],
            user=row["user"],
            created_at=row["created_at"],
            satisfaction=row["satisfaction"],
            is_rated=bool(row["is_rated"]),
            is_failed=bool(row["is_failed"]),
        )
        for row in rows
    ]


def recent_questions(db: Database, tenant_id: str, limit: int) -> list[str]:
    """Return the last different questions of at most *limit* replies, the newest first."""
    rows = db.rows(
        """
        SELECT question FROM (
          SELECT seq, question FROM responses WHERE tenant_id = :tenant_id AND question <> ''
          ORDER BY created_at DESC LIMIT :limit)
        GROUP BY question ORDER BY max(seq) DESC
        """,
        {"tenant_id": tenant_id, "limit": limit},
    )
    return [row["question"] for row in rows]


def sole_users(db: Database, tenant_id: str, context_ids: Iterable[str]) -> dict[str, str]:
    """Return, for each of *context_ids* that rests on the conversations of one known user alone, that user."""
    wanted = set(context_ids)
    rows = db.rows(
        """
        SELECT context_id, min(user_id) AS user_id FROM context_sources WHERE tenant_id = :tenant_id
        GROUP BY context_id HAVING count(DISTINCT user_id) = 1 AND min(user_id) <> ''
        """,
        {"tenant_id": tenant_id},
    )
    return {row["context_id"]: row["user_id"] for row in rows if row["context_id"] in wanted}


def replace_evidence(db: Database, tenant_id: str, found: Sequence[ContextEvidence], *, now_s: float) -> None:
    """Make *found* all that is known about the tenant's entries."""
    with db.transaction():
        db.execute("DELETE FROM context_evidence WHERE tenant_id = :tenant_id", {"tenant_id": tenant_id})
        db.execute_many(
            """
            INSERT INTO context_evidence (context_id, tenant_id, n_uses, n_held_back, n_users, n_failed,
              n_rated_users, n_failed_users, lift, lift_low, lift_high, harm_e_value, use_share, n_unrelated, proposal,
              updated_at)
            VALUES (:context_id, :tenant_id, :n_uses, :n_held_back, :n_users, :n_failed,
              :n_rated_users, :n_failed_users, :lift, :lift_low, :lift_high, :harm_e_value, :use_share, :n_unrelated,
              :proposal, :now)
            """,
            [{**asdict(one), "tenant_id": tenant_id, "now": iso(now_s)} for one in found],
        )


def find_evidence(db: Database, tenant_id: str, context_id: str) -> ContextEvidence | None:
    """Return what is known about an entry; None before a run saw anything of it."""
    row = db.row(
        """
        SELECT * FROM context_evidence WHERE tenant_id = :tenant_id AND context_id = :id
        """,
        {"tenant_id": tenant_id, "id": context_id},
    )
    return None if row is None else _evidence(row)


def _evidence(row: Row) -> ContextEvidence:
    return ContextEvidence(
        context_id=row["context_id"],
        n_uses=row["n_uses"],
        n_held_back=row["n_held_back"],
        n_users=row["n_users"],
        n_failed=row["n_failed"],
        n_rated_users=row["n_rated_users"],
        n_failed_users=row["n_failed_users"],
        lift=row["lift"],
        lift_low=row["lift_low"],
        lift_high=row["lift_high"],
        harm_e_value=row["harm_e_value"],
        use_share=row["use_share"],
        n_unrelated=row["n_unrelated"],
        proposal=row["proposal"],
    )
