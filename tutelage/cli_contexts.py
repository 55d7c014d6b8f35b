"""``tutelage contexts``: knowledge entries and their review."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import typer

from store.contradictions import Resolution
from store.conversations import find_transcript
from store.paging import all_rows
from store.rows import plain
from store.vocabulary import DEFAULT_TENANT, ContextStatus
from tutelage.dispatch import load
from tutelage.output import print_json, print_table, say
from tutelage.session import ACTOR, JsonOption, TenantOption, now_s, settings, tenant_database

app = typer.Typer(help="Knowledge: list, look at, add, approve, reject.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID")]
MAX_SOURCES = 20


@app.command("list")
def list_(
    ctx: typer.Context,
    tenant: TenantOption = DEFAULT_TENANT,
    status: Annotated[ContextStatus | None, typer.Option(help="Only this status.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List knowledge entries, newest first."""
    list_contexts = load("store.contexts:list_contexts")
    with tenant_database(settings(ctx), tenant) as db:
        found = list(all_rows(partial(list_contexts, db, tenant, status=status)))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "status", "served", "question", "answer", "tags", "source"),
        ((c.id, c.status, c.is_served, c.questions[0], c.answer, c.tags, c.source_chat_id) for c in found),
        empty="no such entry" if status else "no entries yet: the learner takes them from resolved conversations",
        prose=("question", "answer", "tags"),
    )


@app.command("show")
def show(
    ctx: typer.Context, context_id: IdArgument, tenant: TenantOption = DEFAULT_TENANT, as_json: JsonOption = False
) -> None:
    """Show one entry with its revisions and the conversation that it came from."""
    with tenant_database(settings(ctx), tenant) as db:
        row = load("store.contexts:get_context")(db, tenant, context_id)
        revisions = load("store.contexts:list_revisions")(db, tenant, context_id)[0]
        sources = load("store.contexts:list_sources")(db, tenant, context_id, limit=MAX_SOURCES)[0]
        shown = load("store.contexts:wording_to_review")(db, row)
        source = find_transcript(db, tenant, shown.source_chat_id or row.source_chat_id)
        evidence = load("store.context_evidence:find_evidence")(db, tenant, context_id)
        against = load("store.contradictions:list_contradictions")(db, tenant, context_id=context_id)[0]
    if as_json:
        print_json(
            {
                **plain(row),
                "revisions": revisions,
                "sources": sources,
                "source": source,
                "evidence": evidence,
                "contradictions": against,
            }
        )
        return
    say(f"{row.id}: {row.status}{', served' if row.is_served else ''}, from {row.provenance.replace('_', ' ')}")
    if shown is not row and row.is_served:
        say("\nServed now:")
        _print_texts(row)
        say(f"\nProposed (revision {shown.revision}): {shown.note}")
    _print_texts(shown)
    if row.flag_reason:
        say(f"\nFlagged: {row.flag_reason}")
    if evidence is not None:
        say(f"\n{_figures(evidence)}")
    for one in against:
        say(f"\nContradiction {one.id} ({one.status}): {one.conversation_id} says: {one.answer}")
    say(f"\nSource conversation: {source.id if source else 'none, a person wrote it'}")
    for message in source.messages if source else ():
        say(f"  {_who(message)}: {message_text(message)}")
    supporting = [s.conversation_id for s in sources if source is None or s.conversation_id != source.id]
    if supporting:
        say(f"Supported by: {', '.join(supporting)}")


def _figures(found: Any) -> str:
    lift = "-" if found.lift is None else f"{found.lift:+.2f}"
    if found.lift_low is not None:
        lift += f" ({found.lift_low:+.2f} to {found.lift_high:+.2f})"
    return f"Uses: {found.n_uses}, held back: {found.n_held_back}, failures: {found.n_failed}, lift: {lift}"


def _print_texts(row: Any) -> None:
    for question in row.questions:
        say(f"  Q: {question}")
    say(f"  A: {row.answer}")
    say(f"  tags: {', '.join(row.tags) or '-'}")


def _who(message: dict[str, Any]) -> str:
    return f"{message['role']} (a person)" if message.get("agent") == "human" else str(message["role"])


def message_text(message: Mapping[str, Any]) -> str:
    """Return what a message says, its parts in one line."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(str(part.get("text", f"[{part.get('type')}]")) for part in parts if isinstance(part, dict))


@app.command("add")
def add(
    ctx: typer.Context,
    *,
    question: Annotated[list[str], typer.Option(help="A phrasing of the question; give two or three.")],
    answer: Annotated[str, typer.Option(help="May hold <INSTRUCTION> tags with business rules.")],
    tag: Annotated[list[str] | None, typer.Option(help="May be given again.")] = None,
    is_approved: Annotated[bool, typer.Option("--approve", help="Serve it at once, without a review.")] = False,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Add an entry by hand; it waits for a review unless --approve is given."""
    config = settings(ctx)
    author = load("learner.authoring:Author")(config.embedding)
    with tenant_database(config, tenant) as db:
        row = author.add_context(
            db,
            tenant,
            questions=question,
            answer=answer,
            tags=tag or [],
            is_approved=is_approved,
            actor=ACTOR,
            now_s=now_s(),
        )
    if as_json:
        print_json(row)
    else:
        say(f"{row.id} is {row.status}")


