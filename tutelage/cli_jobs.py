"""``tutelage jobs``: work asked of the learner."""

from functools import partial
from typing import Annotated

import typer

from store.jobs import JobRow, cancel_job, get_job, list_jobs
from store.paging import all_rows
from store.vocabulary import DEFAULT_TENANT, JobKind, JobStatus
from tutelage.output import cell, print_json, print_table, say
from tutelage.session import ACTOR, JsonOption, TenantOption, now_s, settings, tenant_database

app = typer.Typer(help="Work asked of the learner: list, look at, cancel.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID")]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    kind: Annotated[JobKind | None, typer.Option(help="Only this kind.")] = None,
    status: Annotated[JobStatus | None, typer.Option(help="Only this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with tenant_database(settings(ctx), tenant) as db:
        found = list(all_rows(partial(list_jobs, db, tenant, kind=kind, status=status), limit))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "kind", "status", "due", "tries", "finished", "run", "error"),
        ((j.id, j.kind, j.status, j.due_at, j.attempts, j.finished_at, j.run_id, j.error) for j in found),
        empty="no such job" if kind or status else "no jobs yet",
        prose=("error",),
    )


@app.command("show")
def show(
    ctx: typer.Context, job_id: IdArgument, tenant: TenantOption = DEFAULT_TENANT, as_json: JsonOption = False
) -> None:
    """Show one job."""
    with tenant_database(settings(ctx), tenant) as db:
        job = get_job(db, tenant, job_id)
    if as_json:
        print_json(job)
        return
    for name in JobRow.__slots__:
        say(f"{name:<16}{cell(getattr(job, name))}")


@app.command("cancel")
def cancel(ctx: typer.Context, job_id: IdArgument, tenant: TenantOption = DEFAULT_TENANT) -> None:
    """Cancel a job that nobody has begun; one that the learner's schedule made comes again at its next time."""
    with tenant_database(settings(ctx), tenant) as db:
        cancel_job(db, tenant, job_id, actor=ACTOR, now_s=now_s())
    say(f"{job_id} is cancelled")
