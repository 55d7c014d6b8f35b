"""``tutelage patterns``: what was learned about how to answer, and a person's word on it."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Final, Literal, get_args

import typer

from learner.pattern_words import (
    ARM_WORDS,
    conditions_in_words,
    explained,
    figures_in_words,
    grade_in_words,
    lift_in_words,
    rates,
    shares_in_words,
    words_in_words,
)
from store.learner_states import plan_strata
from store.paging import all_rows
from store.pattern_evidence import ARMS, Arm, PatternConversation, pattern_conversations
from store.pattern_review import approve_trial, set_state
from store.patterns import PATTERN_SORTS, PatternRow, PatternSort, get_pattern, list_patterns, pattern_history
from store.plan import Conditions
from store.reverting import StepBack, step_back
from store.reverting import revert as revert_to
from store.rows import plain
from store.vocabulary import DEFAULT_TENANT, GRADES, PATTERN_TYPES, Grade, PatternState, PatternType
from tutelage.dispatch import load
from tutelage.output import cell, print_json, print_table, say
from tutelage.session import ACTOR, JsonOption, TenantOption, now_s, settings, tenant_database

app = typer.Typer(help="Learned instructions: list, look at, add, pin, disable, approve.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID")]
MAX_SHOWN: Final = 200  # conversations of an arm
PATTERN_STATES = get_args(PatternState)
TYPES_HELP = f"What it steers: {', '.join(PATTERN_TYPES)}."
QuestionTypeOption = Annotated[list[str] | None, typer.Option(help="Only for these; may be given again.")]
DataSourceOption = Annotated[list[str] | None, typer.Option(help="Only for these; may be given again.")]
PromptTemplateOption = Annotated[list[str] | None, typer.Option(help="Only for these; may be given again.")]
SegmentOption = Annotated[list[str] | None, typer.Option(help="Only for these; may be given again.")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Keep a rule with personal data or orders against other instructions.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    tenant: TenantOption = DEFAULT_TENANT,
    state: Annotated[
        PatternState | None, typer.Option(metavar="STATE", help=f"Only {', '.join(PATTERN_STATES)}.")
    ] = None,
    type_: Annotated[PatternType | None, typer.Option("--type", metavar="TYPE", help=TYPES_HELP)] = None,
    grade: Annotated[Grade | None, typer.Option(metavar="GRADE", help=f"Only {', '.join(GRADES)}.")] = None,
    question_type: Annotated[str | None, typer.Option(help="Only those whose conditions name it.")] = None,
    sort: Annotated[
        PatternSort, typer.Option(metavar="ORDER", help=f"{', '.join(PATTERN_SORTS)}; created: oldest first.")
    ] = "created",
    limit: Annotated[int | None, typer.Option(min=1, help="How many; all unless given.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List patterns, oldest first unless --sort says otherwise."""
    with tenant_database(settings(ctx), tenant) as db:
        wanted = partial(
            list_patterns, db, tenant, state=state, type=type_, grade=grade, question_type=question_type, sort=sort
        )
        found = list(all_rows(wanted, limit))
    if as_json:
        print_json(found)
        return
    print_table(
        ("id", "state", "grade", "rule", "when", "lift (95%)", "P(helps)", "signals", "users"),
        (
            (
                p.id,
                p.state,
                p.grade,
                p.rule,
                conditions_in_words(p.conditions),
                _lift(p),
                f"{p.confidence:.2f}",
                p.signal_count,
                p.user_count,
            )
            for p in found
        ),
        empty="no such pattern"
        if state or type_ or grade or question_type
        else "no patterns yet: the learner finds them in recorded traffic",
        prose=("rule", "when"),
    )


def _lift(row: PatternRow) -> str:
    if row.lift is None or row.lift_low is None or row.lift_high is None:
        return "-"
    return f"{row.lift:+.2f} ({row.lift_low:+.2f} to {row.lift_high:+.2f})"


