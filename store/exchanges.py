"""What happened around each response of a conversation, to read: outcome, what was put in, what users made of it."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from store.database import Database
from store.errors import NotFoundError
from store.responses import find_response

MAX_RESPONSES: Final = 1000  # of one conversation; the newest


@dataclass(frozen=True, slots=True)
class InjectionRow:
    """A pattern or context that was put in, or in control would have been; *text* is its rule or first question."""

    kind: str
    item_id: str
    dimension: str
    propensity: float
    treated: bool
    similarity: float | None
    tokens: int
    text: str


@dataclass(frozen=True, slots=True)
class SignalRow:
    id: str
    signal: str
    weight: float
    user_id: str
    value: float | None
    comment: str | None
    correction: str | None
    source: str
    created_at: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """One response with its injections and signals."""

    response_id: str
    model: str
    question_type: str
    outcome: str
    status: int
    is_holdout: bool
    generation: int
    injected_tokens: int
    latency_ms: float
    created_at: str
    injections: tuple[InjectionRow, ...]
    signals: tuple[SignalRow, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """One response with what it answered, as ``tutelage why`` tells it."""

    conversation_id: str
    question: str
    question_type_confidence: float | None  # None: the app said the type
    user_id: str
    segment: str
    data_source: str
    prompt_template: str
    prompt_tokens: int | None  # as the upstream counted, like the next
    cached_tokens: int | None
    exchange: Exchange


def find_asked(db: Database, tenant_id: str, name: str) -> Asked:
    """Return the tenant's response *name* (our id, or the one in its body) with its injections and signals.

    Raises:
        NotFoundError: the tenant has no such response.
    """
    response = find_response(db, tenant_id, name)
    if response is None:
        raise NotFoundError(f"no response {name!r}")
    row = db.row(
        """
        SELECT conversation_id, question, question_type_confidence, user_id, segment, data_source, prompt_template,
          prompt_tokens, cached_tokens
        FROM responses WHERE seq = :seq
        """,
        {"seq": response.seq},
    )
    assert row is not None
    found = exchanges(db, tenant_id, response.conversation_id, last_seq=response.seq)
    return Asked(**dict(row), exchange=next(one for one in found if one.response_id == response.id))


def exchanges(db: Database, tenant_id: str, conversation_id: str, *, last_seq: int | None = None) -> list[Exchange]:
    """Return the conversation's newest responses, or those up to *last_seq*, in the order they came.

    Nothing for an imported conversation.
    """
    where = {
        "tenant_id": tenant_id,
        "conversation_id": conversation_id,
        "limit": MAX_RESPONSES,
        "last_seq": last_seq,
    }
    rows = db.rows(
        """
        SELECT * FROM (
          SELECT seq, id, model, question_type, outcome, status, is_holdout, generation, injected_tokens, latency_ms,
            created_at
          FROM responses WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id
            AND (:last_seq IS NULL OR seq <= :last_seq)
          ORDER BY seq DESC LIMIT :limit
        ) AS newest ORDER BY seq
        """,
        where,
    )
    injections = _injections(db, tenant_id, conversation_id)
    signals = _signals(db, tenant_id, conversation_id)
    return [
        Exchange(
            response_id=row["id"],
            model=row["model"],
            question_type=row["question_type"],
            outcome=row["outcome"],
            status=row["status"],
            is_holdout=bool(row["is_holdout"]),
            generation=row["generation"],
            injected_tokens=row["injected_tokens"],
            latency_ms=row["latency_ms"],
            created_at=row["created_at"],
            injections=tuple(injections[row["id"]]),
            signals=tuple(signals[row["id"]]),
        )
        for row in rows
    ]


def _injections(db: Database, tenant_id: str, conversation_id: str) -> dict[str, list[InjectionRow]]:
    rows = db.rows(
        """
        SELECT i.response_id, i.kind, i.item_id, i.dimension, i.propensity, i.treated, i.similarity, i.tokens,
          coalesce(p.rule, json_extract(c.questions_json, '$[0]'), '') AS text
        FROM responses AS r
        JOIN injections AS i ON i.response_id = r.id
        LEFT JOIN learned_patterns AS p ON i.kind = 'pattern' AND p.id = i.item_id AND p.tenant_id = r.tenant_id
        LEFT JOIN ai_contexts AS c ON i.kind = 'context' AND c.id = i.item_id AND c.tenant_id = r.tenant_id
        WHERE r.tenant_id = :tenant_id AND r.conversation_id = :conversation_id
        ORDER BY i.response_id, i.kind DESC, i.item_id
        """,
        {"tenant_id": tenant_id, "conversation_id": conversation_id},
    )
    found: dict[str, list[InjectionRow]] = defaultdict(list)
    for row in rows:
        found[row["response_id"]].append(
            InjectionRow(
                kind=row["kind"],
                item_id=row["item_id"],
                dimension=row["dimension"],
                propensity=row["propensity"],
                treated=bool(row["treated"]),
                similarity=row["similarity"],
                tokens=row["tokens"],
                text=row["text"],
            )
        )
    return found


def _signals(db: Database, tenant_id: str, conversation_id: str) -> dict[str, list[SignalRow]]:
    rows = db.rows(
        """
        SELECT f.response_id, f.id, f.signal_type, f.weight, f.user_id, f.value, f.comment, f.correction, f.source,
          f.created_at
        FROM responses AS r JOIN response_feedback AS f ON f.response_id = r.id
        WHERE r.tenant_id = :tenant_id AND r.conversation_id = :conversation_id
        ORDER BY f.seq
        """,
        {"tenant_id": tenant_id, "conversation_id": conversation_id},
    )
    found: dict[str, list[SignalRow]] = defaultdict(list)
    for row in rows:
        found[row["response_id"]].append(SignalRow(*tuple(row)[1:]))
    return found
