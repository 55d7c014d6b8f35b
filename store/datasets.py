"""Tables ``datasets`` and ``examples``: training data for the intent classifier. Written by the learner."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from store.audit import record
from store.clock import iso
from store.database import Database, Row
from store.errors import InvalidError, NotFoundError
from store.ids import ALPHABET
from store.paging import decode_cursor, encode_cursor, split_page

NEEDS_REVIEW = "needs_review"
OWN_SOURCE = "source:proxy"  # tag of a question that came through the proxy


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A dataset with how many examples it holds."""

    id: str
    tenant_id: str
    name: str
    type: str
    size: int
    n_needs_review: int
    created_at: str


@dataclass(frozen=True, slots=True)
class NewExample:
    """One classified message of a channel; ``occurred_ms`` None when the channel did not say."""

    input: str
    intent: str
    confidence: float
    source: str
    current_step: str | None
    user_hash: str
    occurred_ms: int | None


@dataclass(frozen=True, slots=True)
class ExampleRow:
    id: str
    dataset_id: str
    type: str
    input: str
    intent: str
    confidence: float
    tags: tuple[str, ...]
    needs_review: bool
    current_step: str | None
    user_hash: str
    conversation_id: str | None
    occurred_at: str
    created_at: str
    reviewed_by: str | None
    reviewed_at: str | None


@dataclass(frozen=True, slots=True)
class LabelledText:
    """What training sees of an example; ``reviewed_at`` is empty when no person looked at it."""

    text: str
    intent: str
    reviewed_at: str


def ensure_dataset(db: Database, tenant_id: str, dataset_id: str, now_s: float) -> None:
    """Make the dataset when it is missing."""
    with db.transaction():
        db.execute(
            """
            INSERT INTO datasets (tenant_id, id, name, type, created_at)
            VALUES (:tenant_id, :id, :id, 'nlu', :created_at) ON CONFLICT (tenant_id, id) DO NOTHING
            """,
            {"tenant_id": tenant_id, "id": dataset_id, "created_at": iso(now_s)},
        )


def list_datasets(
    db: Database, tenant_id: str, *, limit: int = 100, cursor: str | None = None
) -> tuple[list[DatasetRow], str | None]:
    """Return the tenant's datasets by id and the cursor of the next page."""
    after = decode_cursor(cursor, 1)[0] if cursor else ""
    rows = db.rows(
        """
        SELECT d.*,
          (SELECT count(*) FROM examples AS e WHERE e.tenant_id = d.tenant_id AND e.dataset_id = d.id) AS size,
          (SELECT count(*) FROM examples AS e
            WHERE e.tenant_id = d.tenant_id AND e.dataset_id = d.id AND e.needs_review = 1) AS n_needs_review
        FROM datasets AS d WHERE d.tenant_id = :tenant_id AND d.id > :after ORDER BY d.id LIMIT :limit
        """,
        {"tenant_id": tenant_id, "after": after, "limit": limit + 1},
    )
    page, has_more = split_page([DatasetRow(**{n: row[n] for n in DatasetRow.__slots__}) for row in rows], limit)
    return page, encode_cursor(page[-1].id) if has_more else None


def get_dataset(db: Database, tenant_id: str, dataset_id: str) -> DatasetRow:
    """Return one dataset.

    Raises:
        NotFoundError: the tenant has no such dataset.
    """
    row = db.row(
        """
        SELECT d.*,
          (SELECT count(*) FROM examples AS e WHERE e.tenant_id = d.tenant_id AND e.dataset_id = d.id) AS size,
          (SELECT count(*) FROM examples AS e
            WHERE e.tenant_id = d.tenant_id AND e.dataset_id = d.id AND e.needs_review = 1) AS n_needs_review
        FROM datasets AS d WHERE d.tenant_id = :tenant_id AND d.id = :id
        """,
        {"tenant_id": tenant_id, "id": dataset_id},
    )
    if row is None:
        raise NotFoundError(f"no dataset {dataset_id!r}")
    return DatasetRow(**{name: row[name] for name in DatasetRow.__slots__})


def add_examples(
    db: Database,
    tenant_id: str,
    dataset_id: str,
    examples: Sequence[NewExample],
    *,
    review_below_confidence: float,
    now_s: float,
) -> int:
    """Put *examples* into the dataset, which is made when missing, and return how many were not there before.

    An example that was sent before changes nothing, whatever a person made of it since.
    """
    ensure_dataset(db, tenant_id, dataset_id, now_s)
    n_new = 0
    with db.transaction():
        for example in examples:
            n_new += db.execute(
                """
                INSERT INTO examples (id, tenant_id, dataset_id, type, input, intent, confidence, tags_json,
                  needs_review, current_step, user_hash, fingerprint, occurred_at, created_at)
                VALUES (:id, :tenant_id, :dataset_id, 'nlu', :input, :intent, :confidence, :tags_json,
                  :needs_review, :current_step, :user_hash, :fingerprint, :occurred_at, :created_at)
                ON CONFLICT (tenant_id, dataset_id, fingerprint) DO NOTHING
                """,
                {
                    "tenant_id": tenant_id,
                    "dataset_id": dataset_id,
                    **_values(example, example.confidence < review_below_confidence, now_s),
                },
            )
    return n_new


