"""``tutelage keys``: who may use the proxy and the admin API in keys mode."""

from typing import Annotated

import typer

from store.audit import record
from store.database import open_database
from store.rows import plain
from store.tenants import create_key, ensure_tenant, list_keys, revoke_key
from store.vocabulary import DEFAULT_TENANT, Scope
from tutelage.output import print_json, print_table, say, warn
from tutelage.session import ACTOR, JsonOption, TenantOption, now_s, settings

app = typer.Typer(help="Keys of apps and people, for keys mode.", no_args_is_help=True)


@app.command("create")
def create(
    ctx: typer.Context,
    tenant: TenantOption = DEFAULT_TENANT,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    scope: Annotated[
        Scope, typer.Option(help="app: chat and feedback; admin: the learner's port; feedback: feedback only.")
    ] = "app",
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, once: only its hash is kept. A missing tenant is made."""
    with open_database(settings(ctx).store) as db, db.transaction():
        ensure_tenant(db, tenant, now_s())
        row, key = create_key(db, tenant, name=name or scope, scope=scope, now_s=now_s())
        record(
            db,
            tenant,
            actor=ACTOR,
            action="keys.create",
            object_id=row.id,
            detail={"name": row.name, "scope": scope},
            now_s=now_s(),
        )
    if as_json:
        print_json({**plain(row), "key": key})
    else:
        warn(f"{row.id}: {scope} key of tenant {tenant!r}. It is shown this once:")
        say(key)


@app.command("list")
def list_(
    ctx: typer.Context,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.", metavar="ID")] = None,
    as_json: JsonOption = False,
) -> None:
    """List keys, of all tenants or one."""
    with open_database(settings(ctx).store) as db:
        keys = list_keys(db, tenant)
    if as_json:
        print_json(keys)
        return
    print_table(
        ("id", "tenant", "name", "scope", "begins with", "created", "revoked"),
        ((k.id, k.tenant_id, k.name, k.scope, k.prefix, k.created_at, k.revoked_at) for k in keys),
        empty="no keys",
    )


@app.command("revoke")
def revoke(ctx: typer.Context, key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Make a key useless from now on."""
    with open_database(settings(ctx).store) as db, db.transaction():
        revoke_key(db, key_id, now_s())
        tenant_id = next(key.tenant_id for key in list_keys(db) if key.id == key_id)
        record(db, tenant_id, actor=ACTOR, action="keys.revoke", object_id=key_id, detail={}, now_s=now_s())
    say(f"{key_id} is revoked")
