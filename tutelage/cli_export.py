"""``tutelage export``, and ``import`` of its files: what was learned as YAML that people review in git."""

from pathlib import Path
from typing import Annotated, Final

import typer

from store.audit import record
from store.vocabulary import DEFAULT_TENANT
from tutelage.dispatch import load
from tutelage.output import print_json, say, warn
from tutelage.session import ACTOR, TenantOption, now_s, settings, tenant_database

YAML_SUFFIXES: Final = (".yaml", ".yml")
MAX_SHOWN: Final = 20  # problems printed one by one


def export(
    ctx: typer.Context,
    file: Annotated[Path | None, typer.Argument(dir_okay=False, metavar="[FILE]", help="Default: print it.")] = None,
    *,
    is_all: Annotated[bool, typer.Option("--all", help="What is retired or rejected, too.")] = False,
    is_for_elsewhere: Annotated[
        bool, typer.Option("--new", help="Without ids: for another tenant or installation, where all of it is new.")
    ] = False,
    tenant: TenantOption = DEFAULT_TENANT,
) -> None:
    """Write patterns and knowledge as YAML; `tutelage import FILE` brings it back, with --new elsewhere."""
    with tenant_database(settings(ctx), tenant) as db:
        text = load("learner.yaml_files:export")(db, tenant, is_all=is_all, is_for_elsewhere=is_for_elsewhere)
    if file is None:
        say(text.rstrip("\n"))
    else:
        file.write_text(text, encoding="utf-8")


def import_learned(ctx: typer.Context, file: Path, tenant: str, *, is_approved: bool, as_json: bool) -> None:
    """Bring patterns and knowledge of *file* in, and say what became of them."""
    config = settings(ctx)
    author = load("learner.authoring:Author")(config.embedding)
    with tenant_database(config, tenant) as db:
        items = load("learner.yaml_files:read_file")(file.read_text(encoding="utf-8-sig"))
        importer = load("learner.yaml_files:Importer")(
            db, tenant, author, is_approved=is_approved, actor=ACTOR, now_s=now_s()
        )
        done = importer.bring_in(items)
        counts = {"added": done.added, "changed": done.changed, "same": done.same, "bad": len(done.problems)}
        record(db, tenant, actor=ACTOR, action="learned.import", object_id=file.name, detail=counts, now_s=now_s())
    for problem in done.problems[:MAX_SHOWN]:
        warn(problem)
    if len(done.problems) > MAX_SHOWN:
        warn(f"... and {len(done.problems) - MAX_SHOWN} more problems")
    if as_json:
        print_json(counts)
    else:
        say(f"{done.added} added, {done.changed} changed, {done.same} as they were, {len(done.problems)} bad")
    if done.problems:
        raise typer.Exit(1)
