"""What the pages of patterns show, as values for their templates."""

from collections.abc import Mapping, Sequence
from datetime import date
from statistics import fmean
from typing import Any, Final, cast, get_args
from urllib.parse import quote

from markupsafe import Markup

from learner.console.charts import Line, Point, interval_chart, lift_chart, share_chart
from learner.console.visit import Visit
from learner.pattern_words import (
    ARM_WORDS,
    figures_in_words,
    grade_in_words,
    lift_in_words,
    rates,
    shares_in_words,
    words_in_words,
)
from store.learner_states import plan_strata
from store.pattern_evidence import ARMS, Arm, pattern_conversations
from store.pattern_exposure import Exposure, Stretch, pattern_exposure
from store.patterns import (
    PATTERN_SORTS,
    PatternEvent,
    PatternRow,
    PatternSort,
    get_pattern,
    list_patterns,
    pattern_history,
)
from store.plan import Conditions
from store.vocabulary import GRADES, PATTERN_TYPES, SIGNAL_TYPES, Grade, PatternState, PatternType

PAGE: Final = 50
EVIDENCE_PAGE: Final = 20
PATTERN_STATES: Final = get_args(PatternState)
CONDITION_FIELDS: Final = Conditions.__struct_fields__


def patterns(visit: Visit) -> dict[str, Any]:
    """Return patterns, filtered by state, type, grade, question type and text, in the order asked for."""
    chosen = {
        "state": visit.choice("state", PATTERN_STATES) or "",
        "type": visit.choice("type", PATTERN_TYPES) or "",
        "grade": visit.choice("grade", GRADES) or "",
        "question_type": visit.query.get("question_type", "").strip(),
        "text": visit.query.get("text", "").strip(),
        "sort": visit.choice("sort", PATTERN_SORTS) or "",
    }
    rows, next_cursor = list_patterns(
        visit.db,
        visit.tenant_id,
        state=cast("PatternState | None", chosen["state"] or None),
        type=cast("PatternType | None", chosen["type"] or None),
        grade=cast("Grade | None", chosen["grade"] or None),
        question_type=chosen["question_type"] or None,
        text=chosen["text"] or None,
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


def new_pattern(_: Visit) -> dict[str, Any]:
    """Return what a person may choose for a pattern of their own."""
    return {"types": PATTERN_TYPES, "fields": CONDITION_FIELDS}


def pattern(visit: Visit) -> dict[str, Any]:
    """Return one pattern with its evidence, its history and the conversations behind it."""
    row = get_pattern(visit.db, visit.tenant_id, visit.path["id"])
    arm = cast("Arm | None", visit.choice("arm", ARMS)) or ("natural" if row.state == "candidate" else "treated")
    group_field, _ = plan_strata(visit.db, visit.tenant_id)
    found, next_cursor = pattern_conversations(
        visit.db, row, arm, limit=EVIDENCE_PAGE, cursor=visit.query.get("cursor") or None
    )
    history = pattern_history(visit.db, visit.tenant_id, row.id)
    exposure = pattern_exposure(visit.db, row)
    return {
        "pattern": row,
        "fields": CONDITION_FIELDS,
        "interval": interval_chart(row.lift, row.lift_low, row.lift_high),
        "lift_chart": lift_chart(lifts(history, row)),
        "exposure": exposure,
        "exposure_chart": _exposure_chart(exposure),
        "signal_types": [name for name in SIGNAL_TYPES if _has(exposure, name)],
        "words": words_in_words(row),
        "grade": grade_in_words(row),
        "lift": lift_in_words(row),
        "shares": shares_in_words(row, group_field),
        "rates": rates(row),
        "history": [(event, figures_in_words(event.detail)) for event in history],
        "arm": arm,
        "arms": ARM_WORDS,
        "conversations": found,
        "next_cursor": next_cursor,
    }


def lifts(history: Sequence[PatternEvent], row: PatternRow) -> list[Point]:
    """Return the lift that each event was decided on since the evidence last began anew, and the newest."""
    points: dict[str, Point] = {}
    for event in history:
        if row.trial_since is not None and event.created_at < row.trial_since:
            continue
        known = [event.detail.get(name) for name in ("lift", "lift_low", "lift_high")]
        if all(isinstance(value, int | float) for value in known):
            value, low, high = (float(cast("float", one)) for one in known)
            points[event.created_at[:10]] = Point(date.fromisoformat(event.created_at[:10]), value, low, high)
    if row.lift is not None:
        day = row.updated_at[:10]
        points[day] = Point(date.fromisoformat(day), row.lift, row.lift_low, row.lift_high)
    return [points[day] for day in sorted(points)]


def _exposure_chart(exposure: Exposure) -> Markup:
    by_day: dict[str, list[Stretch]] = {}
    for stretch in exposure.stretches:
        by_day.setdefault(stretch.day, []).append(stretch)
    lines = [
        Line(
            name,
            [
                Point(date.fromisoformat(day), fmean(getattr(one, name) for one in found))
                for day, found in by_day.items()
            ],
        )
        for name in ("treated", "control")
    ]
    return share_chart("Share of the replies with it (treated) and without it by lot (control)", lines)


def _has(exposure: Exposure, signal_type: str) -> bool:
    return bool(exposure.treated.by_type.get(signal_type) or exposure.control.by_type.get(signal_type))
