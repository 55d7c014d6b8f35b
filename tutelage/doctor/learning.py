"""Checks of what the records say: keys, runs that did not happen, alerts that nobody looked at."""

from collections.abc import Iterator
from typing import Final

from store.alerts import list_alerts
from store.clock import parse_iso
from store.config import Config
from store.database import Database
from store.responses import newest_response_at
from store.runs import last_completed_run
from store.tenants import list_keys, list_tenants
from tutelage.doctor.finding import Finding, fail, ok, warn

LATE_INTERVALS: Final = 3  # without a run, before that is said
MAX_ALERTS: Final = 100


def check_keys(db: Database, config: Config) -> Iterator[Finding]:
    """Yield whether anybody can use the proxy and the console in keys mode."""
    if config.tenancy.mode == "open":
        yield ok("keys", "open mode: clients bring the upstream's own key, on this machine alone")
        return
    scopes = {key.scope for key in list_keys(db) if key.revoked_at is None}
    for scope, use in (("app", "use the proxy"), ("admin", "use the console or the admin API")):
        if scope in scopes or "admin" in scopes:
            yield ok("keys", f"somebody may {use}")
        else:
            yield fail("keys", f"nobody may {use}: there is no key for it", f"tutelage keys create --scope {scope}")


def check_tenants(db: Database, config: Config, now_s: float) -> Iterator[Finding]:
    """Yield, for each tenant, whether it learns and what waits for a person."""
    for tenant in list_tenants(db):
        name = f"tenant {tenant.id}"
        newest = newest_response_at(db, tenant.id)
        if newest is None:
            yield ok(name, "no responses yet")
            continue
        if parse_iso(newest) > now_s + 60:
            yield warn("clock", f"{name} has responses of {newest}, which is to come", "let NTP set this machine's")
        if tenant.learning:
            yield _last_run(db, config, tenant.id, now_s)
        else:
            yield ok(name, "learning is switched off for it")
        alerts = list_alerts(db, tenant.id, is_open=True, limit=MAX_ALERTS)[0]
        if alerts:
            yield warn(
                name,
                f"{len(alerts)} open alerts, the newest: {alerts[0].message}",
                f"tutelage alerts list --open --tenant {tenant.id}",
            )


def _last_run(db: Database, config: Config, tenant_id: str, now_s: float) -> Finding:
    name = f"tenant {tenant_id}"
    run = last_completed_run(db, tenant_id, "patterns")
    if run is None or run.finished_at is None:
        return warn(name, "no learning run yet", "start the learner, or: tutelage learn --tenant " + tenant_id)
    late_s = now_s - parse_iso(run.finished_at)
    if late_s > LATE_INTERVALS * config.learner.run_interval_h * 3600:
        return warn(name, f"the last learning run was {late_s / 3600:.0f} hours ago", "start the learner")
    return ok(name, f"the last learning run was {late_s / 3600:.1f} hours ago")
