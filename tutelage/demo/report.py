"""What came of a demo: every number read from the database, beside what only the demo can know."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from store.clock import day_before
from store.config import load_config
from store.contexts import ContextRow, list_contexts
from store.database import Database
from store.patterns import PatternRow, all_patterns
from store.statistics import ArmTotal, arm_totals
from tutelage.demo.library import Library
from tutelage.demo.options import HOLDOUT
from tutelage.demo.reviewer import by_plainness
from tutelage.demo.truth import Effect, best_match, effect_of, wish
from tutelage.demo.users import FALSE_FRIENDS, PREFERENCES, VOTE_RATE, Preference
from tutelage.output import command_name

IN_FORCE = ("active", "pinned", "warmdown")
MAX_WAITING = 3  # waiting entries shown
MAX_TEXT = 150  # characters of a text that is shown
Z_95 = 1.96


@dataclass(frozen=True, slots=True)
class Period:
    """Both arms in one stretch of time."""

    title: str
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
    first_day, last_day = day_before(start_s), day_before(end_s, 1)  # it begins and ends at midnight
    first = arm_totals(db, tenant_id, first_day=first_day, last_day=day_before(start_s, 1 - watch_days))
    last = arm_totals(db, tenant_id, first_day=day_before(end_s, watch_days), last_day=last_day)
    whole = arm_totals(db, tenant_id, first_day=first_day, last_day=last_day)
    patterns = all_patterns(db, tenant_id)
    pending, _ = list_contexts(db, tenant_id, status="pending_approval", limit=1000)
    return DemoReport(
        database=db.path,
        days=days,
        n_runs=n_runs,
        n_responses=sum(arm.n_responses for arm in whole.values()),
        n_signals=sum(arm.n_signals for arm in whole.values()),
        before=Period(f"first {watch_days} days", first["treated"], first["holdout"]),
        after=Period(f"last {watch_days} days", last["treated"], last["holdout"]),
        patterns=[JudgedPattern(row, effect_of(row, pool, library)) for row in patterns],
        preferences=[FoundPreference(wanted, best_match(patterns, wish(wanted))) for wanted in PREFERENCES],
        false_friends=[FoundPreference(friend, best_match(patterns, friend)) for friend in FALSE_FRIENDS],
        pending=pending,
        reuse=reuse,
        elapsed_s=elapsed_s,
    )


def print_report(report: DemoReport, console: Console) -> None:
    """Print *report* for a person, in 80 columns."""
    console.print(
        f"\n[bold]{report.n_responses:,} answers, {report.n_signals:,} signals, {report.days} simulated days, "
        f"{report.n_runs} learning runs in {report.elapsed_s:.0f} s[/bold]",
        highlight=False,
    )
    default = load_config().patterns.holdout
    console.print(
        "Proxy, learner and statistics are the real ones, with the settings that ship but for a holdout of "
        f"{HOLDOUT:.0%} (default {default:.0%}). The model, the people and the clock are simulated. These people vote "
        f"on about {VOTE_RATE:.0%} of the answers; at the 8% that are usual the same proof takes five times the "
        "traffic.",
        highlight=False,
    )
    for show in (_print_satisfaction, _print_truth, _print_in_force, _print_knowledge, _print_places):
        console.print()
        show(report, console)


def _table(*columns: str) -> Table:
    """Return a table without lines; columns whose name begins with a space hold numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        table.add_column(name.strip(), justify="right" if name.startswith(" ") else "left", no_wrap=True)
    return table


def _note(console: Console, text: str, *, style: str = "") -> None:
    """Print *text* under a table, every line of it indented."""
    console.print(Padding(Text.from_markup(text, style=style), (0, 0, 0, 2)))


def _print_satisfaction(report: DemoReport, console: Console) -> None:
    console.print("[bold]Did it help?[/bold]")
    table = _table("", "", " answers", " satisfaction", " thumbs-up", " asked again")
    for period in (report.before, report.after):
        for title, arm in (("treated", period.treated), ("holdout", period.holdout)):
            table.add_row(
                period.title if arm is period.treated else "",
                "not yet treated" if period is report.before and arm is period.treated else title,
                f"{arm.n_responses:,}",
                _signed(arm.satisfaction, arm.stderr),
                _percent(arm.thumbs_up_rate),
                _percent(arm.follow_up_rate),
            )
    console.print(table)
    _note(console, _difference(report.after))
    _note(
        console,
        "Satisfaction is the mean weight of an answer's signals, -1 to +1, ± its standard error; thumbs-up and asked "
        "again are shares of the answers. The holdout is drawn by lot and never gets patterns.",
        style="dim",
    )


def _difference(period: Period) -> str:
    treated, holdout = period.treated, period.holdout
    if treated.satisfaction is None or holdout.satisfaction is None:
        return "Too few answers to compare."
    lift = treated.satisfaction - holdout.satisfaction
    reach = Z_95 * math.hypot(treated.stderr or 0.0, holdout.stderr or 0.0)
    return (
        f"[bold]Treated minus holdout, {period.title}: {lift:+.3f} "
        f"(95% interval {lift - reach:+.3f} to {lift + reach:+.3f})[/bold]"
    )


