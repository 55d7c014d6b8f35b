"""Many records at once, as a proxy with some patterns in trial leaves them: for benchmarks of the learner."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from bench.replies import reply
from store.clock import iso
from store.database import Database
from store.patterns import insert_pattern, new_pattern
from store.plan import Conditions
from store.records import InjectionRecord, InjectionSet, ResponseRecord, make_set
from store.responses import insert_records
from store.vocabulary import DEFAULT_TENANT, PatternType

DAY_S: Final = 86_400.0
CHUNK: Final = 5_000
N_USERS: Final = 5_000
N_TURNS: Final = 3  # of a conversation
QUESTION_TYPES: Final = tuple(f"type-{number}" for number in range(10))
SEGMENTS: Final = ("free", "pro", "team", "enterprise")
HOLDOUT: Final = 0.05
SHARE: Final = 0.5
SIGNALS: Final = (("copy", 0.18, 0.3), ("thumbs_up", 0.05, 1.0), ("thumbs_down", 0.03, -1.0))
FOLLOWED: Final = 0.5  # of the turns that another one follows: so soon that it is a follow-up, found in the records
SOON_S, LATER_S = 12.0, 240.0  # between two turns of a conversation
LATE_VOTES: Final = 0.05  # thumbs for each new response, on responses of before
ARMS: Final[tuple[tuple[PatternType, str, str, str], ...]] = (
    ("response_format", "response_format", "table", "Present the answer as a Markdown table."),
    ("response_format", "length", "short", "Keep the answer short: a few sentences at most."),
    ("query_style", "query", "cte", "Write SQL with common table expressions (WITH) instead of nested queries."),
    ("prompt_strategy", "strategy", "example", "Illustrate the answer with a concrete example."),
    ("follow_up_style", "follow_up", "suggestions", "End with two or three next steps that the user could take."),
    ("visualization_preference", "visualization", "bar", "Show comparisons of quantities as a bar chart."),
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """One tenant's traffic: *n* responses evenly over *days* days up to *end_s*, numbered from *first*."""

    n: int
    end_s: float
    days: float
    first: int = 0
    seed: int = 0


def add_patterns(db: Database, now_s: float) -> None:
    """Put a pattern of each of ``ARMS`` in trial."""
    with db.transaction():
        for number, (type_, dimension, value, rule) in enumerate(ARMS):
            row = new_pattern(
                _pattern_id(number),
                DEFAULT_TENANT,
                type=type_,
                dimension=dimension,
                value=value,
                rule=rule,
                conditions=Conditions(),
                tokens=16,
                origin="learned",
                now_s=now_s,
            )
            insert_pattern(db, row, actor="learner", reason="for the benchmark", now_s=now_s)
            db.execute(
                "UPDATE learned_patterns SET state = 'trial', share = :share, trial_since = created_at WHERE id = :id",
                {"share": SHARE, "id": row.id},
            )


def add_records(db: Database, traffic: Traffic) -> None:
    """Write the responses of *traffic* with their signals."""
    rng = np.random.default_rng((traffic.seed, traffic.first))
    sets = _sets()
    records = _records(traffic, rng, sets)
    while chunk := list(islice(records, CHUNK)):
        with db.transaction():
            insert_records(db, chunk, sets=(one for pair in sets for one in pair))
            db.execute_many(_INSERT_SIGNAL, _signals(chunk, rng))


def add_late_votes(db: Database, traffic: Traffic) -> None:
    """Write thumbs of the time of *traffic* on responses that came before it."""
    rng = np.random.default_rng((traffic.seed, traffic.first, 1))
    voted = rng.choice(traffic.first, int(LATE_VOTES * traffic.n), replace=False).tolist()
    with db.transaction():
        for number in voted:
            user = db.value("SELECT user_id FROM responses WHERE id = :id", {"id": _response_id(number)})
            signal = f"late-{traffic.first}-{number}"
            kind, weight = ("thumbs_up", 1.0) if rng.random() < 0.6 else ("thumbs_down", -1.0)
            row = (signal, DEFAULT_TENANT, _response_id(number), user, kind, "thumb", weight, iso(traffic.end_s))
            db.execute_many(f"{_INSERT_SIGNAL} ON CONFLICT DO NOTHING", [row])


