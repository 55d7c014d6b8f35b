"""What selection and retrieval cost inside one request, and how well the graph over many contexts finds.

``python -m bench.selection [--data FOLDER]`` prints a section of RESULTS.md; ``python -m bench selection`` measures
it in a process of its own with one BLAS thread, as the proxy has. The functions are a request's own, on 1,000
patterns (20 match, two in each of 10 dimensions) and 1,000 to 100,000 entries; every question is different and half
of them ask what an entry answers. Entries are made of the conversations that ship with Tutelage, joined at random,
or of BANKING77's and CLINC150's questions.
"""

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.bars import at_most, print_bar
from bench.installation import N_DIMENSIONS, N_PATTERNS, N_SOURCES, phrasings, real_texts
from bench.retrieval import read_banking, read_clinc
from proxy.context_graph import ContextGraph
from proxy.retrieval import ContextSearch, CoverSlot, Lot, lay, live_keys, select_contexts
from proxy.selection import Facts, PlanIndex, conversation_seed, is_holdout, select_patterns
from store.blocks import context_entry
from store.config import Config, load_config
from store.embedding import LocalEmbedder, Vector, entry_embedding, load_local_embedder
from store.plan import Conditions, Plan, ServedPattern, build_plan
from store.question_types import load_question_classifier
from store.served_contexts import ContextRows, Entries

SIZES = (1_000, 10_000, 100_000)
TARGETS_US = {1_000: 150, 10_000: 400, 100_000: 1_000}
N_QUESTIONS = 3_000
SECRET = b"s" * 32
ANSWER = " ".join(f"Step {step}: open the page, read the notice and confirm it." for step in range(1, 4))
ENTRY_TOKENS = 75


@dataclass(frozen=True)
class Cost:
    """Microseconds of one request: p50 of each step and of all, p99 of all."""

    embed: float
    classify: float
    patterns: float
    contexts: float
    p50: float
    p99: float


def dataset_phrasings(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield three questions of one intent, each followed by the same other question, without end."""
    source = random.Random(5)
    by_intent: dict[str, list[str]] = {}
    for text, intent in [*read_banking(folder), *read_clinc(folder)[0]]:
        by_intent.setdefault(intent, []).append(text)
    intents = [texts for texts in by_intent.values() if len(texts) > 3]
    while True:
        other = source.choice(source.choice(intents))
        first, second, third = source.sample(source.choice(intents), 3)
        yield f"{first} {other}", f"{second} {other}", f"{third} {other}"


def make_entries(embedder: LocalEmbedder, source: Iterator[tuple[str, str, str]], n: int) -> tuple[Entries, list[str]]:
    """Return *n* entries of three phrasings and for each a question like them that none of them is."""
    vectors, texts, asked, phrasings = np.empty((n, 256), np.float32), [], [], []
    for number, questions in zip(range(n), source, strict=False):
        vectors[number] = entry_embedding(embedder, questions)
        texts.append(context_entry(questions[0], ANSWER))
        asked.append(f"Hi, {questions[number % 3]} ({number})")
        phrasings.append("\n".join(questions))
    ids = [f"ctx_{number:06}" for number in range(n)]
    return Entries(ids, vectors, texts, [ENTRY_TOKENS] * n, [0.0] * n, phrasings), asked


def make_plan() -> Plan:
    """Return a plan like that of the gateway's benchmark."""
    rule = "Rule {}: when the question is about money, name the price, its currency and its date in a table."
    return build_plan(
        ServedPattern(
            id=f"pat-{number:04}",
            type="response_format",
            dimension=f"bench:{number // N_SOURCES % N_DIMENSIONS}",
            rule=rule.format(number),
            conditions=Conditions(data_source=(f"source-{number % N_SOURCES}",)),
            state="active",
            tokens=30,
            share=0.45,
            lift=0.1,
        )
        for number in range(N_PATTERNS)
    )


def measure(config: Config, embedder: LocalEmbedder, search: ContextSearch, questions: Sequence[str]) -> Cost:
    """Return the cost of a request over *questions*, after a warm-up with a third of them."""
    classifier, index = load_question_classifier(embedder), PlanIndex(make_plan(), config.patterns)
    steps = np.empty((len(questions), 5))
    for pass_questions in (questions[::3], questions):
        for number, question in enumerate(pass_questions):
            times = [time.perf_counter_ns()]
            embedding = embedder.embed_one(question)
            times.append(time.perf_counter_ns())
            question_type, _ = classifier.classify(question, embedding)
            times.append(time.perf_counter_ns())
            seed = conversation_seed(SECRET, f"conv-{number}")
            dimensions = index.dimensions(Facts(question_type, "source-7"))
            select_patterns(dimensions, seed, config.patterns, holdout=is_holdout(seed, config.patterns.holdout))
            times.append(time.perf_counter_ns())
            select_contexts(
                search,
                embedding,
                config.contexts.similarity_threshold,
                config.contexts,
                Lot(seed, time.time()),
                asked=question,
            )
            times.append(time.perf_counter_ns())
            steps[number] = [*np.diff(times), times[-1] - times[0]]
    embed, classify, patterns, contexts, p50 = (float(figure) for figure in np.quantile(steps / 1_000, 0.5, axis=0))
    return Cost(embed, classify, patterns, contexts, p50, float(np.quantile(steps[:, 4] / 1_000, 0.99)))


def recall(exact: ContextSearch, through_graph: ContextSearch, embeddings: Vector, config: Config) -> float:
    """Return the share of the entries that an exact search injects which the graph finds, or others as similar."""
    n_right = n_found = 0
    for embedding in embeddings:
        right = similarities(exact, embedding, config)
        got = similarities(through_graph, embedding, config)
        n_right += len(right)
        n_found += sum(bool(len(right)) and similarity >= right[-1] - 1e-5 for similarity in got)
    return n_found / max(n_right, 1)


def similarities(search: ContextSearch, embedding: NDArray[np.float32], config: Config) -> list[float]:
    lot = Lot(conversation_seed(SECRET, "conv"), time.time())
    return [
        item.similarity or 0.0
        for item in select_contexts(
            search,
            embedding,
            config.contexts.similarity_threshold,
            config.contexts,
            lot,
        ).injections
    ]


def resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))


