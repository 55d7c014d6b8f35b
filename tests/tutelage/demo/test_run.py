"""A small demo from end to end: the real proxy over HTTP, the real learner, a report that the database bears out."""

import io
import sqlite3
import tomllib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from store.clock import ManualClock, iso
from store.config import load_config
from tutelage.demo.client import DemoError
from tutelage.demo.keep import holds_demo
from tutelage.demo.options import DemoOptions, demo_settings, to_toml
from tutelage.demo.report import DemoReport, print_report
from tutelage.demo.run import make_folder, run_demo

NOW = datetime(2026, 11, 21, 15, 30, tzinfo=UTC)
DAYS = 7
WATCHED = 3


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> DemoReport:
    options = DemoOptions(
        seed=1,
        weeks=1,
        users=30,
        visits_per_day=50,
        watch_days=WATCHED,
        run_interval_h=24.0,
        directory=tmp_path_factory.mktemp("demo"),
    )
    return run_demo(options, clock=ManualClock(NOW), console=Console(file=io.StringIO()))


@pytest.fixture
def rows(report: DemoReport) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(report.database)) as connection:
        yield connection


def test_every_answer_and_signal_of_the_report_is_in_the_database(report: DemoReport, rows: sqlite3.Connection) -> None:
    asked_by_reviewer = 1
    counted = rows.execute("SELECT count(*) FROM responses WHERE outcome = 'ok'").fetchone()[0]
    assert counted == report.n_responses + asked_by_reviewer > 300
    assert rows.execute("SELECT count(*) FROM response_feedback").fetchone()[0] == report.n_signals > 200


def test_traffic_lies_in_the_simulated_days_that_end_now(report: DemoReport, rows: sqlite3.Connection) -> None:
    first, last = rows.execute(
        """
        SELECT min(created_at), max(created_at) FROM responses WHERE conversation_id <> 'demo-approved-entry'
        """
    ).fetchone()
    assert report.days == DAYS
    assert iso(datetime(2026, 11, 14, tzinfo=UTC).timestamp()) <= first
    assert last <= iso(datetime(2026, 11, 21, tzinfo=UTC).timestamp())


def test_satisfaction_of_both_arms_is_that_of_the_database(report: DemoReport, rows: sqlite3.Connection) -> None:
    for period, since, until in (
        (report.before, "2026-11-14", "2026-11-17"),
        (report.after, "2026-11-18", "2026-11-21"),
    ):
        for is_holdout, arm in ((0, period.treated), (1, period.holdout)):
            found = rows.execute(
                """
                SELECT count(*), avg(satisfaction), avg(thumbs_up > 0) FROM v_response_satisfaction
                WHERE is_holdout = :is_holdout AND created_at BETWEEN :since AND :until
                  AND conversation_id <> 'demo-approved-entry'
                """,
                {"is_holdout": is_holdout, "since": since, "until": until},
            ).fetchone()
            assert found == (arm.n_responses, pytest.approx(arm.satisfaction), pytest.approx(arm.thumbs_up_rate))


def test_nothing_is_learned_while_the_demo_only_watches(report: DemoReport, rows: sqlite3.Connection) -> None:
    runs = [row[0] for row in rows.execute("SELECT run_at FROM learning_runs ORDER BY run_at")]
    assert len(runs) == report.n_runs == 2 * (DAYS - WATCHED + 1)
    assert runs[0] == "2026-11-17T00:00:00.000Z"
    treated = "SELECT count(*) FROM injections AS i JOIN responses AS r ON r.id = i.response_id WHERE r.created_at < ?"
    assert rows.execute(treated, (runs[0],)).fetchone()[0] == 0


def test_the_patterns_are_those_of_the_database(report: DemoReport, rows: sqlite3.Connection) -> None:
    stored = rows.execute("SELECT id, state, lift, lift_low, lift_high FROM learned_patterns ORDER BY id").fetchall()
    shown = [(p.row.id, p.row.state, p.row.lift, p.row.lift_low, p.row.lift_high) for p in report.patterns]
    assert shown == stored


def test_holdout_conversations_got_no_pattern(rows: sqlite3.Connection) -> None:
    treated = """
        SELECT count(*) FROM injections AS i JOIN responses AS r ON r.id = i.response_id
        WHERE i.kind = 'pattern' AND i.treated = 1 AND r.is_holdout = :is_holdout
    """
    assert rows.execute(treated, {"is_holdout": 1}).fetchone()[0] == 0


def test_knowledge_waits_and_the_approved_entry_serves_the_next_answer(
    report: DemoReport, rows: sqlite3.Connection
) -> None:
    waiting = rows.execute("SELECT count(*) FROM ai_contexts WHERE status = 'pending_approval'").fetchone()[0]
    assert len(report.pending) == waiting > 0
    assert report.reuse is not None
    assert report.reuse.is_used
    approved = rows.execute("SELECT id, reviewed_by FROM ai_contexts WHERE status = 'approved'").fetchall()
    assert approved == [(report.reuse.context.id, "demo reviewer")]
    served = """
        SELECT i.item_id FROM injections AS i JOIN responses AS r ON r.id = i.response_id
        WHERE i.kind = 'context' AND i.treated = 1 AND r.conversation_id = 'demo-approved-entry'
    """
    assert (report.reuse.context.id,) in rows.execute(served).fetchall()


def test_every_outcome_of_the_traffic_is_ok(rows: sqlite3.Connection) -> None:
    assert rows.execute("SELECT DISTINCT outcome FROM responses").fetchall() == [("ok",)]


def test_the_printed_report_holds_the_numbers_and_says_where_to_look(report: DemoReport) -> None:
    console = Console(file=io.StringIO(), width=200)
    print_report(report, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for number in (
        f"{report.n_responses:,} answers",
        f"{report.n_signals:,} signals",
        f"{report.before.treated.satisfaction:+.3f}",
        f"{report.after.holdout.satisfaction:+.3f}",
        f"{len(report.pending)} entries wait",
        str(report.database),
        "http://127.0.0.1:8485/",
    ):
        assert number in text


def test_the_printed_report_fits_a_terminal_of_80_columns(report: DemoReport) -> None:
    console = Console(file=io.StringIO(), width=80)
    print_report(report, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    before_paths, _, _ = text.partition("Where to look")
    assert max(map(len, before_paths.splitlines())) <= 80
    assert "…" not in text


def test_the_settings_left_behind_open_the_same_database(report: DemoReport) -> None:
    config = load_config(report.database.with_name("config.toml"))
    assert config.store.url == f"sqlite:///{report.database}"
    assert config.upstream[0].name == "offline-demo"


def test_a_folder_that_holds_a_demo_is_left_alone(report: DemoReport) -> None:
    with pytest.raises(DemoError, match="holds a demo already: --serve opens it"):
        make_folder(report.database.parent)
    assert holds_demo(report.database.parent)
    assert not holds_demo(report.database.parent / "elsewhere")


def test_settings_survive_being_written_as_toml() -> None:
    settings = demo_settings(Path('/tmp/a "quoted" \\ folder'), 9000)
    assert tomllib.loads(to_toml(settings)) == settings
