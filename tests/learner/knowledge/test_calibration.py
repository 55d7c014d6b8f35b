"""A tenant's threshold keeps about the configured share of unrelated questions from finding anything."""

import numpy as np
import pytest

from learner.knowledge.calibration import MIN_ENTRIES, find_threshold, owners_of, read_unrelated
from store.embedding import LocalEmbedder, Vector, entry_embedding

SUBJECTS = (
    "refund", "invoice", "delivery address", "password", "subscription", "gift card", "return label", "warranty",
    "order status", "discount code", "payment method", "newsletter", "exchange of shoes", "store hours", "tax number",
)  # fmt: skip


def phrasings(subject: str) -> list[str]:
    return [f"how do i change my {subject}", f"i have a problem with the {subject}", f"where is my {subject}"]


def of_entries(embedder: LocalEmbedder, n: int = len(SUBJECTS)) -> tuple[Vector, Vector, np.ndarray]:
    asked = [phrasings(subject) for subject in SUBJECTS[:n]]
    entries = np.stack([entry_embedding(embedder, texts) for texts in asked])
    return entries, embedder.embed([text for texts in asked for text in texts]), owners_of([3] * n)


def test_the_shipped_questions_are_many_and_different() -> None:
    texts = read_unrelated()

    assert len(texts) >= 150
    assert len(set(texts)) == len(texts)


def test_own_phrasings_pass_and_everyday_questions_do_not(embedder: LocalEmbedder) -> None:
    entries, own, owners = of_entries(embedder)
    unrelated = embedder.embed(read_unrelated())

    threshold = find_threshold(entries, own, owners, unrelated, share=0.03, least=0.0)

    assert threshold is not None
    passed = (unrelated @ entries.T).max(axis=1) >= threshold
    assert passed.mean() <= 0.06
    assert (np.einsum("nd,nd->n", own, entries[owners]) >= threshold).mean() > 0.9


@pytest.mark.parametrize("shares", [(0.01, 0.03), (0.03, 0.1)])
def test_a_smaller_share_means_a_higher_threshold(embedder: LocalEmbedder, shares: tuple[float, float]) -> None:
    entries, own, owners = of_entries(embedder)
    unrelated = embedder.embed(read_unrelated())

    few, many = (find_threshold(entries, own, owners, unrelated, share=share, least=0.0) for share in shares)

    assert few is not None
    assert many is not None
    assert few > many


def test_a_few_questions_that_an_entry_is_about_do_not_raise_the_threshold(embedder: LocalEmbedder) -> None:
    entries, own, owners = of_entries(embedder)
    unrelated = embedder.embed(read_unrelated())
    spoilt = unrelated.copy()
    spoilt[:10] = own[:10]

    clean = find_threshold(entries, own, owners, unrelated, share=0.03, least=0.0)
    with_some = find_threshold(entries, own, owners, spoilt, share=0.03, least=0.0)

    assert clean is not None
    assert with_some == pytest.approx(clean, abs=0.05)


def test_no_threshold_is_under_the_floor_and_none_is_found_on_a_few_entries(embedder: LocalEmbedder) -> None:
    unrelated = embedder.embed(read_unrelated())

    assert find_threshold(*of_entries(embedder), unrelated, share=0.03, least=0.93) == 0.93
    assert find_threshold(*of_entries(embedder, MIN_ENTRIES - 1), unrelated, share=0.03, least=0.0) is None
