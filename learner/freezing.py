"""Whether a crash holds back new trials and activations, as people are told; the runs decide by themselves."""

from dataclasses import dataclass

from store.alerts import last_alert
from store.clock import DAY_S, iso, parse_iso
from store.config import PatternsSection
from store.database import Database
from store.patterns import has_advanced_since
from store.vocabulary import LEARNER


@dataclass(frozen=True, slots=True)
class Freeze:
    """Nothing new is tried or activated; it ends at *until*, when satisfaction recovers or with the alert."""

    alert_id: str
    since: str
    until: str
    message: str


def freeze_of(db: Database, tenant_id: str, settings: PatternsSection, now_s: float) -> Freeze | None:
    """Return what holds the tenant's patterns back, None when nothing does.

    A run that tried or activated something since the crash found that satisfaction had recovered.
    """
    alert = last_alert(db, tenant_id, "crash")
    if alert is None or alert.acknowledged_at is not None:
        return None
    until_s = parse_iso(alert.created_at) + settings.freeze_days * DAY_S
    if now_s > until_s or has_advanced_since(db, tenant_id, alert.created_at, actor=LEARNER):
        return None
    return Freeze(alert.id, alert.created_at, iso(until_s), alert.message)
