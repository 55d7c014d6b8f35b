"""In which order a person looks at examples: what teaches most first, unlike each other, a few sure ones among them.

What a label teaches is taken as how narrow the classifier's margin was (Scheffer et al. 2001, "Active hidden Markov
models", sec. 4) times how little the example resembles those before it in the queue: a hundred spellings of one
message teach once. Sure ones that the lot drew keep their places, or nobody would notice a classifier that is sure
and wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from store.database import Database
from store.datasets import ExampleRow
from store.embedding import Embedder, Vector
from store.review_queue import audit_examples, unsure_examples

POOL: Final = 200  # examples of the narrowest margins that a queue is chosen from: 15 ms of embedding
PLACES_PER_AUDIT: Final = 10  # of these, one is for a sure example

Reason = Literal["unsure", "audit", "asked"]


@dataclass(frozen=True, slots=True)
class QueuedExample:
    """An example that waits for a person: the reason as a word, and in words."""

    example: ExampleRow
    reason: Reason
    why: str


def review_queue(
    db: Database, tenant_id: str, dataset_id: str, embedder: Embedder, *, review_below: float, limit: int
) -> list[QueuedExample]:
    """Return the examples that a person should look at next, at most *limit*; what was reviewed is not among them.

    Raises:
        NotFoundError: the tenant has no such dataset.
    """
    pool = unsure_examples(db, tenant_id, dataset_id, limit=max(POOL, limit))
    audits = audit_examples(db, tenant_id, dataset_id, limit=limit)
    n_audits = max(min(len(audits), -(-limit // PLACES_PER_AUDIT)), limit - len(pool))
    chosen = choose([example.margin for example in pool], embedder.embed([one.input for one in pool]), limit - n_audits)
    unsure = [_queued(pool[index], review_below) for index in chosen]
    return interleaved(unsure, [_queued(example, review_below) for example in audits[:n_audits]])


def choose(margins: Sequence[float], embeddings: Vector, k: int) -> list[int]:
    """Return up to *k* indices, each the one that teaches most beside those before it.

    Args:
        margins: (n,) in [0, 1].
        embeddings: (n, d), unit rows; zeros for a text without words.
        k: how many, at least 0.

    >>> choose([0.0, 0.0, 0.5], np.array([[1, 0], [1, 0], [0, 1]], np.float32), 3)
    [0, 2, 1]
    """
    informative = 1.0 - np.asarray(margins, np.float64)
    likeness = np.zeros(len(informative))
    is_left = np.ones(len(informative), bool)
    chosen: list[int] = []
    for _ in range(min(k, len(informative))):
        # Among equals, such as copies of what was chosen, the narrowest margin, then the first.
        worth = np.where(is_left, informative * (1.0 - likeness) + 1e-9 * informative, -1.0)
        best = int(worth.argmax())
        chosen.append(best)
        is_left[best] = False
        likeness = np.maximum(likeness, np.clip(embeddings @ embeddings[best], 0.0, 1.0))
    return chosen


def interleaved(unsure: Sequence[QueuedExample], audits: Sequence[QueuedExample]) -> list[QueuedExample]:
    """Return both, the audits spread evenly behind the others."""
    step = -(-len(unsure) // len(audits)) if audits else 0
    queue: list[QueuedExample] = []
    for index, audit in enumerate(audits):
        queue += [*unsure[index * step : (index + 1) * step], audit]
    return queue if audits else list(unsure)


def _queued(example: ExampleRow, review_below: float) -> QueuedExample:
    if not example.needs_review:
        return QueuedExample(
            example, "audit", f"sure ({example.confidence:.0%}); drawn by lot to see whether it is right"
        )
    if example.reviewed_by is not None and example.confidence >= review_below:
        return QueuedExample(example, "asked", f"{example.reviewed_by} asked for another look")
    if example.runner_up is not None:
        ahead = f"{example.margin:.0%} ahead of {example.runner_up}"
        return QueuedExample(example, "unsure", f"{example.confidence:.0%} sure, {ahead}")
    return QueuedExample(example, "unsure", f"{example.confidence:.0%} sure, less than {review_below:.0%}")
