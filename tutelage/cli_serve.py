"""``tutelage up``, ``proxy`` and ``learner``: the processes."""

from typing import Annotated, Any

import typer

from tutelage.dispatch import load
from tutelage.session import config_path, settings

WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Proxy processes that share the port; else \\[proxy] workers."),
]


def up(ctx: typer.Context, workers: WorkersOption = None) -> None:
    """Start the proxy and the learner; Ctrl-C stops both."""
    config = settings(ctx, _overrides(workers))
    raise typer.Exit(load("tutelage.up:run")(config_path(ctx), config))


def proxy(ctx: typer.Context, workers: WorkersOption = None) -> None:
    """Start the proxy alone: what apps talk to."""
    load("proxy.serve:serve")(config_path(ctx), settings(ctx, _overrides(workers)))


def _overrides(workers: int | None) -> dict[str, Any]:
    return {} if workers is None else {"proxy": {"workers": workers}}


def learner(ctx: typer.Context) -> None:
    """Start the learner alone: runs, admin API and console."""
    load("learner.serve:serve")(config_path(ctx), settings(ctx))
