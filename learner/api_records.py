"""What was recorded and learned, to read: conversations, runs, alerts, statistics, the audit log."""

from typing import Any

from learner.api_request import Call, page
from learner.freezing import freeze_of
from store.alerts import acknowledge_alert, list_alerts
from store.audit import list_audit, record
from store.clock import day_before
from store.conversations import list_conversations, transcript
from store.exchanges import exchanges
from store.generations import current_number
from store.rows import plain
from store.runs import get_run, list_runs
from store.statistics import ArmDay, arm_totals, counts, satisfaction_by_day

MAX_DAYS = 3660
DEFAULT_DAYS = 30


def conversations(call: Call) -> dict[str, Any]:
    """Return one page of the tenant's conversations, last changed first."""
    source = call.choice("source", ("proxy", "import"))
    return page(
        list_conversations(
            call.db,
            call.tenant_id,
            source=None if source is None else "proxy" if source == "proxy" else "import",
            limit=call.limit,
            cursor=call.cursor,
        )
    )


def conversation(call: Call) -> dict[str, Any]:
    """Return the exact conversation that something was learned from, and what happened around each response."""
    whole = transcript(call.db, call.tenant_id, call.path["id"])
    return {**plain(whole), "responses": exchanges(call.db, call.tenant_id, whole.id)}


def runs(call: Call) -> dict[str, Any]:
    """Return one page of the tenant's learning runs, newest first."""
    kind = call.choice("kind", ("patterns", "knowledge", "nlu"))
    return page(list_runs(call.db, call.tenant_id, kind=kind, limit=call.limit, cursor=call.cursor))  # type: ignore[arg-type]


def run(call: Call) -> Any:
    """Return one learning run."""
    return get_run(call.db, call.tenant_id, call.path["id"])


def alerts(call: Call) -> dict[str, Any]:
    """Return one page of the tenant's alerts, newest first; ``open=true``: those that nobody acknowledged."""
    is_open = call.choice("open", ("true", "false")) == "true"
    return page(list_alerts(call.db, call.tenant_id, is_open=is_open, limit=call.limit, cursor=call.cursor))


def acknowledge(call: Call) -> dict[str, Any]:
    """Mark an alert as seen."""
    alert_id = call.path["id"]
    with call.db.transaction():
        acknowledge_alert(call.db, call.tenant_id, alert_id, now_s=call.now_s)
        record(
            call.db,
            call.tenant_id,
            actor=call.actor,
            action="alerts.acknowledge",
            object_id=alert_id,
            detail={},
            now_s=call.now_s,
        )
    return {"id": alert_id, "acknowledged": True}


def audit(call: Call) -> dict[str, Any]:
    """Return one page of who changed what, newest first."""
    return page(list_audit(call.db, call.tenant_id, limit=call.limit, cursor=call.cursor))


def statistics(call: Call) -> dict[str, Any]:
    """Return satisfaction by day and arm, the lift of treated over holdout, and what there is now."""
    days = call.count("days", DEFAULT_DAYS, at_most=MAX_DAYS)
    by_day = satisfaction_by_day(call.db, call.tenant_id, now_s=call.now_s, days=days)
    totals = arm_totals(
        call.db, call.tenant_id, first_day=day_before(call.now_s, days), last_day=day_before(call.now_s)
    )
    treated, holdout = totals["treated"].satisfaction, totals["holdout"].satisfaction
    return {
        "days": days,
        "generation": current_number(call.db, call.tenant_id),
        "treated": totals["treated"],
        "holdout": totals["holdout"],
        "lift": None if treated is None or holdout is None else treated - holdout,
        "satisfaction_by_day": by_day,
        "lift_by_day": lift_by_day(by_day),
        "counts": counts(call.db, call.tenant_id),
        "freeze": freeze_of(call.db, call.tenant_id, call.services.config.patterns, call.now_s),
    }


def lift_by_day(by_day: list[ArmDay]) -> list[dict[str, Any]]:
    """Return treated minus holdout of each day on which both had responses."""
    arms = {(row.day, row.arm): row.satisfaction for row in by_day}
    return [
        {"day": day, "lift": satisfaction - arms[day, "holdout"]}
        for (day, arm), satisfaction in arms.items()
        if arm == "treated" and (day, "holdout") in arms
    ]
