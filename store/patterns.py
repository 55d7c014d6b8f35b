"""Tables ``learned_patterns`` and ``pattern_events``: patterns with their history, and the plan that they stand for.

Written by the learner and, for a person (``pattern_review``), by command and console. Every change of state leaves an
event with its reason and actor; a run publishes once, at its end.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast, get_args

from msgspec.structs import replace as replace_fields

from store.clock import iso
from store.database import Database, Row
from store.errors import InvalidError, NotFoundError
from store.generations import current_plan, publish
from store.learner_states import plan_strata
from store.paging import decode_cursor, encode_cursor, split_page
from store.plan import (
    CellShare,
    Conditions,
    Plan,
    ServedPattern,
    build_plan,
    decode_cells,
    decode_conditions,
    encode_cells,
    encode_conditions,
)
from store.vocabulary import SERVED_STATES, Grade, PatternState, PatternType

UNMEASURED_LIFT: Final = 0.05  # stands for a pattern without evidence in the order of dimensions: trials need room

Origin = Literal["learned", "person"]
PatternSort = Literal["created", "lift", "confidence", "signals", "changed"]

PATTERN_SORTS: Final = get_args(PatternSort)
_SORT_KEYS: Final[Mapping[PatternSort, str]] = {
    "created": "id",
    "lift": "coalesce(lift, -9.0)",  # below every lift
    "confidence": "confidence",
    "signals": "CAST(signal_count AS REAL)",
    "changed": "updated_at",
}
_SORTED_BY_TEXT: Final = ("created", "changed")


@dataclass(frozen=True, slots=True)
class PatternRow:
    """One learned pattern with all its columns; times are UTC text."""

    id: str
    tenant_id: str
    type: PatternType
    dimension: str
    value: str
    rule: str
    conditions: Conditions
    state: PatternState
    grade: Grade
    origin: Origin
    is_approved: bool
    confidence: float
    score: float
    use_count: int
    signal_count: int
    user_count: int
    tokens: int
    lift: float | None
    lift_low: float | None
    lift_high: float | None
    e_value: float | None
    share: float
    warm_step: int
    trial_since: str | None
    last_used_at: str | None
    removed_at: str | None
    created_at: str
    updated_at: str
    reworded_at: str | None = None  # since when a person's words stand in it; uses before were of other words
    reworded_from: str | None = None  # the value that it asked for before: the person's words stand for it
    cells: tuple[CellShare, ...] = ()
    guardrails: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PatternEvent:
    """One change in a pattern's life; ``from_state`` is None when it was made."""

    seq: int
    pattern_id: str
    run_id: str | None
    actor: str
    from_state: PatternState | None
    to_state: PatternState
    reason: str
    detail: dict[str, Any]
    is_harm: bool  # it was taken out because it did harm
    created_at: str


@dataclass(frozen=True, slots=True)
class Removal:
    """Why and when a pattern was taken out."""

    reason: str
    is_harm: bool
    at: str


