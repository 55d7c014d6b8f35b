"""What the proxy needs of one tenant's current generation, loaded at once; contexts when asked for. Reads only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from store.blocks import context_entry
from store.context_vectors import thresholds
from store.database import Database, Row
from store.errors import DamagedModelError
from store.generations import current_number, current_plan
from store.intent_classifier import IntentClassifier
from store.nlu_models import load_classifier, refit_read_by, serving_version
from store.plan import EMPTY_PLAN, Plan
from store.refit_table import RefitTable
from store.refits import load_refit, served_refit_name
from store.served_contexts import ContextRows, Entries, ServedContexts
from store.tenants import get_tenant
from store.vectors import decode_vectors

_QUESTIONS: Final = msgspec.json.Decoder(list[str])
NOTHING_KNOWN: Final[tuple[int, None]] = (0, None)
BATCH_ROWS: Final = 500  # read at a time; a few ms in which a request waits for the interpreter


@dataclass(frozen=True, slots=True)
class TenantSnapshot:
    """One generation of one tenant: immutable, swapped as a whole."""

    tenant_id: str
    secret: bytes
    learning: bool
    generation: int
    plan: Plan = EMPTY_PLAN
    contexts: ServedContexts | None = None
    """None: not loaded."""
    remote_contexts: ServedContexts | None = None
    """Those of them that have a vector of the remote model, with it; None: not loaded, or there is no such model."""
    refit: RefitTable | None = None
    """What makes the tenant's own vectors of the local ones; None: not loaded, or there is none."""
    refit_contexts: ServedContexts | None = None
    """Those of the contexts that have a vector of it, with it."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """The tenant's own similarity thresholds, by embedding model."""
    nlu_version: int = 0
    """Of the classifier of question types; 0: the built-in one serves."""
    classifier: IntentClassifier | None = None
    """None: not loaded, as contexts are not, or it cannot be used, or the built-in one serves."""
    classifier_refit: RefitTable | None = None
    """Of whose vectors it reads, not always what is served; None: the local ones."""
    classifier_problem: str | None = None
    """Why it cannot be used."""

    @property
    def is_classifier_loaded(self) -> bool:
        """Return whether it is known by which classifier the tenant's questions are told apart."""
        return not self.nlu_version or self.classifier is not None or self.classifier_problem is not None


@dataclass(frozen=True, slots=True)
class TenantVersion:
    """What tells cheaply that a tenant's snapshot is out of date."""

    tenant_id: str
    learning: bool
    generation: int
    nlu_version: int = 0


def list_versions(db: Database) -> list[TenantVersion]:
    """Return every tenant's version; two index look-ups a tenant."""
    rows = db.rows(
        """
        SELECT t.id, t.learning, (SELECT max(g.number) FROM generations AS g WHERE g.tenant_id = t.id) AS generation,
          (SELECT max(m.version) FROM nlu_models AS m
            WHERE m.tenant_id = t.id AND m.published_at IS NOT NULL AND m.withdrawn_at IS NULL) AS nlu_version
        FROM tenants AS t ORDER BY t.id
        """
    )
    return [
        TenantVersion(row["id"], row["learning"] == "on", row["generation"] or 0, row["nlu_version"] or 0)
        for row in rows
    ]


