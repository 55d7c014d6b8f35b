"""Tables ``datasets``, ``examples`` and what these are found by: training data. Written by learner and command."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from store.audit import record
from store.clock import iso
from store.database import Database, Row
from store.errors import InvalidError, NotFoundError
from store.ids import ALPHABET
from store.paging import decode_cursor, decode_number, encode_cursor, split_page

FacetKind = Literal["intent", "tag"]

NEEDS_REVIEW: Final = "needs_review"
SELF_LABELLED: Final = "self_labelled"  # the tag of what our own classifier labelled
MAX_LABEL_CHARS: Final = 200  # of an intent, a source or a step: names, not texts
MAX_SEARCH_WORDS: Final = 20


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A dataset with how many examples it holds, and how many of them wait for a review."""

    id: str
    tenant_id: str
    name: str
    type: str
    size: int
    n_needs_review: int
    created_at: str


@dataclass(frozen=True, slots=True)
class NewExample:
    """One classified message, as a channel, the proxy's records or a file has it.

    ``occurred_ms`` is None when nobody said. An ``id`` that the sender made, or a ``fingerprint`` from an export, says
    which example it is; without one, what it holds does.
    """

    input: str
    intent: str
    confidence: float
    source: str
    current_step: str | None
    user_hash: str
    occurred_ms: int | None
    id: str | None = None
    runner_up: str | None = None
    runner_up_confidence: float | None = None
    conversation_id: str | None = None
    tags: tuple[str, ...] = ()  # beside those that are made of confidence and source
    needs_review: bool | None = None  # None: as the confidence says
    former_intent: str | None = None
    reviewed_by: str | None = None
    reviewed_at: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """An example; ``margin`` is its confidence less that of the runner-up, at its least when nobody named one."""

    seq: int
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
    runner_up: str | None
    margin: float
    is_audit: bool
    former_intent: str | None
    reviewed_by: str | None
    reviewed_at: str | None
    fingerprint: str


@dataclass(frozen=True, slots=True)
class FacetRow:
    """An intent or a tag, and how many examples of the dataset have it."""

    kind: FacetKind
    value: str
    n_examples: int


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
        SELECT * FROM datasets WHERE tenant_id = :tenant_id AND id > :after ORDER BY id LIMIT :limit
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
        "SELECT * FROM datasets WHERE tenant_id = :tenant_id AND id = :id", {"tenant_id": tenant_id, "id": dataset_id}
    )
    if row is None:
        raise NotFoundError(f"no dataset {dataset_id!r}")
    return DatasetRow(**{name: row[name] for name in DatasetRow.__slots__})


def list_facets(
    db: Database, tenant_id: str, dataset_id: str, *, kind: FacetKind, limit: int = 100, cursor: str | None = None
) -> tuple[list[FacetRow], str | None]:
    """Return the dataset's intents or tags by name, with the examples of each, and the next cursor.

    Raises:
        NotFoundError: the tenant has no such dataset.
    """
    get_dataset(db, tenant_id, dataset_id)
    rows = db.rows(
        """
        SELECT kind, value, n_examples FROM dataset_facets
        WHERE tenant_id = :tenant_id AND dataset_id = :dataset_id AND kind = :kind AND value > :after
        ORDER BY value LIMIT :limit
        """,
        {
            "tenant_id": tenant_id,
            "dataset_id": dataset_id,
            "kind": kind,
            "after": decode_cursor(cursor, 1)[0] if cursor else "",
            "limit": limit + 1,
        },
    )
    page, has_more = split_page([FacetRow(**row) for row in rows], limit)
    return page, encode_cursor(page[-1].value) if has_more else None


def add_examples(
    db: Database,
    tenant_id: str,
    dataset_id: str,
    examples: Sequence[NewExample],
    *,
    review_below_confidence: float,
    now_s: float,
    audit_share: float = 0.0,
) -> int:
    """Put *examples* into the dataset, which is made when missing, and return how many were not there before.

    An example that was sent before changes nothing, whatever a person made of it since. A share *audit_share* of
    those that need no review is drawn by lot to be looked at all the same.
    """
    ensure_dataset(db, tenant_id, dataset_id, now_s)
    n_new = 0
    with db.transaction():
        for example in examples:
            is_flagged = needs_review(example, review_below_confidence)
            n_new += db.execute(
                """
                INSERT INTO examples (id, tenant_id, dataset_id, type, input, intent, confidence, tags_json,
                  needs_review, current_step, user_hash, conversation_id, fingerprint, occurred_at, created_at,
                  runner_up, margin, is_audit, former_intent, reviewed_by, reviewed_at)
                VALUES (:id, :tenant_id, :dataset_id, 'nlu', :input, :intent, :confidence, :tags_json,
                  :needs_review, :current_step, :user_hash, :conversation_id, :fingerprint, :occurred_at, :created_at,
                  :runner_up, :margin, :is_audit, :former_intent, :reviewed_by, :reviewed_at)
                ON CONFLICT (tenant_id, dataset_id, fingerprint) DO NOTHING
                """,
                {
                    "tenant_id": tenant_id,
                    "dataset_id": dataset_id,
                    **_values(example, is_flagged, audit_share, now_s),
                },
            )
    return n_new


