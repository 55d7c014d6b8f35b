"""What each page of the console shows, as values for its template."""

from typing import Any, Final, cast
from urllib.parse import quote

from learner.api_request import generation_number
from learner.console.visit import Visit
from learner.freezing import freeze_of
from learner.knowledge.evidence import HUB_QUESTIONS
from learner.pattern_words import (
    conditions_in_words,
)
from learner.review_order import QueuedExample, review_queue
from learner.reviewing import Excerpt, excerpt, passage, with_diffs, word_diff
from store.alerts import list_alerts
from store.audit import list_audit
from store.context_evidence import find_evidence
from store.contexts import (
    ContextRow,
    RevisionRow,
    get_context,
    list_contexts,
    list_flags,
    list_revisions,
    list_sources,
    list_waiting,
    wording_to_review,
)
from store.contradictions import (
    CONTRADICTION_STATUSES,
    ContradictionStatus,
    get_contradiction,
    list_contradictions,
)
from store.conversation_search import search_conversations
from store.conversations import find_transcript, list_conversations, transcript
from store.datasets import ExampleRow, get_dataset, list_datasets, list_examples, list_facets
from store.exchanges import exchanges
from store.generations import current_number, get_generation, list_generations, plan_of
from store.jobs import list_jobs
from store.reverting import step_back
from store.review_queue import audit_result
from store.runs import list_runs
from store.vocabulary import (
    CONTEXT_STATUSES,
    ContextStatus,
)

PAGE: Final = 50
QUEUE_PAGE: Final = 10  # each with a part of its source beside it
JOBS: Final = 20
EXAMPLE_QUEUE: Final = 20
MAX_INTENTS: Final = 500  # that a reviewer is offered; others can be typed


def contexts(visit: Visit) -> dict[str, Any]:
    """Return the review queue, or a list of entries by status."""
    status = visit.choice("status", CONTEXT_STATUSES)
    cursor = visit.query.get("cursor") or None
    if status is None or status == "pending_approval":
        waiting, next_cursor = list_waiting(visit.db, visit.tenant_id, limit=QUEUE_PAGE, cursor=cursor)
        queue = [(context, revision, excerpt_of(visit, context, revision)) for context, revision in waiting]
        entries: list[ContextRow] = []
    else:
        queue = []
        entries, next_cursor = list_contexts(
            visit.db, visit.tenant_id, status=cast("ContextStatus", status), limit=PAGE, cursor=cursor
        )
    return {
        "status": status or "pending_approval",
        "statuses": CONTEXT_STATUSES,
        "queue": queue,
        "suspicious": {
            context.id
            for context, _, _ in queue
            if (found := find_evidence(visit.db, visit.tenant_id, context.id)) and found.n_unrelated >= HUB_QUESTIONS
        },
        "entries": entries,
        "next_cursor": next_cursor,
    }


def excerpt_of(visit: Visit, context: ContextRow, shown: RevisionRow) -> Excerpt | None:
    """Return the part of the source conversation that the wording came from, None when there is none."""
    source = find_transcript(visit.db, visit.tenant_id, shown.source_chat_id or context.source_chat_id)
    return None if source is None else excerpt(source, shown.answer)


def context(visit: Visit) -> dict[str, Any]:
    """Return one entry: what waits beside what serves, its history, and the conversation it came from."""
    row = get_context(visit.db, visit.tenant_id, visit.path["id"])
    shown = wording_to_review(visit.db, row)
    source = find_transcript(visit.db, visit.tenant_id, shown.source_chat_id or row.source_chat_id)
    return {
        "diff": word_diff(row.answer, shown.answer),
        "evidence": find_evidence(visit.db, visit.tenant_id, row.id),
        "contradictions": list_contradictions(visit.db, visit.tenant_id, context_id=row.id, limit=PAGE)[0],
        "hub": HUB_QUESTIONS,
        "passage": passage(source.messages, shown.answer) if source else None,
        "context": row,
        "shown": shown,
        "revisions": with_diffs(list_revisions(visit.db, visit.tenant_id, row.id, limit=PAGE)[0]),
        "sources": list_sources(visit.db, visit.tenant_id, row.id, limit=PAGE)[0],
        "flags": list_flags(visit.db, visit.tenant_id, row.id),
        "source": source,
    }


def contradictions(visit: Visit) -> dict[str, Any]:
    """Return the open contradictions, or those that are resolved."""
    status = visit.choice("status", CONTRADICTION_STATUSES) or "open"
    found, next_cursor = list_contradictions(
        visit.db,
        visit.tenant_id,
        status=cast("ContradictionStatus", status),
        limit=PAGE,
        cursor=visit.query.get("cursor") or None,
    )
    return {"status": status, "statuses": CONTRADICTION_STATUSES, "found": found, "next_cursor": next_cursor}


def contradiction(visit: Visit) -> dict[str, Any]:
    """Return one contradiction: both texts and both conversations."""
    row = get_contradiction(visit.db, visit.tenant_id, visit.path["id"])
    context = get_context(visit.db, visit.tenant_id, row.context_id)
    ours = find_transcript(visit.db, visit.tenant_id, context.source_chat_id)
    theirs = find_transcript(visit.db, visit.tenant_id, row.conversation_id)
    return {
        "row": row,
        "context": context,
        "diff": word_diff(context.answer, row.answer),
        "ours": ours,
        "our_passage": passage(ours.messages, context.answer) if ours else None,
        "theirs": theirs,
        "their_passage": passage(theirs.messages, row.answer) if theirs else None,
    }


