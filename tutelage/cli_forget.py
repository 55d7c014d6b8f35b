"""``tutelage forget``: a person, or one conversation, with what was learned from them alone."""

from typing import Annotated, Any

import typer

from store.errors import InvalidError
from store.vocabulary import DEFAULT_TENANT
from tutelage.dispatch import load
from tutelage.output import print_json, say, warn
from tutelage.session import ACTOR, JsonOption, TenantOption, now_s, settings, tenant_database


def forget(
    ctx: typer.Context,
    *,
    user: Annotated[str | None, typer.Option(help="As the app names this user.", metavar="ID")] = None,
    phone: Annotated[
        str | None, typer.Option(help="Phone number by which a channel knew them; only its hash was kept.")
    ] = None,
    conversation: Annotated[str | None, typer.Option(help="One conversation instead of a user.", metavar="ID")] = None,
    tenant: TenantOption = DEFAULT_TENANT,
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would go; change nothing.")] = False,
    is_compacted: Annotated[
        bool,
        typer.Option("--vacuum/--no-vacuum", help="Write the database file anew, so that no free page holds old text."),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Forget a user or a conversation: records, signals, examples, and what was learned from them alone.

    All of it in one transaction. The proxy may run: what is no longer served is gone from it within a second.
    """
    if (conversation is None) == (user is None and phone is None):
        raise InvalidError("--user", "give a user (--user, --phone or both) or a conversation (--conversation)")
    config = settings(ctx)
    author = load("learner.authoring:Author")(config.embedding)
    options = {"actor": ACTOR, "now_s": now_s(), "is_dry_run": is_dry_run, "is_compacted": is_compacted}
    with tenant_database(config, tenant) as db:
        if conversation is not None:
            call = load("learner.forgetting:forget_conversation")
            found = call(db, config, tenant, author, conversation_id=conversation, **options)
        else:
            call = load("learner.forgetting:forget_user")
            found = call(db, config, tenant, author, user=user, phone=phone, **options)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: Any) -> None:
    say("would be forgotten:" if found.is_dry_run else "forgotten:")
    for table, n in found.rows.items():
        if n:
            say(f"  {n:>7,} {table}")
    if found.segment_records:
        say(f"  {found.segment_records:>7,} records in segments, made blank")
    if not any(found.rows.values()) and not found.segment_records:
        say("  nothing: there is no record")
    for name, ids in (
        ("entries withdrawn", found.withdrawn_contexts),
        ("entries that lost a source", found.trimmed_contexts),
        ("conversations of others that lost a part", found.shared_conversations),
    ):
        if ids:
            say(f"{name}: {', '.join(ids)}")
    if found.generation is not None:
        say(f"generation {found.generation} is served within a second")
    if not (found.is_scrubbed or found.is_dry_run):
        warn("another process was reading: the database's files may still hold the text; the same command ends that")
