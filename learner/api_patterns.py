"""Patterns: list, look at, add by hand, pin, disable, edit."""

from collections.abc import Mapping
from typing import Any, Final, cast, get_args

import msgspec

from learner.api_errors import bad_field
from learner.api_request import Call, flag, known_fields, one_of, page, required_text, text
from learner.pattern_words import explained
from store.learner_states import plan_strata
from store.pattern_conditions import MEANINGS, SCHEMA
from store.pattern_evidence import ARMS, Arm, pattern_conversations
from store.pattern_review import approve_trial, set_state
from store.patterns import PATTERN_SORTS, PatternSort, get_pattern, list_patterns, pattern_history
from store.plan import Conditions, decode_conditions
from store.rows import plain
from store.vocabulary import GRADES, PATTERN_TYPES, Grade, PatternState, PatternType

EVIDENCE_PAGE: Final = 20
MAX_EVIDENCE: Final = 200  # conversations of a page, about 2 ms each at worst


def patterns(call: Call) -> dict[str, Any]:
    """Return one page of the tenant's patterns: by state, type, grade, question type and text, as ``sort`` orders."""
    return page(
        list_patterns(
            call.db,
            call.tenant_id,
            state=cast("PatternState | None", call.choice("state", get_args(PatternState))),
            type=cast("PatternType | None", call.choice("type", PATTERN_TYPES)),
            grade=cast("Grade | None", call.choice("grade", GRADES)),
            question_type=call.query.get("question_type") or None,
            text=call.query.get("text") or None,
            sort=cast("PatternSort | None", call.choice("sort", PATTERN_SORTS)) or "created",
            limit=call.limit,
            cursor=call.cursor,
        )
    )


def pattern(call: Call) -> dict[str, Any]:
    """Return one pattern with its evidence in words and its history."""
    row = get_pattern(call.db, call.tenant_id, call.path["id"])
    group_field, _ = plan_strata(call.db, call.tenant_id)
    return {
        **plain(row),
        "group_field": group_field,
        "condition_fields": SCHEMA[row.type],
        "explained": explained(row, group_field),
        "history": pattern_history(call.db, call.tenant_id, row.id),
    }


def conversations(call: Call) -> dict[str, Any]:
    """Return one page of the conversations behind a pattern, those of one arm."""
    row = get_pattern(call.db, call.tenant_id, call.path["id"])
    arm = cast("Arm | None", call.choice("arm", ARMS)) or "treated"
    limit = call.count("limit", EVIDENCE_PAGE, at_most=MAX_EVIDENCE)
    return page(pattern_conversations(call.db, row, arm, limit=limit, cursor=call.cursor))


def add_pattern(call: Call) -> Any:
    """Add a pattern that a person wrote; a candidate unless ``state`` says trial or pinned."""
    known_fields(call.body, ("type", "rule", "conditions", "state", "force"))
    type_ = one_of("type", required_text(call.body, "type"), PATTERN_TYPES)
    state = one_of("state", text(call.body, "state"), ("candidate", "trial", "pinned")) or "candidate"
    return call.services.author.add_pattern(
        call.db,
        call.tenant_id,
        type=cast("PatternType", type_),
        rule=required_text(call.body, "rule"),
        conditions=_conditions(call.body) or Conditions(),
        state=cast("Any", state),
        actor=call.actor,
        now_s=call.now_s,
        is_forced=bool(flag(call.body, "force")),
    )


def patch_pattern(call: Call) -> Any:
    """Pin, disable or put back to trial (``state``), allow a trial (``is_approved``), or edit rule and conditions."""
    known_fields(call.body, ("state", "reason", "rule", "conditions", "is_approved", "force"))
    state = one_of("state", text(call.body, "state"), get_args(PatternState))
    rule, conditions, is_approved = text(call.body, "rule"), _conditions(call.body), flag(call.body, "is_approved")
    if is_approved is False:
        raise bad_field("is_approved", "can only be set to true; state disabled takes a pattern out")
    if state is None and rule is None and conditions is None and not is_approved:
        raise bad_field("state", "state, rule, conditions or is_approved must be given")
    pattern_id = call.path["id"]
    with call.db.transaction():
        get_pattern(call.db, call.tenant_id, pattern_id)
        if rule is not None or conditions is not None:
            call.services.author.edit_pattern(
                call.db,
                call.tenant_id,
                pattern_id,
                rule=rule,
                conditions=conditions,
                actor=call.actor,
                now_s=call.now_s,
                is_forced=bool(flag(call.body, "force")),
            )
        if is_approved:
            approve_trial(call.db, call.tenant_id, pattern_id, actor=call.actor, now_s=call.now_s)
        if state is not None:
            set_state(
                call.db,
                call.tenant_id,
                pattern_id,
                state=cast("Any", state),
                actor=call.actor,
                reason=text(call.body, "reason") or f"set to {state} by a person",
                now_s=call.now_s,
            )
    return get_pattern(call.db, call.tenant_id, pattern_id)


def _conditions(body: Mapping[str, Any]) -> Conditions | None:
    value = body.get("conditions")
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise bad_field("conditions", "must be an object")
    unknown = [name for name in value if name not in MEANINGS]
    if unknown:
        raise bad_field("conditions", f"{unknown[0]} is no field of conditions, which are {', '.join(MEANINGS)}")
    try:
        return decode_conditions(msgspec.json.encode(value).decode())
    except ValueError as exc:
        raise bad_field("conditions", str(exc)) from exc
