"""What forms of the console do; each returns the page to show then."""

from typing import Any, Final, cast
from urllib.parse import quote

from learner import authoring
from learner.api_errors import bad_field
from learner.api_request import generation_number, one_of
from learner.console.visit import Visit
from learner.resolving import BulkAction, decide_on_many, resolve_contradiction
from store import pattern_review
from store.alerts import acknowledge_alert as acknowledge
from store.audit import record
from store.contradictions import RESOLUTIONS, Resolution
from store.datasets import review_example as review
from store.errors import ConflictError
from store.plan import Conditions
from store.reverting import revert
from store.vocabulary import PATTERN_TYPES, PatternType

TICKED: Final = "entry:"  # begins the name of a ticked entry's field, before its id; the value is the revision seen


def approve_context(visit: Visit) -> str:
    """Put what the reviewer saw into service."""
    authoring.approve_context(
        visit.db,
        visit.tenant_id,
        visit.path["id"],
        actor=visit.actor,
        now_s=visit.now_s,
        revision=_revision(visit),
    )
    return _back(visit, "/contexts")


def reject_context(visit: Visit) -> str:
    """Turn down what the reviewer saw."""
    authoring.reject_context(
        visit.db,
        visit.tenant_id,
        visit.path["id"],
        reason=visit.form.get("reason", ""),
        actor=visit.actor,
        now_s=visit.now_s,
        revision=_revision(visit),
    )
    return _back(visit, "/contexts")


def decide_on_contexts(visit: Visit) -> str:
    """Approve or turn down every entry of the queue that was ticked, in the wording that was seen.

    Raises:
        ConflictError: some could not be decided; the others are.
    """
    action = one_of("action", visit.form.get("action", ""), ("approve", "reject"))
    ticked = {
        name.removeprefix(TICKED): int(value)
        for name, value in visit.form.items()
        if name.startswith(TICKED) and value.isascii() and value.isdigit()
    }
    if not ticked:
        raise bad_field("entries", "tick the entries to decide on first")
    results = decide_on_many(
        visit.db,
        visit.tenant_id,
        list(ticked),
        action=cast("BulkAction", action),
        reason=visit.form.get("reason", ""),
        actor=visit.actor,
        now_s=visit.now_s,
        revisions=ticked,
    )
    failed = [f"{result.id}: {result.error}" for result in results if not result.ok]
    if failed:
        raise ConflictError(f"{len(results) - len(failed)} of {len(results)} were decided, not so {'; '.join(failed)}")
    return "/contexts"


def edit_context(visit: Visit) -> str:
    """Rewrite an entry; ``approve`` puts the new wording into service at once."""
    context_id = visit.path["id"]
    with visit.db.transaction():
        row = visit.services.author.edit_context(
            visit.db,
            visit.tenant_id,
            context_id,
            questions=visit.form.get("questions", "").splitlines(),
            answer=visit.form.get("answer", ""),
            tags=visit.form.get("tags", "").split(","),
            actor=visit.actor,
            now_s=visit.now_s,
        )
        if visit.form.get("approve") and row.waiting_revision is not None:
            authoring.approve_context(visit.db, visit.tenant_id, context_id, actor=visit.actor, now_s=visit.now_s)
    return f"/contexts/{quote(context_id, safe='')}"


def retire_context(visit: Visit) -> str:
    """Take an entry out of service for good."""
    authoring.retire_context(
        visit.db,
        visit.tenant_id,
        visit.path["id"],
        reason=visit.form.get("reason", ""),
        actor=visit.actor,
        now_s=visit.now_s,
    )
    return f"/contexts/{quote(visit.path['id'], safe='')}"


def resolve(visit: Visit) -> str:
    """Resolve a contradiction."""
    resolution = one_of("resolution", visit.form.get("resolution", ""), RESOLUTIONS)
    resolve_contradiction(
        visit.db,
        visit.services.author,
        visit.tenant_id,
        visit.path["id"],
        resolution=cast("Resolution", resolution),
        reason=visit.form.get("reason", ""),
        actor=visit.actor,
        now_s=visit.now_s,
    )
    return "/contradictions"


