"""What a refit gains with a real teacher, through the product: ``python -m bench.teacher --url URL [--data FOLDER]``.

URL is an OpenAI-compatible server's, path included; ``bench/minilm_server.py`` is one for all-MiniLM-L6-v2. Each case
is an installation of its own whose tenant asked the questions that are fitted to, each in its own conversation, and has
an entry for each intent. ``tutelage refit --make`` asks the teacher, fits, checks and serves; then entries of three
random phrasings are looked for with the table that is served.

Fitted to half of the questions, entries and queries are of the other half: what the fit gives to questions that nobody
asked before. Fitted to all of them, the queries are among what was asked, without a label: a tenant's people do ask
the same again. The bars are of the first.

Then the classifier of question types: fitted to the training part's questions, trained on it by the functions of a job,
and asked with the test part, which neither saw; of BANKING77 the mean over the splits that ``bench/nlu.py`` draws.
"""

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.bars import at_least, print_bar, table
from bench.nlu import N_DRAWS, N_SHOTS, SEED, banking, few, read_clinc_parts, trained_here
from bench.processes import tutelage_command
from bench.refits import halves, phrasings_of, recalls
from bench.retrieval import DEFAULT_DATA, Item, build, read_banking, read_clinc
from learner.nlu.assessment import expected_calibration_error
from store.clock import SystemClock, iso
from store.config import load_config
from store.context_proposals import create_context
from store.database import open_database
from store.embedding import Embedder, LocalEmbedder, RefittedEmbedder, load_local_embedder
from store.records import ResponseRecord
from store.refit_table import RefitTable
from store.refits import RefitRow, list_refits, load_refit
from store.responses import insert_records
from store.tenants import ensure_default_tenant
from store.tokens import load_token_counter
from store.vocabulary import DEFAULT_TENANT
from store.wordings import compose

MODEL = "all-MiniLM-L6-v2"
BARS = {"BANKING77": {1: 0.67, 5: 0.91}, "CLINC150": {1: 0.775, 5: 0.95}}
TYPE_BARS = {"BANKING77": 0.92, "CLINC150": 0.93}
REFIT_S = 3600.0


Split = tuple[list[Item], list[Item]]  # to learn from, to ask


@dataclass(frozen=True)
class Teacher:
    """An embedding server."""

    url: str
    model: str
    dimensions: int


def refit(
    teacher: Teacher, embedder: LocalEmbedder, asked: Sequence[str], entries: Sequence[Sequence[str]]
) -> tuple[RefitRow, RefitTable | None]:
    """Return what comes of a refit in an installation whose people *asked* this and whose *entries* have phrasings.

    Raises:
        CalledProcessError: the command failed.
        RuntimeError: no refit was begun.
    """
    with tempfile.TemporaryDirectory(prefix="tutelage-bench-") as name:
        settings = Path(name) / "tutelage.toml"
        settings.write_text(
            f'[store]\nurl = "sqlite:///{name}/t.db"\n[embedding]\nmodel = "{teacher.model}"\n'
            f'base_url = "{teacher.url}"\napi_key_env = ""\nrequest_dimensions = {teacher.dimensions}\n'
            f'ask_per_request = false\n[prices]\n"{teacher.model}" = [0.0, 0.0]\n'
            f"[refit]\nmax_texts = {len(asked) + 1}\nmax_cost_usd = 1000.0\n",
            encoding="utf-8",
        )
        config = load_config(settings)
        tokens, now_s = load_token_counter(), SystemClock().now_s()
        with closing(open_database(config.store)) as db:
            ensure_default_tenant(db, now_s)
            for number, phrasings in enumerate(entries):
                wording = compose(phrasings, f"Answer {number}.", [], embedder=embedder, tokens=tokens)
                create_context(
                    db,
                    DEFAULT_TENANT,
                    wording,
                    provenance="person",
                    source_chat_id=None,
                    is_approved=True,
                    actor="bench",
                    now_s=now_s,
                )
            insert_records(db, [record(number, question, iso(now_s)) for number, question in enumerate(asked)])
        command = [*tutelage_command(settings)[:-1], "refit", "--make"]
        subprocess.run(command, check=True, timeout=REFIT_S, stdout=subprocess.PIPE)
        with closing(open_database(config.store)) as db:
            found = list_refits(db, DEFAULT_TENANT)
            if not found:
                raise RuntimeError("no refit was begun")
            return found[0], load_refit(db, DEFAULT_TENANT, embedder.name)


def record(number: int, question: str, at: str) -> ResponseRecord:
    """Return a good reply to *question*, in a conversation of its own."""
    return ResponseRecord(
        id=f"resp_{number}",
        tenant_id=DEFAULT_TENANT,
        conversation_id=f"conv_{number}",
        endpoint="/v1/chat/completions",
        question=question,
        question_type="unknown",
        outcome="ok",
        status=200,
        latency_ms=1.0,
        messages_json="[]",
        request_hash=f"hash-{number}",
        created_at=at,
        completed_at=at,
    )