def _print_truth(report: DemoReport, console: Console) -> None:
    console.print("[bold]Was the right thing learned?[/bold] (only the demo knows what its people secretly like)")
    table = _table("", "questions", "what they like", "pattern", "lift (95% interval)")
    for found in report.preferences:
        _add_row(table, "[green]found[/green]" if found.is_found else "[yellow]not found[/yellow]", found)
    for friend in report.false_friends:
        _add_row(table, "[red]fooled by[/red]" if friend.is_found else "[green]not fooled[/green]", friend)
    console.print(table)
    wrong, n_in_force = report.false_discoveries, len(report.in_force)
    _note(
        console,
        f"[bold]{len(wrong)} of {n_in_force} patterns in force do not truly help[/bold]; {len(report.on_trial)} more "
        "are on trial.",
    )
    _note(
        console,
        "The last two only look good in the records: the model happens to answer easy questions that way.",
        style="dim",
    )


def _add_row(table: Table, mark: str, found: FoundPreference) -> None:
    state = found.pattern.state if found.pattern else "-"
    lift = _interval(found.pattern) if found.pattern else "never thought of"
    table.add_row(mark, found.preference.question_type, describe(found.preference), state, lift)


def describe(preference: Preference) -> str:
    """Return in words what *preference* likes, does not like, or is no matter to anybody.

    >>> [describe(preference) for preference in (PREFERENCES[0], PREFERENCES[3], FALSE_FRIENDS[0])]
    ['a table', 'no question back', 'a list: no matter']
    """
    words = {
        "format": f"a {preference.value}",
        "length": f"{preference.value} answers",
        "asks_back": "question back",
    }[preference.trait]
    if preference.effect == 0:
        return f"{words}: no matter"
    return words if preference.effect > 0 else f"no {words}"


def _print_in_force(report: DemoReport, console: Console) -> None:
    console.print("[bold]What the proxy now adds to the system text[/bold]")
    for pattern in report.in_force:
        for_whom = ", ".join(pattern.row.conditions.question_type) or "all questions"
        truly = "" if pattern.effect.verdict == "helps" else f"  [red]({pattern.effect.verdict})[/red]"
        console.print(f"  [dim]{for_whom:14}[/dim]  {escape(pattern.row.rule)}{truly}", highlight=False)
    if not report.in_force:
        console.print("  Nothing yet: no pattern has proven itself.")


def _interval(row: PatternRow) -> str:
    if row.lift is None or row.lift_low is None or row.lift_high is None:
        return "not measured yet"
    return f"{row.lift:+.2f} ({row.lift_low:+.2f} to {row.lift_high:+.2f})"


def _print_knowledge(report: DemoReport, console: Console) -> None:
    console.print(
        f"[bold]Knowledge: {len(report.pending)} entries wait for a person[/bold] (quoted by rules; some are poor)",
        highlight=False,
    )
    for context in sorted(report.pending, key=by_plainness)[:MAX_WAITING]:
        _print_texts(console, (("Q", context.questions[0]), ("A", context.answer)), width=1)
    if report.reuse is None:
        console.print("  Nothing was approved: there was nothing to approve.")
        return
    reuse = report.reuse
    console.print("\n  The demo's reviewer approved one. The next person who asked:", highlight=False)
    _print_texts(
        console,
        (
            ("entry", f"{reuse.context.id}, from conversation {reuse.context.source_chat_id}"),
            ("question", reuse.question),
            ("approved", reuse.context.answer),
            ("answer", reuse.answer),
        ),
        width=8,
    )
    console.print(f"  The approved text {'is' if reuse.is_used else 'is not'} in the answer.")


def _print_texts(console: Console, texts: Sequence[tuple[str, str]], *, width: int) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", min_width=width + 2, no_wrap=True)
    table.add_column()
    for name, text in texts:
        table.add_row(f"  {name}", escape(shortened(text)))
    console.print(table, highlight=False)


def shortened(text: str) -> str:
    r"""Return *text* on one line, its end left out when it is long.

    >>> shortened("| # |\n| - |"), len(shortened("word " * 100))
    ('| # | | - |', 150)
    """
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 4]} ..."


def _print_places(report: DemoReport, console: Console) -> None:
    folder, command = report.database.parent, command_name()
    console.print("[bold]Where to look[/bold]")
    for text in (
        f"{command} demo --serve --directory {folder}",
        "    the console at http://127.0.0.1:8485/, and the proxy with the offline model",
        f"{command} --config {folder / 'config.toml'} patterns list",
        f"sqlite3 {report.database}    and there the view v_satisfaction_by_day",
    ):
        console.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)


def _signed(value: float | None, stderr: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:+.3f}" + (f" ±{stderr:.3f}" if stderr is not None else "")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