def list_patterns(
    db: Database,
    tenant_id: str,
    *,
    state: PatternState | None = None,
    type: PatternType | None = None,  # noqa: A002
    grade: Grade | None = None,
    question_type: str | None = None,
    text: str | None = None,
    sort: PatternSort = "created",
    limit: int = 100,
    cursor: str | None = None,
) -> tuple[list[PatternRow], str | None]:
    """Return patterns and where the next page begins.

    Args:
        db: the database.
        tenant_id: whose.
        state: only those in this state.
        type: only those of this type.
        grade: only those of this grade.
        question_type: only those whose conditions name it.
        text: only those whose rule holds it, or of this id; case does not matter.
        sort: ``created``: as they were made, oldest first; else by lift, confidence, signals or time of the last
            change, the largest first; what has no lift yet comes last.
        limit: at least 1.
        cursor: of the page before, in the same order.
    """
    key = _SORT_KEYS[sort]
    order, after = ("id", "id > :last_id") if sort == "created" else (f"{key} DESC, id DESC", _after(key))
    last_key, last_id = (None, None) if cursor is None else _place(sort, cursor)
    rows = db.rows(
        f"""
        SELECT *, {key} AS sort_key FROM learned_patterns
        WHERE tenant_id = :tenant_id AND (:state IS NULL OR state = :state) AND (:type IS NULL OR type = :type)
          AND (:grade IS NULL OR grade = :grade)
          AND (:question_type IS NULL OR EXISTS (
            SELECT 1 FROM json_each(conditions_json, '$.question_type') AS q WHERE q.value = :question_type))
          AND (:text IS NULL OR instr(lower(rule), lower(:text)) OR id = :text)
          AND (:last_id IS NULL OR {after})
        ORDER BY {order} LIMIT :limit
        """,
        {
            "tenant_id": tenant_id,
            "state": state,
            "type": type,
            "grade": grade,
            "question_type": question_type,
            "text": text,
            "last_key": last_key,
            "last_id": last_id,
            "limit": limit + 1,
        },
    )
    page, has_more = split_page(rows, limit)
    patterns = [_pattern(row) for row in page]
    if not has_more:
        return patterns, None
    return patterns, encode_cursor(sort, str(page[-1]["sort_key"]), patterns[-1].id)


def _after(key: str) -> str:
    return f"({key}, id) < (:last_key, :last_id)"


def _place(sort: PatternSort, cursor: str) -> tuple[str | float, str]:
    """Return the key and id of the last row of the page before."""
    cursor_sort, key, row_id = map(str, decode_cursor(cursor, 3))
    try:
        last_key = key if sort in _SORTED_BY_TEXT else float(key)
    except ValueError as exc:
        raise InvalidError("cursor", f"{cursor!r} is not a cursor of this list") from exc
    if cursor_sort != sort:
        raise InvalidError("cursor", f"{cursor!r} is of a list in another order")
    return last_key, row_id


def all_patterns(db: Database, tenant_id: str) -> list[PatternRow]:
    """Return every pattern of the tenant: what a run works on; bounded by ``[patterns] max_candidates`` and pruning."""
    rows = db.rows("SELECT * FROM learned_patterns WHERE tenant_id = :tenant_id ORDER BY id", {"tenant_id": tenant_id})
    return [_pattern(row) for row in rows]


def patterns_in_play(db: Database, tenant_id: str, ids: Iterable[str]) -> list[PatternRow]:
    """Return the patterns that are served, and those of *ids* in whatever state."""
    rows = db.rows(
        """
        SELECT * FROM learned_patterns
        WHERE tenant_id = :tenant_id AND state IN (SELECT value FROM json_each(:states))
        UNION
        SELECT * FROM learned_patterns
        WHERE tenant_id = :tenant_id AND id IN (SELECT value FROM json_each(:ids))
        ORDER BY id
        """,
        {"tenant_id": tenant_id, "states": json.dumps(SERVED_STATES), "ids": json.dumps(list(ids))},
    )
    return [_pattern(row) for row in rows]


def get_pattern(db: Database, tenant_id: str, pattern_id: str) -> PatternRow:
    """Return one pattern.

    Raises:
        NotFoundError: the tenant has none of this id.
    """
    row = db.row(
        "SELECT * FROM learned_patterns WHERE tenant_id = :tenant_id AND id = :id",
        {"tenant_id": tenant_id, "id": pattern_id},
    )
    if row is None:
        raise NotFoundError(f"no pattern {pattern_id!r}")
    return _pattern(row)


