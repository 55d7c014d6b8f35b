"""What an embedding server answers becomes one unit vector of 256 dimensions for each text, or one error."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.config import load_config
from store.remote_embedding import EmbeddingReplyError, decode_reply, encode_request, model_name

SECTION = replace(load_config().embedding, model="text-embedding-3-small")
COMPONENTS = st.lists(st.floats(-1, 1, width=32).filter(lambda x: abs(x) > 1e-3), min_size=1, max_size=400)


def reply(*embeddings: Any, **more: Any) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(embeddings)]
    return json.dumps({"object": "list", "data": data, "model": "m", **more}).encode()


def test_a_request_names_the_model_the_texts_and_the_dimensions() -> None:
    assert json.loads(encode_request(SECTION, ["a", "b"])) == {
        "model": "text-embedding-3-small",
        "input": ["a", "b"],
        "encoding_format": "float",
        "dimensions": 256,
    }


def test_dimensions_are_not_asked_of_a_server_that_refuses_them() -> None:
    section = replace(SECTION, request_dimensions=0)

    assert "dimensions" not in json.loads(encode_request(section, ["a"]))
    assert model_name(section) != model_name(SECTION)


def test_a_lone_surrogate_can_be_sent() -> None:
    assert json.loads(encode_request(SECTION, ["a\ud800b"]))["input"] == ["a?b"]


@given(st.lists(COMPONENTS, min_size=1, max_size=4))
def test_vectors_of_any_size_become_unit_rows_that_keep_the_direction_of_their_beginning(rows: list[Any]) -> None:
    embedded = decode_reply(reply(*rows), len(rows))

    assert embedded.vectors.shape == (len(rows), 256)
    for vector, components in zip(embedded.vectors, rows, strict=True):
        kept = np.array(components[:256])
        assert np.allclose(vector[: len(kept)], kept / np.linalg.norm(kept), atol=1e-6)
        assert not vector[len(kept) :].any()


def test_vectors_come_in_the_order_of_their_numbers() -> None:
    data = [{"index": 1, "embedding": [0.0, 1.0]}, {"index": 0, "embedding": [1.0, 0.0]}]

    embedded = decode_reply(json.dumps({"data": data, "usage": {"prompt_tokens": 7}}).encode(), 2)

    assert embedded.vectors[:, :2].tolist() == [[1, 0], [0, 1]]
    assert embedded.prompt_tokens == 7


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b'{"error": {"message": "no"}}',
        reply(),
        reply([1.0], [1.0]),
        reply([]),
        reply([0.0, 0.0]),
        reply(["a"]),
        b'{"data": [{"index": 3, "embedding": [1.0]}]}',
        b'{"data": [{"embedding": [1e999]}]}',
        b'{"data": [{"embedding": [NaN]}]}',
    ],
)
def test_what_is_no_embedding_of_one_text_is_an_error(body: bytes) -> None:
    with pytest.raises(EmbeddingReplyError):
        decode_reply(body, 1)


@given(st.binary(max_size=200))
def test_any_bytes_are_vectors_or_one_error(body: bytes) -> None:
    with pytest.raises(EmbeddingReplyError):
        decode_reply(body, 1)
