"""Table ``mined_conversations``, and what is known about conversations before knowledge is taken from them.

Written by the learner. A conversation is looked at once in each state: when a message or a signal is added, it may be
looked at again. A killed run finds here what it had decided.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from store.clock import iso
from store.database import Database

Decision = Literal["created", "revised", "supported", "contradicted", "skipped", "screened_out"]


@dataclass(frozen=True, slots=True)
class ChangedConversation:
    """What the records say about one conversation, its text left aside."""

    id: str
    user_id: str
    is_resolved: bool | None
    changed_at: str  # its newest message or signal
    n_responses: int  # 0 for an imported one
    n_human: int  # answers of a person
    n_corrections: int  # signals of the app that say what the answer should have been
    n_confirmations: int  # thumbs up and copies
    satisfaction: float  # sum of all weights


@dataclass(frozen=True, slots=True)
class ResponseFacts:
    """What is known about one reply of a conversation."""

    response_id: str
    is_ok: bool
    is_human: bool
    satisfaction: float  # sum of its weights
    is_confirmed: bool  # thumbs up or copied
    is_rejected: bool  # thumbs down
    correction: str | None  # the newest that was given as one: a later turn that disagrees is no answer
    context_ids: tuple[str, ...]  # entries whose text was in its request


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a conversation was taken; *decision* is None while its group waits for one."""

    changed_at: str
    decision: Decision | None
    verdict: Mapping[str, Any] | None
    n_left: int  # runs that left it to the next one, for a model failed


@dataclass(frozen=True, slots=True)
class CorrectedInjection:
    """A correction in a conversation in which an entry had been injected before."""

    context_id: str
    conversation_id: str
    user_id: str
    text: str
    by_person: bool
    created_at: str


def changed_conversations(
    db: Database, tenant_id: str, *, since: str, until: str | None = None
) -> list[ChangedConversation]:
    """Return the conversations that got a message or signal at or after *since* and were not decided since then.

    Oldest change first; with *until* only those whose newest message or signal came before it. Both are UTC text.
    """
    rows = db.rows(
        """
        WITH touched AS (
          SELECT id FROM conversations WHERE tenant_id = :tenant_id AND updated_at >= :since
          UNION
          SELECT r.conversation_id FROM response_feedback AS f JOIN responses AS r ON r.id = f.response_id
          WHERE f.tenant_id = :tenant_id AND r.tenant_id = :tenant_id AND f.created_at >= :since
        ),
        facts AS (
          SELECT c.id, c.user_id, c.is_resolved, c.messages_json,
            max(c.updated_at, coalesce(max(f.created_at), '')) AS changed_at,
            count(DISTINCT r.id) AS n_responses,
            count(DISTINCT CASE r.agent WHEN 'human' THEN r.id END) AS n_human,
            coalesce(sum(f.source = 'api' AND f.correction IS NOT NULL), 0) AS n_corrections,
            coalesce(sum(f.signal_type IN ('thumbs_up', 'copy')), 0) AS n_confirmations,
            coalesce(sum(f.weight), 0.0) AS satisfaction
          -- CROSS: else all of the tenant's conversations are gone through, and all that were touched for each of them.
          FROM touched AS t CROSS JOIN conversations AS c ON c.tenant_id = :tenant_id AND c.id = t.id
          LEFT JOIN responses AS r ON r.tenant_id = c.tenant_id AND r.conversation_id = c.id
          LEFT JOIN response_feedback AS f ON f.response_id = r.id
          GROUP BY c.id
        )
        SELECT facts.id, facts.user_id, facts.is_resolved, facts.changed_at, facts.n_responses,
          facts.n_human + coalesce(facts.messages_json LIKE '%"agent":"human"%', 0) AS n_human,
          facts.n_corrections, facts.n_confirmations, facts.satisfaction
        FROM facts LEFT JOIN mined_conversations AS m ON m.tenant_id = :tenant_id AND m.conversation_id = facts.id
        WHERE (m.decision IS NULL OR m.changed_at < facts.changed_at)
          AND (:until IS NULL OR facts.changed_at < :until)
        ORDER BY facts.changed_at, facts.id
        """,
        {"tenant_id": tenant_id, "since": since, "until": until},
    )
    return [
        ChangedConversation(
            id=row["id"],
            user_id=row["user_id"],
            is_resolved=None if row["is_resolved"] is None else bool(row["is_resolved"]),
            changed_at=row["changed_at"],
            n_responses=row["n_responses"],
            n_human=row["n_human"],
            n_corrections=row["n_corrections"],
            n_confirmations=row["n_confirmations"],
            satisfaction=row["satisfaction"],
        )
        for row in rows
    ]


def response_facts(db: Database, tenant_id: str, conversation_id: str) -> dict[str, ResponseFacts]:
    """Return what is known about each reply of a conversation, by response id."""
    parameters = {"tenant_id": tenant_id, "conversation_id": conversation_id}
    injected: dict[str, list[str]] = {}
    for row in db.rows(
        """
        SELECT i.response_id, i.item_id FROM injections AS i JOIN responses AS r ON r.id = i.response_id
        WHERE r.tenant_id = :tenant_id AND r.conversation_id = :conversation_id
          AND i.kind = 'context' AND i.treated = 1
        ORDER BY i.response_id, i.item_id
        """,
        parameters,
    ):
        injected.setdefault(row["response_id"], []).append(row["item_id"])
    rows = db.rows(
        """
        SELECT r.id, r.outcome, r.agent,
          coalesce(sum(f.weight), 0.0) AS satisfaction,
          coalesce(max(f.signal_type IN ('thumbs_up', 'copy')), 0) AS is_confirmed,
          coalesce(max(f.signal_type = 'thumbs_down'), 0) AS is_rejected,
          (SELECT g.correction FROM response_feedback AS g
           WHERE g.response_id = r.id AND g.source = 'api' AND g.correction IS NOT NULL
           ORDER BY g.seq DESC LIMIT 1) AS correction
        FROM responses AS r LEFT JOIN response_feedback AS f ON f.response_id = r.id
        WHERE r.tenant_id = :tenant_id AND r.conversation_id = :conversation_id
        GROUP BY r.id
        """,
        parameters,
    )
    return {
        row["id"]: ResponseFacts(
            response_id=row["id"],
            is_ok=row["outcome"] == "ok",
            is_human=row["agent"] == "human",
            satisfaction=row["satisfaction"],
            is_confirmed=bool(row["is_confirmed"]),
            is_rejected=bool(row["is_rejected"]),
            correction=row["correction"],
            context_ids=tuple(injected.get(row["id"], ())),
        )
        for row in rows
    }


