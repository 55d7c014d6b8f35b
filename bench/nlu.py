"""The classifier of question types through the product: ingested over HTTP, trained by a job, asked through the proxy.

``python -m bench.nlu [--data FOLDER] [--quick]``: BANKING77 (a fifth of it set aside, by intent) and CLINC150 (its own
test part, and its questions out of scope), with all training questions and with ten of each intent. Each case is an
installation of its own. Some hundred test questions go through the proxy, and what it recorded of each must be what the
published model says in this process; the figures are then of all test questions, by that model.
"""

import argparse
import gzip
import http.client
import json
import random
import sqlite3
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.bars import at_least, at_most, print_bar, table
from bench.processes import free_port, running, tutelage_command, wait_for_port
from bench.retrieval import DEFAULT_DATA, Item, read_banking
from learner.nlu.assessment import expected_calibration_error
from learner.nlu.examples import choose
from learner.nlu.training import Labelled, names_of
from learner.nlu.training import train as train_classifier
from store.config import NluSection, load_config
from store.database import open_database
from store.datasets import LabelledText
from store.embedding import Embedder, LocalEmbedder, load_local_embedder
from store.intent_classifier import IntentClassifier
from store.nlu_models import load_classifier

CHUNK = 5000  # items of one ingest
TRAIN_S = 1200.0
SETTLE_S = 60.0
N_ASKED = 300  # test questions that go through the proxy, and a third as many out of scope
ROUNDING = 0.002  # of a confidence: one text and many are multiplied in another order
N_SHOTS = 10
N_DRAWS = 6  # of the ten, and of BANKING77's test part: figures differ from one draw to the next
SEED = 1
MIN_CONFIDENCE = load_config().question_types.min_confidence
REPLY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()


@dataclass(frozen=True)
class Case:
    """Questions to learn from, others to ask, and some that belong to no intent."""

    name: str
    train: Sequence[Item]
    test: Sequence[Item]
    out_of_scope: Sequence[str]
    accuracy: float  # bar
    calibration_error: float  # bar
    others: Sequence[tuple[Sequence[Item], Sequence[Item]]] = ()  # to learn from and to ask instead, in this process


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    case: Case
    accuracy: float
    macro_f1: float
    calibration_error: float
    sure: float
    accuracy_when_sure: float
    auc: float | None
    rejected: float | None
    job_s: float
    train_s: float
    size_kb: float
    classify_us: float


class Upstream(BaseHTTPRequestHandler):
    """Answers every chat with the same words."""

    protocol_version = "HTTP/1.1"
    # Head and body leave in two writes: by Nagle's algorithm the second waits for the ACK of the first, which is
    # delayed by 40 ms.
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(REPLY)))
        self.end_headers()
        self.wfile.write(REPLY)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Say nothing."""


@contextmanager
def upstream() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def banking(folder: Path, seed: int = SEED) -> tuple[list[Item], list[Item]]:
    """Return four fifths of each intent's questions, and the rest, as *seed* draws them."""
    by_intent: dict[str, list[str]] = defaultdict(list)
    for text, intent in read_banking(folder):
        by_intent[intent].append(text)
    chance, train, test = random.Random(seed), [], []
    for intent in sorted(by_intent):
        texts = chance.sample(by_intent[intent], len(by_intent[intent]))
        cut = len(texts) // 5
        test += [(text, intent) for text in texts[:cut]]
        train += [(text, intent) for text in texts[cut:]]
    return train, test


def few(items: Sequence[Item], n: int, seed: int) -> list[Item]:
    """Return *n* questions of each intent."""
    chance, counts, chosen = random.Random(seed), defaultdict[str, int](int), []
    for text, intent in chance.sample(list(items), len(items)):
        counts[intent] += 1
        if counts[intent] <= n:
            chosen.append((text, intent))
    return chosen