@app.command("approve")
def approve(
    ctx: typer.Context,
    context_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]")] = None,
    run: Annotated[str, typer.Option("--all-from-run", metavar="RUN", help="All that this run proposed.")] = "",
    tenant: TenantOption = DEFAULT_TENANT,
) -> None:
    """Put entries into service; the proxy uses them within a second."""
    if bool(context_ids) == bool(run):
        raise typer.BadParameter("give the ids of entries, or --all-from-run RUN")
    approve_context = load("learner.authoring:approve_context")
    with tenant_database(settings(ctx), tenant) as db:
        for context_id in context_ids or load("learner.resolving:waiting_of_run")(db, tenant, run):
            row = approve_context(db, tenant, context_id, actor=ACTOR, now_s=now_s())
            say(f"{row.id} is {row.status}")


@app.command("reject")
def reject(
    ctx: typer.Context,
    context_id: IdArgument,
    reason: Annotated[str, typer.Option(help="Why; the learner does not propose it again.")] = "",
    tenant: TenantOption = DEFAULT_TENANT,
) -> None:
    """Turn down what waits."""
    with tenant_database(settings(ctx), tenant) as db:
        row = load("learner.authoring:reject_context")(
            db, tenant, context_id, reason=reason, actor=ACTOR, now_s=now_s()
        )
    say(f"{row.id} is {row.status}")


@app.command("retire")
def retire(
    ctx: typer.Context,
    context_id: IdArgument,
    reason: Annotated[str, typer.Option(help="Why; kept with the entry.")] = "",
    tenant: TenantOption = DEFAULT_TENANT,
) -> None:
    """Take an entry out of service for good."""
    with tenant_database(settings(ctx), tenant) as db:
        row = load("learner.authoring:retire_context")(
            db, tenant, context_id, reason=reason, actor=ACTOR, now_s=now_s()
        )
    say(f"{row.id} is {row.status}")


@app.command("edit")
def edit(
    ctx: typer.Context,
    context_id: IdArgument,
    *,
    question: Annotated[list[str] | None, typer.Option(help="All phrasings anew; may be given again.")] = None,
    answer: Annotated[str | None, typer.Option(help="The whole answer anew.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="All tags anew; may be given again.")] = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Rewrite an entry; what is not given stays. One in service serves the new words within a second."""
    if question is None and answer is None and tag is None:
        raise typer.BadParameter("give --question, --answer or --tag")
    config = settings(ctx)
    author = load("learner.authoring:Author")(config.embedding)
    with tenant_database(config, tenant) as db:
        row = author.edit_context(
            db, tenant, context_id, questions=question, answer=answer, tags=tag, actor=ACTOR, now_s=now_s()
        )
    if as_json:
        print_json(row)
    else:
        say(f"{row.id} is {row.status}, revision {row.revision}")


@app.command("flag")
def flag(
    ctx: typer.Context,
    context_id: IdArgument,
    reason: Annotated[str, typer.Option(help="What is wrong with it; its reviewer reads this.")] = "",
    tenant: TenantOption = DEFAULT_TENANT,
) -> None:
    """Take an entry out of service until somebody approves it again."""
    with tenant_database(settings(ctx), tenant) as db:
        row = load("learner.authoring:flag_context")(
            db, tenant, context_id, reason=reason or "by a person", actor=ACTOR, now_s=now_s()
        )
    say(f"{row.id} is {row.status}")


@app.command("contradictions")
def contradictions(
    ctx: typer.Context,
    tenant: TenantOption = DEFAULT_TENANT,
    is_all: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List what conversations say against entries, oldest first."""
    list_contradictions = load("store.contradictions:list_contradictions")
    status = None if is_all else "open"
    with tenant_database(settings(ctx), tenant) as db:
        found = list(all_rows(partial(list_contradictions, db, tenant, status=status)))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "status", "entry", "entry says", "conversation", "conversation says", "resolution"),
        (
            (c.id, c.status, c.context_id, c.said_before, c.conversation_id, c.answer, c.resolution or "-")
            for c in found
        ),
        empty="nothing contradicts an entry",
        prose=("entry says", "conversation says"),
    )


@app.command("resolve")
def resolve(
    ctx: typer.Context,
    contradiction_id: IdArgument,
    resolution: Annotated[Resolution, typer.Argument(help="What is right.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the contradiction.")] = "",
    tenant: TenantOption = DEFAULT_TENANT,
) -> None:
    """Resolve a contradiction; replace serves what the conversation says within a second."""
    config = settings(ctx)
    author = load("learner.authoring:Author")(config.embedding)
    with tenant_database(config, tenant) as db:
        row = load("learner.resolving:resolve_contradiction")(
            db, author, tenant, contradiction_id, resolution=resolution, reason=reason, actor=ACTOR, now_s=now_s()
        )
    say(f"{row.id} is resolved: {row.resolution}")
