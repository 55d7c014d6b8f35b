"""Table ``nlu_models``: trained classifiers of question types, version by version. Written by learner and command.

The newest version that was published and not withdrawn serves; without one the built-in types do.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from store.audit import record
from store.clock import iso
from store.database import Database, Row
from store.errors import ConflictError, DamagedModelError, NotFoundError
from store.intent_classifier import IntentClassifier, decode_classifier
from store.paging import decode_number, encode_cursor, split_page
from store.refit_table import RefitTable, is_refit_of
from store.refits import load_named_refit


@dataclass(frozen=True, slots=True)
class NewModel:
    """What training made."""

    dataset_id: str
    run_id: str | None
    embedding_model: str
    n_intents: int
    n_examples: int
    fingerprint: str
    report: Mapping[str, Any]
    model: bytes
    assessed: bytes


@dataclass(frozen=True, slots=True)
class NluModelRow:
    """A version without its weights."""

    version: int
    dataset_id: str
    run_id: str | None
    embedding_model: str
    n_intents: int
    n_examples: int
    size_bytes: int
    is_serving: bool
    report: dict[str, Any]
    created_at: str
    published_at: str | None
    withdrawn_at: str | None


def add_model(
    db: Database, tenant_id: str, new: NewModel, *, is_published: bool, keep_versions: int, now_s: float
) -> int:
    """Return the version that *new* became; the oldest beyond *keep_versions* go, but never the one that serves."""
    with db.transaction():
        newest = db.value("SELECT max(version) FROM nlu_models WHERE tenant_id = :tenant_id", {"tenant_id": tenant_id})
        version = int(newest or 0) + 1
        db.execute(
            """
            INSERT INTO nlu_models (tenant_id, version, dataset_id, run_id, embedding_model, n_intents, n_examples,
              fingerprint, report_json, model, assessed, created_at, published_at)
            VALUES (:tenant_id, :version, :dataset_id, :run_id, :embedding_model, :n_intents, :n_examples,
              :fingerprint, :report_json, :model, :assessed, :created_at, :published_at)
            """,
            {
                "tenant_id": tenant_id,
                "version": version,
                "dataset_id": new.dataset_id,
                "run_id": new.run_id,
                "embedding_model": new.embedding_model,
                "n_intents": new.n_intents,
                "n_examples": new.n_examples,
                "fingerprint": new.fingerprint,
                "report_json": json.dumps(dict(new.report), ensure_ascii=False),
                "model": new.model,
                "assessed": new.assessed,
                "created_at": iso(now_s),
                "published_at": iso(now_s) if is_published else None,
            },
        )
        db.execute(
            """
            DELETE FROM nlu_models
            WHERE tenant_id = :tenant_id AND version <= :oldest AND version <> :serving
            """,
            {"tenant_id": tenant_id, "oldest": version - keep_versions, "serving": serving_version(db, tenant_id)},
        )
    return version


def serving_version(db: Database, tenant_id: str) -> int:
    """Return the version that serves; 0 when the built-in types do."""
    found = db.value(
        """
        SELECT max(version) FROM nlu_models
        WHERE tenant_id = :tenant_id AND published_at IS NOT NULL AND withdrawn_at IS NULL
        """,
        {"tenant_id": tenant_id},
    )
    return int(found or 0)


def newest_fingerprint(db: Database, tenant_id: str, dataset_id: str) -> str:
    """Return what the newest version was made of; '' when the dataset was never trained on."""
    found = db.value(
        """
        SELECT fingerprint FROM nlu_models
        WHERE tenant_id = :tenant_id AND dataset_id = :dataset_id ORDER BY version DESC LIMIT 1
        """,
        {"tenant_id": tenant_id, "dataset_id": dataset_id},
    )
    return str(found or "")


def embedding_model_of(db: Database, tenant_id: str, version: int) -> str:
    """Return whose vectors a version reads; '' when there is no such version."""
    found = db.value(
        "SELECT embedding_model FROM nlu_models WHERE tenant_id = :tenant_id AND version = :version",
        {"tenant_id": tenant_id, "version": version},
    )
    return str(found or "")


def refit_read_by(db: Database, tenant_id: str, version: int, local_model: str) -> RefitTable | None:
    """Return the refit of *local_model* whose vectors a version reads; None: it reads others, or the table is gone."""
    name = embedding_model_of(db, tenant_id, version)
    return load_named_refit(db, tenant_id, name) if is_refit_of(name, local_model) else None


def load_classifier(
    db: Database, tenant_id: str, version: int, *, embedding_model: str, is_assessed: bool = False
) -> IntentClassifier:
    """Return the classifier of a version, or with *is_assessed* its twin that never saw the held-out texts.

    Raises:
        DamagedModelError: it is damaged, or reads the vectors of another embedding model.
        NotFoundError: the tenant has no such version.
    """
    row = db.row(
        """
        SELECT embedding_model, CASE WHEN :is_assessed THEN assessed ELSE model END AS model FROM nlu_models
        WHERE tenant_id = :tenant_id AND version = :version
        """,
        {"tenant_id": tenant_id, "version": version, "is_assessed": int(is_assessed)},
    )
    if row is None:
        raise NotFoundError(f"no model of version {version}")
    if row["embedding_model"] != embedding_model:
        raise DamagedModelError(f"it reads vectors of {row['embedding_model']!r}, not of {embedding_model!r}")
    return decode_classifier(row["model"])


def list_models(
    db: Database, tenant_id: str, *, limit: int = 100, cursor: str | None = None
) -> tuple[list[NluModelRow], str | None]:
    """Return the versions, the newest first, and the cursor of the next page."""
    rows = db.rows(
        """
        SELECT version, dataset_id, run_id, embedding_model, n_intents, n_examples, length(model) AS size_bytes,
          report_json, created_at, published_at, withdrawn_at
        FROM nlu_models WHERE tenant_id = :tenant_id AND (:before IS NULL OR version < :before)
        ORDER BY version DESC LIMIT :limit
        """,
        {"tenant_id": tenant_id, "before": decode_number(cursor) if cursor else None, "limit": limit + 1},
    )
    page, has_more = split_page(rows, limit)
    serving = serving_version(db, tenant_id)
    models = [_model(row, serving) for row in page]
    return models, encode_cursor(models[-1].version) if has_more else None


def get_model(db: Database, tenant_id: str, version: int) -> NluModelRow:
    """Return one version.

    Raises:
        NotFoundError: the tenant has no such version.
    """
    row = db.row(
        """
        SELECT version, dataset_id, run_id, embedding_model, n_intents, n_examples, length(model) AS size_bytes,
          report_json, created_at, published_at, withdrawn_at
        FROM nlu_models WHERE tenant_id = :tenant_id AND version = :version
        """,
        {"tenant_id": tenant_id, "version": version},
    )
    if row is None:
        raise NotFoundError(f"no model of version {version}")
    return _model(row, serving_version(db, tenant_id))


def withdraw_model(db: Database, tenant_id: str, *, actor: str, now_s: float) -> tuple[int, int]:
    """Withdraw the version that serves and return it with the one that serves now, 0 for the built-in types.

    Raises:
        ConflictError: the built-in types serve: there is nothing to go back from.
    """
    with db.transaction():
        withdrawn = serving_version(db, tenant_id)
        if not withdrawn:
            raise ConflictError("no trained model serves: there is nothing to go back from")
        db.execute(
            "UPDATE nlu_models SET withdrawn_at = :now WHERE tenant_id = :tenant_id AND version = :version",
            {"tenant_id": tenant_id, "version": withdrawn, "now": iso(now_s)},
        )
        serving = serving_version(db, tenant_id)
        record(
            db,
            tenant_id,
            actor=actor,
            action="nlu.rollback",
            object_id=str(withdrawn),
            detail={"serving": serving},
            now_s=now_s,
        )
    return withdrawn, serving


def _model(row: Row, serving: int) -> NluModelRow:
    columns = dict(row)
    report = json.loads(columns.pop("report_json"))
    return NluModelRow(**columns, report=report, is_serving=row["version"] == serving)
