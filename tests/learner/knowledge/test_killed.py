"""A run that is killed anywhere goes on where it stopped: no answered call is paid for again, entries are the same."""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from learner.models import Completion, Message, Meter, Models, Tool, ToolCall, Usage
from store.database import Database, open_database
from store.forgetting import Subject, forget
from store.runs import fail_interrupted_runs, list_runs
from store.tenants import ensure_default_tenant
from tests.conftest import NOW_S
from tests.learner.knowledge.conftest import TENANT, Learning
from tests.store.test_forgetting import composed

ANSWERS = {
    "How do I reset my password?": "Open Settings, choose Security and press Reset password.",
    "Where do I reset my password?": "Open Settings, choose Security and press Reset password.",
    "Which languages does the app speak?": "The app speaks English, German and French.",
    "Can I export my invoices as PDF?": "Open Billing, select the invoices and press Export as PDF.",
}


_ID = re.compile(r"ctx_\w+")  # of entries: another one in each database


class KilledError(BaseException):
    """Like a signal: nothing in the run may catch it."""


@dataclass
class Bill:
    """Every call that a model answered, in order, by what it was asked."""

    calls: list[str] = field(default_factory=list)
    kill_at: int = -1

    def add(self, asked: str) -> None:
        self.calls.append(asked)
        if len(self.calls) == self.kill_at:
            raise KilledError


@dataclass
class Scripted:
    """A model that answers what is asked; its first draft of each entry is bad, so that each takes two calls."""

    is_large: bool
    meter: Meter
    bill: Bill

    def complete(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), json_object: bool = False
    ) -> Completion:
        assert bool(tools) is self.is_large
        assert json_object is not self.is_large
        asked = _ID.sub("ctx", json.dumps([list(messages), self.is_large]))
        self.meter.usage += Usage(1, 100, 10, 0.01)
        completion = self._draft(messages) if self.is_large else self._verdicts(str(messages[1]["content"]))
        self.bill.add(asked)
        return completion

    def _verdicts(self, text: str) -> Completion:
        flags = dict.fromkeys(("resolved", "professional", "generalisable", "no_personal_data"), True)
        verdicts = [{"id": i + 1, **flags, "score": 0.9} for i in range(text.count("<conversation id="))]
        return Completion(json.dumps({"verdicts": verdicts}), (), 100, 10, 0.01)

    def _draft(self, messages: Sequence[Message]) -> Completion:
        conversation = str(messages[1]["content"]).partition("</conversation>")[0]
        question, answer = next(item for item in ANSWERS.items() if item[0] in conversation)
        core = question.rstrip("?")
        entry = {"questions": [question, f"Tell me: {core}?", f"{core}, please?"], "answer": answer, "tags": ["app"]}
        arguments = json.dumps(entry) if len(messages) > 2 else "{}"
        return Completion("", (ToolCall("call_1", "create_context", arguments),), 100, 10, 0.01)


def models_of(bill: Bill) -> Models:
    meter = Meter(max_cost_usd=100.0)
    return Models(Scripted(False, meter, bill), Scripted(True, meter, bill), None, meter)


def fill(learning: Learning) -> None:
    learning.config = replace(learning.config, knowledge=replace(learning.config.knowledge, prescreen_batch=2))
    for number, (question, answer) in enumerate(ANSWERS.items()):
        tags = ["account", "password"] if "password" in question else [f"topic-{number}"]
        learning.chat(f"chat-{number}", question, answer, "Thank you!", tags=tags)


