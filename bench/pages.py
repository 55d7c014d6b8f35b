"""How long each page of the console takes with a large store behind it, over HTTP, from request to last byte.

``python -m bench.pages [--quick] [--folder FOLDER]``: 1,000,000 responses, 10,000 patterns and 100,000 entries.
"""

import argparse
import http.client
import json
import logging
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import numpy as np
import uvicorn

from bench.bars import at_most, print_bar, table
from bench.traffic import ARMS, DAY_S, Traffic, add_patterns, add_records
from learner.app import create_app
from learner.authoring import Author
from learner.services import Services
from store.alerts import raise_alert
from store.clock import ManualClock, iso, parse_iso
from store.config import Config, load_config
from store.conversations import import_conversations
from store.database import Database, open_database
from store.datasets import NewExample, add_examples
from store.ids import new_id
from store.patterns import insert_pattern, new_pattern, publish_patterns
from store.plan import Conditions
from store.tenants import ensure_default_tenant
from store.vocabulary import DEFAULT_TENANT, PATTERN_TYPES

END_S: Final = parse_iso("2026-11-21T12:00:00Z")
DAYS: Final = 80.0
LIMIT_MS: Final = 200.0
ROUNDS: Final = 7
DIMENSIONS: Final = 256


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is to show."""

    n_responses: int
    n_patterns: int
    n_contexts: int
    n_examples: int


FULL: Final = Size(1_000_000, 10_000, 100_000, 100_000)
QUICK: Final = Size(20_000, 1_000, 5_000, 2_000)
N_SERVED: Final = 400  # patterns in and out of service; all others are what was found and what was given up
SERVED_STATES: Final = ("active", "trial", "candidate", "disabled", "warmdown", "pinned")
OTHER_STATES: Final = ("candidate", "retired")
STATUSES: Final = ("approved",) * 16 + ("pending_approval", "rejected", "flagged", "retired")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", help="keep the database here, and take one that is there already")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    logging.disable(logging.WARNING)  # two hundred alerts are raised
    with tempfile.TemporaryDirectory(prefix="tutelage-bench-") as name:
        path = Path(arguments.folder or name) / "tutelage.db"
        config = load_config(None, {"store": {"url": f"sqlite:///{path}"}})
        if not path.exists():
            fill(config, size)
        with open_database(config.store) as db:
            paths = pages_of(db)
        with served(config) as port:
            _report(size, [(path, *measure(port, path)) for path in paths])


def fill(config: Config, size: Size) -> None:
    """Make the store; what is not a response is written as the product would write it, many at once."""
    rng = np.random.default_rng(7)
    with open_database(config.store) as db:
        ensure_default_tenant(db, END_S)
        add_patterns(db, END_S - DAYS * DAY_S)
        add_records(db, Traffic(size.n_responses, END_S, DAYS))
        _add_many_patterns(db, size.n_patterns - len(ARMS), rng)
        _add_contexts(db, size.n_contexts, rng)
        for start in range(0, size.n_examples, 1000):
            examples = [
                NewExample(f"where is order {number}?", f"intent-{number % 40}", 0.5 + 0.05 * (number % 10), "bulk",
                           None, "", None)
                for number in range(start, start + 1000)
            ]  # fmt: skip
            add_examples(db, DEFAULT_TENANT, "ds-auto-training", examples, review_below_confidence=0.7, now_s=END_S)
        for number in range(200):
            raise_alert(
                db,
                DEFAULT_TENANT,
                kind="crash",
                message=f"alert {number}",
                detail={},
                run_id=None,
                now_s=END_S + number,
            )
        _add_history(db)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _add_many_patterns(db: Database, n: int, rng: np.random.Generator) -> None:
    with db.transaction():
        for number in range(n):
            lift = float(rng.normal(0.05, 0.1))
            row = new_pattern(
                f"pat-many-{number:05}",
                DEFAULT_TENANT,
                type=PATTERN_TYPES[number % len(PATTERN_TYPES)],
                dimension=f"dimension-{number % 50}",
                value="table",
                rule=f"Answer questions of kind {number} with a short table before the prose.",
                conditions=Conditions(question_type=(f"type-{number % 10}",)),
                tokens=16,
                origin="learned",
                now_s=END_S,
            )
            insert_pattern(db, row, actor="learner", reason="for the benchmark", now_s=END_S)
            db.execute(
                """
                UPDATE learned_patterns SET state = :state, lift = :lift, lift_low = :low, lift_high = :high,
                  share = 0.5, use_count = 100, signal_count = 50, user_count = 20 WHERE id = :id
                """,
                {"id": row.id, "state": _state(number), "lift": lift, "low": lift - 0.1,
                 "high": lift + 0.1},
            )  # fmt: skip


def _state(number: int) -> str:
    states = SERVED_STATES if number < N_SERVED else OTHER_STATES
    return states[number % len(states)]


def _add_contexts(db: Database, n: int, rng: np.random.Generator) -> None:
    talks = [
        {
            "chatId": f"source-{number}",
            "messages": [
                {"role": role, "content": f"message {turn} about subject {number}: " + "some words of the talk " * 20}
                for turn, role in enumerate(("user", "assistant") * 6)
            ],
            "resolved": True,
        }
        for number in range(200)
    ]
    import_conversations(db, DEFAULT_TENANT, talks, now_s=END_S)
    ids = [new_id("ctx", END_S - n + number) for number in range(n)]
    with db.transaction():
        for start in range(0, n, 5000):
            chosen = range(start, min(start + 5000, n))
            db.execute_many(_INSERT_CONTEXT, [_context(ids[number], number, rng) for number in chosen])
            db.execute_many(
                """
                INSERT INTO context_revisions (context_id, revision, questions_json, answer, tags_json, status,
                  source_chat_id, tokens, embedding, embedding_model, actor, note, created_at)
                SELECT id, 1, questions_json, answer, tags_json,
                  CASE status WHEN 'pending_approval' THEN status WHEN 'rejected' THEN status ELSE 'approved' END,
                  source_chat_id, tokens, embedding, embedding_model, 'learner', '', created_at
                FROM ai_contexts WHERE id = ?
                """,
                [(ids[number],) for number in chosen],
            )


_INSERT_CONTEXT: Final = """
INSERT INTO ai_contexts (id, tenant_id, questions_json, answer, tags_json, status, is_served, revision, source_chat_id,
  n_users, provenance, tokens, embedding, embedding_model, changed_generation, created_at, updated_at)
