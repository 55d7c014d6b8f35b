"""``run_demo``: the whole demo at a glance."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from store.clock import DAY_S, Clock
from store.context_review import approve_context
from store.contexts import list_contexts
from store.vocabulary import DEFAULT_TENANT
from tutelage.demo.client import DemoError
from tutelage.demo.installation import Installation, install
from tutelage.demo.library import Library
from tutelage.demo.model import MODEL_NAME, create_model
from tutelage.demo.options import DATABASE, DemoOptions, demo_config, demo_settings, to_toml
from tutelage.demo.replay import SYSTEM_TEXT, Replay
from tutelage.demo.report import DemoReport, Reuse, read_report
from tutelage.demo.reviewer import by_plainness
from tutelage.demo.sample import load_sample
from tutelage.demo.server import plain_config, serve_in_thread
from tutelage.demo.users import make_users, make_visits, question_pool

REVIEWER = "demo reviewer"
REVIEW_AFTER_S = 3600.0  # after the last simulated day, so that the reviewer's question is not part of it


def run_demo(options: DemoOptions, *, clock: Clock, console: Console) -> DemoReport:
    """Replay the traffic, let the learner run, and return what came of it; progress goes to *console*.

    Args:
        options: the size of the demo and where its database goes.
        clock: tells when now is: the simulated weeks end with the day before.
        console: for the progress bar.

    Raises:
        DemoError: the folder is in use, or the proxy did not answer as it should.
    """
    started_s = time.perf_counter()
    console.print(f"{options.weeks} weeks pass for the real proxy and learner, in about a minute.")
    folder = make_folder(options.directory)
    library = Library(load_sample())
    pool = question_pool(library.exchanges)
    with ExitStack() as stack:
        model_port = stack.enter_context(serve_in_thread(plain_config(create_model(library)), "model"))
        settings = demo_settings(folder, model_port)
        (folder / "config.toml").write_text(to_toml(settings), encoding="utf-8")
        installation = stack.enter_context(install(demo_config(settings), options, clock))
        replay = _replay(installation, options, pool)
        n_runs = _let_weeks_pass(installation, replay, options, console)
        reuse = approve_and_ask(installation)
        return read_report(
            installation.db,
            DEFAULT_TENANT,
            start_s=installation.start_s,
            end_s=installation.end_s,
            watch_days=options.watch_days,
            n_runs=n_runs,
            pool=pool,
            library=library,
            reuse=reuse,
            elapsed_s=time.perf_counter() - started_s,
        )


def make_folder(directory: Path | None) -> Path:
    """Return the folder for a demo's files, made when it is missing.

    Raises:
        DemoError: another demo is in it.
    """
    folder = directory or Path(mkdtemp(prefix="tutelage-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / DATABASE).exists():
        raise DemoError(f"{folder} holds a demo already: --serve opens it, another --directory makes a new one")
    return folder.resolve()


def _replay(installation: Installation, options: DemoOptions, pool: Mapping[str, Sequence[str]]) -> Replay:
    visits = make_visits(
        options.seed,
        make_users(options.seed, options.users),
        pool,
        count=options.visits_per_day * options.days,
        days=options.days,
    )
    return Replay(
        installation.client, installation.clock, visits, pool, start_s=installation.start_s, seed=options.seed
    )


def _let_weeks_pass(installation: Installation, replay: Replay, options: DemoOptions, console: Console) -> int:
    """Send all traffic, with a learning run at the end of every interval once watching is over; return the runs."""
    interval_s = (options.run_interval_h or installation.config.learner.run_interval_h) * 3600
    n_intervals = round(options.days * DAY_S / interval_s)
    runs_a_day = max(1, round(DAY_S / interval_s))
    n_runs = 0
    with _progress(console) as progress:
        task = progress.add_task("replaying", total=n_intervals, day=0, days=options.days, answers=0)
        for number in range(1, n_intervals + 1):
            replay.run_until(installation.start_s + number * interval_s)
            installation.record()
            replay.send_signals()
            if number * interval_s >= options.watch_days * DAY_S:
                # Knowledge is looked for once a day, as [learner] knowledge_interval_h has it.
                n_runs += installation.learn("all" if number % runs_a_day == 0 else "patterns")
            day = int(number * interval_s // DAY_S)
            progress.update(task, advance=1, day=day, answers=replay.n_requests)
    return n_runs


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("day {task.fields[day]} of {task.fields[days]}, {task.fields[answers]:,} answers"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def approve_and_ask(installation: Installation) -> Reuse | None:
    """Approve one waiting entry as a reviewer would, ask its question anew, and return what was answered."""
    pending, _ = list_contexts(installation.db, DEFAULT_TENANT, status="pending_approval", limit=1000)
    if not pending:
        return None
    installation.clock.advance(REVIEW_AFTER_S)
    chosen = min(pending, key=by_plainness)
    approved = approve_context(
        installation.db, DEFAULT_TENANT, chosen.id, actor=REVIEWER, now_s=installation.clock.now_s()
    )
    installation.wait_for_generation()
    question = approved.questions[0]
    messages = [{"role": "system", "content": SYSTEM_TEXT}, {"role": "user", "content": question}]
    reply = installation.client.chat(
        {"model": MODEL_NAME, "messages": messages, "user": "u-curious", "seed": 0},
        {"x-tutelage-conversation": "demo-approved-entry"},
    )
    installation.record()
    is_used = " ".join(approved.answer.split()) in " ".join(reply.text.split())
    return Reuse(approved, question, reply.text, is_used)
