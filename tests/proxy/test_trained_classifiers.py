"""A tenant's own classifier comes with its snapshot, goes with it, and is never served broken."""

from dataclasses import replace

import numpy as np

from proxy.snapshots import Snapshots
from store.config import Config
from store.database import Database
from store.intent_classifier import Confidence, IntentClassifier
from store.nlu_models import NewModel, add_model, withdraw_model
from store.tenants import ensure_tenant
from store.word_evidence import WordEvidence, fit_evidence, tabulated
from tests.conftest import NOW_S
from tests.proxy.test_snapshots import Seconds, load_and_refresh

INTENTS = ("parcel", "refund")


def classifier() -> IntentClassifier:
    table = tabulated(INTENTS, 10)
    evidence = fit_evidence(table, np.arange(2), np.ones(2, np.float32), 2, np.ones(2, dtype=bool))
    rows = np.eye(2, 256, dtype=np.float32)
    words = WordEvidence(table.vocabulary, evidence)
    bias = np.zeros(2, np.float32)
    return IntentClassifier(INTENTS, rows, bias, rows, words, familiar_similarity=0.1, confidence=Confidence())


def publish(
    db: Database, tenant_id: str = "default", *, embedding_model: str = "local", model: bytes | None = None
) -> int:
    stored = classifier().encode() if model is None else model
    new = NewModel("ds", None, embedding_model, 2, 2, "", {}, stored, stored)
    return add_model(db, tenant_id, new, is_published=True, keep_versions=10, now_s=NOW_S)


def served(snapshots: Snapshots, tenant_id: str = "default") -> IntentClassifier | None:
    tenant = snapshots.tenant(tenant_id)
    assert tenant is not None
    return tenant.snapshot.classifier


def test_what_is_published_and_taken_back_is_served_with_the_next_look(config: Config, db: Database) -> None:
    snapshots = Snapshots(config, "local")
    load_and_refresh(snapshots)
    assert served(snapshots) is None
    publish(db)
    snapshots.refresh()
    found = served(snapshots)
    assert found is not None
    assert found.classify("refund", np.eye(2, 256, dtype=np.float32)[1])[0] == "refund"
    withdraw_model(db, "default", actor="test", now_s=NOW_S)
    snapshots.refresh()
    assert served(snapshots) is None
    assert snapshots.classifier_problem is None
    snapshots.stop()


def test_a_damaged_model_and_one_of_another_embedder_leave_the_built_in_types_and_are_reported(
    config: Config, db: Database
) -> None:
    snapshots = Snapshots(config, "local")
    load_and_refresh(snapshots)
    for number, broken in enumerate(({"embedding_model": "another"}, {"model": b"damaged"}), start=1):
        publish(db, **broken)  # type: ignore[arg-type]
        snapshots.refresh()
        assert served(snapshots) is None
        assert f"tenant default: version {number} cannot be used" in (snapshots.classifier_problem or "")
    publish(db)
    snapshots.refresh()
    assert served(snapshots) is not None
    assert snapshots.classifier_problem is None
    snapshots.stop()


def test_classifiers_are_in_memory_for_tenants_in_use_alone(config: Config, db: Database) -> None:
    keys_config = replace(config, tenancy=replace(config.tenancy, mode="keys"))
    for tenant_id in ("acme", "globex"):
        ensure_tenant(db, tenant_id, NOW_S)
        publish(db, tenant_id)
    clock = Seconds()
    snapshots = Snapshots(keys_config, "local", monotonic_s=clock)
    load_and_refresh(snapshots, "acme")
    assert served(snapshots, "acme") is not None
    assert served(snapshots, "globex") is None
    assert snapshots.lacks_contexts("globex")
    clock.now_s += keys_config.contexts.unload_after_s + 1
    snapshots.refresh()
    assert served(snapshots, "acme") is None
    snapshots.stop()
