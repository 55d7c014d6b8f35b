"""``tutelage demo``: see it learn in about a minute, without a key and without a network."""

from pathlib import Path
from typing import Annotated

import typer

from store.clock import SystemClock
from tutelage.dispatch import load


def demo(
    weeks: Annotated[int, typer.Option(min=2, help="Simulated weeks of traffic.")] = 4,
    seed: Annotated[int, typer.Option(help="Other users, other visits.")] = 0,
    directory: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where its files go; a new temporary folder otherwise.")
    ] = None,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Then serve its console and proxy until Ctrl-C; a --directory with a demo at once."
        ),
    ] = False,
) -> None:
    """Replay weeks of simulated traffic through the real proxy and learner, and show what was learned."""
    keep_serving = load("tutelage.demo.keep:keep_serving")
    if serve and directory is not None and load("tutelage.demo.keep:holds_demo")(directory):
        raise typer.Exit(keep_serving(directory.resolve()))
    console = load("rich.console:Console")()
    options = load("tutelage.demo.options:DemoOptions")(seed=seed, weeks=weeks, directory=directory)
    report = load("tutelage.demo.run:run_demo")(options, clock=SystemClock(), console=console)
    load("tutelage.demo.report:print_report")(report, console)
    if serve:
        raise typer.Exit(keep_serving(report.database.parent))
