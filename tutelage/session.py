"""What a command works on: the settings, the database and a tenant, from the options before and after its name."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from store.clock import SystemClock
from store.config import Config, load_config
from store.database import Database, open_database
from store.tenants import ensure_default_tenant, get_tenant
from store.vocabulary import DEFAULT_TENANT

ACTOR = "command"  # how audit_log and histories name whoever used the command line

TenantOption = Annotated[str, typer.Option("--tenant", help="Whose data to work on.", metavar="ID")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def config_path(ctx: typer.Context) -> Path | None:
    """Return the file given with ``--config`` or TUTELAGE_CONFIG, None for the shipped settings."""
    path: Path | None = ctx.find_root().obj
    return path


def settings(ctx: typer.Context, overrides: Mapping[str, Any] | None = None) -> Config:
    """Return all settings; *overrides*, in the shape of the file, go before what it says.

    Raises:
        ConfigError: the file cannot be read or holds a bad setting.
    """
    return load_config(config_path(ctx), overrides)


def now_s() -> float:
    """Return the machine's time: a command is the edge where time comes in."""
    return SystemClock().now_s()


@contextmanager
def tenant_database(config: Config, tenant_id: str) -> Iterator[Database]:
    """Open the database and see to it that the tenant is there; only ``default`` is made when missing.

    Raises:
        NotFoundError: there is no such tenant.
    """
    with open_database(config.store) as db:
        if tenant_id == DEFAULT_TENANT:
            ensure_default_tenant(db, now_s())
        get_tenant(db, tenant_id)
        yield db