def runs(visit: Visit) -> dict[str, Any]:
    """Return learning runs and the newest jobs."""
    rows, next_cursor = list_runs(visit.db, visit.tenant_id, limit=PAGE, cursor=visit.query.get("cursor") or None)
    return {"runs": rows, "next_cursor": next_cursor, "jobs": list_jobs(visit.db, visit.tenant_id, limit=JOBS)[0]}


def generations(visit: Visit) -> dict[str, Any]:
    """Return what was served when, and why it changed."""
    rows, next_cursor = list_generations(
        visit.db, visit.tenant_id, limit=PAGE, cursor=visit.query.get("cursor") or None
    )
    current = current_number(visit.db, visit.tenant_id)
    return {"generations": rows, "current": current, "next_cursor": next_cursor}


def generation(visit: Visit) -> dict[str, Any]:
    """Return what one generation served, and what going back to it would change."""
    row = get_generation(visit.db, visit.tenant_id, generation_number(visit.path["number"]))
    served = plan_of(visit.db, visit.tenant_id, row.number).patterns
    return {
        "generation": row,
        "current": current_number(visit.db, visit.tenant_id),
        "served": [(one, conditions_in_words(one.conditions)) for one in served],
        "step": step_back(visit.db, visit.tenant_id, row.number, now_s=visit.now_s),
    }


def alerts(visit: Visit) -> dict[str, Any]:
    """Return alerts, those that nobody acknowledged or all, and whether anything is held back."""
    is_all = visit.query.get("show") == "all"
    rows, next_cursor = list_alerts(
        visit.db, visit.tenant_id, is_open=not is_all, limit=PAGE, cursor=visit.query.get("cursor") or None
    )
    return {
        "alerts": rows,
        "is_all": is_all,
        "next_cursor": next_cursor,
        "freeze": freeze_of(visit.db, visit.tenant_id, visit.services.config.patterns, visit.now_s),
    }


def audit(visit: Visit) -> dict[str, Any]:
    """Return who changed what, newest first."""
    rows, next_cursor = list_audit(visit.db, visit.tenant_id, limit=PAGE, cursor=visit.query.get("cursor") or None)
    return {"entries": rows, "next_cursor": next_cursor}


def datasets(visit: Visit) -> dict[str, Any]:
    """Return the training datasets."""
    rows, next_cursor = list_datasets(visit.db, visit.tenant_id, limit=PAGE, cursor=visit.query.get("cursor") or None)
    return {"datasets": rows, "next_cursor": next_cursor}


def dataset(visit: Visit) -> dict[str, Any]:
    """Return what of a dataset to look at next and why, or its examples: all, by words, by intent or by tag."""
    row = get_dataset(visit.db, visit.tenant_id, visit.path["id"])
    wanted = {name: visit.query.get(name, "").strip() for name in ("q", "intent", "tag")}
    is_queue = visit.query.get("show") != "all" and not any(wanted.values())
    queue: list[QueuedExample] = []
    examples: list[ExampleRow] = []
    next_cursor: str | None = None
    if is_queue:
        queue = review_queue(
            visit.db,
            visit.tenant_id,
            row.id,
            visit.services.author.embedder,
            review_below=visit.services.config.training.review_below_confidence,
            limit=EXAMPLE_QUEUE,
        )
    else:
        examples, next_cursor = list_examples(
            visit.db,
            visit.tenant_id,
            row.id,
            search=wanted["q"] or None,
            intent=wanted["intent"] or None,
            tag=wanted["tag"] or None,
            limit=PAGE,
            cursor=visit.query.get("cursor") or None,
        )
    return {
        "dataset": row,
        "is_queue": is_queue,
        "queue": queue,
        "examples": examples,
        "next_cursor": next_cursor,
        "wanted": wanted,
        "page_query": "show=all&" + "".join(f"{name}={quote(text, safe='')}&" for name, text in wanted.items() if text),
        "intents": list_facets(visit.db, visit.tenant_id, row.id, kind="intent", limit=MAX_INTENTS)[0],
        "audit": audit_result(visit.db, visit.tenant_id, row.id),
    }


def conversations(visit: Visit) -> dict[str, Any]:
    """Return conversations, last changed first, or those that a search finds."""
    text, cursor = visit.query.get("q", "").strip(), visit.query.get("cursor") or None
    if text:
        found = search_conversations(visit.db, visit.tenant_id, text, limit=PAGE, cursor=cursor)
        return {"q": text, "found": found, "conversations": [], "next_cursor": found.next_cursor}
    rows, next_cursor = list_conversations(visit.db, visit.tenant_id, limit=PAGE, cursor=cursor)
    return {"q": "", "found": None, "conversations": rows, "next_cursor": next_cursor}


def conversation(visit: Visit) -> dict[str, Any]:
    """Return a transcript with what was put in at each response and what users made of it."""
    whole = transcript(visit.db, visit.tenant_id, visit.path["id"])
    found = exchanges(visit.db, visit.tenant_id, whole.id)
    return {
        "transcript": whole,
        "exchanges": {exchange.response_id: exchange for exchange in found},
        "unanswered": [
            exchange
            for exchange in found
            if exchange.response_id not in {message.get("response_id") for message in whole.messages}
        ],
    }
