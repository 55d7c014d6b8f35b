"""``tutelage stats``, ``conversations``, ``generations`` and ``audit``: what the console shows, for scripts."""

from functools import partial
from typing import Annotated, Any

import typer

from store.audit import list_audit
from store.clock import day_before
from store.conversations import ConversationRow, list_conversations, transcript
from store.generations import current_number, list_generations
from store.paging import all_rows
from store.statistics import ArmTotal, arm_totals, counts
from store.vocabulary import DEFAULT_TENANT
from tutelage.dispatch import load
from tutelage.output import print_json, print_table, say
from tutelage.session import JsonOption, TenantOption, now_s, settings, tenant_database

app = typer.Typer(help="What was said, what was put in, what came back.", no_args_is_help=True)

LimitOption = Annotated[int, typer.Option(min=1, help="How many, newest first.")]


def stats(
    ctx: typer.Context,
    *,
    tenant: TenantOption = DEFAULT_TENANT,
    days: Annotated[int, typer.Option(min=1, max=3660, help="Whole days (UTC) that count, today among them.")] = 60,
    as_json: JsonOption = False,
) -> None:
    """Tell whether learning helps: treated and holdout, what it is worth, and what waits for a person."""
    with tenant_database(settings(ctx), tenant) as db:
        totals = arm_totals(db, tenant, first_day=day_before(now_s(), days - 1), last_day=day_before(now_s()))
        there = counts(db, tenant)
        generation = current_number(db, tenant)
    worth = load("learner.console.overview:lift")(totals)
    if as_json:
        print_json({"days": days, "generation": generation, **totals, "worth": worth, "counts": there})
        return
    print_table(
        ("arm", "responses", "signals", "satisfaction", "thumbs up", "follow-ups"),
        (_arm(total) for total in totals.values()),
        empty="no responses yet",
    )
    if worth is None:
        say("\nWhat learning is worth cannot be told yet: both arms need conversations with signals.")
    else:
        say(f"\nLearning is worth {worth[0]:+.3f} satisfaction an answer (95 %: {worth[1]:+.3f} to {worth[2]:+.3f})")
    say(
        f"{there.n_active_patterns} active patterns, {there.n_trial_patterns} in trial; "
        f"{there.n_approved_contexts} entries serve; waiting: {there.n_pending_contexts} entries, "
        f"{there.n_flagged_contexts} flagged, {there.n_examples_to_review} examples, {there.n_open_alerts} alerts"
    )


def _arm(total: ArmTotal) -> tuple[Any, ...]:
    mean = None if total.satisfaction is None else f"{total.satisfaction:+.3f}"
    rates = [None if rate is None else f"{rate:.1%}" for rate in (total.thumbs_up_rate, total.follow_up_rate)]
    return (total.arm, total.n_responses, total.n_signals, mean, *rates)


@app.command("list")
def list_(
    ctx: typer.Context, tenant: TenantOption = DEFAULT_TENANT, limit: LimitOption = 50, as_json: JsonOption = False
) -> None:
    """List conversations, last changed first."""
    with tenant_database(settings(ctx), tenant) as db:
        _print(list(all_rows(partial(list_conversations, db, tenant), limit)), as_json=as_json)


@app.command("search")
def search(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Words of a question, a user, a response or an id.")],
    tenant: TenantOption = DEFAULT_TENANT,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Find conversations by words of a question, by user, by response or by id; all that were recorded are read."""
    look = load("store.conversation_search:search_conversations")
    with tenant_database(settings(ctx), tenant) as db:
        found: dict[str, ConversationRow] = {}
        cursor: str | None = None
        while True:
            page = look(db, tenant, text, limit=limit, cursor=cursor)
            found |= {row.id: row for row in (*page.by_name, *(row for row, _ in page.by_words))}
            cursor = page.next_cursor
            if cursor is None or len(found) >= limit:
                break
    _print(list(found.values())[:limit], as_json=as_json)


def _print(rows: list[ConversationRow], *, as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    print_table(
        ("id", "user", "source", "began", "last changed", "resolved", "tags"),
        ((r.id, r.user_id, r.source, r.created_at, r.updated_at, r.is_resolved, r.tags) for r in rows),
        empty="no conversations",
    )


@app.command("show")
def show(
    ctx: typer.Context,
    conversation_id: Annotated[str, typer.Argument(metavar="ID")],
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Show a conversation as it was, with the ids of its responses; `tutelage why ID` explains each of them."""
    with tenant_database(settings(ctx), tenant) as db:
        whole = transcript(db, tenant, conversation_id)
        around = load("store.exchanges:exchanges")(db, tenant, conversation_id) if as_json else ()
    if as_json:
        print_json({"conversation": whole, "responses": around})
        return
    words = load("tutelage.cli_contexts:message_text")
    for message in whole.messages:
        response_id = f" [{message['response_id']}]" if message.get("response_id") else ""
        say(f"{message['role']}{response_id}: {words(message)}")


def generations(
    ctx: typer.Context, tenant: TenantOption = DEFAULT_TENANT, limit: LimitOption = 50, as_json: JsonOption = False
) -> None:
    """List what was served when and why; `tutelage patterns revert N` goes back to one."""
    with tenant_database(settings(ctx), tenant) as db:
        found = list(all_rows(partial(list_generations, db, tenant), limit))
    if as_json:
        print_json(found)
        return
    print_table(
        ("number", "when", "by", "run", "patterns changed", "why"),
        ((g.number, g.created_at, g.actor, g.run_id, g.has_plan, g.reason) for g in found),
        empty="no generation yet: nothing was learned or written",
        prose=("why",),
    )


def audit(
    ctx: typer.Context, tenant: TenantOption = DEFAULT_TENANT, limit: LimitOption = 50, as_json: JsonOption = False
) -> None:
    """List who changed what, newest first."""
    with tenant_database(settings(ctx), tenant) as db:
        found = list(all_rows(partial(list_audit, db, tenant), limit))
    if as_json:
        print_json(found)
        return
    print_table(
        ("when", "by", "action", "what", "detail"),
        (
            (a.created_at, a.actor, a.action, a.object_id, ", ".join(f"{k}: {v}" for k, v in a.detail.items()))
            for a in found
        ),
        empty="nobody changed anything yet",
        prose=("detail",),
    )
