"""Embedding: the same vectors as whole texts would give, never NaN, bounded."""

import json
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tokenizers import Tokenizer

from store.assets import read_package_file
from store.config import load_config
from store.embedding import (
    MAX_END_CHARS,
    TOKENIZER_SHA256,
    LocalEmbedder,
    Vector,
    entry_embedding,
    load_local_embedder,
    normalised,
    top_k,
)

VOCABULARY_FILE = ("tokenizers", "l2_supercat_tokenizer_config.json")


@pytest.fixture(scope="module")
def embedder() -> LocalEmbedder:
    return load_local_embedder(load_config().embedding)


@pytest.fixture(scope="module")
def vocabulary_bytes() -> bytes:
    return read_package_file("wordllama", *VOCABULARY_FILE, sha256=TOKENIZER_SHA256)


@pytest.fixture(scope="module")
def whole_text(vocabulary_bytes: bytes) -> Tokenizer:
    tokenizer = Tokenizer.from_buffer(vocabulary_bytes)
    tokenizer.encode_special_tokens = True
    return tokenizer


words_and_marks = st.text(
    st.one_of(st.characters(), st.sampled_from(" \t\n\u2581</s>unk\u3000\u200d🙂é\ud800aeiou'.,?")), max_size=200
)


def collapsed(text: str) -> str:
    return " ".join(text.replace("\u2581", " ").split()).encode("utf-8", "replace").decode()


@given(text=words_and_marks)
def test_words_one_by_one_are_the_tokens_of_the_whole_collapsed_text(
    embedder: LocalEmbedder, whole_text: Tokenizer, text: str
) -> None:
    expected = whole_text.encode(collapsed(text), add_special_tokens=False).ids if collapsed(text) else []

    assert embedder.token_ids(text) == expected


def test_no_token_holds_a_word_mark_after_another_character(vocabulary_bytes: bytes) -> None:
    vocabulary = json.loads(vocabulary_bytes)["model"]["vocab"]

    assert [token for token in vocabulary if "\u2581" in token.lstrip("\u2581")] == []


@given(text=words_and_marks)
def test_a_vector_has_unit_length_or_is_all_zeros(embedder: LocalEmbedder, text: str) -> None:
    vector = embedder.embed_one(text)

    assert vector.shape == (256,)
    assert vector.dtype == np.float32
    assert float(vector @ vector) == pytest.approx(1.0 if collapsed(text) else 0.0, abs=1e-5)


@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000", "\u2581"])
def test_a_text_without_words_is_a_zero_vector(embedder: LocalEmbedder, text: str) -> None:
    assert not embedder.embed_one(text).any()


def test_whitespace_does_not_change_a_vector(embedder: LocalEmbedder) -> None:
    spread, plain = embedder.embed(["  where\n\nis \t my order? ", "where is my order?"])

    assert np.array_equal(spread, plain)


def test_rows_are_the_vectors_of_the_texts_in_order(embedder: LocalEmbedder) -> None:
    texts = ["where is my order?", "", "how do I reset it?"]

    assert np.array_equal(embedder.embed(texts), np.stack([embedder.embed_one(text) for text in texts]))
    assert embedder.embed([]).shape == (0, 256)


def test_a_reworded_question_is_closer_than_another_question(embedder: LocalEmbedder) -> None:
    question, reworded, other = embedder.embed(
        ["How do I reset my password?", "I forgot my password, how can I change it?", "Do you ship to Norway?"]
    )

    assert question @ reworded > 0.5 > question @ other


def test_a_long_text_counts_by_its_two_ends(embedder: LocalEmbedder) -> None:
    start, end = "why does this fail? " * 50, " what does the error mean?" * 40
    start, end = start[:MAX_END_CHARS].ljust(MAX_END_CHARS), end[-MAX_END_CHARS:].rjust(MAX_END_CHARS)

    long = embedder.embed_one(start + "x = 1\n" * 1_000_000 + end)

    assert np.array_equal(long, embedder.embed_one(start + end))


def fresh_embedder(whole_text: Tokenizer, cache_size: int) -> LocalEmbedder:
    table = np.arange(32000 * 256, dtype=np.float32).reshape(32000, 256)
    return LocalEmbedder(table, whole_text, cache_size)


def test_the_cache_never_holds_more_words_than_its_size(whole_text: Tokenizer) -> None:
    embedder = fresh_embedder(whole_text, cache_size=10)

    for number in range(1000):
        embedder.embed_one(f"common word{number} " + "x" * 100)

    assert len(embedder._newer) + len(embedder._older) <= 10
    assert "common" in embedder._newer or "common" in embedder._older


def test_threads_that_share_an_embedder_get_the_same_vectors_as_one_alone(whole_text: Tokenizer) -> None:
    texts = [f"question number {number % 97} about topic {number % 31}" for number in range(2000)]
    expected = fresh_embedder(whole_text, cache_size=100_000).embed(texts)
    shared = fresh_embedder(whole_text, cache_size=20)
    results: list[Vector] = []

    threads = [threading.Thread(target=lambda: results.append(shared.embed(texts))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == 4
    assert all(np.array_equal(result, expected) for result in results)


class FixedEmbedder:
    """Knows two words."""

    name = "fixed"

    def embed_one(self, text: str) -> Vector:
        return {"x": np.array([1, 0], np.float32), "y": np.array([0, 1], np.float32)}.get(text, np.zeros(2, np.float32))

    def embed(self, texts: Sequence[str]) -> Vector:
        return np.stack([self.embed_one(text) for text in texts])


def test_the_vector_of_an_entry_is_the_normalised_mean_of_its_phrasings() -> None:
    assert entry_embedding(FixedEmbedder(), ["x", "y", ""]) == pytest.approx([0.5**0.5, 0.5**0.5])
    assert not entry_embedding(FixedEmbedder(), ["", ""]).any()


@given(vector=arrays(np.float32, 4, elements=st.floats(-100, 100, width=32)))
def test_normalising_never_makes_nan(vector: Vector) -> None:
    assert np.isfinite(normalised(vector)).all()


@given(
    matrix=arrays(np.float32, st.tuples(st.integers(0, 20), st.just(3)), elements=st.sampled_from([0.0, 0.5, 1.0])),
    k=st.integers(1, 25),
)
def test_top_k_is_the_head_of_the_whole_order(matrix: Vector, k: int) -> None:
    query = np.array([1, 0.5, 0.25], np.float32)

    rows, similarities = top_k(query, matrix, k)

    expected = np.sort(matrix @ query)[::-1][:k]
    assert np.array_equal(similarities, expected)
    assert np.array_equal(matrix[rows] @ query, expected)
    assert len(set(rows.tolist())) == min(k, len(matrix))


def test_top_k_of_different_dimensions_is_an_error() -> None:
    with pytest.raises(ValueError, match="size 3 is different from 2"):
        top_k(np.zeros(3, np.float32), np.zeros((4, 2), np.float32), 1)
