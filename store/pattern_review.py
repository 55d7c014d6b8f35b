"""A person's word on patterns: add by hand, pin, disable, put back to trial, allow a trial, edit.

Tables ``learned_patterns`` and ``pattern_events``; written by command and console. A change to what is served is
published in the same transaction.
"""

from dataclasses import replace
from typing import Final, Literal

from store.audit import record
from store.clock import iso
from store.database import Database
from store.errors import ConflictError, InvalidError
from store.ids import new_id
from store.pattern_conditions import SCHEMA, misfit
from store.patterns import (
    PatternRow,
    get_pattern,
    insert_pattern,
    new_pattern,
    publish_patterns,
    reworded,
    save_pattern,
    without_evidence,
)
from store.plan import Conditions
from store.rows import plain
from store.vocabulary import PATTERN_TYPES, SERVED_STATES, PatternState, PatternType

MAX_RULE_CHARS: Final = 20_000  # a person's rule; what does not fit the block's budget is kept and never injected
EVEN_SHARE: Final = 0.5  # of a trial that a person starts: the most informative coin, until the next run deals shares

BESIDE_SHARE: Final = 0.15  # ... at least, when others have the dimension's coin: enough to learn whether it is better

PersonState = Literal["trial", "pinned", "disabled"]


def add_pattern(
    db: Database,
    tenant_id: str,
    *,
    type: PatternType,  # noqa: A002
    rule: str,
    conditions: Conditions,
    state: Literal["candidate", "trial", "pinned"],
    tokens: int,
    dimension: str | None = None,
    actor: str,
    now_s: float,
) -> PatternRow:
    """Return a pattern that a person wrote; without *dimension* it gets one of its own and competes with nothing.

    *tokens* are those of ``blocks.pattern_line(rule)``; a rule too large for the block is kept and never injected.

    Raises:
        InvalidError: the rule is empty or longer than 20,000 characters, type or state is not one of the known, or a
            condition means nothing for the type.
    """
    _check_rule(rule)
    if type not in PATTERN_TYPES:
        raise InvalidError("type", f"must be one of {', '.join(PATTERN_TYPES)}, not {type!r}")
    _check_conditions(type, conditions)
    if state not in ("candidate", "trial", "pinned"):
        raise InvalidError("state", f"must be candidate, trial or pinned, not {state!r}")
    pattern_id = new_id("pat", now_s)
    row = new_pattern(
        pattern_id,
        tenant_id,
        type=type,
        dimension=dimension or f"person:{pattern_id}",
        value="",
        rule=rule,
        conditions=conditions,
        tokens=tokens,
        origin="person",
        now_s=now_s,
    )
    with db.transaction():
        row = _entered(db, row, state, now_s)
        insert_pattern(db, row, actor=actor, reason="added by a person", now_s=now_s)
        record(
            db,
            tenant_id,
            actor=actor,
            action="patterns.add",
            object_id=pattern_id,
            detail={"state": state, "type": type},
            now_s=now_s,
        )
        if state in SERVED_STATES:
            publish_patterns(db, tenant_id, actor=actor, reason=f"{pattern_id} added as {state}", now_s=now_s)
    return row


def set_state(
    db: Database, tenant_id: str, pattern_id: str, *, state: PersonState, actor: str, reason: str, now_s: float
) -> PatternRow:
    """Return the pattern after a person pinned it, disabled it, or put it back to trial (its evidence starts anew).

    Raises:
        NotFoundError: the tenant has none of this id.
        ConflictError: the state is one that only evidence gives.
    """
    if state not in ("trial", "pinned", "disabled"):
        raise ConflictError(
            f"a person can set trial, pinned or disabled, not {state!r}: the rest follows from evidence"
        )
    with db.transaction():
        before = get_pattern(db, tenant_id, pattern_id)
        if before.state == state:
            return before
        after = _entered(db, before, state, now_s)
        save_pattern(db, before, after, actor=actor, reason=reason, now_s=now_s)
        _audit_change(db, before, after, actor=actor, action="patterns.set_state", reason=reason, now_s=now_s)
    return after


