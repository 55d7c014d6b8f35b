"""How well an entry is found, and how often an unrelated question finds nothing, by similarity threshold.

``python -m bench.retrieval [--data FOLDER]``: BANKING77 and CLINC150, an entry per intent made of three phrasings,
every other question of the intent asked. Prints recall, the table behind ``[contexts] similarity_threshold``, and
microseconds per query with one BLAS thread (set OPENBLAS_NUM_THREADS=1 to see what the request path sees).
"""

import argparse
import csv
import gzip
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.bars import at_least, print_bar
from learner.knowledge.calibration import find_threshold, read_unrelated
from proxy.retrieval import CROWD_WEIGHT, WORD_WEIGHT
from store.config import ContextsSection, load_config
from store.crowding import Crowding
from store.embedding import Embedder, Vector, entry_embedding, load_local_embedder, top_k
from store.entry_words import EntryWords

DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"
N_PHRASINGS = 3
N_SORTED = 16  # entries put in order by their words too; the product takes those above its threshold, at most 64
MANY_PHRASINGS = 10
SIZES = (10, 25, 50)  # entries of smaller tenants
PART_SEEDS = range(100, 105)  # of their intents; others than the constants in learner/knowledge/calibration.py rest on
BARS = {"BANKING77": {1: 0.64, 5: 0.885}, "CLINC150": {1: 0.715, 5: 0.915}}
THRESHOLDS = (0.30, 0.40, 0.45, 0.48, 0.50, 0.52, 0.54, 0.56, 0.60, 0.65, 0.70)
# CLINC's intents that a bank's customer may mean: not unrelated to BANKING77.
BANKING_NAMES = (
    "account_blocked apr balance bill_balance bill_due card_declined credit_limit credit_limit_change credit_score "
    "damaged_card direct_deposit exchange_rate expiration_date freeze_account improve_credit_score income insurance "
    "insurance_change interest_rate international_fees international_visa min_payment new_card order_checks pay_bill "
    "pin_change redeem_rewards replacement_card_duration report_fraud report_lost_card rewards_balance rollover_401k "
    "routing spending_history taxes transactions transfer travel_notification w2"
)
BANKING_INTENTS = frozenset(BANKING_NAMES.split())

Item = tuple[str, str]  # question, intent


@dataclass(frozen=True)
class Retrieval:
    """One data set's entries and what was asked of them."""

    matrix: Vector  # (entries, 256)
    queries: Vector  # (n, 256)
    answers: NDArray[np.int64]  # (n,), the right entry of each query
    phrasings: Vector  # (m, 256), what the entries were made of
    owners: NDArray[np.int64]  # (m,), the entry of each phrasing
    words: EntryWords  # of the entries
    crowding: Crowding  # of the entries
    texts: Sequence[str]  # of the queries

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """Return how many entries come before the right one, for each query, as the product orders them."""
        similarities = self.queries @ self.matrix.T
        own = similarities[np.arange(len(self.answers)), self.answers]
        found: NDArray[np.int64] = (similarities > own[:, None]).sum(axis=1)
        n_sorted = min(N_SORTED, len(self.matrix))
        crowds = np.array(self.crowding.of(range(len(self.matrix))))
        nearest = np.argpartition(-similarities, n_sorted - 1, axis=1)[:, :n_sorted]
        for query in np.flatnonzero(found < n_sorted).tolist():
            rows = nearest[query]
            shares = np.array(self.words.shares(self.texts[query], rows.tolist()))
            scores = similarities[query, rows] + WORD_WEIGHT * shares - CROWD_WEIGHT * crowds[rows]
            found[query] = (scores > scores[rows == self.answers[query]]).sum()
        return found

    def recall(self, k: int, threshold: float = -1.0) -> float:
        """Return the share of queries whose entry is among the *k* best and at least *threshold* similar."""
        own = np.einsum("nd,nd->n", self.queries, self.matrix[self.answers])
        return float(np.mean((self.ranks < k) & (own >= threshold)))

    def silence(self, unrelated: Vector, threshold: float) -> float:
        """Return the share of *unrelated* questions for which no entry reaches *threshold*."""
        return float(np.mean((unrelated @ self.matrix.T).max(axis=1) < threshold))

    def auc(self, unrelated: Vector) -> float:
        """Return how probably a question with an entry is nearer to its nearest one than an *unrelated* question."""
        related = np.sort((self.queries @ self.matrix.T).max(axis=1))
        strange = (unrelated @ self.matrix.T).max(axis=1)
        below = np.searchsorted(related, strange, "left") + np.searchsorted(related, strange, "right")
        return float(1 - below.mean() / 2 / len(related))

    def own_threshold(self, everyday: Vector, section: ContextsSection) -> float:
        """Return the threshold that the learner finds on these entries, without any label."""
        found = find_threshold(
            self.matrix,
            self.phrasings,
            self.owners,
            everyday,
            share=section.max_unrelated,
            least=section.least_similarity,
        )
        return section.similarity_threshold if found is None else found


