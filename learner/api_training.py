"""Training data and jobs: the bulk ingest of channels, datasets, examples and their review, learning jobs."""

from collections.abc import Mapping
from typing import Any, Final, get_args

from learner.api_errors import ApiError, bad_field
from learner.api_request import Call, flag, known_fields, one_of, page, required_text, text
from learner.dataset_formats import Format
from learner.dataset_import import import_dataset, read_content
from learner.ingest import store_in_steps
from learner.review_order import review_queue
from store.audit import record
from store.clock import iso, parse_iso
from store.datasets import (
    FacetKind,
    ensure_dataset,
    get_dataset,
    get_example,
    list_datasets,
    list_examples,
    list_facets,
    review_example,
)
from store.jobs import cancel_job, create_job, get_job, list_jobs
from store.nlu_models import get_model, list_models, withdraw_model
from store.review_queue import audit_result
from store.rows import plain
from store.vocabulary import JobKind, JobStatus

REVIEW_LIMIT: Final = 20
MAX_REVIEW_LIMIT: Final = 100


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
    training = call.services.config.training
    ensure_dataset(call.db, call.tenant_id, training.dataset_id, call.now_s)
    done = store_in_steps(call.db, call.tenant_id, items, training, now_s=call.now_s)
    record(
        call.db,
        call.tenant_id,
        actor=call.actor,
        action="training.ingest",
        object_id=training.dataset_id,
        detail={"count": done.n_accepted, "flagged": done.n_flagged, "bad": len(done.problems)},
        now_s=call.now_s,
    )
    if done.problems and not done.n_accepted:
        first = done.problems[0]
        where = f"conversations[{first.index}]" + (f".{first.field}" if first.field else "")
        raise ApiError(400, f"conversations[{first.index}]: {first.message}", param=where, code="invalid_value")
    answer = {
        "success": True,
        "count": done.n_accepted,
        "flaggedForReview": done.n_flagged,
        "datasetId": training.dataset_id,
    }
    return {**answer, "errors": done.problems} if done.problems else answer


def datasets(call: Call) -> dict[str, Any]:
    """Return one page of the tenant's datasets."""
    return page(list_datasets(call.db, call.tenant_id, limit=call.limit, cursor=call.cursor))


def dataset(call: Call) -> Any:
    """Return one dataset with its size."""
    return get_dataset(call.db, call.tenant_id, call.path["id"])


def examples_of(call: Call) -> dict[str, Any]:
    """Return one page of a dataset's examples: all, or those with a tag, of an intent, or with words (``q``)."""
    return page(
        list_examples(
            call.db,
            call.tenant_id,
            call.path["id"],
            tag=call.query.get("tag") or None,
            intent=call.query.get("intent") or None,
            search=call.query.get("q") or None,
            limit=call.limit,
            cursor=call.cursor,
        )
    )


def facets_of(call: Call) -> dict[str, Any]:
    """Return one page of a dataset's intents or tags, each with how many examples have it."""
    kinds: tuple[FacetKind, ...] = get_args(FacetKind)
    kind: FacetKind = call.choice("kind", kinds) or "intent"
    return page(list_facets(call.db, call.tenant_id, call.path["id"], kind=kind, limit=call.limit, cursor=call.cursor))


def review_of(call: Call) -> dict[str, Any]:
    """Return what a person should look at next, with the reason; what was reviewed leaves it, so it has no pages."""
    queue = review_queue(
        call.db,
        call.tenant_id,
        call.path["id"],
        call.services.author.embedder,
        review_below=call.services.config.training.review_below_confidence,
        limit=call.count("limit", REVIEW_LIMIT, at_most=MAX_REVIEW_LIMIT),
    )
    audit = audit_result(call.db, call.tenant_id, call.path["id"])
    return {
        "data": [{**plain(one.example), "reason": one.reason, "why": one.why} for one in queue],
        "audit": audit,
    }


