"""Contradictions: list, look at with both conversations, resolve; and decisions on many entries at once."""

from typing import Any, cast

from learner.api_errors import bad_field
from learner.api_request import Call, known_fields, one_of, page, required_text, text, texts
from learner.resolving import BULK_ACTIONS, BulkAction, decide_on_many, resolve_contradiction
from learner.reviewing import passage, word_diff
from store.contexts import get_context
from store.contradictions import (
    CONTRADICTION_STATUSES,
    RESOLUTIONS,
    ContradictionRow,
    ContradictionStatus,
    Resolution,
    get_contradiction,
    list_contradictions,
)
from store.conversations import find_transcript
from store.rows import plain


def contradictions(call: Call) -> dict[str, Any]:
    """Return one page of contradictions, oldest first."""
    status = cast("ContradictionStatus | None", call.choice("status", CONTRADICTION_STATUSES))
    return page(list_contradictions(call.db, call.tenant_id, status=status, limit=call.limit, cursor=call.cursor))


def contradiction(call: Call) -> dict[str, Any]:
    """Return one contradiction with the entry as it is, both conversations and the passages that say it."""
    return whole(call, get_contradiction(call.db, call.tenant_id, call.path["id"]))


def whole(call: Call, row: ContradictionRow) -> dict[str, Any]:
    """Return everything that a reviewer needs to decide on *row*."""
    context = get_context(call.db, call.tenant_id, row.context_id)
    ours = find_transcript(call.db, call.tenant_id, context.source_chat_id)
    theirs = find_transcript(call.db, call.tenant_id, row.conversation_id)
    return {
        **plain(row),
        "context": context,
        "diff": word_diff(context.answer, row.answer),
        "context_conversation": ours,
        "context_passage": passage(ours.messages, context.answer) if ours else None,
        "conversation": theirs,
        "passage": passage(theirs.messages, row.answer) if theirs else None,
    }


def resolve(call: Call) -> dict[str, Any]:
    """Resolve one: ``resolution`` is keep, replace, retire_both or no_contradiction."""
    known_fields(call.body, ("resolution", "reason"))
    resolution = one_of("resolution", required_text(call.body, "resolution"), RESOLUTIONS)
    row = resolve_contradiction(
        call.db,
        call.services.author,
        call.tenant_id,
        call.path["id"],
        resolution=cast("Resolution", resolution),
        reason=text(call.body, "reason") or "",
        actor=call.actor,
        now_s=call.now_s,
    )
    return whole(call, row)


def bulk(call: Call) -> dict[str, Any]:
    """Approve, reject or retire many entries; the answer says of each what became of it."""
    known_fields(call.body, ("ids", "action", "reason"))
    ids = texts(call.body, "ids")
    if not ids:
        raise bad_field("ids", "must be a list of at least one id")
    action = one_of("action", required_text(call.body, "action"), BULK_ACTIONS)
    results = decide_on_many(
        call.db,
        call.tenant_id,
        ids,
        action=cast("BulkAction", action),
        reason=text(call.body, "reason") or "",
        actor=call.actor,
        now_s=call.now_s,
    )
    return {"results": results}
