"""``tutelage backup`` and ``restore``: a copy of everything while it runs, and back."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tutelage.dispatch import load
from tutelage.output import print_json, say, warn
from tutelage.session import JsonOption, now_s, settings


def stamp() -> str:
    """Return the time as it stands in names of files.

    >>> len(stamp())
    16
    """
    return datetime.fromtimestamp(now_s(), UTC).strftime("%Y%m%dT%H%M%SZ")


def backup(
    ctx: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="Made; default: tutelage-backup-TIME.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy database and waiting records to a folder; nothing has to stop. Keep the settings file and keys yourself."""
    done = load("store.backups:back_up")(settings(ctx), folder or Path(f"tutelage-backup-{stamp()}"))
    if as_json:
        print_json(done)
        return
    say(f"{done.folder}: {done.size_bytes / 1e6:.1f} MB, {done.n_responses} responses, {done.n_segments} segments")


def restore(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, metavar="FOLDER")],
    is_replacing: Annotated[
        bool, typer.Option("--replace", help="There is a database already: put it aside, under another name.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a backup into service. Running processes go over to it by themselves, within a second."""
    done = load("store.backups:restore")(settings(ctx), folder, is_replacing=is_replacing, stamp=stamp())
    if as_json:
        print_json(done)
        return
    say(f"{done.backup.n_responses} responses and {done.backup.n_segments} segments of {folder} are in service")
    if done.aside is not None:
        warn(f"What was there before is {done.aside}; delete it once you do not need it.")
