"""The benchmark's embedding server answers as the product asks; a text's vector is its own whatever is beside it."""

import json
import math
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from bench.minilm_server import N_LAYERS, SIZE, MiniLM, gelu, serve
from learner.embedding_server import EmbeddingServer
from store.config import load_config

WORDS = ("[UNK]", "where", "is", "my", "parcel", "refund", "please")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MiniLM:
    """A model of the right shape whose weights are drawn by chance."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(WORDS), SIZE),
        "embeddings.position_embeddings.weight": (512, SIZE),
        "embeddings.token_type_embeddings.weight": (2, SIZE),
        "embeddings.LayerNorm.weight": (SIZE,),
        "embeddings.LayerNorm.bias": (SIZE,),
    }
    for layer in range(N_LAYERS):
        name = f"encoder.layer.{layer}"
        dense = {f"{name}.attention.self.{what}": (SIZE, SIZE) for what in ("query", "key", "value")}
        dense |= {
            f"{name}.attention.output.dense": (SIZE, SIZE),
            f"{name}.intermediate.dense": (4 * SIZE, SIZE),
            f"{name}.output.dense": (SIZE, 4 * SIZE),
        }
        for what, shape in dense.items():
            shapes |= {f"{what}.weight": shape, f"{what}.bias": shape[:1]}
        for what in ("attention.output", "output"):
            shapes |= {f"{name}.{what}.LayerNorm.{part}": (SIZE,) for part in ("weight", "bias")}
    chance = np.random.default_rng(1)
    weights = {name: chance.normal(size=shape, scale=0.05).astype(np.float32) for name, shape in shapes.items()}
    for name in weights:
        if name.endswith("LayerNorm.weight"):
            weights[name] += 1
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    return MiniLM(folder)


@pytest.fixture
def url(model: MiniLM) -> Iterator[str]:
    server = serve(model, 0)
    with closing(server.socket):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def test_the_products_own_code_reads_its_answers(url: str) -> None:
    section = replace(load_config().embedding, model="m", base_url=url, request_dimensions=0)
    embedded = EmbeddingServer(section, "").embed(["where is my parcel", "refund please", "refund please"])
    assert embedded.prompt_tokens == 8
    np.testing.assert_allclose(np.linalg.norm(embedded.vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(embedded.vectors[1], embedded.vectors[2])
    assert embedded.vectors[0] @ embedded.vectors[1] < 0.999


def test_a_text_beside_longer_ones_has_the_vector_that_it_has_alone(model: MiniLM) -> None:
    alone = model._forward([[1, 2]])
    beside = model._forward([[1, 2], [3, 4, 5, 6, 1]])
    np.testing.assert_allclose(beside[0], alone[0], atol=1e-5)
    assert abs(model._forward([[2, 1]]) - alone).max() > 1e-4  # the order of words is part of it


@pytest.mark.parametrize("body", [b"{}", b"[", b'{"input": []}', b'{"input": 3}'])
def test_what_is_no_list_of_texts_is_refused(url: str, body: bytes) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/embeddings", data=body, timeout=30)
    assert refused.value.code == 400
    assert "no input" in json.loads(refused.value.read())["error"]["message"]


def test_the_activation_is_a_normal_variables_share_below() -> None:
    values = np.linspace(-6, 6, 401, dtype=np.float32)
    exact = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in values.tolist()]
    np.testing.assert_allclose(gelu(values), exact, atol=2e-6)