def _values(example: NewExample, needs_review: bool, now_s: float) -> dict[str, Any]:
    occurred_ms = int(now_s * 1000) if example.occurred_ms is None else example.occurred_ms
    tags = [f"confidence:{round(example.confidence * 100)}", f"source:{example.source}"]
    return {
        "id": f"ex-{occurred_ms}-{_chance()}",
        "input": example.input,
        "intent": example.intent,
        "confidence": example.confidence,
        "tags_json": msgspec.json.encode([*tags, NEEDS_REVIEW] if needs_review else tags).decode(),
        "needs_review": int(needs_review),
        "current_step": example.current_step,
        "user_hash": example.user_hash,
        "fingerprint": hashlib.blake2b(msgspec.json.encode(example), digest_size=16).hexdigest(),
        "occurred_at": iso(occurred_ms / 1000),
        "created_at": iso(now_s),
    }


def _chance() -> str:
    return "".join(ALPHABET[byte & 31] for byte in os.urandom(16))


def _example(row: Row) -> ExampleRow:
    return ExampleRow(
        **{name: row[name] for name in ExampleRow.__slots__ if name not in ("tags", "needs_review")},
        tags=tuple(msgspec.json.decode(row["tags_json"])),
        needs_review=bool(row["needs_review"]),
    )


def list_examples(
    db: Database,
    tenant_id: str,
    dataset_id: str,
    *,
    tag: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> tuple[list[ExampleRow], str | None]:
    """Return the dataset's examples in the order they came, those with *tag* only when given, and the next cursor.

    Raises:
        NotFoundError: the tenant has no such dataset.
    """
    get_dataset(db, tenant_id, dataset_id)
    # needs_review has an index of its own: its queue must not wade through all that was reviewed long ago.
    condition = (
        "AND needs_review = 1"
        if tag == NEEDS_REVIEW
        else "AND (:tag IS NULL OR EXISTS (SELECT 1 FROM json_each(tags_json) WHERE json_each.value = :tag))"
    )
    rows = db.rows(
        f"""
        SELECT * FROM examples
        WHERE tenant_id = :tenant_id AND dataset_id = :dataset_id AND seq > :after {condition}
        ORDER BY seq LIMIT :limit
        """,
        {
            "tenant_id": tenant_id,
            "dataset_id": dataset_id,
            "after": decode_cursor(cursor, 1)[0] if cursor else 0,
            "tag": tag,
            "limit": limit + 1,
        },
    )
    page, has_more = split_page(rows, limit)
    return [_example(row) for row in page], encode_cursor(page[-1]["seq"]) if has_more else None


def labelled_texts(db: Database, tenant_id: str, dataset_id: str, *, limit: int) -> list[LabelledText]:
    """Return the examples that need no review: what people looked at first, then the newest; at most *limit*.

    A question that came through the proxy counts when a person looked at it, or the app itself named its type, which is
    the only case of full confidence: what the classifier said must not teach the classifier.

    Raises:
        NotFoundError: the tenant has no such dataset.
    """
    get_dataset(db, tenant_id, dataset_id)
    rows = db.rows(
        """
        SELECT input, intent, coalesce(reviewed_at, '') AS reviewed_at FROM examples
        WHERE tenant_id = :tenant_id AND dataset_id = :dataset_id AND needs_review = 0
          AND (reviewed_at IS NOT NULL OR confidence >= 1 OR instr(tags_json, :own) = 0)
        ORDER BY reviewed_at IS NULL, seq DESC LIMIT :limit
        """,
        {"tenant_id": tenant_id, "dataset_id": dataset_id, "own": f'"{OWN_SOURCE}"', "limit": limit},
    )
    return [LabelledText(row["input"], row["intent"], row["reviewed_at"]) for row in rows]


def has_dataset(db: Database, tenant_id: str, dataset_id: str) -> bool:
    """Return whether the tenant has a dataset of this id."""
    return bool(
        db.value(
            "SELECT count(*) FROM datasets WHERE tenant_id = :tenant_id AND id = :id",
            {"tenant_id": tenant_id, "id": dataset_id},
        )
    )


def get_example(db: Database, tenant_id: str, example_id: str) -> ExampleRow:
    """Return one example.

    Raises:
        NotFoundError: the tenant has no such example.
    """
    row = db.row(
        "SELECT * FROM examples WHERE tenant_id = :tenant_id AND id = :id", {"tenant_id": tenant_id, "id": example_id}
    )
    if row is None:
        raise NotFoundError(f"no example {example_id!r}")
    return _example(row)


def review_example(
    db: Database,
    tenant_id: str,
    example_id: str,
    *,
    intent: str | None = None,
    needs_review: bool | None = None,
    actor: str,
    now_s: float,
) -> ExampleRow:
    """Return the example as a person left it; a new *intent* also settles its review unless they say otherwise.

    Raises:
        NotFoundError: the tenant has no such example.
        InvalidError: the intent is empty.
    """
    if intent is not None and not intent.strip():
        raise InvalidError("intent", "must not be empty")
    with db.transaction():
        example = get_example(db, tenant_id, example_id)
        if needs_review is None:
            needs_review = example.needs_review and intent is None
        tags = [tag for tag in example.tags if tag != NEEDS_REVIEW]
        db.execute(
            """
            UPDATE examples SET intent = :intent, needs_review = :needs_review, tags_json = :tags_json,
              reviewed_by = :actor, reviewed_at = :now
            WHERE tenant_id = :tenant_id AND id = :id
            """,
            {
                "tenant_id": tenant_id,
                "id": example_id,
                "intent": example.intent if intent is None else intent.strip(),
                "needs_review": int(needs_review),
                "tags_json": msgspec.json.encode([*tags, NEEDS_REVIEW] if needs_review else tags).decode(),
                "actor": actor,
                "now": iso(now_s),
            },
        )
        record(
            db,
            tenant_id,
            actor=actor,
            action="examples.review",
            object_id=example_id,
            detail={"from_intent": example.intent, "intent": intent, "needs_review": needs_review},
            now_s=now_s,
        )
        return get_example(db, tenant_id, example_id)
