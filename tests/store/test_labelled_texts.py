"""What training gets to see of a dataset."""

import pytest

from store.database import Database
from store.datasets import ensure_dataset, labelled_texts
from store.errors import NotFoundError
from store.tenants import ensure_tenant
from tests.conftest import NOW_S

DATASET = "ds-auto-training"
BULK, PROXY, OWN = '["source:bulk"]', '["source:proxy"]', '["source:proxy","self_labelled"]'


def put(
    db: Database,
    text: str,
    *,
    intent: str = "order",
    confidence: float = 0.9,
    tags: str = BULK,
    reviewed_at: str | None = None,
    waits: bool = False,
    tenant_id: str = "default",
    user_hash: str = "",
) -> None:
    ensure_dataset(db, tenant_id, DATASET, NOW_S)
    db.execute(
        """
        INSERT INTO examples (id, tenant_id, dataset_id, type, input, intent, confidence, tags_json, needs_review,
          user_hash, fingerprint, occurred_at, created_at, reviewed_at)
        VALUES (:tenant_id || :text, :tenant_id, :dataset_id, 'nlu', :text, :intent, :confidence, :tags, :waits,
          :user_hash, :text, '2026-01-01', '2026-01-01', :reviewed_at)
        """,
        {
            "text": text,
            "intent": intent,
            "tenant_id": tenant_id,
            "dataset_id": DATASET,
            "confidence": confidence,
            "tags": tags,
            "waits": int(waits),
            "user_hash": user_hash,
            "reviewed_at": reviewed_at,
        },
    )


def seen(db: Database, limit: int = 100) -> list[str]:
    return [one.text for one in labelled_texts(db, "default", DATASET, limit=limit)]


def test_what_the_classifier_said_itself_does_not_teach_it_until_a_person_looked(db: Database) -> None:
    put(db, "of a channel")
    put(db, "said by the classifier", tags=OWN, confidence=0.99)
    put(db, "said by the app", tags=PROXY, confidence=1.0)
    put(db, "looked at", tags=OWN, confidence=0.6, reviewed_at="2026-02-02")
    assert seen(db) == ["looked at", "said by the app", "of a channel"]


def test_reviewed_examples_come_first_then_the_newest_and_none_that_waits(db: Database) -> None:
    put(db, "old")
    put(db, "reviewed", reviewed_at="2026-02-02")
    put(db, "new")
    put(db, "waiting", waits=True)
    assert seen(db) == ["reviewed", "new", "old"]
    assert seen(db, limit=2) == ["reviewed", "new"]


def test_another_tenants_examples_are_never_seen(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    put(db, "theirs", tenant_id="other")
    with pytest.raises(NotFoundError):
        seen(db)
