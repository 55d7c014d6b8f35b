"""What the proxy needs of one tenant's current generation, loaded at once. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from store.blocks import context_entry
from store.database import Database, Row
from store.generations import current_number, current_plan
from store.plan import EMPTY_PLAN, Plan
from store.tenants import get_tenant
from store.vectors import DIMENSIONS, decode_vector


@dataclass(frozen=True, slots=True)
class ServedContexts:
    """The approved knowledge of one tenant, entry by entry in the order of ids."""

    ids: tuple[str, ...] = ()
    vectors: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, DIMENSIONS), np.float32))
    """(n, 256), contiguous, rows of unit length."""
    entries: tuple[str, ...] = ()
    """As they stand in the block."""
    tokens: tuple[int, ...] = ()
    """cl100k_base, of each entry."""


@dataclass(frozen=True, slots=True)
class TenantSnapshot:
    """One generation of one tenant: immutable, swapped as a whole."""

    tenant_id: str
    secret: bytes
    learning: bool
    generation: int
    plan: Plan = EMPTY_PLAN
    contexts: ServedContexts = field(default_factory=ServedContexts)


@dataclass(frozen=True, slots=True)
class TenantVersion:
    """What tells cheaply that a tenant's snapshot is out of date."""

    tenant_id: str
    learning: bool
    generation: int


def list_versions(db: Database) -> list[TenantVersion]:
    """Return every tenant's version; one index look-up a tenant."""
    rows = db.rows(
        """
        SELECT t.id, t.learning, (SELECT max(g.number) FROM generations AS g WHERE g.tenant_id = t.id) AS generation
        FROM tenants AS t ORDER BY t.id
        """
    )
    return [TenantVersion(row["id"], row["learning"] == "on", row["generation"] or 0) for row in rows]


def load_snapshot(
    db: Database, tenant_id: str, *, embedding_model: str, previous: TenantSnapshot | None = None
) -> TenantSnapshot:
    """Return the tenant's current generation; contexts that did not change since *previous* are taken from it.

    Contexts that another embedding model made are left out: their vectors cannot be compared.

    Raises:
        NotFoundError: there is no such tenant.
        UnavailableError: the database cannot be read.
    """
    db.execute("BEGIN")  # one view of all tables; deferred: it never writes
    try:
        tenant = get_tenant(db, tenant_id)
        generation = current_number(db, tenant_id)
        plan = previous.plan if previous and previous.generation == generation else current_plan(db, tenant_id)
        contexts = _load_contexts(db, tenant_id, embedding_model, previous)
    finally:
        db.connection.rollback()
    return TenantSnapshot(
        tenant_id=tenant_id,
        secret=tenant.secret,
        learning=tenant.learning,
        generation=generation,
        plan=plan,
        contexts=contexts,
    )


def _load_contexts(
    db: Database, tenant_id: str, embedding_model: str, previous: TenantSnapshot | None
) -> ServedContexts:
    n_served = db.value(
        """
        SELECT count(*) FROM ai_contexts
        WHERE tenant_id = :tenant_id AND is_served = 1 AND embedding_model = :embedding_model
        """,
        {"tenant_id": tenant_id, "embedding_model": embedding_model},
    )
    if previous is not None:
        changed = _changed_rows(db, tenant_id, previous.generation)
        contexts = _merge(previous.contexts, changed, embedding_model) if changed else previous.contexts
        if len(contexts.ids) == n_served:  # else rows went away for good, or the model changed
            return contexts
    return _merge(ServedContexts(), _changed_rows(db, tenant_id, -1), embedding_model)


def _changed_rows(db: Database, tenant_id: str, generation: int) -> list[Row]:
    return db.rows(
        """
        SELECT id, is_served, questions_json, answer, tokens, embedding, embedding_model FROM ai_contexts
        WHERE tenant_id = :tenant_id AND changed_generation > :generation AND (is_served = 1 OR :generation >= 0)
        ORDER BY id
        """,
        {"tenant_id": tenant_id, "generation": generation},
    )


def _merge(contexts: ServedContexts, rows: Sequence[Row], embedding_model: str) -> ServedContexts:
    changed = {row["id"]: row for row in rows}
    kept = [index for index, context_id in enumerate(contexts.ids) if context_id not in changed]
    items = [
        (contexts.ids[index], contexts.vectors[index], contexts.entries[index], contexts.tokens[index])
        for index in kept
    ] + [
        (row["id"], decode_vector(row["embedding"]), _entry(row), row["tokens"])
        for row in changed.values()
        if row["is_served"] and row["embedding_model"] == embedding_model
    ]
    if not items:
        return ServedContexts()
    items.sort(key=lambda item: item[0])
    ids, vectors, entries, tokens = zip(*items, strict=True)
    return ServedContexts(ids, np.ascontiguousarray(np.stack(vectors), np.float32), entries, tokens)


def _entry(row: Row) -> str:
    questions = msgspec.json.decode(row["questions_json"], type=list[str])
    return context_entry(questions[0] if questions else "", row["answer"])