def learned(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return what a run wrote, all but ids and times."""
    entries = """
        SELECT c.questions_json, c.answer, c.tags_json, c.status, c.provenance, c.source_chat_id, c.n_users
        FROM ai_contexts AS c ORDER BY c.answer
    """
    sources = """
        SELECT c.answer, s.conversation_id, s.role
        FROM context_sources AS s JOIN ai_contexts AS c ON c.id = s.context_id
        ORDER BY 1, 2
    """
    marks = "SELECT conversation_id, decision, verdict_json, n_left FROM mined_conversations ORDER BY 1"
    revisions = "SELECT answer, status FROM context_revisions ORDER BY 1"
    statements = {"entries": entries, "sources": sources, "marks": marks, "revisions": revisions}
    return {name: [tuple(row) for row in db.rows(sql)] for name, sql in statements.items()}


class Interrupting(sqlite3.Connection):
    """Counts the statements that a run sends, and ends it after the one it is told."""

    n_statements = 0
    kill_after = -1

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        cursor = super().execute(sql, parameters)
        self.n_statements += 1
        if self.n_statements == self.kill_after:
            raise KilledError
        return cursor


@dataclass
class World:
    """The same small desk again and again, each in a database of its own."""

    learning: Learning
    folder: Path
    n_databases: int = 0

    def begin(self) -> Learning:
        self.n_databases += 1
        path = self.folder / f"{self.n_databases}.db"
        with open_database(replace(self.learning.config.store, url=f"sqlite:///{path}")) as db:
            ensure_default_tenant(db, NOW_S)
        connection = sqlite3.connect(path, isolation_level=None, factory=Interrupting)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = OFF")
        database = Database(connection, path)
        learning = Learning(database, self.learning.config, self.learning.embedder, self.learning._tokens)
        fill(learning)
        return learning


@pytest.fixture
def world(learning: Learning, tmp_path: Path) -> World:
    return World(learning, tmp_path)


def connection_of(learning: Learning) -> Interrupting:
    assert isinstance(learning.db.connection, Interrupting)
    return learning.db.connection


def run_killed_and_again(learning: Learning, bill: Bill) -> None:
    """Run until the kill, then once more as a new process would."""
    with pytest.raises(KilledError):
        learning.run(models=models_of(bill))
    connection = connection_of(learning)
    connection.kill_after = -1
    connection.rollback()  # as SQLite does for a process that died
    bill.kill_at = -1
    fail_interrupted_runs(learning.db, TENANT, finished_s=NOW_S)
    learning.run(models=models_of(bill))


def undisturbed(world: World) -> tuple[Mapping[str, Any], Bill, int]:
    learning, bill = world.begin(), Bill()
    connection_of(learning).n_statements = 0
    learning.run(models=models_of(bill))
    n_statements = connection_of(learning).n_statements
    assert len(bill.calls) == 8
    assert len(learned(learning.db)["entries"]) == 3
    return learned(learning.db), bill, n_statements


def assert_nothing_was_paid_twice(learning: Learning, bill: Bill, whole: Bill) -> None:
    assert Counter(bill.calls) == Counter(whole.calls)
    runs, _ = list_runs(learning.db, TENANT)
    assert sum(run.model_calls for run in runs) == len(whole.calls)
    assert sum(run.cost_usd for run in runs) == pytest.approx(0.01 * len(whole.calls))
    assert learning.db.value("SELECT count(*) FROM model_calls") == 0


def test_killed_after_any_statement_it_ends_as_if_nothing_had_happened(world: World) -> None:
    expected, whole, n_statements = undisturbed(world)
    assert n_statements > 80
    for k in range(1, n_statements + 1):
        learning, bill = world.begin(), Bill()
        connection = connection_of(learning)
        connection.n_statements, connection.kill_after = 0, k

        run_killed_and_again(learning, bill)

        assert learned(learning.db) == expected, k
        assert_nothing_was_paid_twice(learning, bill, whole)
        connection.close()


def test_killed_after_any_call_only_the_answer_on_its_way_is_asked_for_again(world: World) -> None:
    expected, whole, _ = undisturbed(world)
    for k in range(1, len(whole.calls) + 1):
        learning, bill = world.begin(), Bill(kill_at=k)

        run_killed_and_again(learning, bill)

        assert learned(learning.db) == expected
        assert Counter(bill.calls) - Counter(whole.calls) == Counter([whole.calls[k - 1]])


def test_forgetting_a_conversation_deletes_the_answers_that_may_quote_it(world: World) -> None:
    learning, bill = world.begin(), Bill(kill_at=3)
    with pytest.raises(KilledError):
        learning.run(models=models_of(bill))
    assert learning.db.value("SELECT count(*) FROM model_calls") == 2

    forget(learning.db, TENANT, Subject((), ("chat-0",)), world.folder, composed, actor="command", now_s=NOW_S)

    assert learning.db.value("SELECT count(*) FROM model_calls") == 0
