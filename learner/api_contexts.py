"""Knowledge: list, look at with revisions and sources, add, edit, approve, reject, flag, retire."""

from typing import Any, cast

from learner import authoring
from learner.api_errors import bad_field
from learner.api_request import Call, known_fields, number, one_of, page, required_text, text, texts
from learner.reviewing import passage, with_diffs
from store.context_evidence import find_evidence
from store.contexts import (
    ContextRow,
    get_context,
    list_contexts,
    list_flags,
    list_revisions,
    list_sources,
    wording_to_review,
)
from store.contradictions import list_contradictions
from store.conversations import find_transcript
from store.rows import plain
from store.vocabulary import CONTEXT_STATUSES, ContextStatus

SHOWN = 100  # newest revisions, and sources, in one answer


def contexts(call: Call) -> dict[str, Any]:
    """Return one page of the tenant's entries, newest first."""
    status = cast("ContextStatus | None", call.choice("status", CONTEXT_STATUSES))
    return page(list_contexts(call.db, call.tenant_id, status=status, limit=call.limit, cursor=call.cursor))


def context(call: Call) -> dict[str, Any]:
    """Return one entry with its revisions, the conversations it came from, and who flagged it."""
    return _whole(call, get_context(call.db, call.tenant_id, call.path["id"]))


def _whole(call: Call, row: ContextRow) -> dict[str, Any]:
    return {
        **plain(row),
        "waiting_revision": row.waiting_revision,
        "revisions": [
            {**plain(revision), "diff": diff}
            for revision, diff in with_diffs(list_revisions(call.db, call.tenant_id, row.id, limit=SHOWN)[0])
        ],
        "evidence": find_evidence(call.db, call.tenant_id, row.id),
        "contradictions": list_contradictions(call.db, call.tenant_id, context_id=row.id, limit=SHOWN)[0],
        "source": _source(call, row),
        "sources": list_sources(call.db, call.tenant_id, row.id, limit=SHOWN)[0],
        "flags": list_flags(call.db, call.tenant_id, row.id),
    }


def _source(call: Call, row: ContextRow) -> dict[str, Any] | None:
    """Return the conversation that the wording to review came from, and which message says it."""
    shown = wording_to_review(call.db, row)
    found = find_transcript(call.db, call.tenant_id, shown.source_chat_id or row.source_chat_id)
    return None if found is None else {"id": found.id, "passage": passage(found.messages, shown.answer)}


def add_context(call: Call) -> dict[str, Any]:
    """Add an entry that a person wrote: waiting for a reviewer unless ``status`` says approved."""
    known_fields(call.body, ("questions", "answer", "tags", "status"))
    status = one_of("status", text(call.body, "status"), ("pending_approval", "approved"))
    row = call.services.author.add_context(
        call.db,
        call.tenant_id,
        questions=texts(call.body, "questions") or [],
        answer=required_text(call.body, "answer"),
        tags=texts(call.body, "tags") or [],
        is_approved=status == "approved",
        actor=call.actor,
        now_s=call.now_s,
    )
    return _whole(call, row)


def patch_context(call: Call) -> dict[str, Any]:
    """Rewrite an entry (``questions``, ``answer``, ``tags``), or approve, flag or retire it (``status``, ``reason``).

    New words wait for a reviewer, and what is approved goes on serving, unless ``status`` says approved.
    """
    known_fields(call.body, ("questions", "answer", "tags", "status", "reason"))
    questions, answer, tags = texts(call.body, "questions"), text(call.body, "answer"), texts(call.body, "tags")
    status = one_of("status", text(call.body, "status"), ("approved", "flagged", "retired"))
    is_edited = questions is not None or answer is not None or tags is not None
    if not is_edited and status is None:
        raise bad_field("answer", "questions, answer, tags or status must be given")
    context_id, reason = call.path["id"], text(call.body, "reason") or "by a person"
    with call.db.transaction():
        row = get_context(call.db, call.tenant_id, context_id)
        if is_edited:
            row = call.services.author.edit_context(
                call.db,
                call.tenant_id,
                context_id,
                questions=questions,
                answer=answer,
                tags=tags,
                is_approved=status == "approved",
                actor=call.actor,
                now_s=call.now_s,
            )
        if status == "approved" and (row.waiting_revision is not None or not is_edited):
            row = authoring.approve_context(call.db, call.tenant_id, context_id, actor=call.actor, now_s=call.now_s)
        elif status in ("flagged", "retired"):
            change = authoring.flag_context if status == "flagged" else authoring.retire_context
            row = change(call.db, call.tenant_id, context_id, reason=reason, actor=call.actor, now_s=call.now_s)
    return _whole(call, row)


def approve(call: Call) -> dict[str, Any]:
    """Put what waits into service; ``revision`` says which one the reviewer saw."""
    known_fields(call.body, ("revision",))
    row = authoring.approve_context(
        call.db,
        call.tenant_id,
        call.path["id"],
        actor=call.actor,
        now_s=call.now_s,
        revision=number(call.body, "revision"),
    )
    return _whole(call, row)


def reject(call: Call) -> dict[str, Any]:
    """Turn down what waits, with a reason."""
    known_fields(call.body, ("revision", "reason"))
    row = authoring.reject_context(
        call.db,
        call.tenant_id,
        call.path["id"],
        reason=text(call.body, "reason") or "",
        actor=call.actor,
        now_s=call.now_s,
        revision=number(call.body, "revision"),
    )
    return _whole(call, row)