def pattern_history(db: Database, tenant_id: str, pattern_id: str) -> list[PatternEvent]:
    """Return the events of one pattern, oldest first.

    Raises:
        NotFoundError: the tenant has none of this id.
    """
    get_pattern(db, tenant_id, pattern_id)
    rows = db.rows(
        "SELECT * FROM pattern_events WHERE tenant_id = :tenant_id AND pattern_id = :pattern_id ORDER BY seq",
        {"tenant_id": tenant_id, "pattern_id": pattern_id},
    )
    return [
        PatternEvent(
            seq=row["seq"],
            pattern_id=row["pattern_id"],
            run_id=row["run_id"],
            actor=row["actor"],
            from_state=row["from_state"],
            to_state=row["to_state"],
            reason=row["reason"],
            detail=json.loads(row["detail_json"]),
            is_harm=bool(row["is_harm"]),
            created_at=row["created_at"],
        )
        for row in rows
    ]


def last_activations(db: Database, tenant_id: str) -> dict[str, str]:
    """Return ``{pattern id: UTC text}`` of the newest activation of each pattern that ever was active."""
    rows = db.rows(
        """
        SELECT pattern_id, max(created_at) AS activated_at FROM pattern_events
        WHERE tenant_id = :tenant_id AND to_state = 'active' AND from_state = 'trial'
        GROUP BY pattern_id
        """,
        {"tenant_id": tenant_id},
    )
    return {row["pattern_id"]: row["activated_at"] for row in rows}


def removals(db: Database, tenant_id: str, ids: Iterable[str]) -> dict[str, Removal]:
    """Return why each pattern of *ids* was taken out last; those that never were are missing."""
    rows = db.rows(
        """
        SELECT pattern_id, reason, is_harm, created_at FROM pattern_events
        WHERE seq IN (
          SELECT max(seq) FROM pattern_events
          WHERE tenant_id = :tenant_id AND to_state = 'retired' AND from_state <> 'retired'
            AND pattern_id IN (SELECT value FROM json_each(:ids))
          GROUP BY pattern_id)
        """,
        {"tenant_id": tenant_id, "ids": json.dumps(list(ids))},
    )
    return {row["pattern_id"]: Removal(row["reason"], bool(row["is_harm"]), row["created_at"]) for row in rows}


def harmed_since_activation(db: Database, tenant_id: str) -> set[str]:
    """Return the patterns that were taken out for harm, however long ago, and that no evidence has activated since."""
    rows = db.rows(
        """
        SELECT pattern_id FROM pattern_events WHERE tenant_id = :tenant_id
        GROUP BY pattern_id
        HAVING max(iif(is_harm, seq, 0)) > max(iif(to_state = 'active' AND from_state = 'trial', seq, 0))
        """,
        {"tenant_id": tenant_id},
    )
    return {row["pattern_id"] for row in rows}


def publish_patterns(
    db: Database, tenant_id: str, *, actor: str, reason: str, now_s: float, run_id: str | None = None
) -> int:
    """Publish the rows in a served state as the next generation and return its number."""
    plan = plan_of_rows(db, tenant_id)
    return publish(db, tenant_id, plan=plan, actor=actor, reason=reason, now_s=now_s, run_id=run_id)


def publish_patterns_if_changed(
    db: Database, tenant_id: str, *, actor: str, reason: str, now_s: float, run_id: str | None = None
) -> int | None:
    """Publish the rows in a served state, or return None when the newest generation serves exactly them.

    A lift that was measured anew is no change while dimensions keep their order: a generation begins prefixes anew.
    """
    if _without_lifts(plan_of_rows(db, tenant_id)) == _without_lifts(current_plan(db, tenant_id)):
        return None
    return publish_patterns(db, tenant_id, actor=actor, reason=reason, now_s=now_s, run_id=run_id)


def _without_lifts(plan: Plan) -> Plan:
    return replace_fields(
        plan, patterns=tuple(replace_fields(pattern, lift=0.0, value="") for pattern in plan.patterns)
    )


def plan_of_rows(db: Database, tenant_id: str) -> Plan:
    """Return the plan that the tenant's rows stand for."""
    group_field, priorities = plan_strata(db, tenant_id)
    return plan_of(all_patterns(db, tenant_id), group_field=group_field, priorities=priorities)


