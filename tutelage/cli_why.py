"""``tutelage why``: what was put into one request and what was not, and why."""

from typing import Annotated

import typer

from store.vocabulary import DEFAULT_TENANT
from tutelage.dispatch import load
from tutelage.output import print_json, say
from tutelage.session import JsonOption, TenantOption, settings, tenant_database


def why(
    ctx: typer.Context,
    response_id: Annotated[
        str, typer.Argument(metavar="RESPONSE_ID", help="x-tutelage-response-id, or the id in the reply's body.")
    ],
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Explain one reply: its patterns and knowledge, how they were drawn, and what its users made of it."""
    config = settings(ctx)
    with tenant_database(config, tenant) as db:
        asked = load("store.exchanges:find_asked")(db, tenant, response_id)
    if as_json:
        print_json(asked)
        return
    for line in load("learner.injection_words:why")(asked, config):
        say(line)
