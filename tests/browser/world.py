"""A small store with something of everything for the pages to show, and the learner's port over it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from learner.app import create_app
from learner.authoring import Author
from learner.services import Services
from store.alerts import raise_alert
from store.blocks import clean_text
from store.clock import Clock, iso
from store.config import Config
from store.context_proposals import create_context, propose_revision
from store.contradictions import Claim, open_contradiction
from store.conversations import import_conversations
from store.database import Database, open_database
from store.datasets import NewExample, add_examples, list_examples
from store.feedback import Signal, record_signal
from store.generations import current_number
from store.pattern_review import set_state
from store.plan import Conditions
from store.records import InjectionRecord
from store.responses import insert_records
from store.tenants import create_key, ensure_tenant
from store.vocabulary import SignalType
from store.wordings import compose
from tests.conftest import NOW_S
from tests.store.test_conversations import record

TENANT = "acme"
DAY_S = 86_400.0
REFUND = "Refunds arrive within five working days after the form was sent."
NO = "No, invoices are not possible any more."
TALK = [
    {"role": "user", "content": "Hi, I returned my order."},
    {"role": "assistant", "content": "Thank you, I see it here."},
    {"role": "user", "content": "How long does a refund take?"},
    {"role": "assistant", "content": REFUND, "agent": "human"},
    {"role": "user", "content": "Great, that helps."},
]


@dataclass(frozen=True, slots=True)
class World:
    """What there is to look at, and the keys that open it."""

    pattern_id: str
    waiting_ids: tuple[str, ...]  # entries, in the order of the queue
    approved_id: str
    contradiction_id: str
    example_id: str
    generation: int  # before the pattern was pinned anew
    keys: dict[str, str]  # by role


def make_world(db: Database, config: Config, author: Author) -> World:
    """Return the things in *db*, made there."""
    ensure_tenant(db, TENANT, NOW_S)
    pattern = author.add_pattern(
        db,
        TENANT,
        type="response_format",
        rule="Present comparisons as a Markdown table.",
        conditions=Conditions(question_type=("comparison",)),
        state="trial",
        actor="learner",
        now_s=NOW_S - 20 * DAY_S,
    )
    generation = current_number(db, TENANT)
    _traffic(db, config, pattern.id)
    waiting, approved_id, contradiction_id = furnish(db, author, TENANT, NOW_S)
    set_state(db, TENANT, pattern.id, state="pinned", actor="test", reason="liked", now_s=NOW_S)
    set_state(db, TENANT, pattern.id, state="trial", actor="test", reason="measure it again", now_s=NOW_S)
    return World(
        pattern_id=pattern.id,
        waiting_ids=waiting,
        approved_id=approved_id,
        contradiction_id=contradiction_id,
        example_id=list_examples(db, TENANT, "ds-auto-training")[0][0].id,
        generation=generation,
        keys={role: create_key(db, TENANT, name=role, scope=role, now_s=NOW_S)[1] for role in ("admin", "viewer")},
    )


def furnish(db: Database, author: Author, tenant_id: str, now_s: float) -> tuple[tuple[str, ...], str, str]:
    """Add what people decide about; return the entries that wait, one that serves, and a contradiction of it."""
    invoices = [
        {"role": "user", "content": "Can I pay by invoice?"},
        {"role": "assistant", "content": NO, "agent": "human"},
    ]
    talks = [
        {"chatId": f"chat-{number}", "messages": [*TALK, *(invoices if number == 2 else [])], "resolved": True}
        for number in range(3)
    ]
    import_conversations(db, tenant_id, talks, now_s=now_s)
    waiting = tuple(_propose(db, author, tenant_id, number, now_s) for number in range(3))
    approved = author.add_context(
        db,
        tenant_id,
        questions=["Can I pay by invoice?"],
        answer="Yes, from an order of 100 euros on.",
        tags=["payment"],
        is_approved=True,
        actor="test",
        now_s=now_s,
    )
    better = compose(
        ["Can I pay by invoice?"],
        "Yes, from an order of 50 euros on.",
        ["payment"],
        embedder=author.embedder,
        tokens=author.tokens,
    )
    propose_revision(
        db, tenant_id, approved.id, better, source_chat_id="chat-1", actor="learner", now_s=now_s, note="a newer answer"
    )
    claim = Claim(("Can I pay by invoice?",), NO, (), "chat-2", "human_answer")
    contradiction_id = open_contradiction(db, tenant_id, approved.id, approved.answer, claim, run_id=None, now_s=now_s)
    assert contradiction_id is not None
    examples = [
        NewExample(f"where is order {n}?", "track_order", 0.4 + n / 10, "bulk", None, "", None) for n in range(3)
    ]
    add_examples(db, tenant_id, "ds-auto-training", examples, review_below_confidence=0.7, now_s=now_s)
    raise_alert(
        db, tenant_id, kind="context_flagged", message="A user corrected an entry.", detail={}, run_id=None, now_s=now_s
    )
    return waiting, approved.id, contradiction_id


def _propose(db: Database, author: Author, tenant_id: str, number: int, now_s: float) -> str:
    wording = compose(
        [f"How long does a refund take, case {number}?", "When do I get my money back?"],
        clean_text(REFUND),
        ["refund", "billing"],
        embedder=author.embedder,
        tokens=author.tokens,
    )
    return create_context(
        db,
        tenant_id,
        wording,
        provenance="human_answer",
        source_chat_id=f"chat-{number}",
        actor="learner",
        now_s=now_s + number,
    ).id


def _traffic(db: Database, config: Config, pattern_id: str) -> None:
    """Twelve days of answers, every fifth in the holdout, half of the others with the pattern."""
    records = []
    for number in range(120):
        is_holdout = number % 5 == 0
        treated = number % 2 == 0 and not is_holdout
        at = iso(NOW_S - (12 - number / 10) * DAY_S)
        injection = InjectionRecord("pattern", pattern_id, "response_format", 0.4, 0.5, treated, None, 12)
        records.append(
            record(
                number,
                [{"role": "user", "content": f"Which plan is cheaper, question {number}?"}],
                "| plan | price |\n| --- | --- |\n| a | 5 |",
                id=f"resp-{number}",
                tenant_id=TENANT,
                conversation_id=f"talk-{number}",
                question=f"Which plan is cheaper, question {number}?",
                is_holdout=is_holdout,
                user_id=f"user-{number % 7}",
                injected_tokens=12 * treated,
                prompt_tokens=300,
                cached_tokens=120,
                injections=(injection,),
                created_at=at,
                completed_at=at,
            )
        )
    insert_records(db, records)
    for number in range(0, 120, 3):
        kind: SignalType = "thumbs_up" if number % 4 else "thumbs_down"
        vote = Signal(response_id=f"resp-{number}", signal=kind, user=f"user-{number % 7}")
        record_signal(db, TENANT, vote, config.feedback, source="api", now_s=NOW_S)


@contextmanager
def served(config: Config, clock: Clock, author: Author) -> Iterator[str]:
    """Serve the learner's port on a thread, and yield its address."""
    services = Services(config, lambda: open_database(config.store), clock, author)
    server = uvicorn.Server(uvicorn.Config(create_app(services), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
