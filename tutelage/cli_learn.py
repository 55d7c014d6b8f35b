"""``tutelage learn`` and ``tutelage runs``: run the learner once, and see what its runs did."""

from functools import partial
from typing import Annotated, Any, Literal

import typer

from store.clock import parse_iso
from store.errors import InvalidError
from store.paging import all_rows
from store.runs import counted, list_runs
from store.vocabulary import DEFAULT_TENANT
from tutelage.dispatch import load
from tutelage.output import print_json, print_table, say
from tutelage.session import JsonOption, TenantOption, now_s, settings, tenant_database


def learn(  # noqa: PLR0917  # typer makes options of them
    ctx: typer.Context,
    tenant: TenantOption = DEFAULT_TENANT,
    kind: Annotated[Literal["patterns", "knowledge", "nlu", "all"], typer.Option(help="What to learn.")] = "all",
    now: Annotated[
        str | None, typer.Option(help="The run's time, such as 2027-01-01T00:00:00Z; the machine's otherwise.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="ID", help="What nlu trains on; the configured dataset otherwise.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the learner once for a tenant and print what changed."""
    config = settings(ctx)
    run_at_s = now_s() if now is None else _moment(now)
    console = load("tutelage.drawing:error_console")()
    with tenant_database(config, tenant) as db, console.status(f"learning {kind} for {tenant} ..."):
        reports = load("learner.once:learn")(db, config, tenant, kind, now_s=run_at_s, dataset_id=dataset)
    if as_json:
        print_json(reports)
        return
    for report in reports:
        say(_summary(report))


def _moment(text: str) -> float:
    try:
        moment_s = parse_iso(text)
    except ValueError as exc:
        raise InvalidError("--now", f"must be a moment such as 2027-01-01T00:00:00Z, not {text!r}") from exc
    if moment_s < 0:
        raise InvalidError("--now", f"must not be before 1970, not {text!r}")
    return moment_s


def _summary(report: Any) -> str:
    """Return what a run did, a line for each change; of what it counted, only what there was."""
    served = f"generation {report.generation}" if report.generation is not None else "what is served stays the same"
    cost = f"; {report.costs.calls} model calls, $ {report.costs.cost_usd:.4f}" if report.costs.calls else ""
    lines = [f"{report.kind}: {counted(report.counts)}; {served}{cost}"]
    return "\n".join([*lines, *(f"  {change}" for change in report.changes)])


def runs(
    ctx: typer.Context,
    tenant: TenantOption = DEFAULT_TENANT,
    kind: Annotated[Literal["patterns", "knowledge", "nlu"] | None, typer.Option(help="Only this kind.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List learning runs, newest first."""
    with tenant_database(settings(ctx), tenant) as db:
        found = list(all_rows(partial(list_runs, db, tenant, kind=kind), limit))
    if as_json:
        print_json(found)
        return
    print_table(
        ("run at", "kind", "status", "frozen", "responses", "signals", "satisfaction", "generation", "cost $", "error"),
        (
            (
                r.run_at,
                r.kind,
                r.status,
                "yes" if r.is_frozen else None,
                r.n_responses,
                r.n_signals,
                r.satisfaction,
                r.generation,
                r.cost_usd or None,
                r.error,
            )
            for r in found
        ),
        empty="no run yet",
        prose=("cost $", "error"),
    )
