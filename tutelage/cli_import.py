"""``tutelage import FILE``: conversations and classified messages from a file of JSON lines."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

import msgspec
import typer

from learner.ingest import Ingested, store_items
from store.audit import record
from store.vocabulary import DEFAULT_TENANT
from tutelage.cli_export import YAML_SUFFIXES, import_learned
from tutelage.dispatch import load
from tutelage.output import print_json, say, warn
from tutelage.session import ACTOR, JsonOption, TenantOption, now_s, settings, tenant_database

BATCH = 200  # conversations per transaction: the proxy's recorder writes in between
MAX_SHOWN = 20  # bad lines printed one by one


def import_file(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, metavar="FILE")],
    tenant: TenantOption = DEFAULT_TENANT,
    is_approved: Annotated[
        bool, typer.Option("--approve", help="Of a YAML file: knowledge is served at once, without a review.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Import conversations: one JSON object a line, as the bulk ingest takes them; .gz is fine.

    A file that ends in .yaml or .yml holds patterns and knowledge, as `tutelage export` writes them.

    Each line: {"chatId": "...", "messages": [{"role", "content"}], "tags": [...], "resolved": true}, or a message
    that a channel classified: {"messageText": "...", "intent": "...", "confidence": 0.9}. The same file again changes
    nothing.
    """
    if file.suffix in YAML_SUFFIXES:
        import_learned(ctx, file, tenant, is_approved=is_approved, as_json=as_json)
        return
    config = settings(ctx)
    counts = {"new": 0, "changed": 0, "known": 0, "bad": 0}
    bad_lines: list[tuple[int, str]] = []
    with tenant_database(config, tenant) as db:

        def store(items: list[Any]) -> Ingested:
            return store_items(db, tenant, items, config.training, now_s=now_s())

        for batch in _batches(file):
            _import_batch(batch, store, counts, bad_lines)
        record(
            db, tenant, actor=ACTOR, action="conversations.import", object_id=file.name, detail=counts, now_s=now_s()
        )
    for number, message in bad_lines:
        warn(f"line {number}: {message}")
    if counts["bad"] > len(bad_lines):
        warn(f"... and {counts['bad'] - len(bad_lines)} more bad lines")
    if as_json:
        print_json(counts)
    else:
        say(
            f"{counts['new']} new, {counts['changed']} changed, {counts['known']} known before, "
            f"{counts['bad']} bad lines"
        )
    if counts["bad"] and not counts["new"] + counts["changed"] + counts["known"]:
        raise typer.Exit(1)


def _import_batch(
    batch: list[tuple[int, Any, str]],
    store: Callable[[list[Any]], Ingested],
    counts: dict[str, int],
    bad_lines: list[tuple[int, str]],
) -> None:
    good = [(number, item) for number, item, problem in batch if not problem]
    result = store([item for _, item in good])
    problems = [(number, problem) for number, _, problem in batch if problem]
    problems += [(good[problem.index][0], problem.message) for problem in result.problems]
    counts["new"] += result.n_new
    counts["changed"] += result.n_changed
    counts["known"] += result.n_known
    counts["bad"] += len(problems)
    bad_lines += sorted(problems)[: MAX_SHOWN - len(bad_lines)]


def _batches(file: Path) -> Iterator[list[tuple[int, Any, str]]]:
    """Yield (line number from 1, item, what is wrong or ''), some hundred at a time, beside a progress bar."""
    progress = load("tutelage.drawing:file_progress")()
    with file.open("rb") as raw, progress:
        task = progress.add_task(file.name, total=file.stat().st_size)
        lines = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if file.suffix == ".gz" else raw
        batch: list[tuple[int, Any, str]] = []
        for number, line in enumerate(_lines(lines, file), start=1):
            if line.strip():
                batch.append((number, *_decode(line)))
            if len(batch) >= BATCH:
                progress.update(task, completed=raw.tell())
                yield batch
                batch = []
        progress.update(task, completed=raw.tell())
        yield batch


def _lines(lines: BinaryIO, file: Path) -> Iterator[bytes]:
    try:
        yield from lines
    except (gzip.BadGzipFile, EOFError) as exc:
        warn(f"{file}: stopped reading: {exc}")


def _decode(line: bytes) -> tuple[Any, str]:
    try:
        return msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf")), ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return None, f"not JSON: {exc}"
