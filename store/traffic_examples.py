"""Questions that came through the proxy as training examples. Reads ``responses``, writes ``examples``; the learner.

Each wording once, whoever asked it: what is learned is what questions are like, not how often each is asked. Only
complete answers count, and the oldest that nobody reviewed make room for new ones.
"""

import hashlib
from itertools import groupby
from typing import Final

from store.clock import parse_iso
from store.config import TrainingSection
from store.database import Database, Row
from store.datasets import SELF_LABELLED, NewExample, add_examples
from store.pseudonyms import hash_user
from store.tenants import get_tenant

CHUNK: Final = 500  # responses a transaction: the proxy's recorder writes in between
MAX_CHARS: Final = 2000  # of a question; the classifier looks at no more
TRAFFIC: Final = "traffic"  # the tag of what was collected here
SOURCE: Final = "proxy"


def collect_traffic(db: Database, training: TrainingSection, *, now_s: float) -> int:
    """Take in what came through the proxy since the last time, of all tenants that learn; return how many were new."""
    if not training.collect_traffic:
        return 0
    n_new = 0
    while db.value("SELECT 1 FROM responses WHERE seq > (SELECT response_seq FROM collected_traffic) LIMIT 1"):
        with db.transaction():  # the examples and how far they go, or neither
            n_new += _collect_chunk(db, training, now_s)
    return n_new


def _collect_chunk(db: Database, training: TrainingSection, now_s: float) -> int:
    rows = db.rows(
        """
        SELECT r.seq, r.tenant_id, r.conversation_id, r.user_id, r.question, r.question_type,
          r.question_type_confidence, r.created_at, r.outcome = 'ok' AND t.learning = 'on' AS is_learnable
        FROM responses AS r JOIN tenants AS t ON t.id = r.tenant_id
        WHERE r.seq > (SELECT response_seq FROM collected_traffic) ORDER BY r.seq LIMIT :limit
        """,
        {"limit": CHUNK},
    )
    learnable = sorted((row for row in rows if row["is_learnable"] and _text(row)), key=lambda row: row["tenant_id"])
    n_new = 0
    for tenant_id, its_rows in groupby(learnable, key=lambda row: str(row["tenant_id"])):
        secret = get_tenant(db, tenant_id).secret
        n_new += add_examples(
            db,
            tenant_id,
            training.dataset_id,
            [_example(row, secret) for row in its_rows],
            review_below_confidence=training.review_below_confidence,
            audit_share=training.audit_share,
            now_s=now_s,
        )
        _make_room(db, tenant_id, training)
    if rows:
        db.execute("UPDATE collected_traffic SET response_seq = :seq", {"seq": rows[-1]["seq"]})
    return n_new


def _text(row: Row) -> str:
    return str(row["question"])[:MAX_CHARS].strip()


def _example(row: Row, secret: bytes) -> NewExample:
    text = _text(row)
    wording = " ".join(text.casefold().split())
    confidence = row["question_type_confidence"]
    return NewExample(
        input=text,
        intent=row["question_type"],
        confidence=1.0 if confidence is None else min(1.0, max(0.0, confidence)),  # None: the app itself said it
        source=SOURCE,
        current_step=None,
        user_hash=hash_user(secret, row["user_id"]) if row["user_id"] else "",
        occurred_ms=int(parse_iso(row["created_at"]) * 1000),
        conversation_id=row["conversation_id"],
        tags=(TRAFFIC,) if confidence is None else (TRAFFIC, SELF_LABELLED),
        fingerprint=hashlib.blake2b(f"{TRAFFIC}\x00{wording}".encode(), digest_size=16).hexdigest(),
    )


def _make_room(db: Database, tenant_id: str, training: TrainingSection) -> None:
    facet = db.row(
        """
        SELECT id, n_examples FROM dataset_facets
        WHERE tenant_id = :tenant_id AND dataset_id = :dataset_id AND kind = 'tag' AND value = :tag
        """,
        {"tenant_id": tenant_id, "dataset_id": training.dataset_id, "tag": TRAFFIC},
    )
    if facet is None or facet["n_examples"] <= training.max_traffic_examples:
        return
    db.execute(
        """
        DELETE FROM examples WHERE seq IN (
          SELECT e.seq FROM example_facets AS f CROSS JOIN examples AS e ON e.seq = f.seq
          WHERE f.facet_id = :facet_id AND e.reviewed_at IS NULL ORDER BY f.seq LIMIT :excess)
        """,
        {"facet_id": facet["id"], "excess": facet["n_examples"] - training.max_traffic_examples},
    )
