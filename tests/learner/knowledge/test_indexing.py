"""Remote vectors are made in the background, once each, whatever the embedding server does; thresholds follow."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from learner.embedding_server import EmbeddingServer
from learner.knowledge.indexing import Indexer
from store.clock import ManualClock
from store.config import Config
from store.context_proposals import create_context
from store.context_vectors import embedding_state, vector_progress
from store.database import Database, open_database
from store.embedding import LocalEmbedder
from store.generations import current_number, list_generations
from store.prices import PriceBook
from store.snapshot import load_snapshot
from store.tokens import load_token_counter
from store.vocabulary import DEFAULT_TENANT
from store.wordings import compose
from tests.conftest import NOW_S
from tests.upstream import Reply, SeenRequest, Upstream, error_reply, json_reply

MODEL = "m@256"


def embeddings(request: SeenRequest) -> Reply:
    """Answer each text with a direction drawn from its characters."""
    data = []
    for index, text in enumerate(request.json["input"]):
        seed = int.from_bytes(text.encode()[:64], "big")
        data.append({"index": index, "embedding": np.random.default_rng(seed).normal(size=256).tolist()})
    return json_reply({"data": data, "usage": {"prompt_tokens": 10 * len(data)}})


@pytest.fixture
def server() -> Iterator[Upstream]:
    with Upstream(script=embeddings) as server:
        yield server


@pytest.fixture
def remote(config: Config, server: Upstream) -> Config:
    section = replace(config.embedding, model="m", base_url=server.base_url, batch_size=4)
    return replace(config, embedding=section, prices={"m": (1000.0, 0.0)})


class Work:
    def __init__(self, config: Config, embedder: LocalEmbedder, *, is_remote: bool = True) -> None:
        self.clock = ManualClock(datetime(2026, 11, 21, 12, tzinfo=UTC))
        self.server = EmbeddingServer(config.embedding, "sk-test", backoff_s=0.01) if is_remote else None
        self.indexer = Indexer(
            config,
            open_database=lambda: open_database(config.store),
            clock=self.clock,
            embedder=lambda: embedder,
            server=self.server,
            prices=PriceBook(config.prices),
        )


def add_entries(db: Database, embedder: LocalEmbedder, n: int, *, start: int = 0) -> list[str]:
    tokens = load_token_counter()
    ids = []
    for number in range(start, start + n):
        questions = [f"how do i change setting {number}", f"where is setting {number}", f"setting {number} is wrong"]
        wording = compose(questions, f"Answer {number}.", [], embedder=embedder, tokens=tokens)
        context = create_context(
            db,
            DEFAULT_TENANT,
            wording,
            provenance="person",
            source_chat_id=None,
            is_approved=True,
            actor="test",
            now_s=NOW_S,
        )
        ids.append(context.id)
    return ids


def made(db: Database) -> tuple[int, int]:
    progress = vector_progress(db, MODEL)
    return progress.n_made, progress.n_served


def entry_texts(server: Upstream) -> list[str]:
    return [text for request in server.requests for text in request.json["input"] if "setting" in text]


def test_every_entry_gets_its_vector_once_in_batches(
    remote: Config, db: Database, embedder: LocalEmbedder, server: Upstream
) -> None:
    add_entries(db, embedder, 6)
    work = Work(remote, embedder)

    work.indexer.look(db)
    work.indexer.look(db)

    assert made(db) == (6, 6)
    assert [len(request.json["input"]) for request in server.requests] == [12, 6]
    assert len(set(entry_texts(server))) == 18
    state = embedding_state(db, DEFAULT_TENANT, MODEL)
    assert (state.prompt_tokens, round(state.cost_usd, 6)) == (180, 0.18)
    snapshot = load_snapshot(db, DEFAULT_TENANT, embedding_model=embedder.name, remote_model=MODEL, previous=None)
    assert snapshot.remote_contexts is not None
    assert snapshot.contexts is not None
    assert snapshot.remote_contexts.ids == snapshot.contexts.ids
    assert np.allclose(np.linalg.norm(snapshot.remote_contexts.vectors, axis=1), 1, atol=1e-5)


def test_a_new_process_goes_on_where_the_last_one_was_stopped(
    remote: Config, db: Database, embedder: LocalEmbedder, server: Upstream
) -> None:
    add_entries(db, embedder, 6)
    server.script = lambda request: embeddings(request) if len(server.requests) == 1 else error_reply(400)
    Work(remote, embedder).indexer.look(db)
    assert made(db) == (4, 6)
    n_asked = len(entry_texts(server))
    server.script = embeddings

    Work(remote, embedder).indexer.look(db)

    assert made(db) == (6, 6)
    assert len(entry_texts(server)) - n_asked == 6


def test_a_busy_server_is_asked_again_and_a_dead_one_after_a_rest(
    remote: Config, db: Database, embedder: LocalEmbedder, server: Upstream
) -> None:
    add_entries(db, embedder, 2)
    server.script = lambda request: (
        error_reply(429, retry_after="0.01") if len(server.requests) == 1 else embeddings(request)
    )
    work = Work(remote, embedder)
    work.indexer.look(db)
    assert made(db) == (2, 2)

    add_entries(db, embedder, 1, start=2)
    server.script = lambda _: error_reply(503)
    n_before = len(server.requests)
    work.indexer.look(db)
    assert len(server.requests) - n_before == 3
    work.indexer.look(db)
    assert len(server.requests) - n_before == 3

    server.script = embeddings
    work.clock.advance(61)
    work.indexer.look(db)
    assert made(db) == (3, 3)


@pytest.mark.parametrize(
    "reply",
    [
        json_reply({"data": []}),
        json_reply({"data": [{"embedding": [1.0]}]}),
        Reply((b"<html>",)),
        Reply((), end="reset"),
    ],
)
def test_what_is_no_answer_leaves_entries_with_their_local_vectors(
    remote: Config, db: Database, embedder: LocalEmbedder, server: Upstream, reply: Reply
) -> None:
    ids = add_entries(db, embedder, 2)
    server.script = lambda _: reply

    Work(remote, embedder).indexer.look(db)

    assert made(db) == (0, 2)
    contexts = load_snapshot(db, DEFAULT_TENANT, embedding_model=embedder.name, remote_model=MODEL).contexts
    assert contexts is not None
    assert contexts.ids == sorted(ids)


def test_an_entry_that_the_server_refuses_does_not_keep_the_others_waiting(
    remote: Config, db: Database, embedder: LocalEmbedder, server: Upstream
) -> None:
    add_entries(db, embedder, 6)
    server.script = lambda request: (
        error_reply(400) if any("setting 2" in text for text in request.json["input"]) else embeddings(request)
    )
    work = Work(remote, embedder)

    work.indexer.look(db)
    n_asked = len(server.requests)
    work.indexer.look(db)

    assert made(db) == (5, 6)
    assert len(server.requests) == n_asked


def test_beyond_the_cost_nothing_more_is_asked(
    remote: Config, db: Database, embedder: LocalEmbedder, server: Upstream
) -> None:
    add_entries(db, embedder, 12)
    capped = replace(remote, embedding=replace(remote.embedding, max_cost_usd=0.2))

    Work(capped, embedder).indexer.look(db)

    assert made(db) == (8, 12)
    assert len(entry_texts(server)) == 24


def test_another_model_makes_its_own_vectors_and_the_old_ones_go(
    remote: Config, db: Database, embedder: LocalEmbedder, server: Upstream
) -> None:
    add_entries(db, embedder, 2)
    Work(remote, embedder).indexer.look(db)
    other = replace(remote, embedding=replace(remote.embedding, model="other"))

    Work(other, embedder).indexer.look(db)

    rows = db.rows("SELECT model, count(*) AS n FROM context_vectors GROUP BY model")
    assert [(row["model"], row["n"]) for row in rows] == [("other@256", 2)]
    assert server.last.json["model"] == "other"


def test_a_wording_that_loses_a_phrasing_loses_its_vector(
    remote: Config, db: Database, embedder: LocalEmbedder
) -> None:
    (context_id,) = add_entries(db, embedder, 1)
    Work(remote, embedder).indexer.look(db)

    with db.transaction():
        db.execute(
            "UPDATE context_revisions SET questions_json = :left WHERE context_id = :id",
            {"left": json.dumps(["how do i change setting 0"]), "id": context_id},
        )

    assert made(db) == (0, 1)


def test_a_tenant_with_enough_entries_gets_its_own_threshold_and_the_proxy_hears_of_it(
    config: Config, db: Database, embedder: LocalEmbedder
) -> None:
    add_entries(db, embedder, 9)
    work = Work(config, embedder, is_remote=False)
    work.indexer.look(db)
    assert load_snapshot(db, DEFAULT_TENANT, embedding_model=None).thresholds == {}

    add_entries(db, embedder, 1, start=9)
    before = current_number(db, DEFAULT_TENANT)
    work.indexer.look(db)
    work.indexer.look(db)

    found = load_snapshot(db, DEFAULT_TENANT, embedding_model=None).thresholds
    assert list(found) == [embedder.name]
    assert config.contexts.least_similarity <= found[embedder.name] < 1
    assert current_number(db, DEFAULT_TENANT) == before + 1
    assert "similarity threshold" in list_generations(db, DEFAULT_TENANT)[0][0].reason


def test_a_threshold_that_is_switched_off_is_withdrawn(config: Config, db: Database, embedder: LocalEmbedder) -> None:
    add_entries(db, embedder, 10)
    Work(config, embedder, is_remote=False).indexer.look(db)
    off = replace(config, contexts=replace(config.contexts, max_unrelated=0.0))

    Work(off, embedder, is_remote=False).indexer.look(db)

    assert load_snapshot(db, DEFAULT_TENANT, embedding_model=None).thresholds == {}


def test_the_remote_model_has_a_threshold_of_its_own(remote: Config, db: Database, embedder: LocalEmbedder) -> None:
    add_entries(db, embedder, 10)

    Work(remote, embedder).indexer.look(db)

    found = load_snapshot(db, DEFAULT_TENANT, embedding_model=None).thresholds
    assert set(found) == {embedder.name, MODEL}
    with closing(open_database(remote.store)) as other:
        assert embedding_state(other, DEFAULT_TENANT, MODEL).threshold == found[MODEL]