def add_pattern(visit: Visit) -> str:
    """Add a pattern that a person wrote."""
    type_ = one_of("type", visit.form.get("type", ""), PATTERN_TYPES)
    state = one_of("state", visit.form.get("state", ""), ("candidate", "trial", "pinned"))
    row = visit.services.author.add_pattern(
        visit.db,
        visit.tenant_id,
        type=cast("PatternType", type_),
        rule=visit.form.get("rule", ""),
        conditions=_conditions(visit),
        state=cast("Any", state),
        actor=visit.actor,
        now_s=visit.now_s,
        is_forced=bool(visit.form.get("force")),
    )
    return f"/patterns/{quote(row.id, safe='')}"


def edit_pattern(visit: Visit) -> str:
    """Rewrite a pattern's rule and conditions."""
    visit.services.author.edit_pattern(
        visit.db,
        visit.tenant_id,
        visit.path["id"],
        rule=visit.form.get("rule", ""),
        conditions=_conditions(visit),
        actor=visit.actor,
        now_s=visit.now_s,
        is_forced=bool(visit.form.get("force")),
    )
    return f"/patterns/{quote(visit.path['id'], safe='')}"


def _conditions(visit: Visit) -> Conditions:
    """Return the conditions in a form, each field's values with commas between them."""
    given = {name: visit.form.get(name, "").split(",") for name in Conditions.__struct_fields__}
    return Conditions(**{name: tuple(filter(None, map(str.strip, values))) for name, values in given.items()})


def set_pattern_state(visit: Visit) -> str:
    """Pin a pattern, disable it, or put it back to trial."""
    state = one_of("state", visit.form.get("state", ""), ("trial", "pinned", "disabled"))
    pattern_review.set_state(
        visit.db,
        visit.tenant_id,
        visit.path["id"],
        state=cast("Any", state),
        actor=visit.actor,
        reason=visit.form.get("reason", "") or "in the console",
        now_s=visit.now_s,
    )
    return f"/patterns/{quote(visit.path['id'], safe='')}"


def approve_trial(visit: Visit) -> str:
    """Allow a candidate's trial."""
    pattern_review.approve_trial(visit.db, visit.tenant_id, visit.path["id"], actor=visit.actor, now_s=visit.now_s)
    return f"/patterns/{quote(visit.path['id'], safe='')}"


def review_example(visit: Visit) -> str:
    """Settle an example's review, with the intent as the reviewer left it."""
    example = review(
        visit.db,
        visit.tenant_id,
        visit.path["id"],
        intent=visit.form.get("intent", ""),
        needs_review=False,
        actor=visit.actor,
        now_s=visit.now_s,
    )
    page = f"/datasets/{quote(example.dataset_id, safe='')}"
    return page if visit.form.get("from") == "queue" else f"{page}?show=all"


def revert_generation(visit: Visit) -> str:
    """Serve again what a generation served, once the reader said that they mean it."""
    number = generation_number(visit.path["number"])
    if visit.form.get("confirm") != "yes":
        raise bad_field("confirm", "must be ticked: going back changes what is served at once")
    revert(
        visit.db,
        visit.tenant_id,
        number,
        actor=visit.actor,
        reason=visit.form.get("reason", "").strip() or "in the console",
        now_s=visit.now_s,
        is_forced=visit.form.get("force") == "yes",
    )
    return "/generations"


def acknowledge_alert(visit: Visit) -> str:
    """Mark an alert as seen."""
    with visit.db.transaction():
        acknowledge(visit.db, visit.tenant_id, visit.path["id"], now_s=visit.now_s)
        record(
            visit.db,
            visit.tenant_id,
            actor=visit.actor,
            action="alerts.acknowledge",
            object_id=visit.path["id"],
            detail={},
            now_s=visit.now_s,
        )
    return "/alerts" if visit.form.get("from") == "alerts" else "/"


def _revision(visit: Visit) -> int | None:
    text = visit.form.get("revision", "")
    return int(text) if text.isascii() and text.isdigit() else None


def _back(visit: Visit, queue: str) -> str:
    """Return the queue that the reviewer came from, or the entry itself."""
    return queue if visit.form.get("from") == "queue" else f"/contexts/{quote(visit.path['id'], safe='')}"