def load_snapshot(
    db: Database,
    tenant_id: str,
    *,
    embedding_model: str | None,
    remote_model: str | None = None,
    previous: TenantSnapshot | None = None,
) -> TenantSnapshot:
    """Return the tenant's current generation; contexts that did not change since *previous* are taken from it.

    Args:
        db: where it is read from.
        tenant_id: whose.
        embedding_model: contexts that another one made are left out: their vectors cannot be compared. None: no
            contexts are loaded at all, nor the classifier.
        remote_model: whose vectors are loaded beside, with the contexts; None: there is no such model.
        previous: what was loaded earlier, with or without contexts, for the same models.

    Raises:
        NotFoundError: there is no such tenant.
        UnavailableError: the database cannot be read.
    """
    db.execute("BEGIN")  # one view of all tables; deferred: it never writes
    try:
        tenant = get_tenant(db, tenant_id)
        generation = current_number(db, tenant_id)
        plan = previous.plan if previous and previous.generation == generation else current_plan(db, tenant_id)
        contexts = None if embedding_model is None else _load_contexts(db, tenant_id, embedding_model, previous)
        is_remote = contexts is not None and remote_model is not None
        remote_contexts = None
        if is_remote:
            known = previous and (previous.generation, previous.remote_contexts)
            remote_contexts = _load_beside(db, tenant_id, remote_model or "", known or NOTHING_KNOWN)
        refit = None if embedding_model is None else _load_refit(db, tenant_id, embedding_model, previous)
        refit_contexts = None
        if refit is not None:
            is_same = previous is not None and previous.refit is refit
            known = previous and (previous.generation, previous.refit_contexts if is_same else None)
            refit_contexts = _load_beside(db, tenant_id, refit.name, known or NOTHING_KNOWN)
        own_thresholds = thresholds(db, tenant_id)
        nlu_version = serving_version(db, tenant_id)
        classifier, classifier_refit, problem = (
            (None, None, None)
            if embedding_model is None or not nlu_version
            else _load_classifier(db, tenant_id, nlu_version, embedding_model, previous)
        )
    finally:
        db.connection.rollback()
    return TenantSnapshot(
        tenant_id=tenant_id,
        secret=tenant.secret,
        learning=tenant.learning,
        generation=generation,
        plan=plan,
        contexts=contexts,
        remote_contexts=remote_contexts,
        refit=refit,
        refit_contexts=refit_contexts,
        thresholds=own_thresholds,
        nlu_version=nlu_version,
        classifier=classifier,
        classifier_refit=classifier_refit,
        classifier_problem=problem,
    )


def _load_classifier(
    db: Database, tenant_id: str, version: int, embedding_model: str, previous: TenantSnapshot | None
) -> tuple[IntentClassifier | None, RefitTable | None, str | None]:
    """Return the classifier of *version* and the refit whose vectors it reads, or why it cannot be used."""
    if previous is not None and previous.nlu_version == version and previous.classifier is not None:
        return previous.classifier, previous.classifier_refit, None
    try:
        table = refit_read_by(db, tenant_id, version, embedding_model)
        read = embedding_model if table is None else table.name
        return load_classifier(db, tenant_id, version, embedding_model=read), table, None
    except DamagedModelError as exc:
        return None, None, f"version {version} cannot be used: {exc}"


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
    if previous is not None and previous.contexts is not None and previous.contexts.can_change:
        contexts = _follow(db, tenant_id, embedding_model, previous.generation, previous.contexts)
        if len(contexts) == n_served:  # else rows went away for good, or the model changed
            return contexts
    return _load_all(db, tenant_id, embedding_model, n_served)


def _follow(
    db: Database, tenant_id: str, embedding_model: str, generation: int, contexts: ServedContexts
) -> ServedContexts:
    """Return *contexts*, which were loaded with *generation*, as they are now."""
    changed = db.rows(
        """
        SELECT id, is_served, questions_json, answer, tokens, embedding,
          embedding_model, unixepoch(coalesce(reviewed_at, created_at)) AS reviewed_s
        FROM ai_contexts WHERE tenant_id = :tenant_id AND changed_generation > :generation ORDER BY id
        """,
        {"tenant_id": tenant_id, "generation": generation},
    )
    if not changed:
        return contexts
    served = [row for row in changed if row["is_served"] and row["embedding_model"] == embedding_model]
    kept = {row["id"] for row in served}
    return contexts.changed(_entries(served), [row["id"] for row in changed if row["id"] not in kept])