def _response_id(number: int) -> str:
    return f"resp-{number:08d}"


_INSERT_SIGNAL: Final = """
INSERT INTO response_feedback (id, tenant_id, response_id, user_id, signal_type, family, weight, metadata_json, source,
  created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, '{}', 'api', ?)
"""


def _pattern_id(number: int) -> str:
    return f"pat-bench-{number}"


def _sets() -> list[tuple[InjectionSet, InjectionSet]]:
    """Return for each arm the sets of conversations without and with it."""
    return [
        (_set(number, dimension, treated=False), _set(number, dimension, treated=True))
        for number, (_, dimension, _, _) in enumerate(ARMS)
    ]


def _set(number: int, dimension: str, *, treated: bool) -> InjectionSet:
    propensity = (1 - HOLDOUT) * SHARE
    return make_set([InjectionRecord("pattern", _pattern_id(number), dimension, propensity, SHARE, treated, None, 16)])


def _records(
    traffic: Traffic, rng: np.random.Generator, sets: list[tuple[InjectionSet, InjectionSet]]
) -> Iterator[ResponseRecord]:
    step_s = traffic.days * DAY_S / traffic.n
    for index in range(0, traffic.n, N_TURNS):
        conversation = f"chat-{traffic.first + index}"
        user = int(N_USERS * rng.random() ** 2)
        holdout = bool(rng.random() < HOLDOUT)
        treated = rng.random(len(ARMS)) < SHARE * (not holdout)
        drawn = ",".join(pair[chosen].set for pair, chosen in zip(sets, treated.tolist(), strict=True))
        kind = QUESTION_TYPES[int(rng.integers(len(QUESTION_TYPES)))]
        created_s = traffic.end_s - (traffic.n - index) * step_s - N_TURNS * LATER_S
        for turn in range(index, min(index + N_TURNS, traffic.n)):
            form, text = reply(rng)
            question = f"how do the plans compare, question {turn}?"
            yield ResponseRecord(
                id=_response_id(traffic.first + turn),
                tenant_id=DEFAULT_TENANT,
                conversation_id=conversation,
                endpoint="/v1/chat/completions",
                model="some-model",
                user_id=f"user-{user}",
                segment=SEGMENTS[user % len(SEGMENTS)],
                question=question,
                question_type=kind,
                prompt_template="e3b0c44298fc1c14",
                response_format=form,
                length_band="medium",
                outcome="ok",
                status=200,
                is_holdout=holdout,
                generation=1,
                injected_tokens=16 * int(treated.sum()),
                latency_ms=900.0,
                messages_json=json.dumps([{"role": "user", "content": question}]),
                reply_json=json.dumps({"role": "assistant", "content": text}),
                history_hash=f"{traffic.first + turn:016x}",
                request_hash=f"{traffic.first + turn:016x}",
                created_at=iso(created_s),
                completed_at=iso(created_s + 1),
                drawn=drawn,
            )
            created_s += SOON_S if rng.random() < FOLLOWED else LATER_S


def _signals(records: list[ResponseRecord], rng: np.random.Generator) -> Iterator[tuple[str | float, ...]]:
    for record, draws in zip(records, rng.random((len(records), len(SIGNALS))).tolist(), strict=True):
        families = set()
        for (kind, rate, weight), draw in zip(SIGNALS, draws, strict=True):
            family = "thumb" if kind.startswith("thumbs") else kind
            if draw < rate and family not in families:
                families.add(family)
                signal = f"{kind}-{record.id}"
                yield (signal, DEFAULT_TENANT, record.id, record.user_id, kind, family, weight, record.completed_at)
