"""Review of knowledge: who may change what, what is served, and what is remembered."""

import sqlite3
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from store.clock import iso
from store.context_proposals import add_sources, create_context, propose_revision
from store.context_review import (
    approve_context,
    edit_context,
    expire_pending,
    flag_context,
    reject_context,
    retire_context,
)
from store.contexts import (
    ContextRow,
    Source,
    Wording,
    get_context,
    known_revisions,
    list_contexts,
    list_flags,
    list_revisions,
    list_sources,
    list_waiting,
)
from store.database import Database
from store.errors import ConflictError, NotFoundError
from store.generations import current_number
from store.tenants import ensure_tenant
from tests.conftest import NOW_S

TENANT = "default"
DAY_S = 86_400.0


def vector(index: int = 0) -> NDArray[np.float32]:
    unit = np.zeros(256, dtype=np.float32)
    unit[index] = 1
    return unit


def wording(answer: str = "Within 30 days.", index: int = 0) -> Wording:
    return Wording(
        questions=("How do I return it?", "Can I send it back?", "What is the return policy?"),
        answer=answer,
        tags=("returns",),
        embedding=vector(index),
        embedding_model="local",
        tokens=20,
    )


def create(db: Database, *, is_approved: bool = False, now_s: float = NOW_S, index: int = 0) -> ContextRow:
    return create_context(
        db,
        TENANT,
        wording(index=index),
        provenance="human_answer",
        source_chat_id=None,
        actor="learner",
        now_s=now_s,
        is_approved=is_approved,
    )


def add_conversation(db: Database, conversation_id: str, user_id: str = "") -> None:
    db.execute(
        """
        INSERT INTO conversations (tenant_id, id, source, user_id, is_holdout, tags_json, messages_json, created_at,
          updated_at)
        VALUES ('default', :id, 'import', :user_id, 0, '[]', '[]', :now, :now)
        """,
        {"id": conversation_id, "user_id": user_id, "now": iso(NOW_S)},
    )


def test_a_new_entry_waits_and_is_not_served(db: Database) -> None:
    context = create(db)

    assert (context.status, context.is_served, context.revision, context.waiting_revision) == (
        "pending_approval",
        False,
        1,
        1,
    )
    assert current_number(db, TENANT) == 0
    np.testing.assert_array_equal(context.embedding, vector())


def test_an_approved_entry_is_served_by_the_generation_published_with_it(db: Database) -> None:
    context = create(db)

    approved = approve_context(db, TENANT, context.id, actor="ann", now_s=NOW_S)

    assert (approved.status, approved.is_served, approved.changed_generation) == ("approved", True, 1)
    assert (approved.reviewed_by, approved.reviewed_at) == ("ann", iso(NOW_S))
    assert current_number(db, TENANT) == 1
    assert db.value("SELECT plan_json FROM generations WHERE number = 1") is None


def test_an_entry_that_a_person_wrote_is_served_at_once(db: Database) -> None:
    context = create(db, is_approved=True)

    assert (context.status, context.is_served, context.changed_generation) == ("approved", True, 1)
    assert context.waiting_revision is None


def test_the_approved_text_serves_until_a_person_approves_the_new_one(db: Database) -> None:
    context = create(db, is_approved=True)

    proposed = propose_revision(
        db, TENANT, context.id, wording("Within 60 days.", 1), source_chat_id=None, actor="learner", now_s=NOW_S
    )

    assert (proposed.answer, proposed.revision, proposed.pending_revision) == ("Within 30 days.", 1, 2)
    assert current_number(db, TENANT) == 1
    approved = approve_context(db, TENANT, context.id, actor="ann", now_s=NOW_S)
    assert (approved.answer, approved.revision, approved.pending_revision) == ("Within 60 days.", 2, None)
    np.testing.assert_array_equal(approved.embedding, vector(1))
    assert approved.changed_generation == current_number(db, TENANT) == 2
    revisions, cursor = list_revisions(db, TENANT, context.id)
    assert [(r.revision, r.status) for r in revisions] == [(2, "approved"), (1, "superseded")]
    assert cursor is None


def test_a_newer_proposal_replaces_the_one_that_waits(db: Database) -> None:
    context = create(db, is_approved=True)
    for answer in ("Within 60 days.", "Within 90 days."):
        propose_revision(db, TENANT, context.id, wording(answer), source_chat_id=None, actor="learner", now_s=NOW_S)

    waiting, _ = list_waiting(db, TENANT)

    assert [(c.id, r.revision, r.answer) for c, r in waiting] == [(context.id, 3, "Within 90 days.")]
    revisions, _ = list_revisions(db, TENANT, context.id)
    assert [r.status for r in revisions] == ["pending_approval", "superseded", "approved"]


