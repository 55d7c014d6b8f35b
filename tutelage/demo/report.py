"""What came of a demo: every number read from the database, beside what only the demo can know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from store.contexts import ContextRow, list_contexts
from store.database import Database
from store.patterns import PatternRow, all_patterns
from store.statistics import ArmTotal, arm_totals
from tutelage.demo.library import Library
from tutelage.demo.options import HOLDOUT, RUN_INTERVAL_H
from tutelage.demo.truth import Effect, best_match, effect_of, wish
from tutelage.demo.users import FALSE_FRIENDS, PREFERENCES, VOTE_RATE, Preference

IN_FORCE = ("active", "pinned", "warmdown")
MAX_LISTED = 12  # patterns of the table
MAX_WAITING = 4  # waiting entries shown
MAX_LINE = 200  # characters of a text on one line


@dataclass(frozen=True, slots=True)
class Period:
    """Both arms in one stretch of time; *others* is what those outside the holdout are called then."""

    title: str
    others: str
    treated: ArmTotal
    holdout: ArmTotal


@dataclass(frozen=True, slots=True)
class JudgedPattern:
    """A pattern as it stands in the database, and what it truly does."""

    row: PatternRow
    effect: Effect


@dataclass(frozen=True, slots=True)
class FoundPreference:
    """A hidden preference and the learned pattern that comes nearest to it."""

    preference: Preference
    pattern: PatternRow | None

    @property
    def is_found(self) -> bool:
        return self.pattern is not None and self.pattern.state in IN_FORCE


@dataclass(frozen=True, slots=True)
class Reuse:
    """The entry that the demo's reviewer approved, and the next answer that it served."""

    context: ContextRow
    question: str
    answer: str
    is_used: bool


@dataclass(frozen=True, slots=True)
class DemoReport:
    """The outcome of one demo."""

    database: Path
    days: int
    n_runs: int
    n_responses: int
    n_signals: int
    before: Period
    after: Period
    patterns: Sequence[JudgedPattern]
    preferences: Sequence[FoundPreference]
    false_friends: Sequence[FoundPreference]
    pending: Sequence[ContextRow]
    reuse: Reuse | None
    elapsed_s: float

    @property
    def in_force(self) -> list[JudgedPattern]:
        return [pattern for pattern in self.patterns if pattern.row.state in IN_FORCE]

    @property
    def on_trial(self) -> list[JudgedPattern]:
        return [pattern for pattern in self.patterns if pattern.row.state == "trial"]

    @property
    def false_discoveries(self) -> list[JudgedPattern]:
        return [pattern for pattern in self.in_force if pattern.effect.verdict != "helps"]


def read_report(
    db: Database,
    tenant_id: str,
    *,
    start_s: float,
    end_s: float,
    watch_days: int,
    n_runs: int,
    pool: Mapping[str, Sequence[str]],
    library: Library,
    reuse: Reuse | None,
    elapsed_s: float,
) -> DemoReport:
    """Return the outcome as the database has it: the first *watch_days* days beside as many at the end."""
    days = round((end_s - start_s) / 86400)
    first = arm_totals(db, tenant_id, now_s=start_s + watch_days * 86400, days=watch_days)
    last = arm_totals(db, tenant_id, now_s=end_s, days=watch_days)
    whole = arm_totals(db, tenant_id, now_s=end_s, days=days)
    patterns = all_patterns(db, tenant_id)
    pending, _ = list_contexts(db, tenant_id, status="pending_approval", limit=1000)
    return DemoReport(
        database=db.path,
        days=days,
        n_runs=n_runs,
        n_responses=sum(arm.n_responses for arm in whole.values()),
        n_signals=sum(arm.n_signals for arm in whole.values()),
        before=Period(f"first {watch_days} days, only watched", "the others", first["treated"], first["holdout"]),
        after=Period(f"last {watch_days} days", "treated", last["treated"], last["holdout"]),
        patterns=[JudgedPattern(row, effect_of(row, pool, library)) for row in patterns],
        preferences=[FoundPreference(wanted, best_match(patterns, wish(wanted))) for wanted in PREFERENCES],
        false_friends=[FoundPreference(friend, best_match(patterns, friend)) for friend in FALSE_FRIENDS],
        pending=pending,
        reuse=reuse,
        elapsed_s=elapsed_s,
    )


def print_report(report: DemoReport, console: Console) -> None:
    """Print *report* for a person."""
    console.print()
    console.print(
        f"[bold]{report.n_responses:,} answers and {report.n_signals:,} signals in {report.days} simulated days, "
        f"{report.n_runs} learning runs, in {report.elapsed_s:.0f} s.[/bold]"
    )
    console.print(
        f"Everything is real but the model, the people and the clock. These users vote on about {VOTE_RATE:.0%} of the "
        f"answers (in the wild about 8%: the same proof takes longer). {HOLDOUT:.0%} of the conversations are the "
        f"holdout (default 5%), and patterns are learned every {RUN_INTERVAL_H:.0f} hours (default 6)."
    )
    console.print(_satisfaction_table(report))
    console.print(_pattern_table(report))
    _print_truth(report, console)
    _print_knowledge(report, console)
    _print_places(report, console)


