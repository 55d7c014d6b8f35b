"""``tutelage up``, ``proxy`` and ``learner``: the processes."""

import os

import typer

from tutelage.dispatch import load
from tutelage.session import config_path, settings

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def up(ctx: typer.Context) -> None:
    """Start the proxy and the learner; Ctrl-C stops both."""
    raise typer.Exit(load("tutelage.up:run")(config_path(ctx), settings(ctx)))


def proxy(ctx: typer.Context) -> None:
    """Start the proxy alone: what apps talk to."""
    # A second BLAS thread waits for the first on a busy machine: 29 ms seen for a 50 us search.
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    load("proxy.serve:serve")(config_path(ctx), settings(ctx))


def learner(ctx: typer.Context) -> None:
    """Start the learner alone: runs, admin API and console."""
    load("learner.serve:serve")(config_path(ctx), settings(ctx))
