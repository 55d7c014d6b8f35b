"""Vectors rounded to bytes find everything that the vectors themselves would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.packed_vectors import MAX_LOOSE, PackedVectors, Vectors


def unit_rows(rng: np.random.Generator, n_rows: int, sharpness: float) -> Vectors:
    """Return rows of unit length; the sharper, the more of it lies in a few components."""
    rows = rng.normal(size=(n_rows, 256)) * rng.uniform(size=(n_rows, 256)) ** sharpness
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


@given(
    seed=st.integers(0, 2**32),
    n_rows=st.integers(1, 300),
    sharpness=st.sampled_from((0.0, 1.0, 8.0, 60.0)),
    threshold=st.floats(-1, 1),
)
def test_no_row_that_is_similar_enough_is_missed(seed: int, n_rows: int, sharpness: float, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit_rows(rng, n_rows, sharpness)
    question = unit_rows(rng, 1, sharpness)[0]
    similarities = vectors @ question
    found = PackedVectors(vectors).candidates(question, threshold)
    assert set((similarities >= threshold).nonzero()[0].tolist()) <= set(found.tolist())


def test_few_rows_that_are_not_similar_enough_are_among_the_candidates() -> None:
    rng = np.random.default_rng(5)
    vectors = unit_rows(rng, 4000, 1.0)
    question = (vectors[7] + 0.3 * unit_rows(rng, 1, 1.0)[0]).astype(np.float32)
    question /= np.linalg.norm(question)
    assert PackedVectors(vectors).candidates(question, 0.5).tolist() == [7]


def test_a_question_without_words_is_near_to_nothing() -> None:
    vectors = unit_rows(np.random.default_rng(5), 10, 1.0)
    assert PackedVectors(vectors).candidates(np.zeros(256, np.float32), 0.5).size == 0


def test_rows_are_packed_again_once_many_came_after() -> None:
    vectors = unit_rows(np.random.default_rng(5), MAX_LOOSE + 20, 1.0)
    first = PackedVectors.of(vectors[:MAX_LOOSE], None)
    assert first is None
    packed = PackedVectors.of(vectors, first)
    assert packed is not None
    assert PackedVectors.of(vectors, packed) is packed
    grown = PackedVectors.of(np.concatenate([vectors, vectors]), packed)
    assert grown is not None
    assert grown.n_rows == 2 * len(vectors)


@pytest.mark.parametrize("n_rows", [1, 8191, 8193])
def test_any_number_of_rows_is_packed(n_rows: int) -> None:
    vectors = unit_rows(np.random.default_rng(5), n_rows, 1.0)
    assert n_rows - 1 in PackedVectors(vectors).candidates(vectors[-1], 0.99)
