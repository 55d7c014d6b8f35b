"""With a remote embedding model an entry is found by its meaning; without its server, by its words."""

from collections.abc import Iterator

import pytest

from tests.flow.conftest import NewProduct
from tests.flow.product import Product, eventually
from tests.upstream import Reply, SeenRequest, Upstream, error_reply, json_reply

PHRASINGS = ["my card was swallowed by the machine", "the machine kept my card", "card retained by the machine"]
SAME_WORDS = "the machine has swallowed my card"
SAME_MEANING = "it ate the plastic"
UNRELATED = "how tall is the tower"
ANSWER = "Call the branch; they open it each morning."


def meanings(request: SeenRequest) -> Reply:
    """Answer with a vector that tells what a text is about."""
    data = []
    for index, text in enumerate(request.json["input"]):
        is_about_cards = "card" in text or "plastic" in text
        data.append({"index": index, "embedding": [1.0, 0.1] if is_about_cards else [0.1, 1.0]})
    return json_reply({"data": data, "usage": {"prompt_tokens": 5}})


@pytest.fixture
def embedding_server() -> Iterator[Upstream]:
    with Upstream(script=meanings) as server:
        yield server


@pytest.fixture
def served(new_product: NewProduct, embedding_server: Upstream) -> Product:
    """A product whose one entry has its remote vector."""
    embedding = {"model": "m", "base_url": embedding_server.base_url, "api_key_env": "", "timeout_s": 0.3}
    product = new_product(settings={"embedding": embedding, "learner": {"poll_s": 0.05}})
    product.start("up")
    entry = {"questions": PHRASINGS, "answer": ANSWER, "tags": []}
    context = product.client.post(f"{product.learner_url}/api/contexts", json=entry).raise_for_status().json()
    product.client.post(f"{product.learner_url}/api/contexts/{context['id']}/approve").raise_for_status()
    eventually(lambda: product.rows("SELECT 1 FROM context_vectors"))
    return product


def sees(product: Product, upstream: Upstream, question: str) -> bool:
    product.chat(question).raise_for_status()
    return ANSWER in upstream.last.last_user_text


def test_an_entry_is_found_by_its_meaning_and_by_its_words_when_the_server_is_dead(
    served: Product, upstream: Upstream, embedding_server: Upstream
) -> None:
    eventually(lambda: sees(served, upstream, SAME_MEANING))
    assert not sees(served, upstream, UNRELATED)
    assert served.health().json()["degraded"] == {}

    embedding_server.script = lambda _: error_reply(500)

    for _ in range(4):
        assert sees(served, upstream, f"{SAME_WORDS}!" + "!" * len(embedding_server.requests))
    assert not sees(served, upstream, "it has eaten the plastic")
    assert "local vectors" in served.health().json()["degraded"]["embedding model"]
    metrics = served.client.get(f"{served.proxy_url}/metrics").text
    assert 'tutelage_question_vectors_total{outcome="failed"} 3.0' in metrics
    assert 'tutelage_context_vectors{state="made"} 1.0' in served.client.get(f"{served.learner_url}/metrics").text


def test_a_request_that_turns_learning_off_is_not_sent_to_the_embedding_server(
    served: Product, upstream: Upstream, embedding_server: Upstream
) -> None:
    eventually(lambda: sees(served, upstream, SAME_MEANING))
    n_before = len(embedding_server.requests)

    served.chat("a question that stays here", headers={"x-tutelage-learn": "off"}).raise_for_status()

    assert len(embedding_server.requests) == n_before