def covered(rows: ContextRows) -> tuple[ContextSearch, str]:
    """Return a search of *rows* through a graph that was built, written and read again, and what that took."""
    contexts = rows.view()
    live, start_s = contexts.live_rows, time.process_time()
    keys = live_keys(contexts, live, SECRET)
    graph = ContextGraph.build(contexts.vectors, live, keys, lambda: False)
    build_s = time.process_time() - start_s
    content = b"".join(graph.encode(SECRET))
    start_s, before_mb = time.perf_counter(), resident_mb()
    cover = lay(ContextGraph.decode(content, SECRET), contexts, SECRET)
    read_s = time.perf_counter() - start_s
    told = (
        f"{build_s:.0f} CPU seconds to build, {len(content) / 1e6:.0f} MB on disk, {resident_mb() - before_mb:.0f} MB "
        f"in memory, {read_s:.2f} s to read back and lay over the entries"
    )
    return ContextSearch(contexts, CoverSlot(rows, cover)), told


def page(source: Iterator[tuple[str, str, str]], others: Sequence[str]) -> str:
    """Return the section, of entries from *source* and unrelated questions made of *others*."""
    config = load_config()
    embedder = load_local_embedder(config.embedding)
    entries, asked = make_entries(embedder, source, SIZES[-1])
    chance = random.Random(9)
    lines = []
    for n in SIZES:
        before_mb, rows = resident_mb(), ContextRows(n)
        rows.add(Entries(*(getattr(entries, column.name)[:n] for column in fields(Entries))))
        rows_mb = resident_mb() - before_mb
        known = [asked[chance.randrange(n)] for _ in range(N_QUESTIONS // 2)]
        new = [f"{chance.choice(others)} {chance.choice(others)} ({k})" for k in range(N_QUESTIONS - len(known))]
        questions = [question for pair in zip(known, new, strict=True) for question in pair]
        exact, told = ContextSearch(rows.view()), ""
        search = exact
        if n > config.contexts.exact_up_to:
            search, told = covered(rows)
            found = recall(exact, search, embedder.embed(questions[:1000]), config)
            told = f"At {n:,} entries: {told}; finds {found:.4f} of what an exact search injects."
        cost = measure(config, embedder, search, questions)
        limit = TARGETS_US[n]
        lines.append(_row(f"{n:,}", cost, f"{limit:,}", f"{rows_mb:.0f}"))
        what = f"selection and retrieval inside a request, {n:,} contexts, p50"
        print_bar(at_most(what, f"below {limit:,} us", limit, [cost.p50], "{:.0f} us"))
        if told:
            lines.append(_row(f"{n:,}, no graph yet", measure(config, embedder, exact, questions[:300]), "", ""))
    head = "contexts", "embed", "classify", "patterns", "contexts", "**p50**", "p99", "target p50", "MB of vectors"
    table = "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *lines))
    return f"""## Selection plus retrieval inside a request

Microseconds, p50 of each step; {N_PATTERNS:,} patterns, every question different, one BLAS thread. `python -m
bench.selection`; all compared up to {config.contexts.exact_up_to:,} entries, beyond through a graph.

{table}
{told}
"""


def _row(name: str, cost: Cost, target: str, rows_mb: str) -> list[str]:
    steps = [cost.embed, cost.classify, cost.patterns, cost.contexts]
    return [name, *(f"{step:.1f}" for step in steps), f"**{cost.p50:.0f}**", f"{cost.p99:.0f}", target, rows_mb]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure selection and retrieval as one request has them.")
    parser.add_argument("--data", type=Path, help="folder with BANKING77 and CLINC150 instead of what ships")
    arguments = parser.parse_args()
    if arguments.data is None:
        print(page(phrasings(), real_texts()))
    else:
        source = dataset_phrasings(arguments.data)
        print(page(source, [text for _, texts in zip(range(2000), source, strict=False) for text in texts]))


if __name__ == "__main__":
    main()