def import_into(call: Call) -> Any:
    """Put a file into a dataset, which is made when missing: ``{"format", "content"}``, the content as text."""
    known_fields(call.body, ("format", "content"))
    formats: tuple[Format, ...] = get_args(Format)
    kind: Format = one_of("format", call.body.get("format"), formats) or "jsonl"
    return import_dataset(
        call.db,
        call.tenant_id,
        call.path["id"],
        read_content(kind, required_text(call.body, "content")),
        call.services.config.training,
        actor=call.actor,
        now_s=call.now_s,
        max_items=call.services.config.learner.max_items,
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
    """Queue a learning run; the scheduler takes it within seconds.

    With a ``range`` a knowledge run looks at the conversations whose newest message or signal is in it, old or new;
    ``nlu-train`` may name a ``datasetId``.
    """
    kind = one_of("kind", call.body.get("kind"), get_args(JobKind))
    if kind is None:
        raise bad_field("kind", f"must be one of {', '.join(get_args(JobKind))}")
    known_fields(call.body, ("kind", "range", "datasetId") if kind == "nlu-train" else ("kind", "range"))
    dataset_id = text(call.body, "datasetId")
    if kind == "nlu-train":
        dataset_id = dataset_id or call.services.config.training.dataset_id
        get_dataset(call.db, call.tenant_id, dataset_id)
    start_at, end_at = _range(call.body)
    if kind != "knowledge" and (start_at or end_at):
        raise bad_field("range", f"a run of kind {kind} looks at what is new; only knowledge takes a range")
    with call.db.transaction():
        job = create_job(
            call.db,
            call.tenant_id,
            kind=kind,
            due_s=call.now_s,
            now_s=call.now_s,
            range_start_at=start_at,
            range_end_at=end_at,
            dataset_id=dataset_id,
        )
        record(
            call.db,
            call.tenant_id,
            actor=call.actor,
            action="jobs.create",
            object_id=job.id,
            detail={"kind": kind, "from": start_at, "to": end_at} | ({"dataset_id": dataset_id} if dataset_id else {}),
            now_s=call.now_s,
        )
    call.services.wake_scheduler()
    return job


def _range(body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return where the range of a job begins and ends, each None when it is open.

    Raises:
        ApiError: it is no range of time.
    """
    value = body.get("range")
    if value is None:
        return None, None
    if not isinstance(value, dict) or not value or not value.keys() <= {"from", "to"}:
        raise bad_field("range", 'must be {"from": moment, "to": moment}, or one of the two')
    start_at, end_at = (_moment(value, name) for name in ("from", "to"))
    if start_at is not None and end_at is not None and start_at >= end_at:
        raise bad_field("range.to", "must be after range.from")
    return start_at, end_at


def _moment(value: Mapping[str, Any], name: str) -> str | None:
    if name not in value:
        return None
    try:
        return iso(parse_iso(value[name]))
    except (TypeError, ValueError, OverflowError) as exc:
        raise bad_field(f"range.{name}", "must be an ISO 8601 moment, such as 2026-11-01T00:00:00Z") from exc


def jobs(call: Call) -> dict[str, Any]:
    """Return one page of the tenant's jobs, newest first."""
    kind, status = call.choice("kind", get_args(JobKind)), call.choice("status", get_args(JobStatus))
    return page(list_jobs(call.db, call.tenant_id, kind=kind, status=status, limit=call.limit, cursor=call.cursor))


def job(call: Call) -> Any:
    """Return one job."""
    return get_job(call.db, call.tenant_id, call.path["id"])


def cancel(call: Call) -> Any:
    """Cancel a job that nobody has begun."""
    return cancel_job(call.db, call.tenant_id, call.path["id"], actor=call.actor, now_s=call.now_s)


def models(call: Call) -> dict[str, Any]:
    """Return one page of the tenant's trained classifiers, newest first."""
    return page(list_models(call.db, call.tenant_id, limit=call.limit, cursor=call.cursor))


def model(call: Call) -> Any:
    """Return one trained classifier with its report."""
    version = call.path["version"]
    if not version.isascii() or not version.isdigit():
        raise bad_field("version", f"must be a number, not {version!r}")
    return get_model(call.db, call.tenant_id, int(version[:9]))


def roll_back(call: Call) -> dict[str, Any]:
    """Withdraw the classifier that serves: the version before it serves within a second, or the built-in types."""
    known_fields(call.body, ())
    withdrawn, serving = withdraw_model(call.db, call.tenant_id, actor=call.actor, now_s=call.now_s)
    return {"withdrawn": withdrawn, "serving": serving or None}
