"""``tutelage up``, ``proxy`` and ``learner``: the processes."""

import typer

from tutelage.dispatch import load
from tutelage.session import config_path, settings


def up(ctx: typer.Context) -> None:
    """Start the proxy and the learner; Ctrl-C stops both."""
    raise typer.Exit(load("tutelage.up:run")(config_path(ctx), settings(ctx)))


def proxy(ctx: typer.Context) -> None:
    """Start the proxy alone: what apps talk to."""
    load("proxy.serve:serve")(config_path(ctx), settings(ctx))


def learner(ctx: typer.Context) -> None:
    """Start the learner alone: runs, admin API and console."""
    load("learner.serve:serve")(config_path(ctx), settings(ctx))
