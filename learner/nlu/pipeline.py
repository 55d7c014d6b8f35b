"""One training from end to end: examples read, a classifier trained, judged, and published when it is not worse."""

import hashlib
import time
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from learner.models import Usage
from learner.nlu.assessment import Assessment, assess, left_out_report
from learner.nlu.examples import TrainingSet, choose
from learner.nlu.training import Labelled, names_of, train
from learner.report import Collaborators, RunReport
from store.config import Config, NluSection
from store.database import Database
from store.datasets import labelled_texts
from store.embedding import Embedder, LocalEmbedder, RefittedEmbedder
from store.errors import DamagedModelError
from store.intent_classifier import IntentClassifier
from store.nlu_models import NewModel, add_model, load_classifier, newest_fingerprint, refit_read_by, serving_version
from store.refit_table import RefitTable
from store.refits import load_refit
from store.runs import finish_run

LEAST_INTENTS: Final = 2
ALGORITHM: Final = 3  # part of the fingerprint: another one makes other models of the same examples


@dataclass(frozen=True, slots=True)
class Trained:
    """A classifier for service, and its twin with which it is judged: that one never saw the held-out texts."""

    classifier: IntentClassifier
    twin: IntentClassifier
    judged: Assessment


def run_nlu(  # noqa: PLR0917  # the signature of every kind of run, and the dataset
    db: Database,
    config: Config,
    tenant_id: str,
    collaborators: Collaborators,
    run_id: str,
    now_s: float,
    dataset_id: str | None = None,
) -> RunReport:
    """Train on a dataset, the configured one by default, and return what came of it.

    Nothing is trained while nothing changed, or on fewer than two intents with enough examples.

    Raises:
        NotFoundError: the tenant has no such dataset.
    """
    dataset_id = dataset_id or config.training.dataset_id
    examples = labelled_texts(db, tenant_id, dataset_id, limit=config.nlu.max_examples)
    chosen = choose(examples, config.nlu)
    embedder = tenant_embedder(db, tenant_id, collaborators.embedder)
    fingerprint = _fingerprint(chosen, config.nlu, embedder.name)
    counts = {"examples": len(examples), "texts": len(chosen), "intents": len(chosen.intents), "published": 0}
    if len(chosen.intents) < LEAST_INTENTS:
        change = (
            f"not trained: {LEAST_INTENTS} intents with at least {config.nlu.min_examples} examples each are needed, "
            f"{dataset_id} has {len(chosen.intents)}"
        )
        return _finish(db, tenant_id, run_id, collaborators, counts, change)
    if fingerprint == newest_fingerprint(db, tenant_id, dataset_id):
        change = f"not trained: {dataset_id} is what the newest model was trained on"
        return _finish(db, tenant_id, run_id, collaborators, counts, change)
    started_s = time.monotonic()
    data = Labelled(chosen.texts, embedder.embed(chosen.texts), chosen.labels, chosen.importance)
    trained = _train(chosen, data, names_of(chosen.intents, embedder), config.nlu)
    report: dict[str, Any] = {
        **trained.judged.report(max(config.question_types.min_confidence, trained.twin.least_confidence)),
        "n_trained": len(chosen),
        "n_held_out": int(chosen.is_held_out.sum()),
        "left_out": left_out_report(chosen.left_out),
        "familiar_similarity": round(trained.classifier.familiar_similarity, 4),
        "least_confidence": round(trained.classifier.least_confidence, 4),
        "seconds": round(time.monotonic() - started_s, 2),
    }
    # One transaction: a model that a person withdraws meanwhile must not decide about this one.
    with db.transaction():
        serving = serving_version(db, tenant_id)
        report["serving"] = _rival(db, tenant_id, serving, chosen, collaborators.embedder)
        is_published, reason = _verdict(trained.judged.accuracy, report["serving"], config.nlu)
        report["decision"] = reason
        version = add_model(
            db,
            tenant_id,
            NewModel(
                dataset_id=dataset_id,
                run_id=run_id,
                embedding_model=embedder.name,
                n_intents=len(chosen.intents),
                n_examples=len(chosen),
                fingerprint=fingerprint,
                report=report,
                model=trained.classifier.encode(),
                assessed=trained.twin.encode(),
            ),
            is_published=is_published,
            keep_versions=config.nlu.keep_versions,
            now_s=now_s,
        )
        counts["published"] = int(is_published)
        change = f"version {version} {'is published' if is_published else 'is not published'}: {reason}"
        return _finish(db, tenant_id, run_id, collaborators, counts, change)


