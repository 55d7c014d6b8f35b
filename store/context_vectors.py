"""Tables ``context_vectors`` and ``embedding_states``. Written by the learner alone.

Vectors of another model beside an entry's local one, and the tenant's threshold for each model.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.clock import iso
from store.database import Database
from store.refit_table import SEPARATOR
from store.vectors import encode_vector


@dataclass(frozen=True, slots=True)
class ServedWording:
    """The wording of an entry in service."""

    context_id: str
    revision: int
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EmbeddingState:
    """What is known of one tenant's vectors of one model; *threshold* None: the configured one holds.

    *calibrated_on* is what was asked of the threshold when it was found, over *n_entries* entries.
    """

    threshold: float | None = None
    calibrated_on: str = ""
    n_entries: int = 0
    prompt_tokens: int = 0
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class VectorProgress:
    """How many entries in service there are, of all tenants, and how many have a vector of the model."""

    n_served: int
    n_made: int


def served_wordings(db: Database, tenant_id: str) -> list[ServedWording]:
    """Return every entry in service, in order of ids."""
    rows = db.rows(
        """
        SELECT id, revision, questions_json FROM ai_contexts
        WHERE tenant_id = :tenant_id AND is_served = 1 ORDER BY id
        """,
        {"tenant_id": tenant_id},
    )
    return [ServedWording(row["id"], row["revision"], tuple(json.loads(row["questions_json"]))) for row in rows]


def count_vectors(db: Database, tenant_id: str) -> Mapping[str, int]:
    """Return how many entries in service have a vector of each model, the local ones included."""
    rows = db.rows(
        """
        SELECT embedding_model AS model, count(*) AS n FROM ai_contexts
        WHERE tenant_id = :tenant_id AND is_served = 1 GROUP BY embedding_model
        UNION ALL
        SELECT v.model, count(*) FROM ai_contexts AS c
        JOIN context_vectors AS v ON v.context_id = c.id AND v.revision = c.revision
        WHERE c.tenant_id = :tenant_id AND c.is_served = 1 GROUP BY v.model
        """,
        {"tenant_id": tenant_id},
    )
    return {row["model"]: row["n"] for row in rows}


def wordings_without(db: Database, tenant_id: str, model: str, *, after: str, limit: int) -> list[ServedWording]:
    """Return entries in service without a vector of *model*, in order of ids, those after the id *after*."""
    rows = db.rows(
        """
        SELECT c.id, c.revision, c.questions_json FROM ai_contexts AS c
        WHERE c.tenant_id = :tenant_id AND c.is_served = 1 AND c.id > :after
          AND EXISTS (SELECT 1 FROM context_revisions AS r WHERE r.context_id = c.id AND r.revision = c.revision)
          AND NOT EXISTS (
            SELECT 1 FROM context_vectors AS v
            WHERE v.context_id = c.id AND v.revision = c.revision AND v.model = :model
          )
        ORDER BY c.id LIMIT :limit
        """,
        {"tenant_id": tenant_id, "model": model, "after": after, "limit": limit},
    )
    return [ServedWording(row["id"], row["revision"], tuple(json.loads(row["questions_json"]))) for row in rows]


def put_vectors(
    db: Database, tenant_id: str, model: str, vectors: Sequence[tuple[ServedWording, NDArray[np.float32]]]
) -> int:
    """Write vectors of *model* and return how many: of wordings that are as they were when they were read."""
    n_written = 0
    with db.transaction():
        for wording, vector in vectors:
            key = {"context_id": wording.context_id, "revision": wording.revision}
            questions = db.value(
                """
                SELECT r.questions_json FROM context_revisions AS r JOIN ai_contexts AS c ON c.id = r.context_id
                WHERE c.tenant_id = :tenant_id AND r.context_id = :context_id AND r.revision = :revision
                """,
                {**key, "tenant_id": tenant_id},
            )
            if questions is None or tuple(json.loads(questions)) != wording.questions:
                continue  # forgotten meanwhile
            n_written += db.execute(
                """
                INSERT OR REPLACE INTO context_vectors (context_id, revision, model, embedding)
                VALUES (:context_id, :revision, :model, :embedding)
                """,
                {**key, "model": model, "embedding": encode_vector(vector)},
            )
    return n_written


def drop_other_vectors(db: Database, tenant_id: str, kept: Collection[str], *, refits_only: bool, at_most: int) -> int:
    """Delete up to *at_most* vectors of earlier wordings and of models that are not *kept*, and return how many.

    With *refits_only*, those of other embedding servers stay: they were paid for and may be asked again.
    """
    with db.transaction():
        return db.execute(
            """
            DELETE FROM context_vectors WHERE (context_id, revision, model) IN (
              SELECT v.context_id, v.revision, v.model
              FROM context_vectors AS v JOIN ai_contexts AS c ON c.id = v.context_id
              WHERE c.tenant_id = :tenant_id AND (v.revision < c.revision OR (
                v.model NOT IN (SELECT value FROM json_each(:kept))
                AND (NOT :refits_only OR instr(v.model, :separator) > 0)))
              LIMIT :at_most
            )
            """,
            {
                "tenant_id": tenant_id,
                "kept": json.dumps(list(kept)),
                "refits_only": refits_only,
                "separator": SEPARATOR,
                "at_most": at_most,
            },
        )


def vector_progress(db: Database, model: str) -> VectorProgress:
    """Return how far vectors of *model* have come, over all tenants."""
    row = db.row(
        """
        SELECT count(*) AS n_served, count(v.model) AS n_made FROM ai_contexts AS c
        LEFT JOIN context_vectors AS v ON v.context_id = c.id AND v.revision = c.revision AND v.model = :model
        WHERE c.is_served = 1
        """,
        {"model": model},
    )
    return VectorProgress(row["n_served"], row["n_made"]) if row is not None else VectorProgress(0, 0)


def embedding_state(db: Database, tenant_id: str, model: str) -> EmbeddingState:
    """Return what is known of the tenant's vectors of *model*."""
    row = db.row(
        """
        SELECT threshold, calibrated_on, n_entries, prompt_tokens, cost_usd FROM embedding_states
        WHERE tenant_id = :tenant_id AND model = :model
        """,
        {"tenant_id": tenant_id, "model": model},
    )
    return EmbeddingState(**dict(row)) if row is not None else EmbeddingState()


