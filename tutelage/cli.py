"""The ``tutelage`` command: one sub-command per thing a person does."""

import signal
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from learner.errors import LearnerError
from store.errors import StoreError
from tutelage import (
    cli_alerts,
    cli_backup,
    cli_contexts,
    cli_datasets,
    cli_demo,
    cli_doctor,
    cli_examples,
    cli_export,
    cli_feedback,
    cli_forget,
    cli_import,
    cli_jobs,
    cli_keys,
    cli_learn,
    cli_models,
    cli_patterns,
    cli_records,
    cli_refit,
    cli_serve,
    cli_tenants,
    cli_why,
)
from tutelage.demo.client import DemoError
from tutelage.dispatch import load
from tutelage.output import say, warn


class Commands(TyperGroup):
    """All commands; what the store refuses ends as one line on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (StoreError, LearnerError, DemoError) as exc:
            warn(f"Error: {exc}")
            raise typer.Exit(1) from exc


app = typer.Typer(
    cls=Commands,
    help="An OpenAI-compatible proxy that learns from every conversation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("up")(cli_serve.up)
app.command("proxy")(cli_serve.proxy)
app.command("learner")(cli_serve.learner)
app.command("learn")(cli_learn.learn)
app.command("runs")(cli_learn.runs)
app.add_typer(cli_models.app, name="models")
app.add_typer(cli_patterns.app, name="patterns")
app.add_typer(cli_contexts.app, name="contexts")
app.command("stats")(cli_records.stats)
app.add_typer(cli_records.app, name="conversations")
app.command("generations")(cli_records.generations)
app.command("audit")(cli_records.audit)
app.command("doctor")(cli_doctor.doctor)
app.command("why")(cli_why.why)
app.command("refit")(cli_refit.refit)
app.add_typer(cli_alerts.app, name="alerts")
app.command("backup")(cli_backup.backup)
app.command("restore")(cli_backup.restore)
app.command("export")(cli_export.export)
app.command("import")(cli_import.import_file)
app.add_typer(cli_datasets.app, name="datasets")
app.add_typer(cli_examples.app, name="examples")
app.add_typer(cli_jobs.app, name="jobs")
app.command("forget")(cli_forget.forget)
app.add_typer(cli_feedback.app, name="feedback")
app.add_typer(cli_keys.app, name="keys")
app.add_typer(cli_tenants.app, name="tenants")
app.command("demo")(cli_demo.demo)


def _print_version(value: bool) -> None:
    if value:
        say(load("importlib.metadata:version")("tutelage"))
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", envvar="TUTELAGE_CONFIG", metavar="FILE", help="Your settings; only the keys that differ."
        ),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on Ctrl-C lets the command tidy up
    ctx.obj = config


def main() -> None:
    """Run the command."""
    app(prog_name="tutelage")
