"""``tutelage keys``: who may use the proxy and the admin API in keys mode, and how much."""

import math
from typing import Annotated

import typer

from store.audit import record
from store.clock import iso
from store.config import LimitsSection
from store.database import open_database
from store.rows import plain
from store.tenants import (
    LIMITS,
    ApiKey,
    create_key,
    effective_limits,
    ensure_tenant,
    find_key_by_id,
    list_keys,
    revoke_key,
    set_limits,
)
from store.usage import MonthUse, month_uses
from store.vocabulary import DEFAULT_TENANT, Scope
from tutelage.output import print_json, print_table, say, warn
from tutelage.session import ACTOR, JsonOption, TenantOption, now_s, settings

app = typer.Typer(help="Keys of apps and people, for keys mode.", no_args_is_help=True)

DEFAULT = "default"  # what to type for a limit that [limits] decides

RequestsOption = Annotated[
    str | None, typer.Option("--requests-per-minute", metavar="N", help="0: no limit; default: as the settings say.")
]
TokensOption = Annotated[
    str | None,
    typer.Option("--tokens-per-minute", metavar="N", help="Prompt and completion; counted after each reply."),
]
BudgetOption = Annotated[str | None, typer.Option("--monthly-budget-usd", metavar="N", help="Dollars a month (UTC).")]
MonthlyTokensOption = Annotated[
    str | None, typer.Option("--monthly-tokens", metavar="N", help="Prompt and completion tokens a month (UTC).")
]


@app.command("create")
def create(
    ctx: typer.Context,
    *,
    tenant: TenantOption = DEFAULT_TENANT,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    scope: Annotated[
        Scope,
        typer.Option(
            help="app: chat and feedback; feedback: feedback only; and for API and console of the learner's port, "
            "admin: all; reviewer: read, and decide about knowledge and examples; viewer: read."
        ),
    ] = "app",
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    monthly_budget_usd: BudgetOption = None,
    monthly_tokens: MonthlyTokensOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, once: only its hash is kept. A missing tenant is made."""
    limits = given_limits(requests_per_minute, tokens_per_minute, monthly_budget_usd, monthly_tokens)
    with open_database(settings(ctx).store) as db, db.transaction():
        ensure_tenant(db, tenant, now_s())
        row, key = create_key(db, tenant, name=name or scope, scope=scope, now_s=now_s(), limits=limits)
        record(
            db,
            tenant,
            actor=ACTOR,
            action="keys.create",
            object_id=row.id,
            detail={"name": row.name, "scope": scope, **limits},
            now_s=now_s(),
        )
    if as_json:
        print_json({**plain(row), "key": key})
    else:
        warn(f"{row.id}: {scope} key of tenant {tenant!r}. It is shown this once:")
        say(key)


@app.command("limit")
def limit(
    ctx: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    monthly_budget_usd: BudgetOption = None,
    monthly_tokens: MonthlyTokensOption = None,
) -> None:
    """Change a key's limits; those that are not named stay. A running proxy keeps to them within a second."""
    limits = given_limits(requests_per_minute, tokens_per_minute, monthly_budget_usd, monthly_tokens)
    if not limits:
        raise typer.BadParameter("name at least one limit")
    config = settings(ctx)
    with open_database(config.store) as db, db.transaction():
        set_limits(db, key_id, limits)
        key = find_key_by_id(db, key_id)
        assert key is not None
        record(db, key.tenant_id, actor=ACTOR, action="keys.limit", object_id=key_id, detail=limits, now_s=now_s())
    say(f"{key_id}: {describe(effective_limits(key, config.limits))}")


@app.command("list")
def list_(
    ctx: typer.Context,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.", metavar="ID")] = None,
    as_json: JsonOption = False,
) -> None:
    """List keys, of all tenants or one, with their limits and what they used this month (UTC)."""
    config = settings(ctx)
    month = iso(now_s())[:7]
    with open_database(config.store) as db:
        keys = list_keys(db, tenant)
        uses = month_uses(db, month)
    if as_json:
        print_json([as_row(key, month, uses.get(key.id), config.limits) for key in keys])
        return
    print_table(
        ("id", "tenant", "name", "scope", "begins with", "created", "revoked", "limits", f"used in {month}"),
        (
            (
                key.id,
                key.tenant_id,
                key.name,
                key.scope,
                key.prefix,
                key.created_at,
                key.revoked_at,
                describe(effective_limits(key, config.limits)),
                describe_use(uses.get(key.id)),
            )
            for key in keys
        ),
        empty="no keys",
        prose=("limits", f"used in {month}"),
    )


def as_row(key: ApiKey, month: str, use: MonthUse | None, defaults: LimitsSection) -> dict[str, object]:
    """Return a key for scripts: its own limits, the ones that hold, and its use this month (null: not counted)."""
    used = None if use is None else {"month": month, **plain(use)}
    return {**plain(key), "limits": plain(effective_limits(key, defaults)), "used": used}


def given_limits(*texts: str | None) -> dict[str, float | None]:
    """Return the limits that were named, in the order of ``LIMITS``; None stands for ``default``.

    Raises:
        typer.BadParameter: a text is neither a number of at least 0 nor ``default``.
    """
    return {name: _amount(name, text) for name, text in zip(LIMITS, texts, strict=True) if text is not None}


def _amount(name: str, text: str) -> float | None:
    if text == DEFAULT:
        return None
    try:
        amount = float(text) if name == "monthly_budget_usd" else int(text)
    except ValueError:
        amount = -1
    if not math.isfinite(amount) or amount < 0:
        option = "--" + name.replace("_", "-")
        raise typer.BadParameter(f"{option} must be a number of at least 0, or {DEFAULT}, not {text!r}")
    return amount


def describe(limits: LimitsSection) -> str:
    """Return limits in a few words.

    >>> describe(LimitsSection(60, 0, 12.5, 1000000)), describe(LimitsSection(0, 0, 0.0, 0))
    ('60 requests/min, 12.5 dollars/month, 1000000 tokens/month', 'none')
    """
    units = ("requests/min", "tokens/min", "dollars/month", "tokens/month")
    amounts = (getattr(limits, name) for name in LIMITS)
    return ", ".join(f"{amount:.10g} {unit}" for amount, unit in zip(amounts, units, strict=True) if amount) or "none"


def describe_use(use: MonthUse | None) -> str | None:
    """Return a month's use in a few words; None for a key that is not counted.

    >>> describe_use(MonthUse(3, 1000, 200, 0.0125))
    '3 requests, 1200 tokens, 0.0125 dollars'
    """
    if use is None:
        return None
    n_tokens = use.prompt_tokens + use.completion_tokens
    return f"{use.requests} requests, {n_tokens} tokens, {use.cost_usd:.4g} dollars"


@app.command("revoke")
def revoke(ctx: typer.Context, key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Make a key useless from now on."""
    with open_database(settings(ctx).store) as db, db.transaction():
        revoke_key(db, key_id, now_s())
        tenant_id = next(key.tenant_id for key in list_keys(db) if key.id == key_id)
        record(db, tenant_id, actor=ACTOR, action="keys.revoke", object_id=key_id, detail={}, now_s=now_s())
    say(f"{key_id} is revoked")
