"""The learner as a process: the scheduler's thread, and uvicorn around the app."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import uvicorn
from starlette.applications import Starlette

from learner.app import Lifespan, create_app
from learner.authoring import Author
from learner.collecting import make_collector
from learner.embedding_server import make_server
from learner.knowledge.indexing import Indexer
from learner.knowledge.pipeline import Period
from learner.knowledge.refitting import refit_quietly
from learner.notifying import Notifier
from learner.once import learn, make_refitting, teaches
from learner.scheduler import Scheduler
from learner.services import Services
from learner.watch import Watch
from store.clock import Clock, SystemClock
from store.config import LOCAL_MODEL, Config, LearnerSection, database_path
from store.database import Database, open_database
from store.errors import ConfigError
from store.jobs import JobRow
from store.logs import configure_logging
from store.presence import presence
from store.prices import PriceBook
from store.runs import RunKind
from store.tenants import ensure_default_tenant
from store.vocabulary import LEARNER

log = logging.getLogger(__name__)

GRACE_S: Final = 5  # that running requests get at shutdown


class Worker:
    """Does one job: a learning run over a connection of its own."""

    def __init__(self, config: Config, author: Author) -> None:
        self._config = config
        self._author = author

    def __call__(self, job: JobRow) -> str | None:
        """Do *job* and return the id of its (last) run."""
        kind: RunKind = "nlu" if job.kind == "nlu-train" else job.kind
        now_s = SystemClock().now_s()
        is_of_range = job.range_start_at is not None or job.range_end_at is not None
        period = Period(job.range_start_at, job.range_end_at) if is_of_range else None
        with open_database(self._config.store) as db:
            reports = learn(
                db,
                self._config,
                job.tenant_id,
                kind,
                now_s=now_s,
                author=self._author,
                period=period,
                dataset_id=job.dataset_id,
            )
            if kind == "knowledge" and period is None and teaches(self._config):
                refit_quietly(lambda: make_refitting(self._config, self._author), db, job.tenant_id)
        return reports[-1].run_id if reports else None


def serve(_config_path: Path | None, config: Config) -> None:
    """Serve the admin API and the console and run what is due, until SIGINT or SIGTERM.

    Raises:
        ConfigError: the port cannot be listened on.
        UnavailableError: the database cannot be opened.
    """
    configure_logging(config.log)
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn raises the signal that stopped it once more, after its shutdown: that should end in exit code 0.
        signal.signal(number, _exit)
    clock = SystemClock()
    with open_database(config.store) as db:
        ensure_default_tenant(db, clock.now_s())

    def connect() -> Database:
        return open_database(config.store)

    author = Author(config.embedding)
    scheduler = Scheduler(
        config,
        open_database=connect,
        execute=Worker(config, author),
        clock=clock,
        name=f"{socket.gethostname()}:{os.getpid()}",
    )
    notifier = Notifier(config.alerts, open_database=connect, clock=clock)
    indexer = make_indexer(config, connect, clock, author)
    collector = make_collector(config, open_database=connect, clock=clock)
    services = Services(config, connect, clock, author, wake_scheduler=scheduler.wake)
    listener = listen(config.learner)
    settings = uvicorn.Config(
        create_app(services, lifespan=_scheduling(scheduler, notifier, indexer, collector)),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with presence(database_path(config.store), LEARNER):
        uvicorn.Server(settings).run([listener])


def listen(section: LearnerSection) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigError: somebody else has the port, or the host is not ours.
    """
    family = socket.AF_INET6 if ":" in section.host else socket.AF_INET
    try:
        return socket.create_server((section.host, section.port), family=family)
    except OSError as exc:
        raise ConfigError(f"cannot listen on {section.host}:{section.port} ([learner] host, port): {exc}") from exc


def _exit(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def make_indexer(config: Config, connect: Callable[[], Database], clock: Clock, author: Author) -> Indexer:
    """Return what keeps vectors and thresholds up to date, with the embedding server if one is configured."""
    prices = PriceBook(config.prices)
    server = None
    if config.embedding.model != LOCAL_MODEL and config.embedding.ask_per_request:
        server = make_server(config.embedding, os.environ)
        prices.load()
    return Indexer(
        config, open_database=connect, clock=clock, embedder=lambda: author.embedder, server=server, prices=prices
    )


def _scheduling(scheduler: Scheduler, notifier: Notifier, indexer: Indexer, collector: Watch) -> Lifespan:
    """Return what runs *scheduler*, *notifier*, *indexer* and *collector* while the app is up."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        thread = threading.Thread(target=scheduler.run, name="scheduler", daemon=True)
        thread.start()
        notifier.start()
        indexer.start()
        collector.start()
        log.info("the learner is ready")
        try:
            yield
        finally:
            collector.stop()
            indexer.stop()
            notifier.stop()
            scheduler.stop()
            thread.join()

    return lifespan
