"""By vectors of its own a tenant's entries are found by words that none of them has; after a step back they are not."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from store.clock import SystemClock
from store.config import load_config
from store.database import open_database
from store.embedding import load_local_embedder
from store.tenants import ensure_default_tenant
from store.tokens import load_token_counter
from tests.flow.conftest import NewProduct
from tests.flow.product import Product, eventually
from tests.learner.knowledge.test_refitting import TOPICS, Work, knowing, random_of, teach
from tests.upstream import Upstream

N_ASKED = 10


@pytest.fixture
def teacher() -> Iterator[Upstream]:
    with Upstream(script=teach(knowing)) as server:
        yield server


@pytest.fixture
def filled(new_product: NewProduct, teacher: Upstream) -> Product:
    """A product that runs, with entries and questions of topics, and a model that only teaches."""
    embedding = {"model": "m", "base_url": teacher.base_url, "api_key_env": "", "ask_per_request": False}
    settings = {"embedding": embedding, "refit": {"min_texts": 100}, "learner": {"poll_s": 0.05}}
    product = new_product(settings=settings)
    product.write_config()
    config = load_config(product.config_path)
    with closing(open_database(config.store)) as db:
        ensure_default_tenant(db, SystemClock().now_s())
        work = Work(config, db, load_local_embedder(config.embedding), load_token_counter())
        work.add_entries()
        work.ask()
    product.start("up")
    return product


def n_found(product: Product, upstream: Upstream) -> int:
    """Return for how many topics a question by words that no entry has gets the topic's entry."""
    found = 0
    for words in TOPICS[:N_ASKED]:
        product.chat(" ".join(words[9:12])).raise_for_status()
        found += f"About {words[0]}." in upstream.last.last_user_text
    return found


def test_a_refit_is_served_and_taken_back(filled: Product, upstream: Upstream, teacher: Upstream) -> None:
    before = n_found(filled, upstream)
    assert before <= 3
    assert teacher.requests == []  # no question is sent as it is asked

    assert "is served from generation" in filled.command("refit", "--make").stdout
    eventually(lambda: n_found(filled, upstream) >= 8)
    n_taught = len(teacher.requests)

    entry = {"questions": ["wholly new kettle", "a kettle"], "answer": "About the kettle.", "tags": []}
    context = filled.client.post(f"{filled.learner_url}/api/contexts", json=entry).raise_for_status().json()
    filled.client.post(f"{filled.learner_url}/api/contexts/{context['id']}/approve").raise_for_status()
    eventually(lambda: sees(filled, upstream, "my kettle is wholly new", "About the kettle."), timeout_s=1.0)

    assert "the local vectors" in filled.command("refit", "--back").stdout
    eventually(lambda: n_found(filled, upstream) == before)
    assert len(teacher.requests) == n_taught
    assert [row["status"] for row in filled.command_json("refit", "--json")] == ["withdrawn"]
    assert filled.health().json()["degraded"] == {}


def sees(product: Product, upstream: Upstream, question: str, answer: str) -> bool:
    product.chat(question).raise_for_status()
    return answer in upstream.last.last_user_text


def test_a_useless_teachers_refit_is_refused(filled: Product, upstream: Upstream, teacher: Upstream) -> None:
    teacher.script = teach(random_of)
    before = n_found(filled, upstream)
    assert "the check was not won" in filled.command("refit", "--make").stdout
    assert [row["status"] for row in filled.command_json("refit", "--json")] == ["refused"]
    assert n_found(filled, upstream) == before
