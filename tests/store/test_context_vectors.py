"""Remote vectors belong to one wording of one entry of one tenant, and a snapshot follows them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from store.context_proposals import create_context
from store.context_review import retire_context
from store.context_vectors import (
    ServedWording,
    add_cost,
    drop_other_vectors,
    embedding_state,
    put_vectors,
    set_threshold,
    thresholds,
    wordings_without,
)
from store.contexts import ContextRow, Wording
from store.database import Database
from store.generations import publish
from store.snapshot import TenantSnapshot, load_snapshot
from store.tenants import ensure_tenant
from store.vocabulary import DEFAULT_TENANT
from tests.conftest import NOW_S

MODEL = "m@256"


def axis(number: int) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = np.eye(1, 256, number, dtype=np.float32)[0]
    return vector


def add(db: Database, number: int, tenant_id: str = DEFAULT_TENANT) -> ContextRow:
    wording = Wording((f"Question {number}?",), "Answer.", (), 10, axis(number), "local")
    return create_context(
        db,
        tenant_id,
        wording,
        provenance="person",
        source_chat_id=None,
        is_approved=True,
        actor="test",
        now_s=NOW_S,
    )


def give_vector(db: Database, context: ContextRow, vector: NDArray[np.float32], model: str = MODEL) -> int:
    wording = ServedWording(context.id, context.revision, context.questions)
    return put_vectors(db, context.tenant_id, model, [(wording, vector)])


def load(db: Database, previous: TenantSnapshot | None = None) -> TenantSnapshot:
    return load_snapshot(db, DEFAULT_TENANT, embedding_model="local", remote_model=MODEL, previous=previous)


def remote_of(snapshot: TenantSnapshot) -> dict[str, int]:
    """Return the axis of each entry's remote vector."""
    contexts = snapshot.remote_contexts
    assert contexts is not None
    return {contexts.rows.ids[row]: int(contexts.vectors[row].argmax()) for row in contexts.live_rows.tolist()}


def test_a_snapshot_follows_vectors_that_are_made_and_entries_that_go(db: Database) -> None:
    one, two = add(db, 1), add(db, 2)
    give_vector(db, one, axis(11))
    first = load(db)
    assert remote_of(first) == {one.id: 11}

    give_vector(db, two, axis(12))
    publish(db, DEFAULT_TENANT, plan=None, actor="test", reason="vectors", now_s=NOW_S)
    second = load(db, first)
    assert remote_of(second) == {one.id: 11, two.id: 12}

    retire_context(db, DEFAULT_TENANT, one.id, reason="old", actor="test", now_s=NOW_S)
    three = add(db, 3)
    third = load(db, second)
    assert remote_of(third) == remote_of(load(db)) == {two.id: 12}
    assert third.contexts is not None
    assert third.contexts.ids == sorted([two.id, three.id])
    assert remote_of(second) == {one.id: 11, two.id: 12}  # a request may still read it


def test_without_a_remote_model_nothing_is_loaded_beside(db: Database) -> None:
    give_vector(db, add(db, 1), axis(11))

    assert load_snapshot(db, DEFAULT_TENANT, embedding_model="local").remote_contexts is None


def test_vectors_of_other_models_and_tenants_are_not_seen(db: Database) -> None:
    ensure_tenant(db, "acme", NOW_S)
    mine, theirs = add(db, 1), add(db, 2, "acme")
    give_vector(db, mine, axis(11), "other@256")
    give_vector(db, theirs, axis(12))

    assert remote_of(load(db)) == {}
    assert [wording.context_id for wording in wordings_without(db, DEFAULT_TENANT, MODEL, after="", limit=9)] == [
        mine.id
    ]
    assert put_vectors(db, DEFAULT_TENANT, MODEL, [(ServedWording(theirs.id, 1, theirs.questions), axis(3))]) == 0


def test_a_vector_of_a_wording_that_changed_meanwhile_is_not_written(db: Database) -> None:
    context = add(db, 1)

    written = put_vectors(db, DEFAULT_TENANT, MODEL, [(ServedWording(context.id, 1, ("Another one?",)), axis(3))])

    assert written == 0
    assert remote_of(load(db)) == {}


def test_vectors_of_other_models_are_dropped_a_few_at_a_time(db: Database) -> None:
    for number in range(3):
        context = add(db, number)
        give_vector(db, context, axis(11), "other@256")
        give_vector(db, context, axis(12))

    assert [drop_other_vectors(db, DEFAULT_TENANT, [MODEL], refits_only=False, at_most=2) for _ in range(3)] == [
        2,
        1,
        0,
    ]
    assert set(remote_of(load(db)).values()) == {12}


def test_costs_add_up_and_a_threshold_is_replaced_or_withdrawn(db: Database) -> None:
    for _ in range(2):
        add_cost(db, DEFAULT_TENANT, MODEL, prompt_tokens=10, cost_usd=0.5, now_s=NOW_S)
    for threshold in (0.5, 0.6):
        set_threshold(db, DEFAULT_TENANT, MODEL, threshold=threshold, calibrated_on="x", n_entries=12, now_s=NOW_S)

    state = embedding_state(db, DEFAULT_TENANT, MODEL)
    assert (state.threshold, state.n_entries, state.prompt_tokens) == (0.6, 12, 20)
    assert state.cost_usd == pytest.approx(1.0)
    assert load(db).thresholds == {MODEL: 0.6}
    set_threshold(db, DEFAULT_TENANT, MODEL, threshold=None, calibrated_on="", n_entries=0, now_s=NOW_S)
    assert thresholds(db, DEFAULT_TENANT) == {}