def corrected_injections(db: Database, tenant_id: str, *, since: str) -> list[CorrectedInjection]:
    """Return the corrections since *since* (UTC text) of replies to which an entry that is in use was injected.

    A correction is a signal with its text, or a person's answer later in the same conversation (*by_person*).
    """
    rows = db.rows(
        """
        SELECT i.item_id AS context_id, r.conversation_id, f.user_id, f.correction AS text, 0 AS by_person,
          f.created_at
        FROM response_feedback AS f
        JOIN responses AS r ON r.id = f.response_id
        JOIN injections AS i ON i.response_id = r.id AND i.kind = 'context' AND i.treated = 1
        JOIN ai_contexts AS c ON c.id = i.item_id AND c.tenant_id = :tenant_id AND c.status IN ('approved', 'flagged')
        WHERE f.tenant_id = :tenant_id AND r.tenant_id = :tenant_id AND f.created_at >= :since
          AND f.signal_type = 'correction' AND f.correction IS NOT NULL
        UNION
        SELECT i.item_id, r.conversation_id, h.user_id, h.reply_json, 1, h.created_at
        FROM responses AS h
        JOIN responses AS r ON r.tenant_id = h.tenant_id AND r.conversation_id = h.conversation_id AND r.seq < h.seq
        JOIN injections AS i ON i.response_id = r.id AND i.kind = 'context' AND i.treated = 1
        JOIN ai_contexts AS c ON c.id = i.item_id AND c.tenant_id = :tenant_id AND c.status IN ('approved', 'flagged')
        WHERE h.tenant_id = :tenant_id AND h.created_at >= :since AND h.agent = 'human' AND h.outcome = 'ok'
          AND h.reply_json IS NOT NULL
        ORDER BY 6, 1, 2
        """,
        {"tenant_id": tenant_id, "since": since},
    )
    return [
        CorrectedInjection(
            context_id=row["context_id"],
            conversation_id=row["conversation_id"],
            user_id=row["user_id"],
            text=_reply_text(row["text"]) if row["by_person"] else row["text"],
            by_person=bool(row["by_person"]),
            created_at=row["created_at"],
        )
        for row in rows
    ]


def _reply_text(reply_json: str) -> str:
    content = json.loads(reply_json).get("content")
    return content if isinstance(content, str) else ""


def get_marks(db: Database, tenant_id: str, conversation_ids: Iterable[str]) -> dict[str, Mark]:
    """Return how far each of the conversations was taken; those never looked at are missing."""
    rows = db.rows(
        """
        SELECT conversation_id, changed_at, decision, verdict_json, n_left FROM mined_conversations
        WHERE tenant_id = :tenant_id AND conversation_id IN (SELECT value FROM json_each(:ids))
        """,
        {"tenant_id": tenant_id, "ids": json.dumps(list(conversation_ids))},
    )
    return {
        row["conversation_id"]: Mark(
            row["changed_at"],
            row["decision"],
            json.loads(row["verdict_json"]) if row["verdict_json"] else None,
            row["n_left"],
        )
        for row in rows
    }


def mark_conversation(
    db: Database,
    tenant_id: str,
    conversation_id: str,
    *,
    changed_at: str,
    decision: Decision | None,
    verdict: Mapping[str, Any] | None = None,
    context_id: str | None = None,
    note: str = "",
    n_left: int = 0,
    run_id: str | None = None,
    now_s: float,
) -> None:
    """Note how far a conversation in the state *changed_at* was taken; a verdict of the same state is kept."""
    with db.transaction():
        db.execute(
            """
            INSERT INTO mined_conversations (tenant_id, conversation_id, changed_at, verdict_json, decision,
              context_id, note, n_left, run_id, mined_at)
            VALUES (:tenant_id, :conversation_id, :changed_at, :verdict_json, :decision, :context_id, :note, :n_left,
              :run_id, :now)
            ON CONFLICT (tenant_id, conversation_id) DO UPDATE SET
              verdict_json = CASE
                WHEN excluded.verdict_json IS NULL AND mined_conversations.changed_at = excluded.changed_at
                THEN mined_conversations.verdict_json ELSE excluded.verdict_json END,
              changed_at = excluded.changed_at, decision = excluded.decision, context_id = excluded.context_id,
              note = excluded.note, n_left = excluded.n_left, run_id = excluded.run_id, mined_at = excluded.mined_at
            """,
            {
                "tenant_id": tenant_id,
                "conversation_id": conversation_id,
                "changed_at": changed_at,
                "verdict_json": None if verdict is None else json.dumps(dict(verdict)),
                "decision": decision,
                "context_id": context_id,
                "note": note,
                "n_left": n_left,
                "run_id": run_id,
                "now": iso(now_s),
            },
        )
