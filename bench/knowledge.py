"""What knowledge costs and how good it is: ``python -m bench.knowledge [--data FOLDER] [--quick]``.

300 real conversations (Schema-Guided Dialogue) through a whole run with models that quote; grouping and retrieval on
BANKING77 and CLINC150.
"""

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench.bars import at_least, at_most, print_bar, table
from bench.grouping import METHODS, Grouped, measure_grouping
from bench.quoting_model import quoting_models
from bench.retrieval import DEFAULT_DATA, build, microseconds, read_banking, read_clinc
from learner.knowledge.pipeline import run_knowledge
from learner.report import Collaborators
from store.clock import ManualClock
from store.config import load_config
from store.conversations import import_conversations
from store.database import open_database
from store.embedding import Embedder, load_local_embedder, top_k
from store.runs import RunRow, get_run, start_run
from store.tenants import DEFAULT_TENANT, ensure_default_tenant
from store.tokens import load_token_counter

N_CONVERSATIONS = 300
RUN_S = 1.8e9
MIN_SAVED = 0.8
SHARES = {"BANKING77": (0.64, 0.885), "CLINC150": (0.715, 0.915)}  # recall@1, recall@5
MIN_RAND = 0.65
MAX_US = 150.0


@dataclass(frozen=True)
class Found:
    """How well one data set's entries are found; shares, means over seeds."""

    name: str
    n_entries: int
    n_questions: int
    recalls: tuple[float, float, float]  # at 1, 3, 5
    silence: float  # out-of-scope questions that get nothing
    answered: float  # questions of an entry that get it, among three