def test_a_proposal_for_an_entry_that_waits_changes_what_waits(db: Database) -> None:
    context = create(db)

    propose_revision(
        db, TENANT, context.id, wording("Within 60 days."), source_chat_id=None, actor="learner", now_s=NOW_S
    )

    waiting = get_context(db, TENANT, context.id)
    assert (waiting.answer, waiting.status, waiting.waiting_revision) == ("Within 60 days.", "pending_approval", 2)
    with pytest.raises(ConflictError, match="waits with revision 2, not 1"):
        approve_context(db, TENANT, context.id, revision=1, actor="ann", now_s=NOW_S)


def test_a_rejected_revision_leaves_the_approved_text_in_service(db: Database) -> None:
    context = create(db, is_approved=True)
    propose_revision(db, TENANT, context.id, wording("Never."), source_chat_id=None, actor="learner", now_s=NOW_S)

    rejected = reject_context(db, TENANT, context.id, reason="wrong", actor="ann", now_s=NOW_S)

    assert (rejected.status, rejected.is_served, rejected.answer) == ("approved", True, "Within 30 days.")
    assert current_number(db, TENANT) == 1
    assert [r.status for _, r in known_revisions(db, TENANT)] == ["approved", "rejected"]


def test_a_rejected_entry_is_remembered_and_cannot_be_approved(db: Database) -> None:
    context = create(db)

    rejected = reject_context(db, TENANT, context.id, reason="not true", actor="ann", now_s=NOW_S)

    assert (rejected.status, rejected.reject_reason, rejected.is_served) == ("rejected", "not true", False)
    assert [c.id for c, _ in known_revisions(db, TENANT)] == [context.id]
    with pytest.raises(ConflictError, match="is rejected and cannot be approved"):
        approve_context(db, TENANT, context.id, actor="ann", now_s=NOW_S)


def test_the_first_flag_warns_and_the_second_takes_out_of_service(db: Database) -> None:
    context = create(db, is_approved=True)

    first = flag_context(
        db, TENANT, context.id, reason="60 days now", conversation_id="c1", actor="learner", now_s=NOW_S
    )
    assert (first.status, first.is_served, first.flag_count) == ("flagged", True, 1)
    second = flag_context(db, TENANT, context.id, reason="60 days", conversation_id="c2", actor="learner", now_s=NOW_S)

    assert (second.status, second.is_served, second.flag_count) == ("flagged", False, 2)
    assert second.changed_generation == current_number(db, TENANT) == 2
    assert [(flag.conversation_id, flag.reason) for flag in list_flags(db, TENANT, context.id)] == [
        ("c1", "60 days now"),
        ("c2", "60 days"),
    ]


def test_one_conversation_flags_once_even_after_a_review(db: Database) -> None:
    context = create(db, is_approved=True)
    flag = {"reason": "no", "conversation_id": "c1", "actor": "learner", "now_s": NOW_S}
    flag_context(db, TENANT, context.id, **flag)  # type: ignore[arg-type]
    approve_context(db, TENANT, context.id, actor="ann", now_s=NOW_S)

    again = flag_context(db, TENANT, context.id, **flag)  # type: ignore[arg-type]

    assert (again.status, again.flag_count) == ("approved", 0)


def test_a_persons_flag_takes_out_of_service_and_an_approval_brings_back(db: Database) -> None:
    context = create(db, is_approved=True)

    flagged = flag_context(db, TENANT, context.id, reason="wrong", actor="ann", by_person=True, now_s=NOW_S)
    assert (flagged.status, flagged.is_served) == ("flagged", False)
    approved = approve_context(db, TENANT, context.id, actor="ann", now_s=NOW_S)

    assert (approved.status, approved.is_served, approved.flag_count, approved.flag_reason) == (
        "approved",
        True,
        0,
        None,
    )
    assert approved.changed_generation == 3


def test_a_flagged_entry_can_be_rejected(db: Database) -> None:
    context = create(db, is_approved=True)
    flag_context(db, TENANT, context.id, reason="wrong", actor="learner", conversation_id="c1", now_s=NOW_S)

    rejected = reject_context(db, TENANT, context.id, reason="wrong indeed", actor="ann", now_s=NOW_S)

    assert (rejected.status, rejected.is_served, rejected.changed_generation) == ("rejected", False, 2)


def test_a_retired_entry_leaves_service_and_does_not_come_back(db: Database) -> None:
    context = create(db, is_approved=True)

    retired = retire_context(db, TENANT, context.id, reason="old", actor="ann", now_s=NOW_S)

    assert (retired.status, retired.is_served, retired.changed_generation) == ("retired", False, 2)
    assert [c.id for c, _ in known_revisions(db, TENANT)] == [context.id]