def read_banking(folder: Path) -> list[Item]:
    with (folder / "banking77_train.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def read_clinc(folder: Path) -> tuple[list[Item], list[str]]:
    """Return the questions with their intents, and those out of scope."""
    with gzip.open(folder / "clinc150.json.gz", "rt", encoding="utf-8") as file:
        parts = json.load(file)
    items = [(text, intent) for part in ("train", "val", "test") for text, intent in parts[part]]
    return items, [text for part in ("oos_train", "oos_val", "oos_test") for text, _ in parts[part]]


def build(embedder: Embedder, items: Sequence[Item], seed: int, n_phrasings: int = N_PHRASINGS) -> Retrieval:
    """Return the entries, each of *n_phrasings* random questions of its intent, and all other questions."""
    rng = np.random.default_rng(seed)
    by_intent: dict[str, list[str]] = {}
    for text, intent in items:
        by_intent.setdefault(intent, []).append(text)
    entries, queries, answers = [], [], []
    phrasings: list[str] = []
    for number, intent in enumerate(sorted(by_intent)):
        texts = [by_intent[intent][i] for i in rng.permutation(len(by_intent[intent]))]
        entries.append(entry_embedding(embedder, texts[:n_phrasings]))
        phrasings += texts[:n_phrasings]
        queries += texts[n_phrasings:]
        answers += [number] * len(texts[n_phrasings:])
    owners = np.repeat(np.arange(len(entries)), n_phrasings)
    words = EntryWords()
    words.add(["\n".join(phrasings[start : start + n_phrasings]) for start in range(0, len(phrasings), n_phrasings)])
    matrix, crowding = np.stack(entries), Crowding()
    crowding.add(matrix, 0)
    return Retrieval(
        matrix,
        embedder.embed(queries),
        np.array(answers),
        embedder.embed(phrasings),
        owners,
        words,
        crowding,
        tuple(queries),
    )


def part_of(items: Sequence[Item], n_intents: int, seed: int) -> list[Item]:
    """Return the questions of *n_intents* random intents: a smaller tenant."""
    intents = sorted({intent for _, intent in items})
    kept = {intents[row] for row in np.random.default_rng(seed).permutation(len(intents))[:n_intents]}
    return [item for item in items if item[1] in kept]


def microseconds(call: Callable[[str], object], texts: Sequence[str]) -> tuple[float, float]:
    """Return p50 and p99 of one call in microseconds, after a warm-up over the same texts."""
    for text in texts:
        call(text)
    times = []
    for text in texts:
        start_ns = time.perf_counter_ns()
        call(text)
        times.append((time.perf_counter_ns() - start_ns) / 1000)
    return float(np.quantile(times, 0.5)), float(np.quantile(times, 0.99))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure retrieval with the local embedding.")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with BANKING77 and CLINC150")
    parser.add_argument("--seeds", type=int, default=10, help="random choices of phrasings to average over")
    arguments = parser.parse_args()
    if not (arguments.data / "clinc150.json.gz").exists():
        sys.exit(f"no data in {arguments.data}: name the folder with banking77_train.csv and clinc150.json.gz (--data)")
    config = load_config()
    embedder = load_local_embedder(config.embedding)
    banking = read_banking(arguments.data)
    clinc, out_of_scope = read_clinc(arguments.data)
    unrelated_texts = {
        "BANKING77": [text for text, intent in clinc if intent not in BANKING_INTENTS],
        "CLINC150 without banking": [text for text, _ in banking],
    }
    oos, everyday = embedder.embed(out_of_scope), embedder.embed(read_unrelated())
    sets = {
        "BANKING77": banking,
        "CLINC150 without banking": [item for item in clinc if item[1] not in BANKING_INTENTS],
        "CLINC150": clinc,
    }
    for name, items in sets.items():
        runs = [build(embedder, items, seed) for seed in range(arguments.seeds)]
        other = embedder.embed(unrelated_texts[name]) if name in unrelated_texts else None
        report(name, runs, oos, other, [run.own_threshold(everyday, config.contexts) for run in runs])
        if name in BARS:
            many = [build(embedder, items, seed, MANY_PHRASINGS).auc(oos) for seed in range(arguments.seeds)]
            print_bars(name, runs, float(np.mean(many)))
    report_own_thresholds(embedder, sets, oos, everyday, config.contexts)
    report_speed(embedder, [text for text, _ in banking])