def approve_trial(db: Database, tenant_id: str, pattern_id: str, *, actor: str, now_s: float) -> PatternRow:
    """Return the candidate, allowed by a person: the next run starts its trial.

    Raises:
        NotFoundError: the tenant has none of this id.
        ConflictError: it is no candidate.
    """
    with db.transaction():
        before = get_pattern(db, tenant_id, pattern_id)
        if before.state != "candidate":
            raise ConflictError(f"pattern {pattern_id!r} is {before.state}, not a candidate")
        after = replace(before, is_approved=True)
        save_pattern(db, before, after, actor=actor, reason="trial approved by a person", now_s=now_s, is_event=True)
        _audit_change(
            db, before, after, actor=actor, action="patterns.approve_trial", reason="trial approved", now_s=now_s
        )
    return after


def edit_pattern(
    db: Database,
    tenant_id: str,
    pattern_id: str,
    *,
    rule: str | None = None,
    conditions: Conditions | None = None,
    tokens: int | None = None,
    actor: str,
    now_s: float,
) -> PatternRow:
    """Return the pattern with another rule or other conditions; its evidence starts anew.

    An active one goes back to trial: what was measured was another instruction. A pinned one stays pinned. Other words
    are nobody's but the person's: they share no evidence with what asks for the same, and their counts start at 0.

    Raises:
        NotFoundError: the tenant has none of this id.
        InvalidError: the new rule is empty, too long, or comes without its tokens; a condition that was changed means
            nothing for the type.
    """
    if rule is not None:
        _check_rule(rule)
        if tokens is None:
            raise InvalidError("tokens", "must come with a new rule")
    with db.transaction():
        before = get_pattern(db, tenant_id, pattern_id)
        edited = replace(before, conditions=before.conditions if conditions is None else conditions)
        if rule is not None and tokens is not None and rule != before.rule:
            edited = reworded(edited, rule=rule, tokens=tokens, value="", now_s=now_s)
        if edited == before:
            return before
        if edited.conditions != before.conditions:  # what an earlier release took stays until it is changed
            _check_conditions(before.type, edited.conditions)
        state: PatternState = "trial" if before.state in ("trial", "active", "warmdown") else before.state
        after = _entered(db, without_evidence(edited), state, now_s)
        save_pattern(
            db,
            before,
            after,
            actor=actor,
            reason="edited by a person: the evidence begins anew",
            now_s=now_s,
            detail={"rule_before": before.rule, "conditions_before": plain(before.conditions)},
            is_event=True,
        )
        _audit_change(db, before, after, actor=actor, action="patterns.edit", reason="edited", now_s=now_s)
    return after


def _check_rule(rule: str) -> None:
    if not rule.strip():
        raise InvalidError("rule", "must not be empty")
    if len(rule) > MAX_RULE_CHARS:
        raise InvalidError("rule", f"must have at most {MAX_RULE_CHARS} characters, not {len(rule)}")


def _check_conditions(type: PatternType, conditions: Conditions) -> None:  # noqa: A002
    field = misfit(type, conditions)
    if field is not None:
        *others, last = SCHEMA[type]
        raise InvalidError(
            "conditions", f"{field} means nothing for {type}, which can depend on {', '.join(others)} or {last}"
        )


def _entered(db: Database, row: PatternRow, state: PatternState, now_s: float) -> PatternRow:
    """Return *row* as it is when a person puts it into *state*."""
    if state == "pinned":
        return replace(row, state=state, share=1.0, warm_step=0, is_approved=True)
    if state != "trial":
        return replace(row, state=state, share=0.0, warm_step=0)
    taken = db.value(
        """
        SELECT sum(share) FROM learned_patterns
        WHERE tenant_id = :tenant_id AND dimension = :dimension AND id <> :id
          AND state IN ('trial', 'active', 'warmdown', 'pinned')
        """,
        {"tenant_id": row.tenant_id, "dimension": row.dimension, "id": row.id},
    )
    return replace(
        without_evidence(row),
        state=state,
        share=max(BESIDE_SHARE, EVEN_SHARE - (taken or 0.0)),
        warm_step=0,
        is_approved=True,
        trial_since=iso(now_s),
    )


def _audit_change(
    db: Database, before: PatternRow, after: PatternRow, *, actor: str, action: str, reason: str, now_s: float
) -> None:
    record(
        db,
        after.tenant_id,
        actor=actor,
        action=action,
        object_id=after.id,
        detail={"from": before.state, "to": after.state, "reason": reason},
        now_s=now_s,
    )
    if before.state in SERVED_STATES or after.state in SERVED_STATES:
        publish_patterns(db, after.tenant_id, actor=actor, reason=f"{after.id}: {reason}", now_s=now_s)
