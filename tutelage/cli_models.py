"""``tutelage models``: the trained classifiers of question types."""

from functools import partial
from typing import Annotated, Any

import typer

from store.paging import all_rows
from store.vocabulary import DEFAULT_TENANT
from tutelage.dispatch import load
from tutelage.output import print_json, print_table, say
from tutelage.session import ACTOR, JsonOption, TenantOption, now_s, settings, tenant_database

app = typer.Typer(help="Classifiers of question types: list, look, go one step back.", no_args_is_help=True)


@app.command("list")
def list_all(
    ctx: typer.Context,
    tenant: TenantOption = DEFAULT_TENANT,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the trained classifiers, newest first, and how good each is on texts that it has not seen."""
    list_models = load("store.nlu_models:list_models")
    with tenant_database(settings(ctx), tenant) as db:
        found = list(all_rows(partial(list_models, db, tenant), limit))
    if as_json:
        print_json(found)
        return
    print_table(
        ("version", "trained", "dataset", "intents", "texts", "accuracy", "macro F1", "ece", "state", "why"),
        (
            (
                model.version,
                model.created_at,
                model.dataset_id,
                model.n_intents,
                model.n_examples,
                model.report.get("accuracy"),
                model.report.get("macro_f1"),
                model.report.get("ece"),
                _state(model),
                model.report.get("decision"),
            )
            for model in found
        ),
        empty="no classifier was trained: the built-in question types serve",
        prose=("why",),
    )


@app.command("show")
def show(
    ctx: typer.Context,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1)],
    tenant: TenantOption = DEFAULT_TENANT,
) -> None:
    """Print one classifier with its whole report as JSON: figures by intent, what is taken for what."""
    with tenant_database(settings(ctx), tenant) as db:
        print_json(load("store.nlu_models:get_model")(db, tenant, version))


@app.command("rollback")
def rollback(ctx: typer.Context, tenant: TenantOption = DEFAULT_TENANT) -> None:
    """Withdraw the classifier that serves; the version before it serves within a second, or the built-in types."""
    with tenant_database(settings(ctx), tenant) as db:
        withdrawn, serving = load("store.nlu_models:withdraw_model")(db, tenant, actor=ACTOR, now_s=now_s())
    say(f"version {withdrawn} is withdrawn; {f'version {serving} serves' if serving else 'the built-in types serve'}")


def _state(model: Any) -> str:
    if model.is_serving:
        return "serves"
    if model.withdrawn_at:
        return "withdrawn"
    return "served before" if model.published_at else "not published"
