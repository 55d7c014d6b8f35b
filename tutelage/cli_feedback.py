"""``tutelage feedback``: what an app's page needs to send signals, and ratings that another program collected."""

from pathlib import Path
from typing import Annotated

import typer

from store.audit import record
from store.vocabulary import DEFAULT_TENANT
from tutelage.dispatch import load
from tutelage.output import print_json, say, warn
from tutelage.session import ACTOR, JsonOption, TenantOption, now_s, settings, tenant_database

MAX_SHOWN = 20  # bad records printed one by one

app = typer.Typer(help="Signals from pages, and from exports of other programs.", no_args_is_help=True)


@app.command("script")
def script(
    ctx: typer.Context,
    url: Annotated[
        str, typer.Option(help="Where browsers reach the proxy; default: as the settings say.", metavar="URL")
    ] = "",
    key: Annotated[str, typer.Option(help="A key of scope feedback; none in open mode.", metavar="KEY")] = "",
) -> None:
    """Print the two lines that a chat page needs: the script, with its integrity hash, and how to mark an answer."""
    config = settings(ctx)
    if key and not key.startswith(load("store.tenants:KEY_PREFIX")):
        raise typer.BadParameter("--key must be a Tutelage key: tutelage keys create --scope feedback")
    where = url or f"http://{config.proxy.host}:{config.proxy.port}"
    say(load("proxy.browsers:script_tag")(where, load("proxy.browsers:FeedbackScript")().integrity, key))
    say('<div data-tutelage-response="ID">the answer; ID is the id in the body of the response</div>')
    if not config.feedback.allowed_origins:
        warn("No page may send signals yet: name your pages in [feedback] allowed_origins.")


@app.command("import-open-webui")
def import_open_webui(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, metavar="FILE")],
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Import the ratings that Open WebUI exports (Admin Panel, Evaluations, Feedbacks, Export).

    A thumb on an answer that the proxy gave becomes a signal. A rated chat that it did not see is kept as a
    conversation, resolved or not, to learn knowledge from. The same file again changes nothing.
    """
    config = settings(ctx)
    try:
        items = load("msgspec.json:decode")(file.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (load("msgspec:DecodeError"), UnicodeDecodeError) as exc:
        raise typer.BadParameter(f"{file} is not JSON: {exc}") from exc
    if not isinstance(items, list):
        raise typer.BadParameter(f"{file} must hold a list of ratings, as Open WebUI exports it")
    with tenant_database(config, tenant) as db:
        done = load("learner.open_webui:import_ratings")(db, tenant, items, config, now_s=now_s())
        counts = {
            "signals": done.n_signals,
            "conversations": done.n_conversations,
            "known": done.n_known,
            "bad": len(done.problems),
        }
        record(db, tenant, actor=ACTOR, action="feedback.import", object_id=file.name, detail=counts, now_s=now_s())
    for index, message in done.problems[:MAX_SHOWN]:
        warn(f"record {index + 1}: {message}")
    if len(done.problems) > MAX_SHOWN:
        warn(f"... and {len(done.problems) - MAX_SHOWN} more bad records")
    if as_json:
        print_json(counts)
    else:
        say(
            f"{done.n_signals} signals on recorded answers, {done.n_conversations} conversations of other answers "
            f"({done.n_known} known before), {len(done.problems)} bad records"
        )