def call(port: int, method: str, path: str, body: object = None) -> Any:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request(method, path, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
    if answer.status >= 400:
        raise RuntimeError(f"{method} {path}: {answer.status} {content}")
    return content


def train(port: int, items: Sequence[Item]) -> tuple[dict[str, Any], float]:
    """Return the model and the seconds from the job's making to its end."""
    for start in range(0, len(items), CHUNK):
        batch = [{"messageText": t, "intent": i, "confidence": 0.9} for t, i in items[start : start + CHUNK]]
        call(port, "POST", "/api/training/conversations/bulk", {"conversations": batch})
    started_s = time.monotonic()
    job = call(port, "POST", "/api/training/jobs", {"kind": "nlu-train", "datasetId": "ds-auto-training"})
    while time.monotonic() - started_s < TRAIN_S:
        now = call(port, "GET", f"/api/training/jobs/{job['id']}")
        if now["status"] in ("completed", "failed"):
            break
        time.sleep(0.1)
    models = call(port, "GET", "/api/training/models")["data"]
    if not models or not models[0]["is_serving"]:
        raise RuntimeError(f"no model serves: {now}")
    return models[0], time.monotonic() - started_s


def ask(port: int, texts: Sequence[str], database: Path) -> list[tuple[str, float]]:
    """Return what the proxy recorded of each question: type and confidence."""
    ids = []
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        for text in texts:
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]})
            connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            ids.append(answer.headers["x-tutelage-response-id"])
    deadline_s = time.monotonic() + SETTLE_S
    found: dict[str, tuple[str, float]] = {}
    while len(found) < len(set(ids)) and time.monotonic() < deadline_s:
        time.sleep(0.2)
        with closing(sqlite3.connect(database)) as db:
            rows = db.execute("SELECT id, question_type, question_type_confidence FROM responses").fetchall()
        wanted = set(ids)
        found = {row[0]: (row[1], row[2]) for row in rows if row[0] in wanted}
    return [found[one] for one in ids]


def wait_until_served(port: int, text: str, database: Path, intents: set[str]) -> None:
    deadline_s = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline_s:
        if ask(port, [text], database)[0][0] in intents:
            return
    raise RuntimeError("the proxy does not serve the trained model")