def thresholds(db: Database, tenant_id: str) -> Mapping[str, float]:
    """Return the tenant's own thresholds by model."""
    rows = db.rows(
        "SELECT model, threshold FROM embedding_states WHERE tenant_id = :tenant_id AND threshold IS NOT NULL",
        {"tenant_id": tenant_id},
    )
    return {row["model"]: row["threshold"] for row in rows}


def set_threshold(
    db: Database,
    tenant_id: str,
    model: str,
    *,
    threshold: float | None,
    calibrated_on: str,
    n_entries: int,
    now_s: float,
) -> None:
    """Write the tenant's threshold; call it inside the transaction that publishes it."""
    with db.transaction():
        db.execute(
            """
            INSERT INTO embedding_states (tenant_id, model, threshold, calibrated_on, n_entries, updated_at)
            VALUES (:tenant_id, :model, :threshold, :calibrated_on, :n_entries, :now)
            ON CONFLICT (tenant_id, model) DO UPDATE SET threshold = excluded.threshold,
              calibrated_on = excluded.calibrated_on, n_entries = excluded.n_entries, updated_at = excluded.updated_at
            """,
            {
                "tenant_id": tenant_id,
                "model": model,
                "threshold": threshold,
                "calibrated_on": calibrated_on,
                "n_entries": n_entries,
                "now": iso(now_s),
            },
        )


def add_cost(db: Database, tenant_id: str, model: str, *, prompt_tokens: int, cost_usd: float, now_s: float) -> None:
    """Add what a call cost to what the tenant's vectors of *model* have cost so far."""
    with db.transaction():
        db.execute(
            """
            INSERT INTO embedding_states (tenant_id, model, prompt_tokens, cost_usd, updated_at)
            VALUES (:tenant_id, :model, :prompt_tokens, :cost_usd, :now)
            ON CONFLICT (tenant_id, model) DO UPDATE SET prompt_tokens = prompt_tokens + excluded.prompt_tokens,
              cost_usd = cost_usd + excluded.cost_usd, updated_at = excluded.updated_at
            """,
            {
                "tenant_id": tenant_id,
                "model": model,
                "prompt_tokens": prompt_tokens,
                "cost_usd": cost_usd,
                "now": iso(now_s),
            },
        )
