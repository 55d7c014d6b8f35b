"""A refit is served only when entries are found better by it; what its teacher was paid for is never paid for again.

The teacher is a script: it knows which topic each word is of, so its vectors hold what local ones cannot know. It
stands in for a real model in what can be learned from it, not in how it errs.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from learner.embedding_server import EmbeddingServer
from learner.errors import ModelError
from learner.knowledge.indexing import Indexer
from learner.knowledge.refit import MIN_CHECKED, Text, fit
from learner.knowledge.refitting import MAX_PER_VOICE, Refitting, refit
from proxy.snapshots import Snapshots
from store.assets import read_package_file
from store.clock import ManualClock, iso
from store.config import Config
from store.context_proposals import create_context
from store.contexts import Wording, list_contexts
from store.database import Database, open_database
from store.embedding import TOKENIZER_SHA256, LocalEmbedder
from store.errors import ConflictError
from store.forgetting import Subject, forget
from store.generations import current_number
from store.prices import PriceBook
from store.records import ResponseRecord
from store.refits import list_refits, load_refit, step_back
from store.responses import insert_records
from store.snapshot import load_snapshot
from store.tenants import ensure_tenant
from store.tokens import TokenCounter
from store.vocabulary import DEFAULT_TENANT
from store.wordings import compose
from tests.conftest import NOW_S
from tests.proxy.test_snapshots import load_and_refresh
from tests.upstream import Reply, SeenRequest, Upstream, error_reply, json_reply

N_TOPICS = 40
WORDS_PER_TOPIC = 12
MODEL = "m@256"


def topics() -> list[list[str]]:
    """Return words of the local model's vocabulary, dealt to topics by chance: their vectors know nothing of it."""
    content = read_package_file("wordllama", "tokenizers", "l2_supercat_tokenizer_config.json", sha256=TOKENIZER_SHA256)
    vocabulary = Tokenizer.from_buffer(content).get_vocab()
    words = sorted(
        token[1:] for token in vocabulary if token[0] == "\u2581" and token[1:].isalpha() and 5 <= len(token) <= 9
    )
    words = [word for word in words if word.isascii() and word.islower()]
    chosen = random.Random(1).sample(words, N_TOPICS * WORDS_PER_TOPIC)
    return [chosen[n::N_TOPICS] for n in range(N_TOPICS)]


TOPICS = topics()
TOPIC_OF = {word: number for number, words in enumerate(TOPICS) for word in words}