def plan_of(
    rows: Iterable[PatternRow], *, group_field: str = "", priorities: Mapping[str, float] | None = None
) -> Plan:
    """Return the plan that *rows* stand for, with the strata of the learner's model."""
    served = [
        ServedPattern(
            id=row.id,
            type=row.type,
            dimension=row.dimension,
            value=row.value,
            rule=row.rule,
            conditions=row.conditions,
            state=row.state,
            tokens=row.tokens,
            share=row.share,
            lift=_expected_lift(row),
            cells=row.cells,
        )
        for row in rows
        if row.state in SERVED_STATES and (row.share > 0 or row.cells)
    ]
    return build_plan(served, group_field=group_field, priorities=priorities)


def new_pattern(
    pattern_id: str,
    tenant_id: str,
    *,
    type: PatternType,  # noqa: A002
    dimension: str,
    value: str,
    rule: str,
    conditions: Conditions,
    tokens: int,
    origin: Origin,
    now_s: float,
) -> PatternRow:
    """Return a candidate without evidence, not yet written."""
    return PatternRow(
        id=pattern_id,
        tenant_id=tenant_id,
        type=type,
        dimension=dimension,
        value=value,
        rule=rule,
        conditions=conditions,
        state="candidate",
        grade="none",
        origin=origin,
        is_approved=origin == "person",
        confidence=0.5,
        score=0.0,
        use_count=0,
        signal_count=0,
        user_count=0,
        tokens=tokens,
        lift=None,
        lift_low=None,
        lift_high=None,
        e_value=None,
        share=0.0,
        warm_step=0,
        trial_since=None,
        last_used_at=None,
        removed_at=None,
        created_at=iso(now_s),
        updated_at=iso(now_s),
    )


def without_evidence(row: PatternRow) -> PatternRow:
    """Return the pattern as if nothing had been measured yet."""
    return replace(row, grade="none", confidence=0.5, lift=None, lift_low=None, lift_high=None, e_value=None)


def reworded(row: PatternRow, *, rule: str, tokens: int, value: str, now_s: float) -> PatternRow:
    """Return the pattern with other words: nothing that was measured or counted so far was of them."""
    return replace(
        without_evidence(row),
        rule=rule,
        tokens=tokens,
        value=value,
        score=0.0,
        use_count=0,
        signal_count=0,
        user_count=0,
        last_used_at=None,
        guardrails={},
        reworded_at=iso(now_s),
        reworded_from=None if value else row.value or row.reworded_from,
    )


def retired(row: PatternRow, now_s: float) -> PatternRow:
    """Return the pattern taken out; its cooldown begins."""
    return replace(row, state="retired", grade="none", share=0.0, cells=(), warm_step=0, removed_at=iso(now_s))


