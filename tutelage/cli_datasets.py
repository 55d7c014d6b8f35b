"""``tutelage datasets``: training data sets, as files out and in."""

import gzip
import io
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from store.datasets import FacetKind, FacetRow, get_dataset, list_datasets, list_facets
from store.errors import InvalidError
from store.paging import all_rows
from store.review_queue import audit_result
from store.vocabulary import DEFAULT_TENANT
from tutelage.dispatch import load
from tutelage.output import print_json, print_table, say, warn
from tutelage.session import ACTOR, JsonOption, TenantOption, now_s, settings, tenant_database

app = typer.Typer(help="Training data: list, look at, export, import.", no_args_is_help=True)

Kind = Literal["jsonl", "rasa", "openai", "dpo"]
DatasetArgument = Annotated[str | None, typer.Argument(metavar="[DATASET]", help="The collected one by default.")]
FormatOption = Annotated[
    Kind | None,
    typer.Option(
        "--format",
        help="jsonl: everything; rasa: NLU YAML; openai: fine-tuning, chat; dpo: preference pairs.",
    ),
]
MAX_SHOWN = 20  # intents of a dataset that are shown


@app.command("list")
def list_(ctx: typer.Context, tenant: TenantOption = DEFAULT_TENANT, as_json: JsonOption = False) -> None:
    """List datasets."""
    with tenant_database(settings(ctx), tenant) as db:
        found = list(all_rows(partial(list_datasets, db, tenant)))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "type", "examples", "to review", "made"),
        ((row.id, row.type, row.size, row.n_needs_review, row.created_at) for row in found),
        empty="no dataset yet: channels send messages to POST /api/training/conversations/bulk",
    )


@app.command("show")
def show(
    ctx: typer.Context,
    dataset: DatasetArgument = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Show a dataset: its size, its intents and tags, and how sure examples fared that were looked at."""
    config = settings(ctx)
    dataset_id = dataset or config.training.dataset_id
    with tenant_database(config, tenant) as db:
        row = get_dataset(db, tenant, dataset_id)
        audit = audit_result(db, tenant, dataset_id)

        def facets(kind: FacetKind) -> list[FacetRow]:
            found = all_rows(partial(list_facets, db, tenant, dataset_id, kind=kind))
            return sorted(found, key=lambda facet: (-facet.n_examples, facet.value))

        intents, tags = facets("intent"), facets("tag")
    if as_json:
        print_json({"dataset": row, "audit": audit, "intents": intents, "tags": tags})
        return
    say(f"{row.id}: {row.size:,} examples, {row.n_needs_review:,} to review")
    right = f", {audit.n_right} of {audit.n_reviewed} were right" if audit.n_reviewed else ""
    say(f"sure ones drawn by lot: {audit.n_waiting:,} to look at{right}")
    print_table(
        ("intent", "examples"), ((one.value, one.n_examples) for one in intents[:MAX_SHOWN]), empty="no examples"
    )
    if len(intents) > MAX_SHOWN:
        say(f"... and {len(intents) - MAX_SHOWN:,} more intents (--json has all)")


@app.command("export")
def export(
    ctx: typer.Context,
    *,
    dataset: DatasetArgument = None,
    kind: FormatOption = None,
    file: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Instead of stdout.")] = None,
    is_raw: Annotated[
        bool, typer.Option("--raw", help="Texts as they are; otherwise personal data in them is replaced.")
    ] = False,
    with_unreviewed: Annotated[
        bool, typer.Option("--unreviewed", help="For rasa and openai: also examples that wait for a review.")
    ] = False,
    tenant: TenantOption = DEFAULT_TENANT,
) -> None:
    """Write a dataset as a file. Of people it holds keyed hashes alone; the audit log says who took what."""
    config = settings(ctx)
    dataset_id = dataset or config.training.dataset_id
    chosen = kind or "jsonl"
    with tenant_database(config, tenant) as db:
        load("learner.dataset_export:begin_export")(
            db, tenant, dataset_id, chosen, is_raw=is_raw, actor=ACTOR, now_s=now_s()
        )
        pieces = load("learner.dataset_export:export")(
            db, tenant, dataset_id, chosen, is_raw=is_raw, with_unreviewed=with_unreviewed
        )
        with nullcontext(sys.stdout) if file is None else file.open("w", encoding="utf-8") as output:
            for piece in pieces:
                output.write(piece)


@app.command("import")
def import_(
    ctx: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, metavar="FILE")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="ID", help="The collected one by default.")
    ] = None,
    kind: FormatOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Put a file into a dataset, which is made when missing; .gz is fine. The same file again adds nothing.

    Without --format, .yml and .yaml are Rasa's and all else is JSON lines as the export writes them.
    """
    config = settings(ctx)
    name = file.name.removesuffix(".gz").lower()
    chosen = kind or ("rasa" if name.endswith((".yml", ".yaml")) else "jsonl")
    with tenant_database(config, tenant) as db:
        done = load("learner.dataset_import:import_dataset")(
            db,
            tenant,
            dataset or config.training.dataset_id,
            _items(file, chosen),
            config.training,
            actor=ACTOR,
            now_s=now_s(),
        )
    if as_json:
        print_json(done)
    else:
        for one in done.warnings:
            warn(f"{one.where}: {one.message}")
        for one in done.problems:
            warn(f"{one.where}: {one.message}")
        if done.n_bad > len(done.problems):
            warn(f"... and {done.n_bad - len(done.problems)} more bad items")
        say(f"{done.dataset_id}: {done.n_new} new, {done.n_known} known before, {done.n_bad} bad")
    if done.n_bad and not done.n_new + done.n_known:
        raise typer.Exit(1)


def _items(file: Path, kind: Kind) -> Iterator[Any]:
    """Yield what stands in the file; JSON lines are read one by one."""
    try:
        with file.open("rb") as raw, gzip.open(raw) if file.suffix == ".gz" else nullcontext(raw) as unpacked:
            lines = io.TextIOWrapper(unpacked, encoding="utf-8-sig")
            if kind == "rasa":
                yield from load("learner.dataset_import:read_content")(kind, lines.read())
            else:
                yield from load("learner.dataset_import:read_lines")(kind, lines)
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as exc:
        raise InvalidError("file", f"{file} cannot be read: {exc}") from exc