def main() -> None:
    """Measure and print the page's section and its bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with the three data sets")
    parser.add_argument("--quick", action="store_true", help="one seed")
    arguments = parser.parse_args()
    embedder = load_local_embedder(load_config().embedding)
    print("## Knowledge: from conversations to entries that are found\n")
    run, took_s = run_pipeline(arguments.data, embedder)
    report_run(run, took_s)
    report_grouping(measure_grouping(arguments.data, embedder))
    report_retrieval(arguments.data, embedder, 1 if arguments.quick else 3)


def run_pipeline(data: Path, embedder: Embedder) -> tuple[RunRow, float]:
    """Return the record of one run over the first conversations, and its CPU seconds."""
    with gzip.open(data / "sgd_train.jsonl.gz", "rt", encoding="utf-8") as file:
        conversations = [json.loads(line) for line in file]
    config = load_config()
    tokens = load_token_counter()
    with tempfile.TemporaryDirectory(prefix="tutelage-bench-") as folder:
        config = load_config(None, {"store": {"url": f"sqlite:///{folder}/tutelage.db"}})
        with open_database(config.store) as db:
            ensure_default_tenant(db, RUN_S)
            import_conversations(db, DEFAULT_TENANT, conversations, now_s=RUN_S)
            run_id = start_run(db, DEFAULT_TENANT, "knowledge", RUN_S, RUN_S)
            collaborators = Collaborators(
                embedder,
                tokens,
                quoting_models(tokens.count),
                np.random.default_rng(0),
                ManualClock(datetime.fromtimestamp(RUN_S, UTC)),
            )
            started_s = time.process_time()
            run_knowledge(db, config, DEFAULT_TENANT, collaborators, run_id, RUN_S)
            return get_run(db, DEFAULT_TENANT, run_id), time.process_time() - started_s


def report_run(run: RunRow, took_s: float) -> None:
    counts, costs, tokens = run.summary["counts"], run.summary["costs"], run.summary["tokens"]
    print(
        f"One run over {counts['conversations']} real conversations of services, of which it takes at most "
        f"{N_CONVERSATIONS}. The models quote instead of thinking, so the large one has a draft refused now and then. "
        "Prices: 0.04 dollars a million tokens for the small model, 0.30 in and 2.50 out for the large one.\n"
    )
    stages = (
        ("candidates", counts["candidates"], None),
        ("pre-screened", counts["prescreened"], costs["prescreen"]),
        ("groups", counts["groups"], None),
        ("entries created", counts["created"], costs["extraction"]),
    )
    rows = [
        [
            name,
            f"{number}",
            *(
                ("", "", "", "")
                if cost is None
                else (
                    f"{cost['calls']}",
                    f"{cost['prompt_tokens']:,}",
                    f"{cost['completion_tokens']:,}",
                    f"{cost['cost_usd']:.4f}",
                )
            ),
        ]
        for name, number, cost in stages
    ]
    print(table(("stage", "number", "calls", "tokens in", "tokens out", "dollars"), rows))
    print(
        f"A prompt for each of the {counts['candidates']} candidates would be {tokens['all']:,} tokens, one for each "
        f"group is {tokens['grouped']:,}. With the entries near each group and refused drafts the large model read "
        f"{tokens['sent']:,}: {run.summary['saved']:.1%} less than the bare prompts for all. CPU of the run: "
        f"{took_s:.1f} s.\n"
    )
    print_bar(
        at_least(
            "tokens of the large model saved, as sent",
            "80 %",
            MIN_SAVED,
            [run.summary["saved"]],
            "{:.1%}",
        )
    )


def report_grouping(found: Sequence[Grouped]) -> None:
    print("Grouping, 2,000 and 3,000 questions, tags = words of the intent, 30 % of them missing:\n")
    rows = [
        [
            grouped.data,
            grouped.method,
            f"{grouped.rand:.3f}",
            f"{grouped.v_measure:.3f}",
            f"{grouped.purity:.3f}",
            f"{grouped.n_groups}",
            f"{grouped.largest:.3f}",
            f"{grouped.cpu_s:.2f}",
        ]
        for grouped in found
    ]
    print(table(("data", "method", "ARI", "V-measure", "purity", "groups", "largest, share", "CPU s"), rows))
    blend = [grouped.rand for grouped in found if grouped.method == METHODS[0]]
    print_bar(at_least("grouping (blend), ARI at 30 % missing tags", f"{MIN_RAND}", MIN_RAND, blend, "{:.3f}"))


def report_retrieval(data: Path, embedder: Embedder, n_seeds: int) -> None:
    threshold = load_config().contexts.similarity_threshold
    banking = read_banking(data)
    clinc, out_of_scope = read_clinc(data)
    unrelated = embedder.embed(out_of_scope)
    found = []
    for name, items in {"BANKING77": banking, "CLINC150": clinc}.items():
        runs = [build(embedder, items, seed) for seed in range(n_seeds)]
        first, third, fifth = (float(np.mean([run.recall(k) for run in runs])) for k in (1, 3, 5))
        found.append(
            Found(
                name,
                len(runs[0].matrix),
                len(runs[0].answers),
                (first, third, fifth),
                float(np.mean([run.silence(unrelated, threshold) for run in runs])),
                float(np.mean([run.recall(3, threshold) for run in runs])),
            )
        )
    print(f"Entries of three phrasings, every other question asked; threshold {threshold}:\n")
    rows = [
        [
            one.name,
            f"{one.n_entries}",
            f"{one.n_questions:,}",
            *(f"{share:.3f}" for share in one.recalls),
            f"{one.silence:.3f}",
            f"{one.answered:.3f}",
        ]
        for one in found
    ]
    head = ("data", "entries", "questions", "recall@1", "@3", "@5", "nothing for out of scope", "right among 3, above")
    print(table(head, rows))
    for one in found:
        least = SHARES[one.name]
        print_bar(at_least(f"{one.name}, recall@1", f"{least[0]}", least[0], [one.recalls[0]], "{:.3f}"))
        print_bar(at_least(f"{one.name}, recall@5", f"{least[1]}", least[1], [one.recalls[2]], "{:.3f}"))
    texts = [text for text, _ in banking[::5]]
    matrix = embedder.embed([text for text, _ in banking[:1000]])
    p50_us, p99_us = microseconds(lambda text: top_k(embedder.embed_one(text), matrix, 3), texts)
    print(f"A question embedded and compared with 1,000 entries: {p50_us:.0f} us p50, {p99_us:.0f} us p99.\n")
    print_bar(at_most("embed and search 1,000 entries, p50", f"{MAX_US:.0f} us", MAX_US, [p50_us], "{:.0f} us"))


if __name__ == "__main__":
    main()