def _load_all(db: Database, tenant_id: str, embedding_model: str, n_served: int) -> ServedContexts:
    rows = ContextRows(n_served + n_served // 8)
    # Batch by batch: 100,000 rows at once would take twice the memory of what is kept of them.
    for batch in db.batches(
        """
        SELECT id, questions_json, answer, tokens, embedding,
          unixepoch(coalesce(reviewed_at, created_at)) AS reviewed_s
        FROM ai_contexts WHERE tenant_id = :tenant_id AND is_served = 1 AND embedding_model = :embedding_model
        """,
        {"tenant_id": tenant_id, "embedding_model": embedding_model},
        size=BATCH_ROWS,
    ):
        rows.add(_entries(batch))
    return rows.view()


def _load_refit(
    db: Database, tenant_id: str, embedding_model: str, previous: TenantSnapshot | None
) -> RefitTable | None:
    """Return the tenant's refit, the very one of *previous* while it is served: it never changes."""
    known = previous.refit if previous is not None else None
    if known is not None and served_refit_name(db, tenant_id, embedding_model) == known.name:
        return known
    return load_refit(db, tenant_id, embedding_model)


def _load_beside(db: Database, tenant_id: str, model: str, known: tuple[int, ServedContexts | None]) -> ServedContexts:
    """Return the entries in service that have a vector of *model* beside their local one, with it.

    *known*: a generation and what was loaded with it.
    """
    generation, contexts = known
    if contexts is not None and contexts.can_change:
        contexts = _follow_beside(db, tenant_id, model, generation, contexts)
        n_served = db.value(
            """
            SELECT count(*) FROM ai_contexts AS c
            JOIN context_vectors AS v ON v.context_id = c.id AND v.revision = c.revision AND v.model = :model
            WHERE c.tenant_id = :tenant_id AND c.is_served = 1
            """,
            {"tenant_id": tenant_id, "model": model},
        )
        if len(contexts) == n_served:  # else vectors were made or dropped of entries that did not change
            return contexts
    rows = ContextRows()
    for batch in db.batches(
        """
        SELECT c.id, c.questions_json, c.answer, c.tokens, v.embedding,
          unixepoch(coalesce(c.reviewed_at, c.created_at)) AS reviewed_s
        FROM ai_contexts AS c
        JOIN context_vectors AS v ON v.context_id = c.id AND v.revision = c.revision AND v.model = :model
        WHERE c.tenant_id = :tenant_id AND c.is_served = 1
        """,
        {"tenant_id": tenant_id, "model": model},
        size=BATCH_ROWS,
    ):
        rows.add(_entries(batch))
    return rows.view()


def _follow_beside(
    db: Database, tenant_id: str, model: str, generation: int, contexts: ServedContexts
) -> ServedContexts:
    changed = db.rows(
        """
        SELECT c.id, c.is_served, c.questions_json, c.answer, c.tokens, v.embedding,
          unixepoch(coalesce(c.reviewed_at, c.created_at)) AS reviewed_s
        FROM ai_contexts AS c
        LEFT JOIN context_vectors AS v ON v.context_id = c.id AND v.revision = c.revision AND v.model = :model
        WHERE c.tenant_id = :tenant_id AND c.changed_generation > :generation ORDER BY c.id
        """,
        {"tenant_id": tenant_id, "model": model, "generation": generation},
    )
    if not changed:
        return contexts
    served = [row for row in changed if row["is_served"] and row["embedding"] is not None]
    kept = {row["id"] for row in served}
    return contexts.changed(_entries(served), [row["id"] for row in changed if row["id"] not in kept])


def _entries(rows: Sequence[Row]) -> Entries:
    questions = [_QUESTIONS.decode(row["questions_json"]) for row in rows]
    return Entries(
        ids=[row["id"] for row in rows],
        vectors=decode_vectors([row["embedding"] for row in rows]),
        texts=[
            context_entry(asked[0] if asked else "", row["answer"]) for asked, row in zip(questions, rows, strict=True)
        ],
        tokens=[row["tokens"] for row in rows],
        reviewed_s=[row["reviewed_s"] for row in rows],
        asked=["\n".join(asked) for asked in questions],
    )