def insert_pattern(
    db: Database,
    row: PatternRow,
    *,
    actor: str,
    reason: str,
    now_s: float,
    run_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write a new pattern and its first event."""
    with db.transaction():
        db.execute(
            """
            INSERT INTO learned_patterns (id, tenant_id, type, dimension, value, rule, conditions_json, state, grade,
              origin, is_approved, confidence, score, use_count, signal_count, user_count, tokens, lift, lift_low,
              lift_high, e_value, share, warm_step, trial_since, last_used_at, removed_at, created_at, updated_at,
              cells_json, guardrails_json, reworded_at,
              reworded_from)
            VALUES (:id, :tenant_id, :type, :dimension, :value, :rule, :conditions_json, :state, :grade,
              :origin, :is_approved, :confidence, :score, :use_count, :signal_count, :user_count, :tokens, :lift,
              :lift_low, :lift_high, :e_value, :share, :warm_step, :trial_since, :last_used_at, :removed_at,
              :created_at, :updated_at, :cells_json, :guardrails_json, :reworded_at,
              :reworded_from)
            """,
            _columns(row),
        )
        _record_event(db, None, row, actor=actor, reason=reason, now_s=now_s, run_id=run_id, detail=detail)


def save_pattern(
    db: Database,
    before: PatternRow,
    after: PatternRow,
    *,
    actor: str,
    reason: str,
    now_s: float,
    run_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
    is_event: bool = False,
    is_harm: bool = False,
) -> None:
    """Write what changed from *before* to *after*; a change of state, or *is_event*, leaves an event.

    *is_harm*: it is taken out because it did harm; it must not come back by itself.
    """
    if after == before and not is_event:
        return
    with db.transaction():
        db.execute(
            """
            UPDATE learned_patterns SET value = :value, rule = :rule, conditions_json = :conditions_json,
              state = :state,
              grade = :grade, is_approved = :is_approved, confidence = :confidence, score = :score,
              use_count = :use_count, signal_count = :signal_count, user_count = :user_count, tokens = :tokens,
              lift = :lift, lift_low = :lift_low, lift_high = :lift_high, e_value = :e_value, share = :share,
              warm_step = :warm_step, trial_since = :trial_since, last_used_at = :last_used_at,
              removed_at = :removed_at, updated_at = :updated_at, cells_json = :cells_json,
              guardrails_json = :guardrails_json, reworded_at = :reworded_at,
              reworded_from = :reworded_from
            WHERE tenant_id = :tenant_id AND id = :id
            """,
            {**_columns(after), "updated_at": iso(now_s)},
        )
        if is_event or after.state != before.state:
            _record_event(
                db,
                before.state,
                after,
                actor=actor,
                reason=reason,
                now_s=now_s,
                run_id=run_id,
                detail=detail,
                is_harm=is_harm,
            )


def _record_event(
    db: Database,
    from_state: PatternState | None,
    row: PatternRow,
    *,
    actor: str,
    reason: str,
    now_s: float,
    run_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
    is_harm: bool = False,
) -> None:
    db.execute(
        """
        INSERT INTO pattern_events (tenant_id, pattern_id, run_id, actor, from_state, to_state, reason, detail_json,
          is_harm, created_at)
        VALUES (:tenant_id, :pattern_id, :run_id, :actor, :from_state, :to_state, :reason, :detail_json, :is_harm,
          :created_at)
        """,
        {
            "tenant_id": row.tenant_id,
            "pattern_id": row.id,
            "run_id": run_id,
            "actor": actor,
            "from_state": from_state,
            "to_state": row.state,
            "reason": reason,
            "detail_json": json.dumps(detail or {}),
            "is_harm": int(is_harm),
            "created_at": iso(now_s),
        },
    )


def _expected_lift(row: PatternRow) -> float:
    return UNMEASURED_LIFT if row.lift is None else max(row.lift, 0.0) * row.confidence


def _columns(row: PatternRow) -> dict[str, Any]:
    columns = {name: getattr(row, name) for name in PatternRow.__slots__}
    columns["conditions_json"] = encode_conditions(columns.pop("conditions"))
    columns["cells_json"] = encode_cells(columns.pop("cells"))
    columns["guardrails_json"] = json.dumps(dict(columns.pop("guardrails")))
    columns["is_approved"] = int(row.is_approved)
    columns["e_value"] = None if row.e_value is None else min(row.e_value, math.exp(700))  # a REAL has no larger one
    return columns


def _pattern(row: Row) -> PatternRow:
    columns = dict(cast("Mapping[str, Any]", row))
    columns.pop("sort_key", None)
    columns["conditions"] = decode_conditions(columns.pop("conditions_json"))
    columns["cells"] = decode_cells(columns.pop("cells_json"))
    columns["guardrails"] = json.loads(columns.pop("guardrails_json"))
    columns["is_approved"] = bool(columns["is_approved"])
    return PatternRow(**columns)