def test_wrong_transitions_are_conflicts(db: Database) -> None:
    pending = create(db)
    approved = create(db, is_approved=True)
    retired = create(db)
    retire_context(db, TENANT, retired.id, reason="", actor="ann", now_s=NOW_S)

    changes: tuple[Callable[[], ContextRow], ...] = (
        lambda: approve_context(db, TENANT, approved.id, actor="ann", now_s=NOW_S),
        lambda: reject_context(db, TENANT, approved.id, reason="", actor="ann", now_s=NOW_S),
        lambda: flag_context(db, TENANT, pending.id, reason="", actor="ann", now_s=NOW_S),
        lambda: retire_context(db, TENANT, retired.id, reason="", actor="ann", now_s=NOW_S),
        lambda: approve_context(db, TENANT, retired.id, actor="ann", now_s=NOW_S),
        lambda: edit_context(db, TENANT, retired.id, wording(), actor="ann", now_s=NOW_S),
    )
    for change in changes:
        with pytest.raises(ConflictError):
            change()


def test_another_tenant_sees_and_changes_nothing(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    context = create(db)

    assert list_contexts(db, "other") == ([], None)
    assert list_revisions(db, "other", context.id) == ([], None)
    with pytest.raises(NotFoundError):
        approve_context(db, "other", context.id, actor="eve", now_s=NOW_S)


def test_an_unread_entry_expires_and_may_be_learned_again(db: Database) -> None:
    old = create(db, now_s=NOW_S - 29 * DAY_S)
    create(db, now_s=NOW_S - 27 * DAY_S)

    expired = expire_pending(db, TENANT, pending_days=28, now_s=NOW_S)

    assert expired == [old.id]
    assert get_context(db, TENANT, old.id).status == "retired"
    assert old.id not in [c.id for c, _ in known_revisions(db, TENANT)]
    assert expire_pending(db, TENANT, pending_days=28, now_s=NOW_S) == []


def test_an_unread_revision_expires_beside_the_approved_text(db: Database) -> None:
    context = create(db, is_approved=True, now_s=NOW_S - 40 * DAY_S)
    propose_revision(
        db,
        TENANT,
        context.id,
        wording("Within 60 days."),
        source_chat_id=None,
        actor="learner",
        now_s=NOW_S - 30 * DAY_S,
    )

    expire_pending(db, TENANT, pending_days=28, now_s=NOW_S)

    kept = get_context(db, TENANT, context.id)
    assert (kept.status, kept.is_served, kept.pending_revision) == ("approved", True, None)
    assert list_waiting(db, TENANT) == ([], None)


def test_a_persons_edit_of_an_approved_entry_is_served_at_once(db: Database) -> None:
    context = create(db, is_approved=True)

    edited = edit_context(db, TENANT, context.id, wording("Within 14 days.", 2), actor="ann", now_s=NOW_S)

    assert (edited.answer, edited.status, edited.is_served, edited.revision) == (
        "Within 14 days.",
        "approved",
        True,
        2,
    )
    assert edited.changed_generation == current_number(db, TENANT) == 2


def test_a_persons_edit_of_a_pending_entry_still_waits(db: Database) -> None:
    context = create(db)

    edited = edit_context(db, TENANT, context.id, wording("Within 14 days."), actor="ann", now_s=NOW_S)

    assert (edited.answer, edited.status, edited.is_served) == ("Within 14 days.", "pending_approval", False)


def test_sources_count_distinct_users_and_unknown_ones_as_one(db: Database) -> None:
    for conversation_id, user_id in (("c1", "u1"), ("c2", "u1"), ("c3", "u2"), ("c4", ""), ("c5", "")):
        add_conversation(db, conversation_id, user_id)
    context = create(db)
    sources = [Source("c1", "u1", "representative"), Source("c2", "u1"), Source("c3", "u2"), Source("c4"), Source("c5")]

    n_users = add_sources(db, TENANT, context.id, sources, revision=1, now_s=NOW_S)

    assert n_users == 3
    assert get_context(db, TENANT, context.id).n_users == 3
    rows, cursor = list_sources(db, TENANT, context.id, limit=2)
    assert [(row.conversation_id, row.role) for row in rows] == [("c1", "representative"), ("c2", "support")]
    rest, end = list_sources(db, TENANT, context.id, limit=3, cursor=cursor)
    assert ([row.conversation_id for row in rest], end) == (["c3", "c4", "c5"], None)


def test_an_entry_cannot_rest_on_a_conversation_that_does_not_exist(db: Database) -> None:
    context = create(db)

    with pytest.raises(sqlite3.IntegrityError):
        add_sources(db, TENANT, context.id, [Source("nowhere")], revision=1, now_s=NOW_S)


def test_lists_page_newest_first(db: Database) -> None:
    ids = [create(db, now_s=NOW_S + offset).id for offset in range(5)]

    first, cursor = list_contexts(db, TENANT, limit=2)
    second, cursor_2 = list_contexts(db, TENANT, limit=2, cursor=cursor)
    third, end = list_contexts(db, TENANT, limit=2, cursor=cursor_2)

    assert [c.id for c in first + second + third] == ids[::-1]
    assert end is None
    assert list_contexts(db, TENANT, status="approved") == ([], None)
