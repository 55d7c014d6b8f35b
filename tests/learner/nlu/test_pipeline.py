"""From a dataset to the classifier that serves: published when it is not worse, kept version by version."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from learner.models import no_models
from learner.nlu.examples import choose
from learner.report import Collaborators
from learner.run import run_once
from store import refits
from store.config import Config, load_config
from store.contexts import Wording
from store.database import Database
from store.datasets import labelled_texts
from store.embedding import load_local_embedder
from store.errors import ConflictError, DamagedModelError, NotFoundError
from store.forgetting import Subject, forget
from store.intent_classifier import decode_classifier
from store.nlu_models import (
    embedding_model_of,
    get_model,
    list_models,
    load_classifier,
    serving_version,
    withdraw_model,
)
from store.refit_table import RefitTable, refit_name
from store.snapshot import load_snapshot
from store.tenants import ensure_tenant
from store.tokens import load_token_counter
from tests.conftest import NOW_S
from tests.store.test_labelled_texts import DATASET, put

TEXTS = {
    "parcel": (
        "where is my parcel",
        "parcel is late",
        "track the parcel",
        "parcel not here",
        "lost parcel",
        "a parcel",
    ),
    "refund": (
        "a refund please",
        "refund me",
        "i want a refund",
        "refund my card",
        "where is the refund",
        "refund now",
    ),
}
OTHER = {"parcel": "refund", "refund": "parcel"}


@pytest.fixture(scope="module")
def collaborators() -> Collaborators:
    embedder = load_local_embedder(load_config().embedding)
    return Collaborators(embedder, load_token_counter(), no_models(), np.random.default_rng(1))


def put_all(db: Database, tenant_id: str = "default") -> None:
    for intent, texts in TEXTS.items():
        for text in texts:
            put(db, text, intent=intent, tenant_id=tenant_id)


def learn(db: Database, config: Config, collaborators: Collaborators, tenant_id: str = "default") -> str:
    """Return what the run says that it changed."""
    (report,) = run_once(db, config, tenant_id, "nlu", collaborators=collaborators, now_s=NOW_S)
    (change,) = report.changes
    return change


def spoil(db: Database, config: Config) -> None:
    """Have a person say the wrong intent of every text but those by which models are judged."""
    chosen = choose(labelled_texts(db, "default", DATASET, limit=100), config.nlu)
    for text, label, is_held_out in zip(chosen.texts, chosen.labels, chosen.is_held_out, strict=True):
        intent = chosen.intents[label] if is_held_out else OTHER[chosen.intents[label]]
        db.execute(
            "UPDATE examples SET intent = :intent, reviewed_at = '2026-03-03' WHERE input = :text",
            {"intent": intent, "text": text},
        )


def add_one(db: Database, number: int) -> None:
    put(db, f"where is the parcel number {number}", intent="parcel")


def test_the_first_model_serves_when_it_is_good_enough(
    db: Database, config: Config, collaborators: Collaborators
) -> None:
    put_all(db)
    assert "version 1 is published" in learn(db, config, collaborators)
    classifier = load_classifier(db, "default", 1, embedding_model=collaborators.embedder.name)
    said = [classifier.classify(text, collaborators.embedder.embed_one(text))[0] for text in ("my parcel", "refund")]
    assert said == ["parcel", "refund"]
    strict = replace(config, nlu=replace(config.nlu, min_accuracy=1.01))
    add_one(db, 1)
    withdraw_model(db, "default", actor="test", now_s=NOW_S)
    assert "version 2 is not published" in learn(db, strict, collaborators)
    assert serving_version(db, "default") == 0


@pytest.mark.parametrize(("margin", "serving"), [(0.01, 1), (1.0, 2)])
def test_a_model_that_is_worse_by_more_than_the_margin_is_kept_but_never_serves(
    db: Database, config: Config, collaborators: Collaborators, margin: float, serving: int
) -> None:
    put_all(db)
    learn(db, config, collaborators)
    spoil(db, config)
    learn(db, replace(config, nlu=replace(config.nlu, margin=margin)), collaborators)
    assert serving_version(db, "default") == serving
    report = get_model(db, "default", 2).report
    assert report["serving"]["accuracy"] > report["accuracy"]


def test_nothing_is_trained_while_nothing_changed(db: Database, config: Config, collaborators: Collaborators) -> None:
    put_all(db)
    learn(db, config, collaborators)
    assert learn(db, config, collaborators) == f"not trained: {DATASET} is what the newest model was trained on"


def test_one_intent_is_nothing_to_tell_apart(db: Database, config: Config, collaborators: Collaborators) -> None:
    for text in TEXTS["parcel"]:
        put(db, text, intent="parcel")
    assert learn(db, config, collaborators).startswith("not trained: 2 intents")
    assert list_models(db, "default") == ([], None)


def test_as_many_versions_are_kept_as_configured_and_always_the_one_that_serves(
    db: Database, config: Config, collaborators: Collaborators
) -> None:
    put_all(db)
    learn(db, config, collaborators)
    never = replace(config, nlu=replace(config.nlu, keep_versions=2, margin=-1.0))
    for number in range(4):
        add_one(db, number)
        learn(db, never, collaborators)
    assert [model.version for model in list_models(db, "default")[0]] == [5, 4, 1]
    assert [model.is_serving for model in list_models(db, "default")[0]] == [False, False, True]


def test_a_step_back_brings_the_version_before_and_then_the_built_in_types(
    db: Database, config: Config, collaborators: Collaborators
) -> None:
    put_all(db)
    for number in range(2):
        add_one(db, number)
        learn(db, config, collaborators)
    assert withdraw_model(db, "default", actor="test", now_s=NOW_S) == (2, 1)
    assert withdraw_model(db, "default", actor="test", now_s=NOW_S) == (1, 0)
    with pytest.raises(ConflictError):
        withdraw_model(db, "default", actor="test", now_s=NOW_S)


def test_models_belong_to_one_tenant(db: Database, config: Config, collaborators: Collaborators) -> None:
    ensure_tenant(db, "other", NOW_S)
    put_all(db)
    put_all(db, "other")
    learn(db, config, collaborators)
    assert serving_version(db, "other") == 0
    with pytest.raises(NotFoundError):
        get_model(db, "other", 1)
    learn(db, config, collaborators, "other")
    withdraw_model(db, "other", actor="test", now_s=NOW_S)
    assert serving_version(db, "default") == 1


def test_a_model_of_another_embedder_is_not_read_and_the_next_one_replaces_it(
    db: Database, config: Config, collaborators: Collaborators
) -> None:
    put_all(db)
    learn(db, config, collaborators)
    db.execute("UPDATE nlu_models SET embedding_model = 'of-yesterday'", {})
    with pytest.raises(DamagedModelError, match="of-yesterday"):
        load_classifier(db, "default", 1, embedding_model=collaborators.embedder.name)
    add_one(db, 1)
    assert "version 2 is published" in learn(db, config, collaborators)


def no_wording(*_: object) -> Wording:
    raise AssertionError("there is no knowledge")


def known(db: Database, version: int) -> frozenset[str]:
    row = db.row("SELECT model FROM nlu_models WHERE version = :version", {"version": version})
    assert row is not None
    return decode_classifier(row["model"]).vocabulary


def test_words_that_only_a_forgotten_person_said_leave_all_classifiers_and_others_go_on_serving(
    db: Database, config: Config, collaborators: Collaborators, tmp_path: Path
) -> None:
    put_all(db)
    for text in ("parcel for zebrafinch", "my parcel zebrafinch ?"):
        put(db, text, intent="parcel", user_hash="ann")
    learn(db, config, collaborators)
    put(db, "money back at once", intent="refund")
    learn(db, config, collaborators)
    before = [known(db, version) for version in (1, 2)]

    report = forget(db, "default", Subject(("ann",)), tmp_path / "segments", no_wording, actor="x", now_s=NOW_S)

    assert (report.rows["examples"], report.rows["nlu_models"]) == (2, 2)
    after = [known(db, version) for version in (1, 2)]
    pairs = {"parcel for", "for zebrafinch", "parcel zebrafinch", "zebrafinch ?"}
    assert [old - new for old, new in zip(before, after, strict=True)] == [{"for", "zebrafinch", *pairs}] * 2
    stored = [row[name] for row in db.rows("SELECT * FROM nlu_models") for name in ("model", "assessed")]
    assert [b"zebrafinch" in blob for blob in stored] == [False] * 4
    classifier = load_classifier(db, "default", 2, embedding_model=collaborators.embedder.name)
    (embedding,) = collaborators.embedder.embed(["where is my parcel"])
    assert classifier.classify("where is my parcel", embedding)[0] == "parcel"


def test_a_classifier_that_cannot_be_read_is_emptied_when_somebody_is_forgotten(
    db: Database, config: Config, collaborators: Collaborators, tmp_path: Path
) -> None:
    put_all(db)
    put(db, "parcel for zebrafinch", intent="parcel", user_hash="ann")
    learn(db, config, collaborators)
    db.execute("UPDATE nlu_models SET model = substr(model, 2), assessed = substr(assessed, 2)")

    forget(db, "default", Subject(("ann",)), tmp_path / "segments", no_wording, actor="x", now_s=NOW_S)

    (row,) = db.rows("SELECT model, assessed FROM nlu_models")
    assert (row["model"], row["assessed"]) == (b"", b"")


def serve_refit(db: Database, collaborators: Collaborators, seed: int) -> RefitTable:
    """Serve a refit that moves every word of the texts, by chance, and return it as it is kept."""
    embedder = collaborators.embedder
    ids = sorted({number for texts in TEXTS.values() for text in texts for number in embedder.token_ids(text)})
    offsets = np.random.default_rng(seed).normal(size=(len(ids), 256), scale=0.1).astype(np.float32)
    begun = refits.begin_refit(db, "default", local_model=embedder.name, teacher="t", now_s=NOW_S + seed)
    table = RefitTable(refit_name(embedder.name, begun.id), np.array(ids, np.int32), offsets)
    refits.serve_refit(db, begun, table, refits.Checked(500, len(ids), 30, 0.1, 0.05, ""), now_s=NOW_S + seed)
    served = refits.load_refit(db, "default", embedder.name)
    assert served is not None
    return served


def test_a_classifier_is_trained_on_the_tenants_own_vectors_and_goes_on_reading_them_when_others_are_served(
    db: Database, config: Config, collaborators: Collaborators
) -> None:
    local = collaborators.embedder
    put_all(db)
    learn(db, config, collaborators)
    first = serve_refit(db, collaborators, 1)
    assert "version 2 is published" in learn(db, config, collaborators)  # other vectors: worth a new one
    assert "not trained" in learn(db, config, collaborators)
    assert embedding_model_of(db, "default", 2) == first.name

    for seed in (2, 3):  # the first one's turn is over, and nobody can go back to it
        serve_refit(db, collaborators, seed)
    snapshot = load_snapshot(db, "default", embedding_model=local.name)
    assert (snapshot.nlu_version, snapshot.classifier_problem) == (2, None)
    assert snapshot.classifier is not None
    assert snapshot.classifier_refit is not None
    assert snapshot.classifier_refit.name == first.name
    own = local.embed_refitted("where is my parcel", snapshot.classifier_refit)
    assert snapshot.classifier.classify("where is my parcel", own)[0] == "parcel"

    add_one(db, 1)
    assert "of version 2" in learn(db, config, collaborators)  # judged by the vectors that it reads
    withdraw_model(db, "default", actor="test", now_s=NOW_S)
    withdraw_model(db, "default", actor="test", now_s=NOW_S)
    snapshot = load_snapshot(db, "default", embedding_model=local.name)
    assert (snapshot.nlu_version, snapshot.classifier_refit, snapshot.classifier_problem) == (1, None, None)
    serve_refit(db, collaborators, 4)
    assert refits.load_named_refit(db, "default", first.name) is None  # nothing reads it any more


def test_a_classifier_whose_vectors_cannot_be_made_is_reported_and_replaced(
    db: Database, config: Config, collaborators: Collaborators
) -> None:
    put_all(db)
    serve_refit(db, collaborators, 1)
    learn(db, config, collaborators)
    db.execute("UPDATE embedding_refits SET token_ids = NULL, offsets = NULL, status = 'withdrawn'")
    snapshot = load_snapshot(db, "default", embedding_model=collaborators.embedder.name)
    assert snapshot.classifier is None
    assert "it reads vectors of" in (snapshot.classifier_problem or "")
    assert "version 2 is published" in learn(db, config, collaborators)