def needs_review(example: NewExample, below_confidence: float) -> bool:
    """Return whether a person should look at an example: as its sender says, else as its confidence does."""
    return example.confidence < below_confidence if example.needs_review is None else example.needs_review


def _values(example: NewExample, is_flagged: bool, audit_share: float, now_s: float) -> dict[str, Any]:
    occurred_ms = int(now_s * 1000) if example.occurred_ms is None else example.occurred_ms
    tags = [f"confidence:{round(example.confidence * 100)}", f"source:{example.source}", *example.tags]
    fingerprint = example.fingerprint or fingerprint_of(example)
    is_audit = not is_flagged and example.reviewed_at is None and int(fingerprint[:8], 16) < audit_share * 2**32
    return {
        "id": f"ex-{occurred_ms}-{_chance()}",
        "input": example.input,
        "intent": example.intent,
        "confidence": example.confidence,
        "tags_json": msgspec.json.encode([*tags, NEEDS_REVIEW] if is_flagged else tags).decode(),
        "needs_review": int(is_flagged),
        "current_step": example.current_step,
        "user_hash": example.user_hash,
        "conversation_id": example.conversation_id,
        "fingerprint": fingerprint,
        "occurred_at": iso(occurred_ms / 1000),
        "created_at": iso(now_s),
        "runner_up": example.runner_up,
        "margin": margin(example.confidence, example.runner_up_confidence),
        "is_audit": int(is_audit),
        "former_intent": example.former_intent,
        "reviewed_by": example.reviewed_by,
        "reviewed_at": example.reviewed_at,
    }


def margin(confidence: float, runner_up_confidence: float | None) -> float:
    """Return by how much the most likely intent leads, in [0, 1]; the least that it can be when nobody said.

    >>> margin(0.5, 0.25), margin(0.75, None), margin(0.4, None)
    (0.25, 0.5, 0.0)
    """
    most = min(confidence, 1.0 - confidence) if runner_up_confidence is None else runner_up_confidence
    return min(1.0, max(0.0, confidence - most))


def fingerprint_of(example: NewExample) -> str:
    """Return what makes an example the one that it is: the sender's id, else what it said; 32 hex digits."""
    # The names and their order stay as they are: examples are known by this since the first release.
    said = {
        "input": example.input,
        "intent": example.intent,
        "confidence": example.confidence,
        "source": example.source,
        "current_step": example.current_step,
        "user_hash": example.user_hash,
        "occurred_ms": example.occurred_ms,
    }
    return hashlib.blake2b(msgspec.json.encode({"id": example.id} if example.id else said), digest_size=16).hexdigest()


def _chance() -> str:
    return "".join(ALPHABET[byte & 31] for byte in os.urandom(16))


def example_of(row: Row) -> ExampleRow:
    """Return a row of ``examples`` as a value."""
    return ExampleRow(
        **{name: row[name] for name in ExampleRow.__slots__ if name not in ("tags", "needs_review", "is_audit")},
        tags=tuple(msgspec.json.decode(row["tags_json"])),
        needs_review=bool(row["needs_review"]),
        is_audit=bool(row["is_audit"]),
    )


def list_examples(
    db: Database,
    tenant_id: str,
    dataset_id: str,
    *,
    tag: str | None = None,
    intent: str | None = None,
    search: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
) -> tuple[list[ExampleRow], str | None]:
    """Return the dataset's examples in the order they came, and the next cursor.

    Args:
        db: the database.
        tenant_id: whose dataset.
        dataset_id: which one.
        tag: only those that have it.
        intent: only those of it.
        search: only those whose input has all of these words, in any order; ``ord*`` is any word that begins so.
        limit: how many at most.
        cursor: of the page before.

    Raises:
        NotFoundError: the tenant has no such dataset.
        InvalidError: *search* has no word.
    """
    get_dataset(db, tenant_id, dataset_id)
    facets = [
        _facet(db, tenant_id, dataset_id, kind, value)
        for kind, value in (("tag", tag), ("intent", intent))
        if value is not None
    ]
    found = sorted((facet for facet in facets if facet is not None), key=lambda facet: facet.n_examples)
    if len(found) < len(facets):
        return [], None
    source, key, conditions = _source(found, is_search=search is not None)
    rows = db.rows(
        f"""
        SELECT e.* FROM {source}
        WHERE {" AND ".join([f"{key} > :after", *conditions])}
          AND e.tenant_id = :tenant_id AND e.dataset_id = :dataset_id
        ORDER BY {key} LIMIT :limit
        """,
        {
            "tenant_id": tenant_id,
            "dataset_id": dataset_id,
            "after": decode_number(cursor) if cursor else 0,
            "words": "" if search is None else _match(tenant_id, dataset_id, search),
            "limit": limit + 1,
        },
    )
    page, has_more = split_page(rows, limit)
    return [example_of(row) for row in page], encode_cursor(page[-1]["seq"]) if has_more else None


