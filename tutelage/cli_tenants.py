"""``tutelage tenants``: organisations, and whether Tutelage learns for them."""

from typing import Annotated, Literal

import typer

from store.audit import record
from store.database import open_database
from store.tenants import ensure_default_tenant, list_tenants, set_learning
from tutelage.output import print_json, print_table, say
from tutelage.session import ACTOR, JsonOption, now_s, settings

app = typer.Typer(help="Organisations; every learned thing belongs to exactly one. Without a command: list them.")


@app.callback(invoke_without_command=True)
def tenants(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """List all tenants when no command follows."""
    if ctx.invoked_subcommand is None:
        list_(ctx, as_json=as_json)


@app.command("list")
def list_(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """List all tenants."""
    with open_database(settings(ctx).store) as db:
        ensure_default_tenant(db, now_s())
        tenants = [
            {
                "id": tenant.id,
                "name": tenant.name,
                "learning": "on" if tenant.learning else "off",
                "require_trial_approval": tenant.require_trial_approval,
            }
            for tenant in list_tenants(db)
        ]
    if as_json:
        print_json(tenants)
        return
    print_table(("id", "name", "learning", "trials need approval"), (list(t.values()) for t in tenants), empty="none")


@app.command("learning")
def learning(
    ctx: typer.Context,
    switch: Annotated[Literal["on", "off"], typer.Argument(help="off: a pure relay, nothing is added or recorded.")],
    tenant: Annotated[str, typer.Option("--tenant", metavar="ID")] = "default",
) -> None:
    """Switch learning on or off for a tenant."""
    with open_database(settings(ctx).store) as db, db.transaction():
        ensure_default_tenant(db, now_s())
        set_learning(db, tenant, learning=switch == "on")
        record(db, tenant, actor=ACTOR, action=f"tenants.learning_{switch}", object_id=tenant, detail={}, now_s=now_s())
    say(f"learning is {switch} for {tenant!r}")