@app.command("show")
def show(
    ctx: typer.Context,
    pattern_id: IdArgument,
    *,
    tenant: TenantOption = DEFAULT_TENANT,
    arm: Annotated[
        Arm | None, typer.Option(metavar="ARM", help=f"Show conversations of one arm only: {', '.join(ARMS)}.")
    ] = None,
    conversations: Annotated[int, typer.Option(min=0, max=MAX_SHOWN, help="How many of each arm.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Show one pattern with its evidence, its history and the conversations behind it."""
    with tenant_database(settings(ctx), tenant) as db:
        row = get_pattern(db, tenant, pattern_id)
        history = pattern_history(db, tenant, pattern_id)
        group_field, _ = plan_strata(db, tenant)
        behind = {
            one: pattern_conversations(db, row, one, limit=conversations)[0]
            for one in ((arm,) if arm else ARMS)
            if conversations
        }
    if as_json:
        print_json(
            {
                **plain(row),
                "group_field": group_field,
                "explained": explained(row, group_field),
                "history": history,
                "conversations": behind,
            }
        )
        return
    say(row.rule)
    for name, value in _facts(row, group_field):
        say(f"  {name:<14} {value}")
    say("\nHistory")
    print_table(
        ("when", "from", "to", "why", "figures", "by", "run"),
        (
            (e.created_at, e.from_state, e.to_state, e.reason, figures_in_words(e.detail), e.actor, e.run_id)
            for e in history
        ),
        empty="no history",
        prose=("why", "figures"),
    )
    for one, found in behind.items():
        _show_conversations(one, found)


def _facts(row: PatternRow, group_field: str) -> Iterator[tuple[str, str]]:
    yield "id", row.id
    yield "type", f"{row.type}, steers {row.dimension}" + (f", asks for {row.value}" if row.value else "")
    yield "words", words_in_words(row)
    yield "when", conditions_in_words(row.conditions)
    yield "state", f"{row.state} ({row.origin}, made {cell(row.created_at)}, last changed {cell(row.updated_at)})"
    yield "grade", grade_in_words(row)
    yield "lift", lift_in_words(row)
    e_value = "" if row.e_value is None else f", e-value {row.e_value:.3g} against no help"
    yield "confidence", f"{row.confidence:.2f} that it helps{e_value}"
    yield "evidence", f"{row.signal_count:,} rated replies of {row.user_count:,} users, {row.use_count:,} uses"
    yield "score", f"{row.score:+.2f}, moving average of satisfaction with it"
    yield "tokens", str(row.tokens)
    yield from _under("share", shares_in_words(row, group_field))
    yield from _under("beside votes", [rate.words for rate in rates(row)] or ["nothing known yet"])


def _under(name: str, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines):
        yield ("" if number else name), line


def _show_conversations(arm: Arm, found: Sequence[PatternConversation]) -> None:
    say(f"\n{ARM_WORDS[arm]}")
    print_table(
        ("conversation", "when", "type", "satisfaction", "signals", "question"),
        (
            (
                one.conversation_id,
                one.created_at,
                one.question_type,
                None if one.satisfaction is None else f"{one.satisfaction:+.2f}",
                [signal.signal for signal in one.signals],
                " ".join(one.question.split()),
            )
            for one in found
        ),
        empty="none among the newest records",
        prose=("question",),
    )


@app.command("add")
def add(
    ctx: typer.Context,
    *,
    type_: Annotated[PatternType, typer.Option("--type", metavar="TYPE", help=TYPES_HELP)],
    rule: Annotated[str, typer.Option(help="The instruction, as the model reads it.")],
    question_type: QuestionTypeOption = None,
    data_source: DataSourceOption = None,
    prompt_template: PromptTemplateOption = None,
    segment: SegmentOption = None,
    state: Annotated[
        Literal["candidate", "trial", "pinned"],
        typer.Option(help="candidate: the next run may try it; trial: try it now; pinned: always use it."),
    ] = "candidate",
    force: ForceOption = False,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Add a pattern by hand."""
    config = settings(ctx)
    conditions = _conditions(question_type, data_source, prompt_template, segment)
    author = load("learner.authoring:Author")(config.embedding)
    with tenant_database(config, tenant) as db:
        row = author.add_pattern(
            db,
            tenant,
            type=type_,
            rule=rule,
            conditions=conditions,
            state=state,
            actor=ACTOR,
            now_s=now_s(),
            is_forced=force,
        )
    if as_json:
        print_json(row)
    else:
        say(f"{row.id} is {row.state}")


@app.command("edit")
def edit(
    ctx: typer.Context,
    pattern_id: IdArgument,
    *,
    rule: Annotated[str | None, typer.Option(help="Other words.")] = None,
    question_type: QuestionTypeOption = None,
    data_source: DataSourceOption = None,
    prompt_template: PromptTemplateOption = None,
    segment: SegmentOption = None,
    anywhere: Annotated[bool, typer.Option("--anywhere", help="Without any condition.")] = False,
    force: ForceOption = False,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Give a pattern other words or other conditions (all of them anew); its evidence starts anew."""
    conditions = _conditions(question_type, data_source, prompt_template, segment)
    if conditions != Conditions() and anywhere:
        raise typer.BadParameter("--anywhere and conditions exclude each other")
    if rule is None and conditions == Conditions() and not anywhere:
        raise typer.BadParameter("give --rule, conditions or --anywhere")
    config = settings(ctx)
    author = load("learner.authoring:Author")(config.embedding)
    with tenant_database(config, tenant) as db:
        row = author.edit_pattern(
            db,
            tenant,
            pattern_id,
            rule=rule,
            conditions=conditions if anywhere or conditions != Conditions() else None,
            actor=ACTOR,
            now_s=now_s(),
            is_forced=force,
        )
    if as_json:
        print_json(row)
    else:
        say(f"{row.id} is {row.state}; its evidence starts anew")


def _conditions(*fields: list[str] | None) -> Conditions:
    return Conditions(*(tuple(field or ()) for field in fields))


def _change(
    ctx: typer.Context, pattern_id: str, tenant: str, state: Literal["trial", "pinned", "disabled"], reason: str
) -> None:
    with tenant_database(settings(ctx), tenant) as db:
        row = set_state(db, tenant, pattern_id, state=state, actor=ACTOR, reason=reason or "by a person", now_s=now_s())
    say(f"{row.id} is {row.state}")


@app.command("pin")
def pin(
    ctx: typer.Context, pattern_id: IdArgument, tenant: TenantOption = DEFAULT_TENANT, reason: ReasonOption = ""
) -> None:
    """Use a pattern in every matching conversation, whatever the evidence says."""
    _change(ctx, pattern_id, tenant, "pinned", reason)


@app.command("disable")
def disable(
    ctx: typer.Context, pattern_id: IdArgument, tenant: TenantOption = DEFAULT_TENANT, reason: ReasonOption = ""
) -> None:
    """Take a pattern out of service until a person brings it back."""
    _change(ctx, pattern_id, tenant, "disabled", reason)


@app.command("trial")
def trial(
    ctx: typer.Context, pattern_id: IdArgument, tenant: TenantOption = DEFAULT_TENANT, reason: ReasonOption = ""
) -> None:
    """Put a pattern (back) to trial: its evidence starts anew."""
    _change(ctx, pattern_id, tenant, "trial", reason)


@app.command("approve")
def approve(ctx: typer.Context, pattern_id: IdArgument, tenant: TenantOption = DEFAULT_TENANT) -> None:
    """Allow a candidate's trial, where patterns.require_trial_approval asks for it."""
    with tenant_database(settings(ctx), tenant) as db:
        row = approve_trial(db, tenant, pattern_id, actor=ACTOR, now_s=now_s())
    say(f"{row.id} may be tried: the next run starts it")


@app.command("revert")
def revert(
    ctx: typer.Context,
    generation: Annotated[int, typer.Argument(min=1, help="Its number, as tutelage runs shows it.")],
    *,
    tenant: TenantOption = DEFAULT_TENANT,
    reason: ReasonOption = "",
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would change; change nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Bring back what was taken out for harm, unasked.")] = False,
) -> None:
    """Serve again what an earlier generation served, in one step; what was not in it is retired."""
    with tenant_database(settings(ctx), tenant) as db:
        step = step_back(db, tenant, generation, now_s=now_s())
        if is_dry_run or (step.harmful and not force):
            for line in _changes(step):
                say(line)
        if is_dry_run:
            return
        if step.harmful and not force:
            typer.confirm("Bring back what was taken out for harm?", abort=True)
        done = revert_to(
            db,
            tenant,
            generation,
            actor=ACTOR,
            reason=reason or "by a person",
            now_s=now_s(),
            is_forced=bool(step.harmful),
        )
    if done.generation is None:
        say(f"what generation {generation} served is served already")
        return
    say(
        f"generation {done.generation} serves what generation {generation} served: {len(done.restored)} patterns "
        f"restored, {len(done.retired)} retired"
        + (f", {len(done.kept)} left as a person set them" if done.kept else "")
    )


def _changes(step: StepBack) -> Iterator[str]:
    """Yield in words what a step back would change."""
    for row, after in step.restored:
        removal = step.removals.get(row.id)
        why = "" if removal is None else f"; taken out {removal.at}: {removal.reason}"
        yield f"restored: {row.id} {after.rule!r}, {row.state} -> {after.state}{why}"
    for row, _ in step.retired:
        yield f"retired: {row.id} {row.rule!r}, {row.state} -> retired"
    for row in step.kept:
        yield f"left as a person set it: {row.id} {row.rule!r}, {row.state}"
    if not (step.restored or step.retired):
        yield "nothing would change"