def _satisfaction_table(report: DemoReport) -> Table:
    table = Table(title="Did it help?", title_justify="left", caption=_caption(report), caption_justify="left")
    for name in ("", "conversations", "answers", "satisfaction", "thumbs-up", "asked again"):
        table.add_column(name, justify="left" if name in ("", "conversations") else "right")
    for period in (report.before, report.after):
        for title, arm in ((period.others, period.treated), ("holdout", period.holdout)):
            table.add_row(
                period.title if arm is period.treated else "",
                title,
                f"{arm.n_responses:,}",
                _signed(arm.satisfaction, arm.stderr),
                _percent(arm.thumbs_up_rate),
                _percent(arm.follow_up_rate),
            )
    return table


def _caption(report: DemoReport) -> str:
    treated, holdout = report.after.treated, report.after.holdout
    if treated.satisfaction is None or holdout.satisfaction is None:
        return "Too few answers to compare."
    stderr = ((treated.stderr or 0.0) ** 2 + (holdout.stderr or 0.0) ** 2) ** 0.5
    lift = treated.satisfaction - holdout.satisfaction
    return (
        f"Treated minus holdout in the last days: {lift:+.3f} (95% interval {lift - 1.96 * stderr:+.3f} to "
        f"{lift + 1.96 * stderr:+.3f}). Satisfaction is a mean in [-1, 1], ± its standard error; holdout "
        "conversations never get patterns."
    )


def _pattern_table(report: DemoReport) -> Table:
    listed = sorted(report.in_force, key=_by_lift) + sorted(report.on_trial, key=_by_lift)
    hidden = len(report.patterns) - len(listed[:MAX_LISTED])
    table = Table(title="Patterns found", title_justify="left", caption_justify="left")
    table.caption = f"{hidden} more are on trial, wait, or were given up. True effect: known to the demo alone."
    for name in ("state", "for", "instruction", "lift (95% interval)", "P(helps)", "true effect"):
        table.add_column(name, overflow="fold")
    for pattern in listed[:MAX_LISTED]:
        row = pattern.row
        table.add_row(
            row.state,
            ", ".join(row.conditions.question_type) or "all",
            escape(row.rule),
            _interval(row),
            f"{row.confidence:.2f}",
            f"{pattern.effect.verdict} ({pattern.effect.liking:+.2f})",
        )
    return table


def _by_lift(pattern: JudgedPattern) -> float:
    return -(pattern.row.lift or 0.0)


def _interval(row: PatternRow) -> str:
    if row.lift is None or row.lift_low is None or row.lift_high is None:
        return "not measured yet"
    return f"{row.lift:+.3f} ({row.lift_low:+.3f} to {row.lift_high:+.3f})"


def _print_truth(report: DemoReport, console: Console) -> None:
    console.print("[bold]What the users secretly like[/bold]")
    for found in report.preferences:
        state = found.pattern.state if found.pattern else "never thought of"
        mark = "[green]found[/green]" if found.is_found else "[yellow]not found[/yellow]"
        console.print(f"  {mark}  {describe(found.preference)}  [dim]({state})[/dim]", highlight=False)
    console.print("[bold]What only looks good[/bold] (the model does it more often on easy questions)")
    for friend in report.false_friends:
        state = friend.pattern.state if friend.pattern else "never thought of"
        mark = "[red]believed[/red]" if friend.is_found else "[green]not believed[/green]"
        console.print(f"  {mark}  {describe(friend.preference)}  [dim]({state})[/dim]", highlight=False)
    wrong = report.false_discoveries
    console.print(f"{len(wrong)} of {len(report.in_force)} patterns in force do not truly help.", highlight=False)


def describe(preference: Preference) -> str:
    """Return *preference* in words.

    >>> describe(PREFERENCES[0])
    'compare_travel: answers as a table, effect +1.6'
    """
    words = {
        "format": f"answers as a {preference.value}",
        "length": f"{preference.value} answers",
        "asks_back": "answers that end with a question",
    }[preference.trait]
    return f"{preference.question_type}: {words}, effect {preference.effect:+.1f}"


def _print_knowledge(report: DemoReport, console: Console) -> None:
    console.print()
    console.print(f"[bold]Knowledge: {len(report.pending)} entries wait for a person[/bold]")
    table = Table(box=None, show_header=False, pad_edge=True)
    for context in report.pending[:MAX_WAITING]:
        table.add_row(escape(context.questions[0]), escape(_one_line(context.answer)), f"[dim]{context.id}[/dim]")
    console.print(table)
    if report.reuse is None:
        console.print("Nothing was approved: there was nothing to approve.")
        return
    reuse = report.reuse
    console.print("The demo's reviewer approved one (nothing is served that nobody approved); the next one who asks:")
    for name, text in (
        ("entry", f"{reuse.context.id}, learned from conversation {reuse.context.source_chat_id}"),
        ("question", reuse.question),
        ("approved", _one_line(reuse.context.answer)),
        ("answer", _one_line(reuse.answer)),
    ):
        console.print(f"  [dim]{name:9}[/dim] {escape(text)}", highlight=False)
    console.print(f"  The approved text {'is' if reuse.is_used else 'is not'} in the answer.")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 4]} ..."


def _print_places(report: DemoReport, console: Console) -> None:
    settings = report.database.with_name("config.toml")
    console.print()
    console.print("[bold]Where to look[/bold]")
    for text in (
        f"tutelage --config {settings} up     and then the console at http://127.0.0.1:8485/",
        f"tutelage --config {settings} patterns list",
        f"tutelage --config {settings} contexts list",
        f"sqlite3 {report.database}     and there the views v_satisfaction_by_day and v_pattern_lift",
    ):
        console.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)


def _signed(value: float | None, stderr: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:+.3f}" + (f" ± {stderr:.3f}" if stderr is not None else "")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
