"""Which examples wait for a person, and how the sure ones fared that were looked at. Reads ``examples`` only."""

from dataclasses import dataclass

from store.database import Database
from store.datasets import ExampleRow, example_of, get_dataset


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What people made of the sure examples that the lot drew."""

    n_waiting: int
    n_reviewed: int
    n_right: int  # of those: the intent that was sent still stands


def unsure_examples(db: Database, tenant_id: str, dataset_id: str, *, limit: int) -> list[ExampleRow]:
    """Return examples that need a review, the narrowest margin first.

    Raises:
        NotFoundError: the tenant has no such dataset.
    """
    get_dataset(db, tenant_id, dataset_id)
    rows = db.rows(
        """
        SELECT * FROM examples
        WHERE tenant_id = :tenant_id AND dataset_id = :dataset_id AND needs_review = 1
        ORDER BY margin, confidence, seq LIMIT :limit
        """,
        {"tenant_id": tenant_id, "dataset_id": dataset_id, "limit": limit},
    )
    return [example_of(row) for row in rows]


def audit_examples(db: Database, tenant_id: str, dataset_id: str, *, limit: int) -> list[ExampleRow]:
    """Return sure examples that the lot drew and nobody looked at, in the order they came."""
    rows = db.rows(
        """
        SELECT * FROM examples
        WHERE tenant_id = :tenant_id AND dataset_id = :dataset_id AND is_audit = 1 AND reviewed_at IS NULL
        ORDER BY seq LIMIT :limit
        """,
        {"tenant_id": tenant_id, "dataset_id": dataset_id, "limit": limit},
    )
    return [example_of(row) for row in rows]


def audit_result(db: Database, tenant_id: str, dataset_id: str) -> AuditResult:
    """Return how the audited examples of a dataset stand."""
    # Those that wait are counted in the index alone; those that people reviewed are few.
    row = db.row(
        """
        SELECT
          (SELECT count(*) FROM examples
           WHERE tenant_id = :tenant_id AND dataset_id = :dataset_id AND is_audit = 1 AND reviewed_at IS NULL)
            AS n_waiting,
          coalesce(sum(needs_review = 0), 0) AS n_reviewed,
          coalesce(sum(needs_review = 0 AND former_intent IS NULL), 0) AS n_right
        FROM examples
        WHERE tenant_id = :tenant_id AND dataset_id = :dataset_id AND is_audit = 1 AND reviewed_at IS NOT NULL
        """,
        {"tenant_id": tenant_id, "dataset_id": dataset_id},
    )
    assert row is not None
    return AuditResult(**row)