VALUES (?, ?, ?, ?, '["billing","refund"]', ?, ?, 1, ?, 3, 'answer', 60, ?, 'local', 1, ?, ?)
"""


def _context(context_id: str, number: int, rng: np.random.Generator) -> tuple[object, ...]:
    vector = rng.normal(size=DIMENSIONS).astype(np.float32)
    status = STATUSES[number % len(STATUSES)]
    questions = json.dumps([f"How does subject {number} work, asked in way {way}?" for way in range(3)])
    answer = f"Subject {number % 200} works like this: " + "some words of the talk, as the agent said. " * 6
    at = iso(END_S)
    return (
        context_id,
        DEFAULT_TENANT,
        questions,
        answer,
        status,
        int(status == "approved"),
        f"source-{number % 200}",
        (vector / np.linalg.norm(vector)).tobytes(),
        at,
        at,
    )


def _add_history(db: Database) -> None:
    """A hundred runs, and two generations that serve what the store holds."""
    with db.transaction():
        for number in range(100):
            at = iso(END_S - number * 6 * 3600)
            db.execute(
                """
                INSERT INTO learning_runs (id, tenant_id, kind, status, run_at, started_at, finished_at, cursor_json,
                  summary_json) VALUES (:id, :tenant, 'patterns', 'completed', :at, :at, :at, '[]', :summary)
                """,
                {"id": f"run-{number:03}", "tenant": DEFAULT_TENANT, "at": at,
                 "summary": '{"counts":{"responses":1000},"changes":[],"notes":[]}'},
            )  # fmt: skip
        for number in range(2):
            publish_patterns(
                db, DEFAULT_TENANT, actor="learner", reason=f"for the benchmark, {number}", run_id=None, now_s=END_S
            )


def pages_of(db: Database) -> list[str]:
    """Return every page, those of single things for one with as much behind it as any."""

    def one(sql: str) -> str:
        return quote(str(db.value(sql)), safe="")

    waiting = one("SELECT id FROM ai_contexts WHERE status = 'pending_approval' LIMIT 1")
    approved = one("SELECT id FROM ai_contexts WHERE status = 'approved' LIMIT 1")
    talk = one("SELECT conversation_id FROM responses ORDER BY seq DESC LIMIT 1")
    return [
        "/",
        "/contexts",
        "/contexts?status=approved",
        "/contexts?status=flagged",
        f"/contexts/{waiting}",
        f"/contexts/{approved}",
        "/contradictions",
        "/patterns",
        "/patterns?state=active&type=query_style&sort=lift",
        "/patterns?text=kind+999",
        "/patterns/pat-bench-0",
        "/patterns/pat-bench-0?arm=control",
        "/patterns/pat-bench-0?arm=natural",
        "/patterns/pat-many-00004",
        "/generations",
        "/generations/1",
        "/runs",
        "/alerts",
        "/alerts?show=all",
        "/datasets",
        "/datasets/ds-auto-training",
        "/datasets/ds-auto-training?show=all",
        "/conversations",
        "/conversations?q=user-17",
        "/conversations?q=question+999999",
        "/conversations?q=words+that+nobody+said",
        f"/conversations/{talk}",
        "/audit",
        "/api/stats",
        "/api/patterns?limit=100",
        "/api/contexts?limit=100",
        "/api/conversations?limit=100",
    ]


@contextmanager
def served(config: Config) -> Iterator[int]:
    """Serve the learner's port without its scheduler, and yield which port that is."""
    clock = ManualClock(datetime.fromtimestamp(END_S, UTC))
    services = Services(config, lambda: open_database(config.store), clock, Author(config.embedding))
    server = uvicorn.Server(uvicorn.Config(create_app(services), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def measure(port: int, path: str) -> tuple[int, float, float, float, float]:
    """Return the status, and milliseconds: the first time, the median and the worst of the others, CPU of the best."""
    times, cpu = [], []
    for _ in range(ROUNDS + 1):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        start_s, cpu_s = time.perf_counter(), time.process_time()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        times.append(1000 * (time.perf_counter() - start_s))
        cpu.append(1000 * (time.process_time() - cpu_s))
        connection.close()
    return answer.status, times[0], statistics.median(times[1:]), max(times[1:]), min(cpu)


def _report(size: Size, measured: Sequence[tuple[str, int, float, float, float, float]]) -> None:
    print("## Pages of the console over a large store\n")
    print(
        f"{size.n_responses:,} responses, {size.n_patterns:,} patterns, {size.n_contexts:,} entries, "
        f"{size.n_examples:,} examples of one tenant. Milliseconds from request to last byte over HTTP, each request "
        f"with a connection of its own; the first time, then the median and the worst of {ROUNDS}; and the CPU time of "
        "the best, which the machine's other work changes little.\n"
    )
    print(
        table(
            ["page", "status", "first", "median", "worst", "CPU"],
            [[path, str(status), *(f"{ms:.0f}" for ms in times)] for path, status, *times in measured],
        )
    )
    wrong = [path for path, status, *_ in measured if status != 200]
    if wrong:
        raise SystemExit(f"not answered: {', '.join(wrong)}")
    slowest = max(measured, key=lambda row: row[3])
    print_bar(at_most(f"the slowest page, {slowest[0]}", f"{LIMIT_MS:.0f} ms", LIMIT_MS, [slowest[3]], "{:.0f} ms"))


if __name__ == "__main__":
    main()
