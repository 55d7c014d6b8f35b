"""``tutelage alerts``: what a person should know, and that a person knows it."""

from functools import partial
from typing import Annotated

import typer

from store.alerts import acknowledge_alert, list_alerts
from store.audit import record
from store.paging import all_rows
from store.vocabulary import DEFAULT_TENANT
from tutelage.output import print_json, print_table, say
from tutelage.session import ACTOR, JsonOption, TenantOption, now_s, settings, tenant_database

app = typer.Typer(help="Crashes, failed runs, corrected entries: list, acknowledge.", no_args_is_help=True)


@app.command("list")
def list_(
    ctx: typer.Context,
    tenant: TenantOption = DEFAULT_TENANT,
    is_open: Annotated[bool, typer.Option("--open", help="Only those that nobody acknowledged.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List alerts, newest first."""
    with tenant_database(settings(ctx), tenant) as db:
        found = list(all_rows(partial(list_alerts, db, tenant, is_open=is_open), limit))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "when", "kind", "acknowledged", "delivered", "what"),
        ((a.id, a.created_at, a.kind, a.acknowledged_at, a.delivered_at, a.message) for a in found),
        empty="no alerts",
        prose=("what",),
    )


@app.command("acknowledge")
def acknowledge(
    ctx: typer.Context,
    alert_id: Annotated[str, typer.Argument(metavar="ID")],
    tenant: TenantOption = DEFAULT_TENANT,
) -> None:
    """Say that you know; after a crash this lets trials and activations go on."""
    with tenant_database(settings(ctx), tenant) as db, db.transaction():
        acknowledge_alert(db, tenant, alert_id, now_s=now_s())
        record(
            db,
            tenant,
            actor=ACTOR,
            action="alerts.acknowledge",
            object_id=alert_id,
            detail={},
            now_s=now_s(),
        )
    say(f"{alert_id} is acknowledged")
