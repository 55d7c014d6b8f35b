"""``tutelage refit``: the local vectors fitted to a tenant's own questions, made now, taken back, or listed."""

from typing import Annotated

import typer

from store.errors import InvalidError
from store.refits import list_refits, step_back
from store.vocabulary import DEFAULT_TENANT
from tutelage.dispatch import load
from tutelage.output import print_json, print_table, say
from tutelage.session import ACTOR, JsonOption, TenantOption, now_s, settings, tenant_database


def refit(
    ctx: typer.Context,
    tenant: TenantOption = DEFAULT_TENANT,
    make: Annotated[bool, typer.Option("--make", help="Make one now; it is served only if its check is won.")] = False,
    back: Annotated[bool, typer.Option("--back", help="Go back to the one before, or to the local vectors.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List a tenant's refits of the local vectors, newest first; make one, or take the served one back."""
    if make and back:
        raise InvalidError("--make", "cannot go with --back")
    config = settings(ctx)
    with tenant_database(config, tenant) as db:
        if back:
            before = step_back(db, tenant, actor=ACTOR, now_s=now_s())
            say(f"now served: {before.id if before else 'the local vectors'}")
            return
        if make:
            if not load("learner.once:teaches")(config):
                raise InvalidError("embedding.model", "must name a model to fit to, and [refit] be enabled")
            work = load("learner.once:make_refitting")(config)
            say(load("learner.knowledge.refitting:refit")(work, db, tenant, is_forced=True))
            return
        found = list_refits(db, tenant)
    if as_json:
        print_json(found)
        return
    print_table(
        ("refit", "status", "teacher", "texts", "tokens", "entries", "gain", "at least", "cost $", "note"),
        (
            (r.id, r.status, r.teacher, r.n_texts, r.n_tokens, r.n_checked, r.gain, r.gain_low, r.cost_usd, r.note)
            for r in found
        ),
        empty="no refit yet",
        prose=("note",),
    )