def knowing(text: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the direction of the topics of a text's words, and as much of its own."""
    axes = np.random.default_rng(0).normal(size=(N_TOPICS + 1, 256))
    known = [TOPIC_OF.get(word, N_TOPICS) for word in text.split()]
    direction: np.ndarray[tuple[int], np.dtype[np.float64]] = axes[known].sum(axis=0) + random_of(text)
    return direction


def random_of(text: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(int.from_bytes(text.encode()[:64], "big")).normal(size=256)


def teach(direction: Callable[[str], np.ndarray[tuple[int], np.dtype[np.float64]]]) -> Callable[[SeenRequest], Reply]:
    def answer(request: SeenRequest) -> Reply:
        texts = request.json["input"]
        data = [{"index": index, "embedding": direction(text).tolist()} for index, text in enumerate(texts)]
        return json_reply({"data": data, "usage": {"prompt_tokens": 10 * len(data)}})

    return answer


@pytest.fixture
def teacher() -> Iterator[Upstream]:
    with Upstream(script=teach(knowing)) as server:
        yield server


@pytest.fixture
def taught(config: Config, teacher: Upstream) -> Config:
    embedding = replace(config.embedding, model="m", base_url=teacher.base_url, batch_size=200, ask_per_request=False)
    refit = replace(config.refit, min_texts=100, max_texts=2000, max_cost_usd=1000.0)
    return replace(config, embedding=embedding, refit=refit, prices={"m": (1000.0, 0.0)})


class Work:
    """A refit's collaborators, with questions and entries of topics in the database."""

    def __init__(self, config: Config, db: Database, embedder: LocalEmbedder, tokens: TokenCounter) -> None:
        self.config, self.db, self.embedder, self.tokens = config, db, embedder, tokens
        self.clock = ManualClock(datetime(2026, 11, 21, 12, tzinfo=UTC))
        self.n_asked = 0

    def refit(self, *, is_forced: bool = False) -> str:
        refitting = Refitting(
            self.config,
            teacher=EmbeddingServer(self.config.embedding, "sk-test", backoff_s=0.01),
            embedder=self.embedder,
            prices=PriceBook(self.config.prices),
            clock=self.clock,
        )
        return refit(refitting, self.db, DEFAULT_TENANT, is_forced=is_forced)

    def index(self) -> None:
        """Have the learner's background thread look twice: after vectors come thresholds."""
        indexer = Indexer(
            self.config,
            open_database=lambda: open_database(self.config.store),
            clock=self.clock,
            embedder=lambda: self.embedder,
            server=None,
            prices=PriceBook(self.config.prices),
        )
        indexer.look(self.db)
        indexer.look(self.db)

    def compose(self, questions: Sequence[str], answer: str, tags: Sequence[str]) -> Wording:
        return compose(questions, answer, tags, embedder=self.embedder, tokens=self.tokens)

    def add_entries(self, n: int = N_TOPICS, tenant_id: str = DEFAULT_TENANT) -> None:
        """Add an entry of each topic, whose three phrasings have no word in common."""
        for words in TOPICS[:n]:
            questions = [" ".join(words[start : start + 3]) for start in (0, 3, 6)]
            create_context(
                self.db,
                tenant_id,
                self.compose(questions, f"About {words[0]}.", []),
                provenance="person",
                source_chat_id=None,
                is_approved=True,
                actor="test",
                now_s=NOW_S,
            )

    def ask(self, n: int = 1500, *, suffix: str = "", tenant_id: str = DEFAULT_TENANT) -> None:
        chance = random.Random(self.n_asked)
        records = []
        for _ in range(n):
            self.n_asked += 1
            question = " ".join(chance.sample(chance.choice(TOPICS), 3)) + suffix
            records.append(
                ResponseRecord(
                    id=f"resp_{self.n_asked}",
                    tenant_id=tenant_id,
                    conversation_id=f"conv_{self.n_asked}",
                    endpoint="/v1/chat/completions",
                    question=question,
                    question_type="unknown",
                    user_id=f"u{self.n_asked % 50}",
                    outcome="ok",
                    status=200,
                    latency_ms=1.0,
                    messages_json="[]",
                    request_hash=f"hash-{self.n_asked}",
                    created_at=iso(NOW_S),
                    completed_at=iso(NOW_S),
                )
            )
        insert_records(self.db, records)


@pytest.fixture
def work(taught: Config, db: Database, embedder: LocalEmbedder, tokens: TokenCounter) -> Work:
    work = Work(taught, db, embedder, tokens)
    work.add_entries()
    work.ask()
    return work


def asked_texts(teacher: Upstream) -> list[str]:
    return [text for request in teacher.requests for text in request.json["input"]]


def test_a_teacher_who_knows_more_is_learned_from_and_served(work: Work, taught: Config, teacher: Upstream) -> None:
    told = work.refit()

    (row,) = list_refits(work.db, DEFAULT_TENANT)
    assert row.status == "served", told
    assert row.gain is not None
    assert row.gain_low is not None
    assert row.gain >= row.gain_low > 0.2
    assert (row.n_checked, row.prompt_tokens) == (N_TOPICS, 10 * row.n_texts)
    assert row.cost_usd == pytest.approx(row.prompt_tokens / 1000)
    assert len(asked_texts(teacher)) == len(set(asked_texts(teacher))) == row.n_texts
    assert work.db.value("SELECT count(*) FROM teacher_vectors") == 0

    snapshots = Snapshots(taught, work.embedder.name)
    load_and_refresh(snapshots, DEFAULT_TENANT)
    served = snapshots.tenant(DEFAULT_TENANT)
    assert served is not None
    assert served.refit is None  # entries have no vectors of it yet: the local ones go on serving

    work.index()
    load_and_refresh(snapshots, DEFAULT_TENANT)
    served = snapshots.tenant(DEFAULT_TENANT)
    assert served is not None
    assert served.refit is not None
    found_with = served.refit.found_with
    n_found = 0
    for number, words in enumerate(TOPICS):
        question = work.embedder.embed_refitted(" ".join(words[9:12]), served.refit.table)
        near = found_with.search.near(question, found_with.threshold, 5)
        texts = [found_with.search.contexts.rows.texts[row] for _, row in sorted(near, reverse=True)]
        n_found += bool(texts) and f"About {TOPICS[number][0]}." in texts[0]
    assert n_found > 0.8 * N_TOPICS  # by words that no entry has


@pytest.mark.parametrize("direction", [random_of, lambda _: np.ones(256)])
def test_a_useless_teacher_is_never_served(
    work: Work, teacher: Upstream, direction: Callable[[str], np.ndarray[tuple[int], np.dtype[np.float64]]]
) -> None:
    teacher.script = teach(direction)
    generation = current_number(work.db, DEFAULT_TENANT)

    told = work.refit()

    (row,) = list_refits(work.db, DEFAULT_TENANT)
    assert row.status == "refused"
    assert "the check was not won" in told
    assert current_number(work.db, DEFAULT_TENANT) == generation
    assert load_refit(work.db, DEFAULT_TENANT, work.embedder.name) is None
    assert work.db.value("SELECT count(*) FROM teacher_vectors") == 0


def test_what_was_paid_for_is_not_paid_for_again(work: Work, teacher: Upstream) -> None:
    answer, n_answers = teach(knowing), 3

    def dying(request: SeenRequest) -> Reply:
        return answer(request) if len(teacher.requests) <= n_answers else error_reply(500)

    teacher.script = dying
    with pytest.raises(ModelError):
        work.refit()
    (row,) = list_refits(work.db, DEFAULT_TENANT)
    assert (row.status, row.prompt_tokens) == ("collecting", 6000)
    paid = {text for request in teacher.requests[:n_answers] for text in request.json["input"]}
    n_before = len(teacher.requests)
    work.ask(50)  # what came since is for the next refit
    teacher.script = answer

    work.refit()

    (row,) = list_refits(work.db, DEFAULT_TENANT)
    again = [text for request in teacher.requests[n_before:] for text in request.json["input"]]
    assert row.status == "served"
    assert not paid.intersection(again)
    assert row.prompt_tokens == 10 * (len(paid) + len(again)) == 10 * row.n_texts


def test_a_refit_that_was_interrupted_for_long_takes_in_what_was_asked_meanwhile(work: Work, teacher: Upstream) -> None:
    answer = teach(knowing)
    teacher.script = lambda request: answer(request) if len(teacher.requests) <= 1 else error_reply(500)
    with pytest.raises(ModelError):
        work.refit()
    paid = teacher.requests[0].json["input"]
    n_before = len(teacher.requests)
    teacher.script = answer
    work.ask(50, suffix=" lately")
    work.clock.advance(8 * 86_400)

    work.refit()

    again = [text for request in teacher.requests[n_before:] for text in request.json["input"]]
    assert any("lately" in text for text in again)
    assert not set(paid).intersection(again)
    (row,) = list_refits(work.db, DEFAULT_TENANT)
    assert row.n_texts == len(paid) + len(again)


def test_a_refit_costs_at_most_its_bound_and_a_batch(work: Work, teacher: Upstream) -> None:
    work.config = replace(work.config, refit=replace(work.config.refit, max_cost_usd=3.0))
    work.refit()
    (row,) = list_refits(work.db, DEFAULT_TENANT)
    assert (len(teacher.requests), row.n_texts) == (2, 400)
    assert row.cost_usd == pytest.approx(4.0)


def test_nothing_personal_is_sent_and_nothing_that_the_check_is_made_on(work: Work, teacher: Upstream) -> None:
    work.ask(100, suffix=" ann.lee@example.com")
    work.refit()
    sent = asked_texts(teacher)
    assert any("[EMAIL]" in text for text in sent)
    assert not any("ann.lee" in text for text in sent)
    checked = {
        question for entry in list_contexts(work.db, DEFAULT_TENANT, limit=100)[0] for question in entry.questions
    }
    assert not checked.intersection(sent)


def test_one_users_flood_is_a_small_part_of_the_texts(work: Work, teacher: Upstream) -> None:
    work.ask(2000, suffix=" flood")
    work.db.execute("UPDATE responses SET user_id = 'flooder' WHERE question LIKE '%flood'")
    work.refit()
    assert sum("flood" in text for text in asked_texts(teacher)) <= MAX_PER_VOICE
    (row,) = list_refits(work.db, DEFAULT_TENANT)
    assert row.n_texts > 1000


def test_another_tenants_text_is_not_sent_and_its_vectors_stay_as_they_are(work: Work, teacher: Upstream) -> None:
    ensure_tenant(work.db, "other", NOW_S)
    work.ask(100, suffix=" secretly", tenant_id="other")
    work.refit()
    work.index()
    assert not any("secretly" in text for text in asked_texts(teacher))
    other = load_snapshot(work.db, "other", embedding_model=work.embedder.name)
    assert (other.refit, other.refit_contexts) == (None, None)


def test_a_step_back_serves_the_one_before_and_then_the_local_vectors(work: Work) -> None:
    work.refit()
    work.index()
    first = load_refit(work.db, DEFAULT_TENANT, work.embedder.name)
    assert first is not None
    assert "days ago" in work.refit()
    work.refit(is_forced=True)
    work.index()
    second = load_refit(work.db, DEFAULT_TENANT, work.embedder.name)
    assert second is not None
    assert second.name != first.name
    both = work.db.rows("SELECT model, count(*) AS n FROM context_vectors GROUP BY model ORDER BY model")
    assert {row["model"]: row["n"] for row in both} == {first.name: N_TOPICS, second.name: N_TOPICS}

    generation = current_number(work.db, DEFAULT_TENANT)
    assert step_back(work.db, DEFAULT_TENANT, actor="test", now_s=NOW_S) is not None
    now = load_snapshot(work.db, DEFAULT_TENANT, embedding_model=work.embedder.name)
    assert now.refit is not None
    assert now.refit_contexts is not None
    assert (now.refit.name, len(now.refit_contexts), now.generation) == (first.name, N_TOPICS, generation + 1)
    np.testing.assert_array_equal(now.refit.offsets, first.offsets)

    assert step_back(work.db, DEFAULT_TENANT, actor="test", now_s=NOW_S) is None
    assert load_snapshot(work.db, DEFAULT_TENANT, embedding_model=work.embedder.name).refit is None
    with pytest.raises(ConflictError):
        step_back(work.db, DEFAULT_TENANT, actor="test", now_s=NOW_S)
    work.index()
    assert work.db.value("SELECT count(*) FROM context_vectors") == 0


def test_an_entry_that_comes_later_is_found_by_its_local_vector_until_it_has_its_own(work: Work) -> None:
    work.refit()
    work.index()
    before = load_snapshot(work.db, DEFAULT_TENANT, embedding_model=work.embedder.name)
    work.add_entries(1)
    now = load_snapshot(work.db, DEFAULT_TENANT, embedding_model=work.embedder.name, previous=before)
    assert now.contexts is not None
    assert now.refit is before.refit
    assert now.refit_contexts is not None
    assert (len(now.contexts), len(now.refit_contexts)) == (N_TOPICS + 1, N_TOPICS)
    work.index()
    later = load_snapshot(work.db, DEFAULT_TENANT, embedding_model=work.embedder.name, previous=now)
    assert later.refit_contexts is not None
    assert len(later.refit_contexts) == N_TOPICS + 1


def test_too_few_entries_or_texts_cost_nothing(
    taught: Config, db: Database, embedder: LocalEmbedder, tokens: TokenCounter, teacher: Upstream
) -> None:
    work = Work(taught, db, embedder, tokens)
    work.add_entries(MIN_CHECKED - 1)
    work.ask(200)
    assert "30 or more" in work.refit()
    work.add_entries(1)
    work.config = replace(taught, refit=replace(taught.refit, min_texts=500))
    assert "500 or more" in work.refit()
    assert teacher.requests == []
    assert list_refits(db, DEFAULT_TENANT) == []


def test_one_refit_of_a_tenant_at_a_time(work: Work, teacher: Upstream) -> None:
    answer = teach(knowing)
    refused: list[ConflictError] = []

    def nested(request: SeenRequest) -> Reply:
        if not refused:
            with closing(open_database(work.config.store)) as db:
                with pytest.raises(ConflictError) as found:
                    Work(work.config, db, work.embedder, work.tokens).refit()
                refused.append(found.value)
        return answer(request)

    teacher.script = nested
    work.refit()
    assert len(refused) == 1
    assert len(asked_texts(teacher)) == len(set(asked_texts(teacher)))


def test_whoever_is_forgotten_leaves_no_vector_with_the_teachers_answers(
    work: Work, teacher: Upstream, tmp_path: Path
) -> None:
    answer = teach(knowing)
    teacher.script = lambda request: answer(request) if len(teacher.requests) <= 1 else error_reply(500)
    with pytest.raises(ModelError):
        work.refit()
    assert work.db.value("SELECT count(*) FROM teacher_vectors") > 0
    forget(
        work.db,
        DEFAULT_TENANT,
        Subject(user_ids=("u7",)),
        tmp_path / "segments",
        work.compose,
        actor="test",
        now_s=NOW_S,
    )
    assert work.db.value("SELECT count(*) FROM teacher_vectors") == 0


def test_a_token_that_one_person_alone_used_gets_no_vector_of_its_own(work: Work) -> None:
    work.db.execute("UPDATE responses SET user_id = 'u1'")
    work.refit()
    (row,) = list_refits(work.db, DEFAULT_TENANT)
    assert (row.n_texts, row.n_tokens) == (MAX_PER_VOICE, 0)


@pytest.mark.parametrize(("direction", "is_moved"), [(knowing, True), (random_of, False)])
def test_words_move_as_far_as_texts_that_were_left_out_bear_it_out(
    embedder: LocalEmbedder, direction: Callable[[str], np.ndarray[tuple[int], np.dtype[np.float64]]], is_moved: bool
) -> None:
    chance = random.Random(1)
    asked = sorted({" ".join(chance.sample(chance.choice(TOPICS), 3)) for _ in range(600)})
    taught = np.stack([direction(text) for text in asked])
    taught /= np.linalg.norm(taught, axis=1, keepdims=True)
    texts = [Text(embedder.token_ids(text), frozenset("ab")) for text in asked]
    table = fit(texts, embedder.table, taught.astype(np.float32), name="n", max_tokens=3000)
    far = np.linalg.norm(table.offsets, axis=1) / np.linalg.norm(embedder.table[table.token_ids], axis=1)
    assert (np.median(far) > 0.3) == is_moved
