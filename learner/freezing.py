"""Whether a crash holds back new trials and activations, as the last run found."""

from dataclasses import dataclass

from store.alerts import last_alert
from store.clock import DAY_S, iso, parse_iso
from store.config import PatternsSection
from store.database import Database
from store.runs import last_look_at_safety


@dataclass(frozen=True, slots=True)
class Freeze:
    """Nothing new is tried or activated; it ends at *until*, when satisfaction recovers or with the alert."""

    alert_id: str
    run_id: str  # the last that was held back
    since: str
    until: str
    message: str


def freeze_of(db: Database, tenant_id: str, settings: PatternsSection, now_s: float) -> Freeze | None:
    """Return what held the last run back and will hold the next one, None when nothing does."""
    run, alert = last_look_at_safety(db, tenant_id), last_alert(db, tenant_id, "crash")
    if run is None or not run.is_frozen or alert is None or alert.acknowledged_at is not None:
        return None
    until_s = parse_iso(alert.created_at) + settings.freeze_days * DAY_S
    return None if now_s > until_s else Freeze(alert.id, run.id, alert.created_at, iso(until_s), alert.message)
