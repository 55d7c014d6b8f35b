"""An installation to measure: settings, and a database that is full of learned things."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from store.blocks import pattern_line
from store.clock import SystemClock
from store.config import Config, load_config
from store.context_proposals import create_context
from store.database import Database, open_database
from store.embedding import load_local_embedder
from store.generations import publish
from store.plan import Conditions, ServedPattern, build_plan
from store.tenants import ensure_default_tenant, set_learning
from store.tokens import load_token_counter
from store.vocabulary import DEFAULT_TENANT
from store.wordings import compose

Reply = Literal["whole", "chunks", "paced"]  # paced: chunks 10 ms apart
N_PATTERNS = 1000
N_CONTEXTS = 1000
N_BODIES = 4000
N_SOURCES = 50  # data sources that the patterns are spread over: 20 match a request ...
N_DIMENSIONS = 10  # ... and compete, two in each dimension; nine tenths of the dimensions are treated
DATA_SOURCE = "source-7"
ACTOR = "bench"
SERIAL = (
    "@@@ @@@ @@@"  # the driver writes nine other digits here in every request; three words that a cache has soon seen
)
SAMPLE = Path(__file__).parents[1] / "tutelage" / "demo" / "data" / "conversations.jsonl"
SYSTEM = (
    "You are a careful assistant working inside a support team. Answer briefly, cite the page when you can, and "
    "never invent a feature."
)


@dataclass(frozen=True)
class Installation:
    """Where one configuration of Tutelage keeps its things."""

    folder: Path
    port: int

    @property
    def config_path(self) -> Path:
        return self.folder / "tutelage.toml"

    @property
    def database_path(self) -> Path:
        return self.folder / "tutelage.db"


def real_texts() -> list[str]:
    """Return the user turns of the shipped conversations, each once, in order."""
    texts: dict[str, None] = {}
    for line in SAMPLE.read_text(encoding="utf-8").splitlines():
        for message in json.loads(line)["messages"]:
            if message["role"] == "user" and len(message["content"]) > 25:
                texts[message["content"]] = None
    return list(texts)


def phrasings() -> Iterator[tuple[str, str, str]]:
    """Yield three phrasings of one question after the other, joined of real texts and all different."""
    source, texts = random.Random(5), real_texts()
    while True:
        first, second = source.choice(texts), source.choice(texts)
        yield f"{first} {second}", f"{second} {first}", f"{first} Also: {second}"


def write_config(installation: Installation, upstream_port: int, *, more: str = "", proxy: str = "") -> None:
    """Write the settings: one upstream for every model; *proxy* goes into its section, *more* behind all."""
    installation.config_path.write_text(
        f"""
[proxy]
port = {installation.port}
{proxy}
[store]
url = "sqlite:///{installation.database_path}"
[log]
level = "WARNING"
[[upstream]]
name = "bench"
base_url = "http://127.0.0.1:{upstream_port}/v1"
models = ["*"]
{more}
""",
        encoding="utf-8",
    )


def install(folder: Path, port: int, upstream_port: int, *, is_learning: bool) -> Installation:
    """Return a new installation; with *is_learning* it holds 1,000 patterns and 1,000 approved contexts."""
    folder.mkdir(parents=True)
    installation = Installation(folder, port)
    write_config(installation, upstream_port)
    with open_database(load_config(installation.config_path).store) as db:
        ensure_default_tenant(db, SystemClock().now_s())
        if is_learning:
            _fill(db, installation)
        else:
            set_learning(db, DEFAULT_TENANT, learning=False)
    return installation


def _fill(db: Database, installation: Installation) -> None:
    now_s = SystemClock().now_s()
    tokens = load_token_counter()
    patterns = []
    for number in range(N_PATTERNS):
        rule = (
            f"Rule {number}: when the question is about money, name the price, its currency and its date in a table, "
            "with the source of each figure below it and what it does not cover."
        )
        patterns.append(
            ServedPattern(
                id=f"pat-{number:04}",
                type="response_format",
                dimension=f"bench:{number // N_SOURCES % N_DIMENSIONS}",
                rule=rule,
                conditions=Conditions(data_source=(f"source-{number % N_SOURCES}",)),
                state="active",
                tokens=tokens.count(pattern_line(rule)),
                share=0.45,
                lift=0.1,
            )
        )
    with db.transaction():
        publish(db, DEFAULT_TENANT, plan=build_plan(patterns), actor=ACTOR, reason="bench", now_s=now_s)
        add_contexts(db, DEFAULT_TENANT, N_CONTEXTS, load_config(installation.config_path))


def add_contexts(db: Database, tenant_id: str, n: int, config: Config) -> None:
    """Write *n* approved entries, the same ones for the same *n*."""
    tokens, embedder, now_s = load_token_counter(), load_local_embedder(config.embedding), SystemClock().now_s()
    with db.transaction():
        for _, questions in zip(range(n), phrasings(), strict=False):
            answer = " ".join(f"Step {step}: open the page, read the notice and confirm it." for step in range(1, 4))
            create_context(
                db,
                tenant_id,
                compose(questions, answer, ["bench"], embedder=embedder, tokens=tokens),
                provenance="person",
                source_chat_id=None,
                actor=ACTOR,
                now_s=now_s,
                is_approved=True,
            )


def write_bodies(path: Path, reply: Reply, model: str) -> None:
    """Write request bodies of about 1.2 KB, one a line; every second asks what an entry answers.

    No two requests ask the same: the driver numbers each in its first message, by which a conversation is known, and
    in its question.
    """
    source, texts, known = random.Random(9), real_texts(), phrasings()
    pace = ", paced reply" if reply == "paced" else ""  # read by the mock upstream
    with path.open("w", encoding="utf-8") as file:
        for number in range(N_BODIES):
            questions = next(known) if number < 2 * N_CONTEXTS else None
            is_known = questions is not None and number % 2 == 0
            question = questions[0] if questions and is_known else f"{source.choice(texts)} {source.choice(texts)}"
            history = " ".join(source.choice(texts) for _ in range(5))
            body = {
                "model": model,
                "messages": [
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content": f"Case {SERIAL}{pace}. {history}"},
                    {"role": "assistant", "content": " ".join(source.choice(texts) for _ in range(3))},
                    {"role": "user", "content": f"{question} {SERIAL}"},
                ],
                "temperature": 0.2,
                "max_tokens": 256,
                **({} if reply == "whole" else {"stream": True}),
            }
            file.write(json.dumps(body) + "\n")
