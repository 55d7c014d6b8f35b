"""What a refit gains, with a teacher that stands in for a real one: ``python -m bench.refits [--data FOLDER]``.

What a real model teaches: ``bench/teacher.py``. This needs no model. The stand-in knows each question's intent, as a
label says it, mixed with the local vector turned by chance and with noise of its own for each text: as strong as asked
for in what it knows of intents, but not in how it errs. So the gain shows what the fit gets out of a teacher, not what
a particular model would teach. A useless teacher (noise alone) must be refused by the check.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.bars import at_most, print_bar, table
from bench.retrieval import DEFAULT_DATA, Item, Retrieval, build, read_banking, read_clinc
from learner.knowledge.calibration import read_unrelated
from learner.knowledge.refit import Judged, Text, fit
from learner.knowledge.refitting import check
from store.config import load_config
from store.embedding import Embedder, LocalEmbedder, RefittedEmbedder, Vector, load_local_embedder
from store.refit_table import RefitTable

STRENGTHS = {"as MiniLM": 0.3, "stronger": 0.5, "useless": 0.0}
"""Weight of the intent: 0.3 finds entries as FINDINGS says MiniLM does (.717 and .820 at 1), 0.5 in .92 and .94."""
SEED = 7


def halves(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Return the questions that are fitted to and those that entries are made of and found with."""
    order = np.random.default_rng(SEED).permutation(len(items)).tolist()
    middle = len(items) // 2
    return [items[row] for row in order[:middle]], [items[row] for row in order[middle:]]


def teach(embedder: LocalEmbedder, items: Sequence[Item], strength: float) -> Vector:
    """Return the stand-in's vectors (n, 256) of *items*."""
    chance = np.random.default_rng(SEED)
    intents = sorted({intent for _, intent in items})
    axes = _unit(chance.normal(size=(len(intents), 256)))
    turn = np.linalg.qr(chance.normal(size=(256, 256)))[0]
    noise = _unit(chance.normal(size=(len(items), 256)))
    if not strength:
        return noise
    local = embedder.embed([text for text, _ in items]) @ turn.astype(np.float32)
    return _unit(strength * axes[[intents.index(intent) for _, intent in items]] + local + noise)


def _unit(rows: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Vector:
    unit: Vector = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def refit(embedder: LocalEmbedder, items: Sequence[Item], strength: float, max_tokens: int) -> RefitTable:
    """Return the refit to the stand-in; everybody says everything here, so no token is one person's."""
    voices = frozenset({"one", "another"})
    texts = [Text(embedder.token_ids(text), voices) for text, _ in items]
    return fit(texts, embedder.table, teach(embedder, items, strength), name="refit", max_tokens=max_tokens)


def judged(embedder: LocalEmbedder, refitted: RefitTable, items: Sequence[Item], seed: int) -> Judged:
    """Return what the product's own check says, on the three phrasings of each entry."""
    return check(embedder, refitted, phrasings_of(items, seed), load_config().contexts)


def phrasings_of(items: Sequence[Item], seed: int) -> list[tuple[str, ...]]:
    """Return three random questions of each intent: an entry's phrasings."""
    chance = np.random.default_rng(seed)
    by_intent: dict[str, list[str]] = {}
    for text, intent in items:
        by_intent.setdefault(intent, []).append(text)
    return [tuple(texts[row] for row in chance.permutation(len(texts))[:3]) for _, texts in sorted(by_intent.items())]


def measure(
    name: str, items: Sequence[Item], embedder: LocalEmbedder, seeds: range, out_of_scope: Sequence[str]
) -> list[list[str]]:
    """Return a row for each teacher and print the bar of the useless one."""
    max_tokens = load_config().refit.max_tokens
    fitted_to, asked = halves(items)
    plain = [build(embedder, asked, seed) for seed in seeds]
    rows = [[name, "none", *recalls(plain, embedder, out_of_scope), "", ""]]
    for label, strength in STRENGTHS.items():
        refitted = refit(embedder, fitted_to, strength, max_tokens)
        own = RefittedEmbedder(embedder, refitted)
        runs = [build(own, asked, seed) for seed in seeds]
        verdicts = [judged(embedder, refitted, asked, seed) for seed in seeds]
        n_won = sum(verdict.is_won for verdict in verdicts)
        gain = float(np.mean([verdict.gain for verdict in verdicts]))
        rows.append([name, label, *recalls(runs, own, out_of_scope), f"{gain:+.3f}", f"{n_won} of {len(seeds)}"])
        if not strength:
            what = f"{name}, refits to a useless teacher that win the check, of {len(seeds)}"
            print_bar(at_most(what, "0", 0, [n_won], "{:.0f}"))
    return rows


def recalls(runs: Sequence[Retrieval], embedder: Embedder, out_of_scope: Sequence[str]) -> list[str]:
    """Return recall at 1, 3 and 5, and who gets anything above the threshold: the right one among 3, out of scope."""
    section, everyday, strange = load_config().contexts, embedder.embed(read_unrelated()), embedder.embed(out_of_scope)
    levels = [run.own_threshold(everyday, section) for run in runs]
    served = [run.recall(3, level) for run, level in zip(runs, levels, strict=True)]
    found = [1 - run.silence(strange, level) for run, level in zip(runs, levels, strict=True)]
    means = [np.mean([run.recall(k) for run in runs]) for k in (1, 3, 5)]
    return [f"{figure:.3f}" for figure in (*means, np.mean(served), np.mean(found))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with BANKING77 and CLINC150")
    parser.add_argument("--seeds", type=int, default=3, help="random choices of phrasings to average over")
    arguments = parser.parse_args()
    report(arguments.data, load_local_embedder(load_config().embedding), range(arguments.seeds))


def report(data: Path, embedder: LocalEmbedder, seeds: range) -> None:
    """Print what refits gain on questions that they were not fitted to."""
    clinc, out_of_scope = read_clinc(data)
    sets = {"BANKING77": read_banking(data), "CLINC150": clinc}
    rows = [row for name, items in sets.items() for row in measure(name, items, embedder, seeds, out_of_scope)]
    print("\nRefit to a stand-in teacher on half of the questions, entries and queries from the other half:\n")
    head = (
        "data",
        "teacher",
        "recall@1",
        "@3",
        "@5",
        "right among 3, above",
        "out of scope that finds",
        "gain in the check",
        "check won",
    )
    print(table(head, rows))


if __name__ == "__main__":
    main()