def print_bars(name: str, runs: Sequence[Retrieval], auc_of_many: float) -> None:
    """Print the bars of one set; recall of random phrasings differs by .01 from seed to seed."""
    for k, limit in BARS[name].items():
        recalls = [run.recall(k) for run in runs]
        spread = float(np.std(recalls)) / max(len(recalls) - 1, 1) ** 0.5
        print_bar(at_least(f"{name}, recall@{k} (+- {spread:.3f})", f"{limit}", limit, [np.mean(recalls)], "{:.3f}"))
    if name == "CLINC150":
        print_bar(at_least("CLINC150, out of scope, AUC at 10 phrasings", "0.915", 0.915, [auc_of_many], "{:.3f}"))


def report(
    name: str, runs: Sequence[Retrieval], oos: Vector, other: Vector | None, own_thresholds: Sequence[float]
) -> None:
    print(f"\n{name}: {len(runs[0].matrix)} entries, {len(runs[0].answers)} questions, {len(runs)} seeds")
    recalls = [[run.recall(k) for run in runs] for k in (1, 3, 5)]
    print("recall@1 {:.3f}  @3 {:.3f}  @5 {:.3f}".format(*(np.mean(found) for found in recalls)), end="  ")
    print("(seeds differ by {:.3f} {:.3f} {:.3f})".format(*(np.std(found) for found in recalls)), end="  ")
    print(f"out-of-scope AUC {np.mean([run.auc(oos) for run in runs]):.3f}")
    print("threshold   right one among 3, above   nothing for out-of-scope   nothing for the other set")
    for label, levels in [(f"{level:9.2f}", [level] * len(runs)) for level in THRESHOLDS] + [
        (f"own {np.mean(own_thresholds):5.2f}", list(own_thresholds))
    ]:
        pairs = list(zip(runs, levels, strict=True))
        recall = np.mean([run.recall(3, level) for run, level in pairs])
        silent = np.mean([run.silence(oos, level) for run, level in pairs])
        silent_other = "-" if other is None else f"{np.mean([run.silence(other, level) for run, level in pairs]):.3f}"
        print(f"{label}{recall:27.3f}{silent:27.3f}{silent_other:>28}")


def report_own_thresholds(
    embedder: Embedder,
    sets: Mapping[str, Sequence[Item]],
    oos: Vector,
    everyday: Vector,
    section: ContextsSection,
) -> None:
    """Print what tenants of any size get: the threshold found without labels against the configured one."""
    print("\nown thresholds: entries, threshold, right one among 3, out-of-scope that finds anything (configured one)")
    for name, items in sets.items():
        for n_intents in SIZES:
            runs = [build(embedder, part_of(items, n_intents, seed), seed) for seed in PART_SEEDS]
            levels = [run.own_threshold(everyday, section) for run in runs]
            own = [(run.recall(3, level), 1 - run.silence(oos, level)) for run, level in zip(runs, levels, strict=True)]
            fixed = section.similarity_threshold
            configured = [(run.recall(3, fixed), 1 - run.silence(oos, fixed)) for run in runs]
            recall, found, recall_fixed, found_fixed = (*np.mean(own, axis=0), *np.mean(configured, axis=0))
            print(
                f"{name:>25} {n_intents:4d}  {np.mean(levels):.3f}  {recall:.3f} ({recall_fixed:.3f})  "
                f"{found:.3f} ({found_fixed:.3f})  worst {max(strange for _, strange in own):.3f}"
            )


def report_speed(embedder: Embedder, texts: Sequence[str]) -> None:
    print("\nmicroseconds p50 / p99")
    sample = texts[::5]
    print("{:>34}: {:.1f} / {:.1f}".format("embed_one", *microseconds(embedder.embed_one, sample)))
    matrix = embedder.embed(texts)
    for n in (1_000, 10_000):
        rows = matrix[:n]
        times = microseconds(lambda text, rows=rows: top_k(embedder.embed_one(text), rows, 3), sample)  # type: ignore[misc]
        print("{:>34}: {:.1f} / {:.1f}".format(f"embed_one + top_k of {n:,} entries", *times))


if __name__ == "__main__":
    main()