def _train(chosen: TrainingSet, data: Labelled, names: Labelled, section: NluSection) -> Trained:
    held_out = data.part(chosen.is_held_out)
    twin = train(data.part(~chosen.is_held_out), names, section, chosen.intents)
    return Trained(
        classifier=train(data, names, section, chosen.intents),
        twin=twin,
        judged=assess(twin, held_out.texts, held_out.embeddings, _truth(chosen)),
    )


def _truth(chosen: TrainingSet) -> list[str]:
    return [chosen.intents[label] for label in chosen.labels[chosen.is_held_out]]


def tenant_embedder(db: Database, tenant_id: str, local: LocalEmbedder) -> Embedder:
    """Return what makes the tenant's own vectors while a refit of them is served, else *local*."""
    return _embedder_of(local, load_refit(db, tenant_id, local.name))


def _embedder_of(local: LocalEmbedder, table: RefitTable | None) -> Embedder:
    return local if table is None else RefittedEmbedder(local, table)


def _rival(
    db: Database, tenant_id: str, version: int, chosen: TrainingSet, local: LocalEmbedder
) -> dict[str, Any] | None:
    """Return how the version that serves does on the same held-out texts; None when the built-in types serve."""
    if not version:
        return None
    embedder = _embedder_of(local, refit_read_by(db, tenant_id, version, local.name))
    try:
        twin = load_classifier(db, tenant_id, version, embedding_model=embedder.name, is_assessed=True)
    except DamagedModelError as exc:
        return {"version": version, "problem": str(exc)}
    texts = [text for text, is_held_out in zip(chosen.texts, chosen.is_held_out.tolist(), strict=True) if is_held_out]
    accuracy = assess(twin, texts, embedder.embed(texts), _truth(chosen)).accuracy
    return {"version": version, "accuracy": round(accuracy, 4)}


def _verdict(accuracy: float, serving: dict[str, Any] | None, section: NluSection) -> tuple[bool, str]:
    """Return whether a model of this *accuracy* is published, and why or why not."""
    if serving is None:
        is_good = accuracy >= section.min_accuracy
        return is_good, f"accuracy {accuracy:.3f}, at least {section.min_accuracy:.3f} is asked of a first model"
    if "problem" in serving:
        return True, f"accuracy {accuracy:.3f}; version {serving['version']} cannot be used: {serving['problem']}"
    is_good = accuracy >= serving["accuracy"] - section.margin
    return is_good, (
        f"accuracy {accuracy:.3f} against {serving['accuracy']:.3f} of version {serving['version']}, "
        f"with a margin of {section.margin:.3f}"
    )


def _fingerprint(chosen: TrainingSet, section: NluSection, embedding_model: str) -> str:
    """Return a hash of all that a training is made of: the same means that it would come out the same."""
    made_of = (
        ALGORITHM,
        embedding_model,
        (section.held_out, section.penalty, section.unfamiliar, section.unsure, section.max_features),
        chosen.texts,
        [chosen.intents[label] for label in chosen.labels],
        np.round(chosen.importance, 5).tolist(),
    )
    return hashlib.blake2b(msgspec.msgpack.encode(made_of), digest_size=16).hexdigest()


def _finish(  # noqa: PLR0917
    db: Database, tenant_id: str, run_id: str, collaborators: Collaborators, counts: dict[str, int], change: str
) -> RunReport:
    finish_run(
        db,
        tenant_id,
        run_id,
        finished_s=collaborators.clock.now_s(),
        cursor={},
        summary={"counts": counts, "changes": [change]},
    )
    return RunReport("nlu", run_id, None, counts, (change,), Usage())