def run(case: Case, upstream_port: int) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="tutelage-bench-") as name:
        folder = Path(name)
        proxy_port, learner_port = free_port(), free_port()
        settings = folder / "tutelage.toml"
        settings.write_text(
            f'[proxy]\nport = {proxy_port}\n[learner]\nport = {learner_port}\n[store]\nurl = "sqlite:///{folder}/t.db"\n'
            f'[[upstream]]\nname = "mock"\nbase_url = "http://127.0.0.1:{upstream_port}/v1"\nmodels = ["*"]\n',
            encoding="utf-8",
        )
        command = [*tutelage_command(settings)[:-1], "up"]
        with running(command, core=None, port=proxy_port, log=folder / "up.log") as process:
            wait_for_port(learner_port, process)
            model, job_s = train(learner_port, case.train)
            database = folder / "t.db"
            wait_until_served(proxy_port, case.train[0][0], database, {intent for _, intent in case.train})
            asked = [text for text, _ in case.test[:: max(len(case.test) // N_ASKED, 1)]]
            asked += case.out_of_scope[: N_ASKED // 3]
            said = ask(proxy_port, asked, database)
        config = load_config(settings)
        embedder = load_local_embedder(config.embedding)
        with open_database(config.store) as db:
            classifier = load_classifier(db, "default", model["version"], embedding_model=embedder.name)
    check(said, classifier, asked, embedder)
    section = config.nlu
    outcomes = [outcome(case, classifier, embedder, model, job_s)]
    for items, test in case.others:
        trained = trained_here(items, section, embedder)
        outcomes.append(outcome(replace(case, test=test), trained, embedder, model, job_s))
    return mean(outcomes)


def trained_here(items: Sequence[Item], section: NluSection, embedder: Embedder) -> IntentClassifier:
    """Return what a job would publish for *items*, by the same functions."""
    chosen = choose([LabelledText(text, intent, "") for text, intent in items], section)
    data = Labelled(chosen.texts, embedder.embed(chosen.texts), chosen.labels, chosen.importance)
    return train_classifier(data, names_of(chosen.intents, embedder), section, chosen.intents)


def mean(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the mean of what may differ between classifiers of one case."""

    def over(figures: Iterable[float | None]) -> float | None:
        known = [figure for figure in figures if figure is not None]
        return float(np.mean(known)) if known else None

    return replace(
        outcomes[0],
        accuracy=float(np.mean([one.accuracy for one in outcomes])),
        macro_f1=float(np.mean([one.macro_f1 for one in outcomes])),
        calibration_error=float(np.mean([one.calibration_error for one in outcomes])),
        sure=float(np.mean([one.sure for one in outcomes])),
        accuracy_when_sure=float(np.mean([one.accuracy_when_sure for one in outcomes])),
        auc=over(one.auc for one in outcomes),
        rejected=over(one.rejected for one in outcomes),
    )


def check(
    said: Sequence[tuple[str, float]], classifier: IntentClassifier, asked: Sequence[str], embedder: LocalEmbedder
) -> None:
    """Raise RuntimeError unless the proxy *said* of all that was *asked* what *classifier* says."""
    for text, (question_type, confidence) in zip(asked, said, strict=True):
        intent, expected = classifier.classify(text, embedder.embed_one(text))
        is_same = abs(expected - confidence) < ROUNDING
        if not is_same or question_type != (intent if confidence >= threshold(classifier) else "unknown"):
            raise RuntimeError(f"{text!r}: the proxy said {question_type} ({confidence}), not {intent} ({expected})")


def threshold(classifier: IntentClassifier) -> float:
    """Return the confidence under which the proxy says "unknown"."""
    return max(MIN_CONFIDENCE, classifier.least_confidence)


def microseconds(classifier: IntentClassifier, embedder: LocalEmbedder, texts: Sequence[str]) -> float:
    """Return the median time to classify one of *texts*, whose embedding is there already."""
    times = []
    for text, embedding in zip(texts, embedder.embed(texts), strict=True):
        begun = time.perf_counter_ns()
        classifier.classify(text, embedding)
        times.append((time.perf_counter_ns() - begun) / 1000)
    return float(np.median(times))


def outcome(
    case: Case, classifier: IntentClassifier, embedder: LocalEmbedder, model: dict[str, Any], job_s: float
) -> Outcome:
    """Return the figures; accuracy is of the classifier's answers, those under the threshold too."""
    texts, truth = [text for text, _ in case.test], np.array([intent for _, intent in case.test])
    best, confidences = classifier.classify_all(texts, embedder.embed(texts))
    answers = np.array(classifier.intents)[best]
    is_right, is_sure = answers == truth, confidences >= threshold(classifier)
    others = np.zeros(0)
    if case.out_of_scope:
        others = classifier.classify_all(case.out_of_scope, embedder.embed(case.out_of_scope))[1].astype(np.float64)
    return Outcome(
        case,
        accuracy=float(is_right.mean()),
        macro_f1=macro_f1(truth, answers),
        calibration_error=expected_calibration_error(confidences, is_right),
        sure=float(is_sure.mean()),
        accuracy_when_sure=float(is_right[is_sure].mean()),
        auc=area_under_curve(confidences.astype(np.float64), others) if len(others) else None,
        rejected=float((others < threshold(classifier)).mean()) if len(others) else None,
        job_s=job_s,
        train_s=model["report"]["seconds"],
        size_kb=model["size_bytes"] / 1000,
        classify_us=microseconds(classifier, embedder, texts[:2000]),
    )


def macro_f1(truth: NDArray[np.str_], said: NDArray[np.str_]) -> float:
    scores = []
    for intent in np.unique(truth):
        right = float(((truth == intent) & (said == intent)).sum())
        scores.append(2 * right / float((truth == intent).sum() + (said == intent).sum()))
    return float(np.mean(scores))


def area_under_curve(known: NDArray[np.float64], strange: NDArray[np.float64]) -> float:
    """Return the probability that a known question has more confidence than a strange one, ties counted half."""
    ordered = np.sort(strange)
    below, upto = np.searchsorted(ordered, known, "left"), np.searchsorted(ordered, known, "right")
    return float(np.mean((below + upto) / 2) / len(strange))


def cases(folder: Path, *, is_quick: bool) -> list[Case]:
    train_b, test_b = banking(folder)
    clinc = read_clinc_parts(folder)
    few_b, few_c = ([few(items, N_SHOTS, SEED + n) for n in range(N_DRAWS)] for items in (train_b, clinc[0]))
    found = [
        Case("BANKING77, 10 each", few_b[0], test_b, (), 0.80, 0.025, [(one, test_b) for one in few_b[1:]]),
        Case("CLINC150, 10 each", few_c[0], clinc[1], clinc[2], 0.84, 0.025, [(one, clinc[1]) for one in few_c[1:]]),
        Case(
            "BANKING77, all", train_b, test_b, (), 0.905, 0.015, [banking(folder, SEED + n) for n in range(1, N_DRAWS)]
        ),
        Case("CLINC150, all", clinc[0], clinc[1], clinc[2], 0.915, 0.015),
    ]
    return found[:2] if is_quick else found


def read_clinc_parts(folder: Path) -> tuple[list[Item], list[Item], list[str]]:
    """Return CLINC150's training and test questions and the test's out-of-scope ones."""
    parts = json.loads(gzip.decompress((folder / "clinc150.json.gz").read_bytes()))
    train_items, test_items = ([(text, intent) for text, intent in parts[part]] for part in ("train", "test"))
    return train_items, test_items, [text for text, _ in parts["oos_test"]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.nlu", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--quick", action="store_true", help="only with ten questions of each intent")
    arguments = parser.parse_args()
    with upstream() as port:
        outcomes = [run(case, port) for case in cases(arguments.data, is_quick=arguments.quick)]
    print("## The classifier of question types\n")
    print(
        f"Ingested over HTTP, trained by a job. Some {N_ASKED} test questions of each set went through the proxy: "
        "what it recorded is what the published model says. Figures of all test questions, by that model; with ten "
        f"each the mean of it and of {N_DRAWS - 1} models of other tens, and of BANKING77, whose test part is drawn "
        f"here, the mean of {N_DRAWS} splits, trained by the same functions.\n"
    )
    header = (
        "set",
        "accuracy",
        "macro F1",
        "ECE",
        "sure",
        "accuracy when sure",
        "out of scope: AUC",
        "out of scope: unknown",
        "training s",
        "job s",
        "kB",
        "classify us",
    )
    print(table(header, [row_of(one) for one in outcomes]))
    for one in outcomes:
        print_bars(one)


def row_of(one: Outcome) -> list[str]:
    shares = (one.accuracy, one.macro_f1, one.calibration_error, one.sure, one.accuracy_when_sure)
    strange = ("-", "-") if one.auc is None or one.rejected is None else (f"{one.auc:.3f}", f"{one.rejected:.3f}")
    costs = (f"{one.train_s:.1f}", f"{one.job_s:.1f}", f"{one.size_kb:.0f}", f"{one.classify_us:.0f}")
    return [one.case.name, *(f"{share:.3f}" for share in shares), *strange, *costs]


def print_bars(one: Outcome) -> None:
    name, least, largest = one.case.name, one.case.accuracy, one.case.calibration_error
    print_bar(at_least(f"question types, {name}: accuracy", f"at least {least}", least, [one.accuracy], "{:.3f}"))
    print_bar(at_most(f"question types, {name}: ECE", f"at most {largest}", largest, [one.calibration_error], "{:.3f}"))
    if one.auc is not None:
        print_bar(at_least(f"question types, {name}: out-of-scope AUC", "at least 0.915", 0.915, [one.auc], "{:.3f}"))
    print_bar(at_most(f"question types, {name}: classify, p50", "at most 45 us", 45, [one.classify_us], "{:.0f} us"))


if __name__ == "__main__":
    main()
