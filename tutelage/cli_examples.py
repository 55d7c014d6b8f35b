"""``tutelage examples``: training examples and a person's word on them."""

from functools import partial
from typing import Annotated

import typer

from store.datasets import list_examples, review_example
from store.paging import all_rows
from store.vocabulary import DEFAULT_TENANT
from tutelage.dispatch import load
from tutelage.output import print_json, print_table, say
from tutelage.session import ACTOR, JsonOption, TenantOption, now_s, settings, tenant_database

app = typer.Typer(help="Training examples: list, search, what to review next, correct.", no_args_is_help=True)

DatasetOption = Annotated[str | None, typer.Option("--dataset", metavar="ID", help="The collected one by default.")]
LimitOption = Annotated[int, typer.Option(min=1, help="How many.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    dataset: DatasetOption = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag, such as needs_review.")] = None,
    intent: Annotated[str | None, typer.Option(help="Only of this intent.")] = None,
    limit: LimitOption = 50,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """List examples in the order they came."""
    _list(ctx, dataset, tag, intent, None, limit, tenant, as_json)


@app.command("search")
def search(
    ctx: typer.Context,
    *,
    words: Annotated[str, typer.Argument(help="All of them must be there; ord* is any word that begins so.")],
    dataset: DatasetOption = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.")] = None,
    intent: Annotated[str | None, typer.Option(help="Only of this intent.")] = None,
    limit: LimitOption = 50,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """List examples whose text has all of these words."""
    _list(ctx, dataset, tag, intent, words, limit, tenant, as_json)


def _list(  # noqa: PLR0917  # what list and search have in common
    ctx: typer.Context,
    dataset: str | None,
    tag: str | None,
    intent: str | None,
    words: str | None,
    limit: int,
    tenant: str,
    as_json: bool,
) -> None:
    config = settings(ctx)
    dataset_id = dataset or config.training.dataset_id
    with tenant_database(config, tenant) as db:
        wanted = partial(list_examples, db, tenant, dataset_id, tag=tag, intent=intent, search=words)
        found = list(all_rows(wanted, limit))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "intent", "was", "confidence", "review", "reviewed by", "text"),
        ((e.id, e.intent, e.former_intent, e.confidence, e.needs_review, e.reviewed_by, e.input) for e in found),
        empty="no such examples",
        prose=("text",),
    )


@app.command("review")
def review(
    ctx: typer.Context,
    dataset: DatasetOption = None,
    limit: LimitOption = 20,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Show what to look at next: what teaches most first, a few sure ones among them."""
    config = settings(ctx)
    embedder = load("learner.authoring:Author")(config.embedding).embedder
    with tenant_database(config, tenant) as db:
        queue = load("learner.review_order:review_queue")(
            db,
            tenant,
            dataset or config.training.dataset_id,
            embedder,
            review_below=config.training.review_below_confidence,
            limit=limit,
        )
    if as_json:
        print_json(queue)
        return
    print_table(
        ("id", "intent", "why", "text"),
        ((one.example.id, one.example.intent, one.why, one.example.input) for one in queue),
        empty="nothing to review",
        prose=("text",),
    )


@app.command("correct")
def correct(
    ctx: typer.Context,
    example_id: Annotated[str, typer.Argument(metavar="ID")],
    intent: Annotated[str | None, typer.Argument(metavar="[INTENT]", help="The right one; none: it is right.")] = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Say what an example's intent is, or that it is right; either settles its review."""
    with tenant_database(settings(ctx), tenant) as db:
        row = review_example(db, tenant, example_id, intent=intent, needs_review=False, actor=ACTOR, now_s=now_s())
    if as_json:
        print_json(row)
    else:
        say(f"{row.id} is {row.intent}" + (f", was {row.former_intent}" if row.former_intent else ""))
