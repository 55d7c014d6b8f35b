"""What a person makes of a contradiction, and decisions on many entries at once; for API, console and command."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from learner import authoring
from learner.authoring import Author
from store.audit import record
from store.context_proposals import add_sources
from store.contexts import ContextRow, Source, find_waiting_of_run, get_context, wording_to_review
from store.contradictions import ContradictionRow, Resolution, close_contradiction, get_contradiction
from store.database import Database
from store.errors import ConflictError, InvalidError, NotFoundError

BulkAction = Literal["approve", "reject", "retire"]
BULK_ACTIONS: tuple[BulkAction, ...] = ("approve", "reject", "retire")
NO_REVISIONS: Final[Mapping[str, int]] = MappingProxyType({})
MAX_BULK = 1_000  # entries of one call


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What became of one entry: its status, or why nothing was changed."""

    id: str
    ok: bool
    status: str | None
    error: str | None


def resolve_contradiction(
    db: Database,
    author: Author,
    tenant_id: str,
    contradiction_id: str,
    *,
    resolution: Resolution,
    reason: str,
    actor: str,
    now_s: float,
) -> ContradictionRow:
    """Return the contradiction as a person resolved it, with what follows for the entry, in one transaction.

    keep: the entry is right; replace: it says what the conversation says, served within a second if the entry was in
    use; retire_both: neither is right; no_contradiction: both are.

    Raises:
        NotFoundError: the tenant has no such contradiction.
        ConflictError: it is resolved already, or the entry is rejected or retired and cannot be replaced or retired.
    """
    with db.transaction():
        row = close_contradiction(
            db, tenant_id, contradiction_id, resolution=resolution, note=reason, actor=actor, now_s=now_s
        )
        if resolution == "replace":
            context = author.edit_context(
                db,
                tenant_id,
                row.context_id,
                questions=row.questions,
                answer=row.answer,
                tags=row.tags,
                actor=actor,
                now_s=now_s,
            )
            if context.status == "pending_approval":
                context = authoring.approve_context(db, tenant_id, context.id, actor=actor, now_s=now_s)
            source = Source(row.conversation_id, row.user_id)
            add_sources(db, tenant_id, context.id, [source], revision=context.revision, now_s=now_s)
        elif resolution in ("keep", "no_contradiction"):
            _turn_down_its_revision(db, tenant_id, row, actor=actor, now_s=now_s)
        elif resolution == "retire_both":
            why = reason or f"contradicted by {row.conversation_id}"
            authoring.retire_context(db, tenant_id, row.context_id, reason=why, actor=actor, now_s=now_s)
        record(
            db,
            tenant_id,
            actor=actor,
            action="contradictions.resolve",
            object_id=contradiction_id,
            detail={"context_id": row.context_id, "resolution": resolution, "reason": reason},
            now_s=now_s,
        )
    return get_contradiction(db, tenant_id, contradiction_id)


def _turn_down_its_revision(db: Database, tenant_id: str, row: ContradictionRow, *, actor: str, now_s: float) -> None:
    context = get_context(db, tenant_id, row.context_id)
    if context.pending_revision is None or wording_to_review(db, context).answer != row.answer:
        return
    authoring.reject_context(
        db, tenant_id, context.id, reason=f"the entry was kept against {row.conversation_id}", actor=actor, now_s=now_s
    )


def decide_on_many(
    db: Database,
    tenant_id: str,
    context_ids: Sequence[str],
    *,
    action: BulkAction,
    reason: str,
    actor: str,
    now_s: float,
    revisions: Mapping[str, int] = NO_REVISIONS,
) -> list[BulkResult]:
    """Return what became of each entry; each is a decision of its own, so one that fails leaves the others as decided.

    *revisions*: the wording of an entry that was looked at; another one that waits by now is not decided on.

    Raises:
        InvalidError: more than 1,000 entries.
    """
    if len(context_ids) > MAX_BULK:
        raise InvalidError("ids", f"must hold at most {MAX_BULK} ids, not {len(context_ids)}")
    results = []
    for context_id in dict.fromkeys(context_ids):
        try:
            row = _decide(db, tenant_id, context_id, action, reason, actor, now_s, revisions.get(context_id))
        except (NotFoundError, ConflictError) as exc:
            results.append(BulkResult(context_id, ok=False, status=None, error=str(exc)))
        else:
            results.append(BulkResult(context_id, ok=True, status=row.status, error=None))
    return results


def _decide(  # noqa: PLR0917  # what a decision is made of
    db: Database,
    tenant_id: str,
    context_id: str,
    action: BulkAction,
    reason: str,
    actor: str,
    now_s: float,
    revision: int | None,
) -> ContextRow:
    match action:
        case "approve":
            return authoring.approve_context(db, tenant_id, context_id, actor=actor, now_s=now_s, revision=revision)
        case "reject":
            return authoring.reject_context(
                db, tenant_id, context_id, reason=reason, actor=actor, now_s=now_s, revision=revision
            )
        case "retire":
            return authoring.retire_context(db, tenant_id, context_id, reason=reason, actor=actor, now_s=now_s)


def waiting_of_run(db: Database, tenant_id: str, run_id: str) -> list[str]:
    """Return the ids of entries with a text that *run_id* proposed and that still waits, in order.

    Raises:
        NotFoundError: there is none.
    """
    found = find_waiting_of_run(db, tenant_id, run_id)
    if not found:
        raise NotFoundError(f"nothing that run {run_id!r} proposed waits")
    return found
