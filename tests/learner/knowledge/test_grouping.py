"""Groups: every row in one, alike ones together, none that swallows all."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.knowledge.grouping import average_linkage, blended_similarity, group
from store.config import KnowledgeSection, load_config

SECTION: KnowledgeSection = load_config().knowledge
Method = Literal["blend", "semantic", "tags"]
METHODS: tuple[Method, ...] = ("blend", "semantic", "tags")


def topics(n_topics: int, n_each: int, noise: float = 0.05, seed: int = 1) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n_topics, 64))
    rows = np.repeat(centres / np.linalg.norm(centres, axis=1, keepdims=True), n_each, axis=0)
    rows = rows + noise * rng.standard_normal(rows.shape)
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


@pytest.mark.parametrize("method", METHODS)
def test_alike_conversations_are_together(method: Method) -> None:
    tags = [[f"topic-{row // 4}", f"kind-{row // 4}"] for row in range(12)]

    groups = group(topics(3, 4), tags, replace(SECTION, grouping=method))

    assert groups == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


@pytest.mark.parametrize("method", ["blend", "tags"])
def test_tags_that_everybody_has_join_nobody(method: Method) -> None:
    tags = [["support", "english", "web"] for _ in range(30)]

    groups = group(topics(10, 3), tags, replace(SECTION, grouping=method))

    assert max(len(rows) for rows in groups) <= 3


def test_a_chain_of_shared_tags_does_not_swallow_all() -> None:
    tags = [[f"t{row}", f"t{row + 1}", f"t{row + 2}"] for row in range(40)]

    groups = group(topics(10, 4), tags, replace(SECTION, grouping="tags"))

    assert max(len(rows) for rows in groups) <= 8


def test_a_missing_tag_does_not_keep_alike_ones_apart() -> None:
    rows = topics(1, 2, noise=0.0)

    similarity = blended_similarity(rows, [["refund"], []], 0.3)

    assert similarity[0, 1] == pytest.approx(1.0)


def test_nothing_makes_no_groups() -> None:
    assert group(np.zeros((0, 8), np.float32), [], SECTION) == []


def naive_average_linkage(similarity: NDArray[np.float32], threshold: float) -> set[frozenset[int]]:
    groups = [[row] for row in range(len(similarity))]
    while len(groups) > 1:
        pairs = [
            (float(np.mean([similarity[i, j] for i in first for j in second])), a, b + a + 1)
            for a, first in enumerate(groups)
            for b, second in enumerate(groups[a + 1 :])
        ]
        best, a, b = max(pairs)
        if best < threshold:
            break
        groups[a] += groups.pop(b)
    return {frozenset(rows) for rows in groups}


@settings(max_examples=50)
@given(st.integers(1, 12), st.integers(0, 10_000), st.floats(-0.3, 0.9))
def test_chains_find_the_groups_of_the_full_tree(n: int, seed: int, threshold: float) -> None:
    rows = topics(n, 1, seed=seed)
    similarity = rows @ rows.T

    labels = average_linkage(similarity, threshold)

    found = {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}
    assert found == naive_average_linkage(similarity, threshold)
