"""What each page of the console shows, as values for its template."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast, get_args
from urllib.parse import quote

from markupsafe import Markup

from learner.api_request import generation_number
from learner.console.charts import interval_chart, satisfaction_chart
from learner.console.visit import Visit
from learner.freezing import freeze_of
from learner.knowledge.evidence import HUB_QUESTIONS
from learner.pattern_words import (
    ARM_WORDS,
    conditions_in_words,
    figures_in_words,
    grade_in_words,
    lift_in_words,
    rates,
    shares_in_words,
    words_in_words,
)
from learner.reviewing import passage, word_diff
from store.alerts import list_alerts
from store.context_evidence import find_evidence
from store.contexts import (
    ContextRow,
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
from store.conversations import find_transcript, list_conversations, transcript
from store.datasets import NEEDS_REVIEW, get_dataset, list_datasets, list_examples
from store.exchanges import exchanges
from store.generations import current_number, get_generation, list_generations, plan_of
from store.jobs import list_jobs
from store.learner_states import plan_strata
from store.pattern_evidence import ARMS, Arm, pattern_conversations
from store.patterns import PATTERN_SORTS, PatternRow, PatternSort, get_pattern, list_patterns, pattern_history
from store.reverting import step_back
from store.runs import list_runs
from store.statistics import ArmTotal, arm_totals, counts, satisfaction_by_day
from store.vocabulary import (
    CONTEXT_STATUSES,
    GRADES,
    PATTERN_TYPES,
    ContextStatus,
    Grade,
    PatternState,
    PatternType,
)

PAGE: Final = 50
EVIDENCE_PAGE: Final = 20
QUEUE_PAGE: Final = 20
SHORT: Final = 6
OVERVIEW_DAYS: Final = 60
Z_95: Final = 1.96
PATTERN_STATES: Final = get_args(PatternState)


def overview(visit: Visit) -> dict[str, Any]:
    """Return whether learning helps, and what waits for a person."""
    by_day = satisfaction_by_day(visit.db, visit.tenant_id, now_s=visit.now_s, days=OVERVIEW_DAYS)
    totals = arm_totals(visit.db, visit.tenant_id, now_s=visit.now_s, days=OVERVIEW_DAYS)
    active = [
        row
        for state in ("pinned", "active", "warmdown")
        for row in list_patterns(visit.db, visit.tenant_id, state=state, limit=SHORT)[0]
    ]
    return {
        "days": OVERVIEW_DAYS,
        "chart": satisfaction_chart(by_day),
        "treated": totals["treated"],
        "holdout": totals["holdout"],
        "lift": lift(totals["treated"], totals["holdout"]),
        "counts": counts(visit.db, visit.tenant_id),
        "generation": current_number(visit.db, visit.tenant_id),
        "active": with_intervals(active[:SHORT]),
        "waiting": list_waiting(visit.db, visit.tenant_id, limit=SHORT)[0],
        "alerts": list_alerts(visit.db, visit.tenant_id, is_open=True, limit=SHORT)[0],
        "freeze": freeze_of(visit.db, visit.tenant_id, visit.services.config.patterns, visit.now_s),
        "runs": list_runs(visit.db, visit.tenant_id, limit=SHORT)[0],
    }


def lift(treated: ArmTotal, holdout: ArmTotal) -> tuple[float, float, float] | None:
    """Return treated minus holdout with its 95 % interval, None when one of them is not known well enough.

    Conversations count as independent, as the lot draws them; patterns are decided on better evidence.
    """
    if treated.satisfaction is None or holdout.satisfaction is None:
        return None
    if treated.stderr is None or holdout.stderr is None:
        return None
    difference = treated.satisfaction - holdout.satisfaction
    reach = Z_95 * math.hypot(treated.stderr, holdout.stderr)
    return difference, difference - reach, difference + reach


def contexts(visit: Visit) -> dict[str, Any]:
    """Return the review queue, or a list of entries by status."""
    status = visit.choice("status", CONTEXT_STATUSES)
    cursor = visit.query.get("cursor") or None
    if status is None or status == "pending_approval":
        queue, next_cursor = list_waiting(visit.db, visit.tenant_id, limit=QUEUE_PAGE, cursor=cursor)
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
            for context, _ in queue
            if (found := find_evidence(visit.db, visit.tenant_id, context.id)) and found.n_unrelated >= HUB_QUESTIONS
        },
        "entries": entries,
        "next_cursor": next_cursor,
    }


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
        "revisions": list_revisions(visit.db, visit.tenant_id, row.id, limit=PAGE)[0],
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


def patterns(visit: Visit) -> dict[str, Any]:
    """Return patterns, filtered by state, type, grade and question type, in the order asked for."""
    chosen = {
        "state": visit.choice("state", PATTERN_STATES) or "",
        "type": visit.choice("type", PATTERN_TYPES) or "",
        "grade": visit.choice("grade", GRADES) or "",
        "question_type": visit.query.get("question_type", "").strip(),
        "sort": visit.choice("sort", PATTERN_SORTS) or "",
    }
    rows, next_cursor = list_patterns(
        visit.db,
        visit.tenant_id,
        state=cast("PatternState | None", chosen["state"] or None),
        type=cast("PatternType | None", chosen["type"] or None),
        grade=cast("Grade | None", chosen["grade"] or None),
        question_type=chosen["question_type"] or None,
        sort=cast("PatternSort", chosen["sort"] or "created"),
        limit=PAGE,
        cursor=visit.query.get("cursor") or None,
    )
    return {
        "chosen": chosen,
        "query": _query(chosen),
        "tabs": [(word, _query({**chosen, "state": word})) for word in ("", *PATTERN_STATES)],
        "types": PATTERN_TYPES,
        "grades": GRADES,
        "sorts": PATTERN_SORTS,
        "patterns": with_intervals(rows),
        "next_cursor": next_cursor,
    }


def _query(chosen: Mapping[str, str]) -> str:
    """Return *chosen* as the beginning of a query, what is empty left out; a cursor may follow."""
    return "".join(f"{name}={quote(value, safe='')}&" for name, value in chosen.items() if value)


def with_intervals(rows: Sequence[PatternRow]) -> list[tuple[PatternRow, Markup]]:
    """Return each pattern with the chart of its lift, all on one scale."""
    ends = [end for row in rows for end in (row.lift_low, row.lift_high) if end is not None]
    reach = max(map(abs, ends), default=0.0)
    return [(row, interval_chart(row.lift, row.lift_low, row.lift_high, reach=reach)) for row in rows]


def pattern(visit: Visit) -> dict[str, Any]:
    """Return one pattern with its evidence, its history and the conversations behind it."""
    row = get_pattern(visit.db, visit.tenant_id, visit.path["id"])
    arm = cast("Arm | None", visit.choice("arm", ARMS)) or ("natural" if row.state == "candidate" else "treated")
    group_field, _ = plan_strata(visit.db, visit.tenant_id)
    found, next_cursor = pattern_conversations(
        visit.db, row, arm, limit=EVIDENCE_PAGE, cursor=visit.query.get("cursor") or None
    )
    return {
        "pattern": row,
        "interval": interval_chart(row.lift, row.lift_low, row.lift_high),
        "words": words_in_words(row),
        "grade": grade_in_words(row),
        "lift": lift_in_words(row),
        "shares": shares_in_words(row, group_field),
        "rates": rates(row),
        "history": [
            (event, figures_in_words(event.detail)) for event in pattern_history(visit.db, visit.tenant_id, row.id)
        ],
        "arm": arm,
        "arms": ARM_WORDS,
        "conversations": found,
        "next_cursor": next_cursor,
    }


def runs(visit: Visit) -> dict[str, Any]:
    """Return learning runs and the newest jobs."""
    rows, next_cursor = list_runs(visit.db, visit.tenant_id, limit=PAGE, cursor=visit.query.get("cursor") or None)
    return {"runs": rows, "next_cursor": next_cursor, "jobs": list_jobs(visit.db, visit.tenant_id, limit=SHORT)[0]}


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


def datasets(visit: Visit) -> dict[str, Any]:
    """Return the training datasets."""
    rows, next_cursor = list_datasets(visit.db, visit.tenant_id, limit=PAGE, cursor=visit.query.get("cursor") or None)
    return {"datasets": rows, "next_cursor": next_cursor}


def dataset(visit: Visit) -> dict[str, Any]:
    """Return the examples of a dataset that wait for a review, or all of them."""
    row = get_dataset(visit.db, visit.tenant_id, visit.path["id"])
    is_all = visit.query.get("show") == "all"
    examples, next_cursor = list_examples(
        visit.db,
        visit.tenant_id,
        row.id,
        tag=None if is_all else NEEDS_REVIEW,
        limit=PAGE,
        cursor=visit.query.get("cursor") or None,
    )
    return {"dataset": row, "is_all": is_all, "examples": examples, "next_cursor": next_cursor}


def conversations(visit: Visit) -> dict[str, Any]:
    """Return conversations, last changed first."""
    rows, next_cursor = list_conversations(
        visit.db, visit.tenant_id, limit=PAGE, cursor=visit.query.get("cursor") or None
    )
    return {"conversations": rows, "next_cursor": next_cursor}


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