def measure(
    name: str,
    items: Sequence[Item],
    teacher: Teacher,
    embedder: LocalEmbedder,
    seeds: range,
    out_of_scope: Sequence[str],
) -> list[list[str]]:
    """Return a row for each reading and print the bars of the first."""
    fitted_to, asked = halves(items)
    entries = phrasings_of(asked, seeds[0])
    rows = [row(name, "nothing", embedder, asked, seeds, out_of_scope)]
    for label, taught in (("the other half", fitted_to), ("all questions", items)):
        found, served = refit(teacher, embedder, [text for text, _ in taught], entries)
        own: Embedder = embedder if served is None else RefittedEmbedder(embedder, served)
        verdict = f"{found.status}: {found.gain or 0.0:+.3f}, at least {found.gain_low or 0.0:+.3f}"
        shown = f"{label}: {found.n_texts:,} texts, {found.n_tokens:,} words"
        rows.append(row(name, shown, own, asked, seeds, out_of_scope, verdict))
        if label == "the other half":
            runs = [build(own, asked, seed) for seed in seeds]
            for k, limit in BARS[name].items():
                what = f"{name}, refit to {teacher.model} on the other half of the questions, recall@{k}"
                figure = float(np.mean([run.recall(k) for run in runs]))
                print_bar(at_least(what, f"{limit}", limit, [figure], "{:.3f}"))
    return rows


def row(
    name: str,
    fitted_to: str,
    embedder: Embedder,
    asked: Sequence[Item],
    seeds: range,
    out_of_scope: Sequence[str],
    verdict: str = "",
) -> list[str]:
    runs = [build(embedder, asked, seed) for seed in seeds]
    strange = embedder.embed(out_of_scope)
    auc = f"{np.mean([run.auc(strange) for run in runs]):.3f}"
    return [name, fitted_to, *recalls(runs, embedder, out_of_scope), auc, verdict]


def measure_types(
    name: str, splits: Sequence[Split], teacher: Teacher, embedder: LocalEmbedder, *, is_quick: bool
) -> list[list[str]]:
    """Return a row for each embedding, the mean over *splits*, and print the bar of the refitted one."""
    figures: dict[str, list[tuple[float, float, float, float]]] = {"nothing": [], "the training part": []}
    for seed, (train, test) in enumerate(splits):
        _, served = refit(teacher, embedder, [text for text, _ in train], phrasings_of(train, seed))
        own: Embedder = embedder if served is None else RefittedEmbedder(embedder, served)
        shots = few(train, N_SHOTS, seed)
        for label, made in (("nothing", embedder), ("the training part", own)):
            full = (0.0, 0.0) if is_quick else told(train, test, made)
            figures[label].append((*full, *told(shots, test, made)))
    means = {label: np.mean(found, axis=0).tolist() for label, found in figures.items()}
    if not is_quick:
        what = f"{name}, question types after a refit to {teacher.model}, accuracy"
        accuracy = means["the training part"][0]
        print_bar(at_least(what, f"{TYPE_BARS[name]}", TYPE_BARS[name], [accuracy], "{:.3f}"))
    return [[name, label, *(f"{figure:.3f}" for figure in found)] for label, found in means.items()]


def told(train: Sequence[Item], test: Sequence[Item], embedder: Embedder) -> tuple[float, float]:
    """Return accuracy and calibration error on *test* of a classifier trained on *train*."""
    classifier = trained_here(train, load_config().nlu, embedder)
    texts, truth = [text for text, _ in test], np.array([intent for _, intent in test])
    best, confidences = classifier.classify_all(texts, embedder.embed(texts))
    is_right = np.array(classifier.intents)[best] == truth
    return float(is_right.mean()), expected_calibration_error(confidences, is_right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="of the embedding server, path included: http://host:port/v1")
    parser.add_argument("--model", default=MODEL, help="that the server is asked for")
    parser.add_argument("--dimensions", type=int, default=0, help="asked for; 0: as the model has them, cut to 256")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with BANKING77 and CLINC150")
    parser.add_argument("--seeds", type=int, default=5, help="random choices of phrasings to average over")
    parser.add_argument("--quick", action="store_true", help="one seed, and classifiers of ten questions each alone")
    arguments = parser.parse_args()
    teacher = Teacher(arguments.url, arguments.model, arguments.dimensions)
    embedder = load_local_embedder(load_config().embedding)
    clinc, out_of_scope = read_clinc(arguments.data)
    sets = {"BANKING77": read_banking(arguments.data), "CLINC150": clinc}
    seeds = range(1 if arguments.quick else arguments.seeds)
    rows = [
        line for name, items in sets.items() for line in measure(name, items, teacher, embedder, seeds, out_of_scope)
    ]
    print(f"## Refits of the local vectors to {teacher.model}\n")
    print("`tutelage refit --make` in an installation of its own, asked by the product's own code. Entries of three")
    print(
        "phrasings and queries are of one half of the questions. Fitted to the other half, nothing that is judged was"
    )
    print("seen; fitted to all, the queries were seen, without labels, the entries' phrasings in the check were not.\n")
    head = (
        "data",
        "fitted to",
        "recall@1",
        "@3",
        "@5",
        "right among 3, above",
        "out of scope that finds",
        "out-of-scope AUC",
        "the check, reciprocal rank",
    )
    print(table(head, rows))
    clinc_train, clinc_test, _ = read_clinc_parts(arguments.data)
    splits: dict[str, list[Split]] = {
        "BANKING77": [banking(arguments.data, SEED + n) for n in range(1 if arguments.quick else N_DRAWS)],
        "CLINC150": [(clinc_train, clinc_test)],
    }
    typed = [
        line
        for name, found in splits.items()
        for line in measure_types(name, found, teacher, embedder, is_quick=arguments.quick)
    ]
    print(
        "\nQuestion types: the classifier trained on all of the training part, and on ten questions of each intent.\n"
    )
    print(table(("data", "fitted to", "accuracy", "ECE", "ten each: accuracy", "ECE"), typed))


if __name__ == "__main__":
    main()
