"""A snapshot is one generation: whole, and loaded only where it changed."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from store.blocks import context_entry
from store.clock import iso
from store.database import Database
from store.errors import NotFoundError
from store.generations import publish
from store.plan import Conditions, ServedPattern, build_plan
from store.served_contexts import MAX_GONE_ROWS, ServedContexts
from store.snapshot import TenantSnapshot, TenantVersion, list_versions, load_snapshot
from store.tenants import ensure_tenant, set_learning
from tests.conftest import NOW_S

PLAN = build_plan(
    [ServedPattern("pat_1", "response_format", "shape", "Use a table.", Conditions(), "pinned", 9, 1.0, 0.1)]
)

EMBEDDING = np.full(256, 1 / 16, np.float32)


def write_context(
    db: Database,
    context_id: str,
    *,
    is_served: int = 1,
    answer: str = "A.",
    model: str = "local",
    tenant: str = "default",
    embedding: NDArray[np.float32] = EMBEDDING,
) -> None:
    with db.transaction():
        number = publish(db, tenant, plan=None, actor="test", reason="test", now_s=NOW_S)
        db.execute(
            """
            INSERT INTO ai_contexts (id, tenant_id, questions_json, answer, tags_json, status, is_served, revision,
              n_users, provenance, tokens, embedding, embedding_model, changed_generation, created_at, updated_at)
            VALUES (:id, :tenant, :questions, :answer, '[]', 'approved', :is_served, 1, 1, 'person', 20, :embedding,
              :model, :number, :now, :now)
            ON CONFLICT (id) DO UPDATE SET is_served = excluded.is_served, answer = excluded.answer,
              changed_generation = :number
            """,
            {
                "id": context_id,
                "tenant": tenant,
                "questions": json.dumps(["Why?", "How come?"]),
                "answer": answer,
                "is_served": is_served,
                "embedding": embedding.tobytes(),
                "model": model,
                "number": number,
                "now": iso(NOW_S),
            },
        )


def contexts_of(snapshot: TenantSnapshot) -> ServedContexts:
    assert snapshot.contexts is not None
    return snapshot.contexts


def texts(snapshot: TenantSnapshot) -> dict[str, str]:
    contexts = contexts_of(snapshot)
    return {contexts.rows.ids[row]: contexts.rows.texts[row] for row in contexts.live_rows}


def test_a_snapshot_holds_the_newest_plan_and_what_is_served_of_the_embedding_model(db: Database) -> None:
    publish(db, "default", plan=PLAN, actor="test", reason="test", now_s=NOW_S)
    ensure_tenant(db, "other", NOW_S)
    write_context(db, "ctx_2")
    write_context(db, "ctx_1", answer="B.")
    write_context(db, "ctx_3", is_served=0)
    write_context(db, "ctx_4", model="another")
    write_context(db, "ctx_5", tenant="other")
    snapshot = load_snapshot(db, "default", embedding_model="local")
    assert (snapshot.generation, snapshot.plan, snapshot.learning, len(snapshot.secret)) == (5, PLAN, True, 32)
    assert contexts_of(snapshot).ids == ["ctx_1", "ctx_2"]
    assert texts(snapshot) == {"ctx_1": context_entry("Why?", "B."), "ctx_2": context_entry("Why?", "A.")}
    assert contexts_of(snapshot).rows.tokens == [20, 20]
    assert contexts_of(snapshot).vectors.shape == (2, 256)
    assert contexts_of(snapshot).vectors.flags.c_contiguous


def test_a_later_generation_takes_over_what_did_not_change(db: Database) -> None:
    for context_id in ("ctx_1", "ctx_2", "ctx_3"):
        write_context(db, context_id)
    first = load_snapshot(db, "default", embedding_model="local")
    write_context(db, "ctx_2", answer="New.")
    write_context(db, "ctx_1", is_served=0)
    write_context(db, "ctx_4")
    second = load_snapshot(db, "default", embedding_model="local", previous=first)
    anew = load_snapshot(db, "default", embedding_model="local")
    assert contexts_of(second).ids == contexts_of(anew).ids == ["ctx_2", "ctx_3", "ctx_4"]
    assert texts(second) == texts(anew)
    assert contexts_of(second).rows is contexts_of(first).rows
    assert contexts_of(first).ids == ["ctx_1", "ctx_2", "ctx_3"]
    publish(db, "default", plan=PLAN, actor="test", reason="test", now_s=NOW_S)
    assert load_snapshot(db, "default", embedding_model="local", previous=second).contexts is second.contexts


def test_rows_that_were_deleted_for_good_are_gone_too(db: Database) -> None:
    write_context(db, "ctx_1")
    write_context(db, "ctx_2")
    first = load_snapshot(db, "default", embedding_model="local")
    with db.transaction():
        db.execute("DELETE FROM ai_contexts WHERE id = 'ctx_1'")
    assert contexts_of(load_snapshot(db, "default", embedding_model="local", previous=first)).ids == ["ctx_2"]


def test_a_snapshot_that_is_not_the_last_one_can_still_be_followed(db: Database) -> None:
    for context_id in ("ctx_1", "ctx_2"):
        write_context(db, context_id)
    first = load_snapshot(db, "default", embedding_model="local")
    write_context(db, "ctx_1", is_served=0)
    for _ in range(2):  # as after a failure between reading and serving
        again = load_snapshot(db, "default", embedding_model="local", previous=first)
        assert contexts_of(again).ids == ["ctx_2"]
    assert contexts_of(first).ids == ["ctx_1", "ctx_2"]


def test_many_changes_of_few_entries_do_not_pile_up_in_memory(db: Database) -> None:
    write_context(db, "ctx_1")
    snapshot = load_snapshot(db, "default", embedding_model="local")
    for number in range(MAX_GONE_ROWS + 2):
        write_context(db, "ctx_1", answer=f"Wording {number}.")
        snapshot = load_snapshot(db, "default", embedding_model="local", previous=snapshot)
    assert len(contexts_of(snapshot).vectors) <= 2
    assert texts(snapshot) == {"ctx_1": context_entry("Why?", f"Wording {MAX_GONE_ROWS + 1}.")}


def test_a_vector_of_another_length_is_refused(db: Database) -> None:
    write_context(db, "ctx_1")
    db.execute("UPDATE ai_contexts SET embedding = x'00000000'")
    with pytest.raises(ValueError, match="dimensions"):
        load_snapshot(db, "default", embedding_model="local")


def test_versions_tell_what_is_out_of_date(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    set_learning(db, "other", learning=False)
    publish(db, "default", plan=PLAN, actor="test", reason="test", now_s=NOW_S)
    assert list_versions(db) == [TenantVersion("default", True, 1), TenantVersion("other", False, 0)]


def test_an_unknown_tenant_has_no_snapshot(db: Database) -> None:
    with pytest.raises(NotFoundError):
        load_snapshot(db, "nobody", embedding_model="local")
    assert not db.connection.in_transaction


def test_without_a_model_no_contexts_are_loaded_and_they_can_be_later(db: Database) -> None:
    write_context(db, "ctx_1")
    bare = load_snapshot(db, "default", embedding_model=None)
    assert bare.contexts is None
    assert bare.generation == 1
    write_context(db, "ctx_2")
    whole = load_snapshot(db, "default", embedding_model="local", previous=bare)
    assert contexts_of(whole).ids == ["ctx_1", "ctx_2"]
    assert load_snapshot(db, "default", embedding_model=None, previous=whole).contexts is None
