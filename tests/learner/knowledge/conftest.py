"""A knowledge run in a database of its own, and ways to fill it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from learner.knowledge.pipeline import Period, run_knowledge
from learner.models import Models, no_models
from learner.report import Collaborators, RunReport
from store.clock import ManualClock, iso
from store.config import Config, load_config
from store.contexts import ContextRow, list_contexts
from store.conversations import import_conversations
from store.database import Database
from store.embedding import LocalEmbedder, load_local_embedder
from store.feedback import Signal, record_signal
from store.records import InjectionRecord, ResponseRecord
from store.responses import insert_records
from store.runs import start_run
from store.tokens import TokenCounter, load_token_counter
from store.vocabulary import SignalType
from tests.conftest import NOW_S

TENANT = "default"
REFUND = (
    "Open Orders, choose the cancelled order and press Request refund. "
    "The money is back on your card within five business days."
)


@pytest.fixture(scope="session")
def embedder() -> LocalEmbedder:
    return load_local_embedder(load_config().embedding)


@pytest.fixture(scope="session")
def tokens() -> TokenCounter:
    return load_token_counter()


class Learning:
    """Imports, records and runs; time stands at the tests' moment unless a run is given another."""

    def __init__(self, db: Database, config: Config, embedder: LocalEmbedder, tokens: TokenCounter) -> None:
        self.db = db
        self.config = config
        self.embedder = embedder
        self._tokens = tokens
        self._n_records = 0

    def chat(self, chat_id: str, *texts: str, **fields: Any) -> dict[str, Any]:
        """Import one conversation of alternating texts, the user's first; *human*: a person answered."""
        agent = {"agent": "human"} if fields.pop("human", False) else {}
        messages = [
            {"role": "assistant", "content": text, **agent} if number % 2 else {"role": "user", "content": text}
            for number, text in enumerate(texts)
        ]
        value = {"chatId": chat_id, "messages": messages, "user": f"user-of-{chat_id}", "resolved": True, **fields}
        import_conversations(self.db, TENANT, [value], now_s=fields.get("now_s", NOW_S))
        return value

    def import_all(self, values: Sequence[Mapping[str, Any]]) -> None:
        assert import_conversations(self.db, TENANT, values, now_s=NOW_S).problems == ()

    def response(
        self, conversation_id: str, question: str, answer: str, *, context_ids: Sequence[str] = (), **fields: Any
    ) -> str:
        """Record one reply of the proxy and return its id."""
        self._n_records += 1
        values: dict[str, Any] = {
            "id": f"resp_{self._n_records}",
            "tenant_id": TENANT,
            "conversation_id": conversation_id,
            "endpoint": "/v1/chat/completions",
            "question": question,
            "question_type": "unknown",
            "user_id": "u1",
            "outcome": "ok",
            "status": 200,
            "latency_ms": 1.0,
            "messages_json": msgspec.json.encode([{"role": "user", "content": question}]).decode(),
            "reply_json": msgspec.json.encode({"role": "assistant", "content": answer}).decode(),
            "request_hash": f"hash-{self._n_records}",
            "created_at": iso(NOW_S + self._n_records),
            "completed_at": iso(NOW_S + self._n_records),
            "injections": tuple(InjectionRecord("context", item, "", 1.0, 1.0, True, 0.8, 40) for item in context_ids),
        }
        insert_records(self.db, [ResponseRecord(**(values | fields))])
        return str(values["id"])

    def signal(self, response_id: str, signal: SignalType, **fields: Any) -> None:
        record_signal(
            self.db,
            TENANT,
            Signal(response_id, signal, **{"user": "u1", **fields}),
            self.config.feedback,
            source="api",
            now_s=NOW_S + 500,
        )

    def run(
        self, *, models: Models | None = None, now_s: float = NOW_S + 1000, period: Period | None = None
    ) -> RunReport:
        run_id = start_run(self.db, TENANT, "knowledge", now_s, now_s)
        collaborators = Collaborators(
            self.embedder,
            self._tokens,
            models if models is not None else no_models(),
            np.random.default_rng(1),
            ManualClock(datetime.fromtimestamp(now_s, UTC)),
        )
        return run_knowledge(self.db, self.config, TENANT, collaborators, run_id, now_s, period=period)

    def entries(self) -> list[ContextRow]:
        return list_contexts(self.db, TENANT, limit=500)[0][::-1]


@pytest.fixture
def learning(db: Database, config: Config, embedder: LocalEmbedder, tokens: TokenCounter) -> Learning:
    return Learning(db, config, embedder, tokens)
