"""What the overview shows: whether learning helps, what it costs, and what waits for a person."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from learner.console.charts import Z_95, satisfaction_chart
from learner.console.pattern_views import with_intervals
from learner.console.visit import Visit
from learner.freezing import freeze_of
from store.alerts import list_alerts
from store.clock import day_before
from store.contexts import list_waiting
from store.generations import current_number
from store.patterns import list_patterns
from store.runs import list_runs
from store.statistics import ArmSums, ArmTotal, counts, daily_sums, spending, token_use, totals_of

SHORT: Final = 6
DAYS: Final = 60
NOW_DAYS: Final = 14  # what learning is worth now: of the last two weeks
WEEK_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Week:
    """The figures of up to seven days, named by the last of them."""

    until: date
    treated: ArmTotal
    holdout: ArmTotal


def overview(visit: Visit) -> dict[str, Any]:
    """Return whether learning helps, and what waits for a person."""
    today, first_day = day_before(visit.now_s), day_before(visit.now_s, DAYS)
    rows = daily_sums(visit.db, visit.tenant_id, first_day=first_day, last_day=today)
    totals = totals_of(rows)
    recent = totals_of(row for row in rows if row.day > day_before(visit.now_s, NOW_DAYS))
    active = [
        row
        for state in ("pinned", "active", "warmdown")
        for row in list_patterns(visit.db, visit.tenant_id, state=state, limit=SHORT)[0]
    ]
    return {
        "days": DAYS,
        "now_days": NOW_DAYS,
        "chart": satisfaction_chart(rows),
        "weeks": weeks(rows),
        "treated": totals["treated"],
        "holdout": totals["holdout"],
        "lift": lift(totals),
        "lift_now": lift(recent),
        "counts": counts(visit.db, visit.tenant_id),
        "spending": spending(visit.db, visit.tenant_id, first_day=first_day, month=today[:7]),
        "tokens": token_use(rows, is_holdout=False),
        "holdout_tokens": token_use(rows, is_holdout=True),
        "generation": current_number(visit.db, visit.tenant_id),
        "active": with_intervals(active[:SHORT]),
        "waiting": list_waiting(visit.db, visit.tenant_id, limit=SHORT)[0],
        "alerts": list_alerts(visit.db, visit.tenant_id, is_open=True, limit=SHORT)[0],
        "freeze": freeze_of(visit.db, visit.tenant_id, visit.services.config.patterns, visit.now_s),
        "runs": list_runs(visit.db, visit.tenant_id, limit=SHORT)[0],
    }


def lift(totals: Mapping[str, ArmTotal]) -> tuple[float, float, float] | None:
    """Return treated minus holdout with its 95 % interval, None when one of them is not known well enough.

    Conversations count as independent, as the lot draws them; patterns are decided on better evidence.
    """
    treated, holdout = totals["treated"], totals["holdout"]
    if treated.satisfaction is None or holdout.satisfaction is None:
        return None
    if treated.stderr is None or holdout.stderr is None:
        return None
    difference = treated.satisfaction - holdout.satisfaction
    reach = Z_95 * math.hypot(treated.stderr, holdout.stderr)
    return difference, difference - reach, difference + reach


def weeks(rows: Sequence[ArmSums]) -> list[Week]:
    """Return the figures week by week, the newest first; weeks count back from the last day with a response."""
    if not rows:
        return []
    last = date.fromisoformat(max(row.day for row in rows))
    by_week: dict[int, list[ArmSums]] = {}
    for row in rows:
        by_week.setdefault((last - date.fromisoformat(row.day)).days // WEEK_DAYS, []).append(row)
    return [
        Week(last - timedelta(days=WEEK_DAYS * number), totals["treated"], totals["holdout"])
        for number, totals in sorted((number, totals_of(found)) for number, found in by_week.items())
    ]