@dataclass(frozen=True, slots=True)
class _Facet:
    id: int
    n_examples: int


def _facet(db: Database, tenant_id: str, dataset_id: str, kind: str, value: str) -> _Facet | None:
    row = db.row(
        """
        SELECT id, n_examples FROM dataset_facets
        WHERE tenant_id = :tenant_id AND dataset_id = :dataset_id AND kind = :kind AND value = :value
        """,
        {"tenant_id": tenant_id, "dataset_id": dataset_id, "kind": kind, "value": value},
    )
    return None if row is None else _Facet(row["id"], row["n_examples"])


def _source(facets: Sequence[_Facet], *, is_search: bool) -> tuple[str, str, list[str]]:
    """Return where examples are read from, the key of its order, and conditions.

    A search leads, else the rarest label (*facets* come rarest first); each row of it is looked up in the others.
    """
    if is_search:
        source, key = "examples_search AS s CROSS JOIN examples AS e ON e.seq = s.rowid", "s.rowid"
        first = ["s.examples_search MATCH :words"]
    elif facets:
        source, key = "example_facets AS f CROSS JOIN examples AS e ON e.seq = f.seq", "f.seq"
        first, facets = [f"f.facet_id = {facets[0].id:d}"], facets[1:]
    else:
        source, key, first = "examples AS e", "e.seq", []
    return (
        source,
        key,
        first
        + [f"EXISTS (SELECT 1 FROM example_facets WHERE facet_id = {facet.id:d} AND seq = e.seq)" for facet in facets],
    )


def _match(tenant_id: str, dataset_id: str, search: str) -> str:
    """Return the query of the search index: every word is quoted, so that none of them is an operator.

    Raises:
        InvalidError: there is no word.
    """
    words = [word for word in search.replace("\x00", " ").split() if any(map(str.isalnum, word))][:MAX_SEARCH_WORDS]
    if not words:
        raise InvalidError("q", "must have a letter or a digit")
    scope = f"d{f'{tenant_id}/{dataset_id}'.encode('utf-8', 'surrogatepass').hex()}"
    # Whole words: the beginning of one costs the merged lists of all that begin so, 100 ms among a million examples.
    quoted = [f'"{word.rstrip("*").replace(chr(34), chr(34) * 2)}"{" *" * word.endswith("*")}' for word in words]
    return " AND ".join([f"{{scope}} : {scope}", *(f"{{input}} : {word}" for word in quoted)])


def labelled_texts(db: Database, tenant_id: str, dataset_id: str, *, limit: int) -> list[LabelledText]:
    """Return the examples that need no review: what people looked at first, then the newest; at most *limit*.

    What the classifier itself said of the proxy's questions teaches it nothing until a person looked at it: it would
    only grow surer of what it believes.

    Raises:
        NotFoundError: the tenant has no such dataset.
    """
    get_dataset(db, tenant_id, dataset_id)
    rows = db.rows(
        """
        SELECT input, intent, coalesce(reviewed_at, '') AS reviewed_at FROM examples
        WHERE tenant_id = :tenant_id AND dataset_id = :dataset_id AND needs_review = 0
          AND (reviewed_at IS NOT NULL OR instr(tags_json, :self_labelled) = 0)
        ORDER BY reviewed_at IS NULL, seq DESC LIMIT :limit
        """,
        {
            "tenant_id": tenant_id,
            "dataset_id": dataset_id,
            "self_labelled": f'"{SELF_LABELLED}"',
            "limit": limit,
        },
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
    return example_of(row)


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

    The intent that was sent stays as ``former_intent``, every step in between in the audit log.

    Raises:
        NotFoundError: the tenant has no such example.
        InvalidError: the intent is empty or too long.
    """
    if intent is not None and not intent.strip():
        raise InvalidError("intent", "must not be empty")
    if intent is not None and len(intent.strip()) > MAX_LABEL_CHARS:
        raise InvalidError("intent", f"must have at most {MAX_LABEL_CHARS} characters, not {len(intent.strip())}")
    with db.transaction():
        example = get_example(db, tenant_id, example_id)
        if needs_review is None:
            needs_review = example.needs_review and intent is None
        tags = [tag for tag in example.tags if tag != NEEDS_REVIEW]
        sent = example.intent if example.former_intent is None else example.former_intent
        new_intent = example.intent if intent is None else intent.strip()
        db.execute(
            """
            UPDATE examples SET intent = :intent, needs_review = :needs_review, tags_json = :tags_json,
              former_intent = :former_intent, reviewed_by = :actor, reviewed_at = :now
            WHERE tenant_id = :tenant_id AND id = :id
            """,
            {
                "tenant_id": tenant_id,
                "id": example_id,
                "intent": new_intent,
                "former_intent": None if new_intent == sent else sent,
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
            detail={"from_intent": example.intent, "intent": new_intent, "needs_review": needs_review},
            now_s=now_s,
        )
        return get_example(db, tenant_id, example_id)
