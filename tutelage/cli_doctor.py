"""``tutelage doctor``: looks at everything that has to work, and says what to do about what does not."""

import os
from collections.abc import Iterator
from typing import Any

import typer

from store.config import database_path
from store.database import open_database
from store.errors import ConfigError, StoreError
from tutelage.dispatch import load
from tutelage.output import print_json, print_table, say
from tutelage.session import JsonOption, config_path, now_s, settings


def doctor(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """Check settings, keys, upstreams, database, models, clock and disk; ends with 1 when something does not work.

    Nothing is changed and nothing is paid for: upstreams are asked for their list of models.
    """
    findings = list(_findings(ctx))
    if as_json:
        print_json(findings)
    else:
        print_table(
            ("", "what", "found", "to do"),
            ((one.level, one.name, one.said, one.todo) for one in findings),
            empty="nothing was looked at",
            prose=("found", "to do"),
        )
        counts = {level: sum(one.level == level for one in findings) for level in ("fail", "warn")}
        say(f"\n{counts['fail']} failures, {counts['warn']} warnings")
    if any(one.level == "fail" for one in findings):
        raise typer.Exit(1)


def _findings(ctx: typer.Context) -> Iterator[Any]:
    try:
        config = settings(ctx)
    except ConfigError as exc:
        yield load("tutelage.doctor.finding:fail")("settings", str(exc), "mend the file; config.toml has all settings")
        return
    where = config_path(ctx)
    yield load("tutelage.doctor.finding:ok")(
        "settings", f"{where or 'as shipped'}: {config.tenancy.mode} mode, {len(config.upstream)} upstreams"
    )
    yield from load("tutelage.doctor.machine:check_disk")(config)
    yield from load("tutelage.doctor.machine:check_database")(config)
    yield from load("tutelage.doctor.machine:check_records")(config)
    yield from load("tutelage.doctor.machine:check_models_here")(config)
    yield from load("tutelage.doctor.network:check_ports")(config)
    yield from load("tutelage.doctor.network:check_upstreams")(config, os.environ, now_s())
    yield from load("tutelage.doctor.network:check_model_servers")(config, os.environ)
    if not database_path(config.store).exists():
        return
    try:
        with open_database(config.store, create=False) as db:
            yield from load("tutelage.doctor.learning:check_keys")(db, config)
            yield from load("tutelage.doctor.learning:check_tenants")(db, config, now_s())
    except StoreError as exc:
        yield load("tutelage.doctor.finding:fail")("database", str(exc), "see above")
