"""A small world at the level of the store: the proxy's own draw, an obedient assistant, users who vote."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from learner.models import no_models
from learner.report import Collaborators, RunReport
from learner.run import run_once
from proxy.selection import Facts, conversation_seed, is_holdout, matching_dimensions, select_patterns
from store.clock import iso
from store.config import Config
from store.database import Database
from store.embedding import load_local_embedder
from store.feedback import Signal, record_signal
from store.generations import current_number, current_plan
from store.patterns import PatternRow, all_patterns
from store.records import ResponseRecord
from store.responses import insert_records
from store.tenants import get_tenant
from store.tokens import load_token_counter
from store.vocabulary import DEFAULT_TENANT, SignalType
from tests.conftest import NOW_S

TABLE = "| plan | price |\n|---|---|\n| basic | 10 |\n| pro | 25 |"
PROSE = "the basic plan costs ten euros a month and the pro plan twenty-five."
TABLE_RULE = "Present the answer as a Markdown table."

Vote = Callable[[bool, float], SignalType | None]  # (reply is a table, uniform draw) -> signal


# Loaded once: they say the same to everybody, and to load them costs more than a run.
embedder_of = cache(load_local_embedder)
token_counter = cache(load_token_counter)


class Ticking:
    """The world's time, a millisecond later each time it is asked: what is made later has a later id."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._n_asked = 0

    def now_s(self) -> float:
        self._n_asked += 1
        return self._world.now_s + self._n_asked / 1000


@dataclass
class World:
    """Records of one tenant under a clock that moves a minute with each response; *seed* decides all that chance does.

    The machine's clock and chance have no part in it.
    """

    db: Database
    config: Config
    seed: int = 0
    n_users: int = 60
    now_s: float = NOW_S
    n_conversations: int = 0
    rng: np.random.Generator = field(init=False)
    collaborators: Collaborators = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.collaborators = Collaborators(
            embedder=embedder_of(self.config.embedding),
            tokens=token_counter(),
            models=no_models(),
            rng=np.random.default_rng(self.seed),
            clock=Ticking(self),
        )

    def visit(self, n: int, vote: Vote, *, question_type: str = "comparison", tables: float = 0.5) -> None:
        """Hold *n* conversations of one turn: the assistant obeys a table rule, else draws a table with P *tables*."""
        plan = current_plan(self.db, DEFAULT_TENANT)
        generation = current_number(self.db, DEFAULT_TENANT)
        secret = get_tenant(self.db, DEFAULT_TENANT).secret
        section = self.config.patterns
        dimensions = matching_dimensions(plan, Facts(question_type), section)
        with self.db.transaction():
            for _ in range(n):
                self.n_conversations += 1
                self.now_s += 60
                conversation = f"c{self.seed}-{self.n_conversations}"
                user = f"user-{int(self.rng.integers(self.n_users))}"
                seed = conversation_seed(secret, conversation)
                holdout = is_holdout(seed, section.holdout)
                selection = select_patterns(dimensions, seed, section, holdout=holdout)
                is_table = TABLE_RULE in selection.block or self.rng.random() < tables
                record = ResponseRecord(
                    id=f"resp-{conversation}",
                    tenant_id=DEFAULT_TENANT,
                    conversation_id=conversation,
                    endpoint="/v1/chat/completions",
                    user_id=user,
                    question="how do the plans compare?",
                    question_type=question_type,
                    response_format="table" if is_table else "prose",
                    length_band="short",
                    outcome="ok",
                    status=200,
                    is_holdout=holdout,
                    generation=generation,
                    injected_tokens=selection.tokens,
                    latency_ms=5.0,
                    messages_json=json.dumps([{"role": "user", "content": "how do the plans compare?"}]),
                    reply_json=json.dumps({"role": "assistant", "content": TABLE if is_table else PROSE}),
                    request_hash=conversation,
                    created_at=iso(self.now_s),
                    completed_at=iso(self.now_s + 2),
                    drawn=",".join(one.set for one in selection.drawn),
                )
                insert_records(self.db, [record], sets=selection.drawn)
                signal = vote(is_table, float(self.rng.random()))
                if signal is not None:
                    record_signal(
                        self.db,
                        DEFAULT_TENANT,
                        Signal(response_id=record.id, signal=signal, user=user),
                        self.config.feedback,
                        source="api",
                        now_s=self.now_s + 30,
                    )

    def learn(self, *, after_h: float = 0.0) -> RunReport:
        """Run once, *after_h* hours after the last response."""
        self.now_s += after_h * 3600
        (report,) = run_once(
            self.db, self.config, DEFAULT_TENANT, "patterns", collaborators=self.collaborators, now_s=self.now_s
        )
        return report

    def patterns(self, state: str | None = None) -> list[PatternRow]:
        return [row for row in all_patterns(self.db, DEFAULT_TENANT) if state in (None, row.state)]

    def table(self) -> PatternRow:
        (row,) = [
            row for row in self.patterns() if row.rule == TABLE_RULE and row.conditions.question_type == ("comparison",)
        ]
        return row


def likes_tables(is_table: bool, draw: float) -> SignalType:
    """Always vote, up for a table, down for anything else."""
    return "thumbs_up" if is_table else "thumbs_down"


def likes_tables_sometimes(is_table: bool, draw: float) -> SignalType | None:
    """Vote on every third reply; four of five votes are for tables."""
    if draw > 1 / 3:
        return None
    return "thumbs_up" if (draw * 3 < 0.8) == is_table else "thumbs_down"


def ups(*, table: float, prose: float) -> Vote:
    """Return people who vote on two thirds of the replies, up with the probabilities *table* and *prose*."""

    def vote(is_table: bool, draw: float) -> SignalType | None:
        if draw > 2 / 3:
            return None
        return "thumbs_up" if draw * 1.5 < (table if is_table else prose) else "thumbs_down"

    return vote


def loves_tables(is_table: bool, draw: float) -> SignalType:
    """Always vote, up for a table, either way for anything else."""
    return "thumbs_up" if is_table or draw < 0.5 else "thumbs_down"


def hates_tables(is_table: bool, draw: float) -> SignalType:
    """Always vote, down for a table, up for anything else."""
    return "thumbs_down" if is_table else "thumbs_up"


def hates_everything(is_table: bool, draw: float) -> SignalType:
    """Always vote down."""
    return "thumbs_down"


def votes_at_random(is_table: bool, draw: float) -> SignalType | None:
    """Vote on half of the replies, whatever they are."""
    return None if draw > 0.5 else "thumbs_up" if draw < 0.3 else "thumbs_down"
