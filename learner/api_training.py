"""Training data and jobs: the bulk ingest of channels, datasets, examples and their review, learning jobs."""

from collections.abc import Mapping
from typing import Any, get_args

from learner.api_errors import ApiError, bad_field
from learner.api_request import Call, flag, known_fields, one_of, page, text
from learner.ingest import read_item
from store.audit import record
from store.conversations import import_conversations
from store.datasets import (
    NewExample,
    add_examples,
    ensure_dataset,
    get_dataset,
    get_example,
    list_datasets,
    list_examples,
    review_example,
)
from store.errors import InvalidError
from store.jobs import create_job, get_job, list_jobs
from store.tenants import get_tenant
from store.vocabulary import JobKind, JobStatus

Problem = Mapping[str, Any]


def ingest(call: Call) -> dict[str, Any]:
    """Take in classified messages and whole conversations; good items go in, bad ones are reported by index and field.

    The same items again change nothing and are answered the same.
    """
    items = call.body.get("conversations")
    if not isinstance(items, list):
        raise bad_field("conversations", "must be a list")
    max_items = call.services.config.learner.max_items
    if len(items) > max_items:
        raise ApiError(
            413, f"conversations: at most {max_items} items at once, not {len(items)}", param="conversations"
        )
    with call.db.transaction():
        n_accepted, n_flagged, problems = _store_items(call, items)
        record(
            call.db,
            call.tenant_id,
            actor=call.actor,
            action="training.ingest",
            object_id=call.services.config.training.dataset_id,
            detail={"count": n_accepted, "flagged": n_flagged, "bad": len(problems)},
            now_s=call.now_s,
        )
    if problems and not n_accepted:
        first = problems[0]
        where = f"conversations[{first['index']}]" + (f".{first['field']}" if first["field"] else "")
        raise ApiError(400, f"conversations[{first['index']}]: {first['message']}", param=where, code="invalid_value")
    answer = {
        "success": True,
        "count": n_accepted,
        "flaggedForReview": n_flagged,
        "datasetId": call.services.config.training.dataset_id,
    }
    return {**answer, "errors": problems} if problems else answer


def _store_items(call: Call, items: list[Any]) -> tuple[int, int, list[Problem]]:
    """Return how many items are in now, how many of them need a review, and what is wrong with the others."""
    training = call.services.config.training
    secret = get_tenant(call.db, call.tenant_id).secret
    examples: list[NewExample] = []
    whole: list[tuple[int, Mapping[str, Any]]] = []
    problems: list[Problem] = []
    for index, item in enumerate(items):
        try:
            read = read_item(item, secret)
        except InvalidError as exc:
            problems.append({"index": index, "field": exc.field, "message": str(exc)})
        else:
            examples += [read] if isinstance(read, NewExample) else []
            whole += [] if isinstance(read, NewExample) else [(index, read)]
    ensure_dataset(call.db, call.tenant_id, training.dataset_id, call.now_s)
    add_examples(
        call.db,
        call.tenant_id,
        training.dataset_id,
        examples,
        review_below_confidence=training.review_below_confidence,
        now_s=call.now_s,
    )
    imported = import_conversations(call.db, call.tenant_id, [item for _, item in whole], now_s=call.now_s)
    problems += [
        {"index": whole[problem.index][0], "field": problem.field, "message": problem.message}
        for problem in imported.problems
    ]
    n_flagged = sum(example.confidence < training.review_below_confidence for example in examples)
    return len(examples) + imported.n_accepted, n_flagged, sorted(problems, key=lambda problem: int(problem["index"]))


def datasets(call: Call) -> dict[str, Any]:
    """Return one page of the tenant's datasets."""
    return page(list_datasets(call.db, call.tenant_id, limit=call.limit, cursor=call.cursor))


def dataset(call: Call) -> Any:
    """Return one dataset with its size."""
    return get_dataset(call.db, call.tenant_id, call.path["id"])


def examples_of(call: Call) -> dict[str, Any]:
    """Return one page of a dataset's examples, those with a tag when one is asked for."""
    return page(
        list_examples(
            call.db,
            call.tenant_id,
            call.path["id"],
            tag=call.query.get("tag") or None,
            limit=call.limit,
            cursor=call.cursor,
        )
    )


def example(call: Call) -> Any:
    """Return one example."""
    return get_example(call.db, call.tenant_id, call.path["id"])


def patch_example(call: Call) -> Any:
    """Correct an example's intent or settle its review."""
    known_fields(call.body, ("intent", "needs_review"))
    intent, needs_review = text(call.body, "intent"), flag(call.body, "needs_review")
    if intent is None and needs_review is None:
        raise bad_field("intent", "intent or needs_review must be given")
    return review_example(
        call.db,
        call.tenant_id,
        call.path["id"],
        intent=intent,
        needs_review=needs_review,
        actor=call.actor,
        now_s=call.now_s,
    )


def add_job(call: Call) -> Any:
    """Queue a learning run; the scheduler takes it within seconds."""
    kind = one_of("kind", call.body.get("kind"), get_args(JobKind))
    if kind is None:
        raise bad_field("kind", f"must be one of {', '.join(get_args(JobKind))}")
    if kind == "nlu-train":
        raise ApiError(
            400,
            "kind: nlu-train is not part of this release: examples are collected and reviewed, "
            "no classifier is trained from them yet",
            param="kind",
            code="not_available",
        )
    known_fields(call.body, ("kind",))
    with call.db.transaction():
        job = create_job(call.db, call.tenant_id, kind=kind, due_s=call.now_s, now_s=call.now_s)
        record(
            call.db,
            call.tenant_id,
            actor=call.actor,
            action="jobs.create",
            object_id=job.id,
            detail={"kind": kind},
            now_s=call.now_s,
        )
    call.services.wake_scheduler()
    return job


def jobs(call: Call) -> dict[str, Any]:
    """Return one page of the tenant's jobs, newest first."""
    kind, status = call.choice("kind", get_args(JobKind)), call.choice("status", get_args(JobStatus))
    return page(list_jobs(call.db, call.tenant_id, kind=kind, status=status, limit=call.limit, cursor=call.cursor))


def job(call: Call) -> Any:
    """Return one job."""
    return get_job(call.db, call.tenant_id, call.path["id"])
