"""How well conversations are grouped: adjusted Rand index and V-measure on BANKING77 and CLINC150.

``python -m bench.grouping DATA_FOLDER``. Tags are the words of each text's intent, 30 % of them missing.
"""

import csv
import gzip
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from learner.knowledge.grouping import group
from store.config import load_config
from store.embedding import Embedder, load_local_embedder

METHODS: tuple[Literal["blend", "semantic", "tags"], ...] = ("blend", "semantic", "tags")
MISSING = 0.3
SIZES = {"banking77": 2000, "clinc150": 3000}


def pairs(n: int) -> float:
    return n * (n - 1) / 2


def adjusted_rand(truth: Sequence[str], found: Sequence[int]) -> float:
    """Source: Hubert & Arabie 1985, J. of Classification 2(1)."""
    both = sum(pairs(n) for n in Counter(zip(truth, found, strict=True)).values())
    first = sum(pairs(n) for n in Counter(truth).values())
    second = sum(pairs(n) for n in Counter(found).values())
    expected = first * second / pairs(len(truth))
    return (both - expected) / ((first + second) / 2 - expected)


def v_measure(truth: Sequence[str], found: Sequence[int]) -> float:
    """Source: Rosenberg & Hirschberg 2007, EMNLP."""
    n = len(truth)
    classes, clusters = Counter(truth), Counter(found)
    cells = Counter(zip(truth, found, strict=True))
    spread = -sum(m / n * math.log(m / n) for m in classes.values())
    spread_found = -sum(m / n * math.log(m / n) for m in clusters.values())
    mixed = -sum(m / n * math.log(m / clusters[found_label]) for (_, found_label), m in cells.items())
    split = -sum(m / n * math.log(m / classes[label]) for (label, _), m in cells.items())
    homogeneity, completeness = 1 - mixed / spread, 1 - split / spread_found
    return 2 * homogeneity * completeness / (homogeneity + completeness)


def read(folder: Path) -> dict[str, list[tuple[str, str]]]:
    with (folder / "banking77_train.csv").open(encoding="utf-8", newline="") as file:
        banking = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    clinc = json.loads(gzip.decompress((folder / "clinc150.json.gz").read_bytes()))["train"]
    return {"banking77": banking, "clinc150": [(text, intent) for text, intent in clinc]}


@dataclass(frozen=True)
class Grouped:
    """What one method made of one data set; *rand*, *v_measure* and *purity* are 1 when it found the intents."""

    data: str
    method: str
    rand: float
    v_measure: float
    purity: float
    n_groups: int
    largest: float  # share of all in the largest group
    cpu_s: float


def purity(truth: Sequence[str], found: Sequence[int]) -> float:
    """Return the share of texts whose intent is the commonest of their group."""
    members: dict[int, Counter[str]] = {}
    for intent, label in zip(truth, found, strict=True):
        members.setdefault(label, Counter())[intent] += 1
    return sum(counts.most_common(1)[0][1] for counts in members.values()) / len(truth)


def measure_grouping(folder: Path, embedder: Embedder) -> list[Grouped]:
    """Return what each method makes of each data set."""
    config = load_config()
    chance = random.Random(1)
    measured = []
    for name, items in read(folder).items():
        sample = chance.sample(items, SIZES[name])
        truth = [intent for _, intent in sample]
        embeddings = embedder.embed([text for text, _ in sample])
        tags = [[word for word in intent.split("_") if chance.random() > MISSING] for intent in truth]
        for method in METHODS:
            started_s = time.process_time()
            groups = group(embeddings, tags, replace(config.knowledge, grouping=method))
            cpu_s = time.process_time() - started_s
            labels = {row: number for number, rows in enumerate(groups) for row in rows}
            found = [labels[row] for row in range(len(truth))]
            figures = adjusted_rand(truth, found), v_measure(truth, found), purity(truth, found)
            measured.append(Grouped(name, method, *figures, len(groups), len(groups[0]) / len(truth), cpu_s))
    return measured


def main() -> None:
    embedder = load_local_embedder(load_config().embedding)
    for one in measure_grouping(Path(sys.argv[1]), embedder):
        print(
            f"{one.data:10} {one.method:9} ARI {one.rand:.3f}  V {one.v_measure:.3f}  purity {one.purity:.3f}  "
            f"groups {one.n_groups:5}  largest {one.largest:.3f}  CPU {one.cpu_s:.2f} s"
        )


if __name__ == "__main__":
    main()
