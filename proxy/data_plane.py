"""The data plane put together: every collaborator of one serving process, started and stopped in order."""

import asyncio
import contextlib
import gc
import logging
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from proxy.app import DataPlaneApp, create_app
from proxy.authentication import Authenticator, KeyAuthenticator, OpenAuthenticator
from proxy.breaker import STATES, Breaker
from proxy.browsers import Origins
from proxy.feedback import FeedbackEndpoints, FeedbackWriter
from proxy.limits import Limiter
from proxy.litellm_upstream import LitellmUpstream
from proxy.memory import Flood, give_back
from proxy.metrics import Metrics
from proxy.recorder_keeper import RecorderKeeper
from proxy.remote_questions import RemoteQuestions, server_of
from proxy.routing import Route, Router
from proxy.siblings import Siblings
from proxy.snapshots import Snapshots
from proxy.turn import Classifier, Embedder, Learning
from proxy.upstream_pool import HttpUpstream
from store.clock import Clock
from store.config import LOCAL_MODEL, Config, UpstreamSection, database_path, segment_directory
from store.database import open_database
from store.embedding import load_local_embedder
from store.errors import StoreError
from store.ids import new_id
from store.presence import has_died
from store.prices import PriceBook
from store.question_types import load_question_classifier
from store.refit_table import RefitTable
from store.segments import SegmentWriter, read_trouble
from store.tenants import any_limit, ensure_default_tenant
from store.vocabulary import LEARNER

RECORDER_CHECK_S: Final = 0.5
MEMORY_CHECK_S: Final = 1.0
MAX_HEARD_AT_ONCE: Final = 64  # messages of other workers between requests, 3 us each
LEARNER_DIED: Final = "it ended without being stopped; nothing is learned until it is started again"
RECORDER_STOP_S: Final = 10.0  # to move the last records; it goes on by itself when that is not enough

logger = logging.getLogger(__name__)


class EmbedderUnavailableError(Exception):
    """The embedder could not be loaded when the process started."""


class NoEmbedder:
    """Stands in for an embedder that is broken: learning fails open on every request."""

    name = ""
    least_confidence = 0.0

    def embed_one(self, text: str) -> NDArray[np.float32]:
        raise EmbedderUnavailableError("the embedder could not be loaded")

    def embed_refitted(self, text: str, refit: RefitTable) -> NDArray[np.float32]:
        raise EmbedderUnavailableError("the embedder could not be loaded")

    def classify(self, text: str, embedding: NDArray[np.float32]) -> tuple[str, float]:
        raise EmbedderUnavailableError("the embedder could not be loaded")


@dataclass(frozen=True)
class Understanding:
    """What questions are read with."""

    embedder: Embedder
    classifier: Classifier
    name: str
    problem: str | None = None


def load_understanding(config: Config) -> Understanding:
    """Return embedder and classifier; broken ones are stood in for, so that requests still pass."""
    try:
        embedder = load_local_embedder(config.embedding)
        return Understanding(embedder, load_question_classifier(embedder), embedder.name)
    except Exception as exc:  # whatever is wrong with it, requests must pass
        logger.exception("the embedder cannot be loaded; requests pass without learning")
        absent = NoEmbedder()
        return Understanding(absent, absent, absent.name, problem=str(exc))


class DataPlane:
    """All collaborators of one serving process; ``app`` is what the server runs."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock,
        recorder: RecorderKeeper | None,
        environment: Mapping[str, str],
        siblings: Siblings | None = None,
    ) -> None:
        """Build everything, start nothing.

        Args:
            config: all settings.
            clock: tells the time.
            recorder: kept running while this process serves; None: somebody else keeps it.
            environment: where the upstreams' keys are.
            siblings: the other workers; None when this process serves alone.
        """
        self._siblings = siblings
        self._config = config
        self._clock = clock
        self._recorder = recorder
        self._metrics = Metrics(CollectorRegistry())
        self._understanding = load_understanding(config)
        process = new_id("use", clock.now_s())
        self._remote = make_remote(config, environment, self._metrics)
        remote_model = self._remote.name if self._remote is not None else None
        self._snapshots = Snapshots(config, self._understanding.name, process, remote_model)
        self._writer = SegmentWriter(
            segment_directory(config),
            segment_bytes=config.recording.segment_mb * 1e6,
            max_backlog_bytes=config.recording.max_backlog_mb * 1e6,
        )
        self._prices = PriceBook(config.prices)
        self._limiter = Limiter(
            n_workers=config.proxy.workers,
            process=process,
            write=self._writer.append,
            uses=self._snapshots.uses,
            prices=self._prices,
            providers={section.name: section.provider for section in config.upstream},
            clock=clock,
            count_refusal=self._metrics.count_limited_request,
        )
        self._feedback_writer = FeedbackWriter(config)
        self._routes = tuple(make_route(section, environment) for section in config.upstream)
        self._learning = self._make_learning()
        self.app = self._app()

    def _make_learning(self) -> Learning:
        return Learning(
            self._config,
            snapshots=self._snapshots,
            embedder=self._understanding.embedder,
            classifier=self._understanding.classifier,
            writer=self._writer,
            clock=self._clock,
            count_failure=self._metrics.count_learning_failure,
            count_unloaded=self._metrics.count_request_without_contexts,
            siblings=self._siblings,
            remote=self._remote,
        )

    def _app(self) -> DataPlaneApp:
        config, learning = self._config, self._learning
        writer = self._writer
        self._metrics.watch("tutelage_records_written", "Records written to segments.", lambda: writer.n_written)
        self._metrics.watch(
            "tutelage_records_dropped", "Records dropped: the disk or the backlog is full.", lambda: writer.n_dropped
        )
        siblings = self._siblings
        if siblings is not None:
            self._metrics.watch(
                "tutelage_worker_messages_dropped",
                "Words to another worker that it did not get.",
                lambda: siblings.n_dropped,
            )
        for route in self._routes:
            if route.breaker is not None:
                self._metrics.watch_breaker(route.upstream.name, partial(self._breaker_state, route.breaker))
        self._metrics.watch_tokens(learning.tokens)
        return create_app(
            config.proxy,
            authenticator=make_authenticator(config, self._snapshots),
            router=Router(self._routes),
            learning=learning,
            feedback=FeedbackEndpoints(config.feedback, self._feedback_writer, self._clock, learning.own_id),
            origins=Origins(config.feedback.allowed_origins),
            health=self,
            limiter=self._limiter,
            metrics=self._metrics,
            clock=self._clock,
            rng=Random(),  # noqa: S311 - of the waits between tries
            lifespan=self.running,
        )

    # Health

    def degraded(self) -> dict[str, str]:
        """Return what does not work, by name with the reason."""
        recorder_problem = self._recorder.problem if self._recorder is not None else None
        found = {
            "database": self._snapshots.problem,
            "recording": self._writer.error,
            "records": read_trouble(segment_directory(self._config)),
            "recorder": recorder_problem,
            "embedder": self._understanding.problem,
            "embedding model": self._remote.problem if self._remote is not None else None,
            "classifier": self._snapshots.classifier_problem,
            "prices": self._prices.problem,
            "learner": LEARNER_DIED if has_died(database_path(self._config.store), LEARNER) else None,
        }
        for route in self._routes:
            if route.breaker is not None:
                found[f"upstream {route.upstream.name}"] = route.breaker.problem(self._clock.now_s())
        return {name: problem for name, problem in found.items() if problem}

    def _breaker_state(self, breaker: Breaker) -> float:
        return STATES.index(breaker.state(self._clock.now_s()))

    def generations(self) -> Mapping[str, int]:
        """Return the generation served to each tenant now."""
        return self._snapshots.generations()

    def is_ready(self) -> bool:
        """Whether requests can be served: in keys mode not before the keys are known."""
        return self._config.tenancy.mode == "open" or self._snapshots.keys() is not None

    # Life

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start everything in order, and stop it in the other order when the last request is done."""
        await asyncio.to_thread(self._start_threads)
        loop = asyncio.get_running_loop()
        watches = [loop.create_task(watch) for watch in (self._watch_recorder(), self._watch_memory())]
        if self._siblings is not None:
            loop.add_reader(self._siblings.fileno(), self._learning.hear_siblings, MAX_HEARD_AT_ONCE)
        for route in self._routes:
            if isinstance(route.upstream, LitellmUpstream):
                route.upstream.start()
        gc.collect()
        gc.freeze()  # what is loaded now stays: no collection needs to look at it again
        give_back()
        logger.info("the proxy is ready")
        try:
            yield
        finally:
            for watch in watches:
                watch.cancel()
            if self._siblings is not None:
                loop.remove_reader(self._siblings.fileno())
            for route in self._routes:
                await route.upstream.close()
            if self._remote is not None:
                await self._remote.close()
            await asyncio.to_thread(self._stop_threads)
            self._snapshots.history.close()

    def _start_threads(self) -> None:
        prepare_database(self._config, self._clock)
        if self._recorder is not None:
            self._recorder.check()
        self._snapshots.start()
        self._feedback_writer.start()

    def _stop_threads(self) -> None:
        self._feedback_writer.stop()
        self._writer.close()
        if self._recorder is not None:
            self._recorder.stop(RECORDER_STOP_S)
        self._snapshots.stop()

    async def _watch_recorder(self) -> None:
        while self._recorder is not None:
            await asyncio.sleep(RECORDER_CHECK_S)
            self._recorder.check()

    async def _watch_memory(self) -> None:
        flood = Flood()
        while True:
            await asyncio.sleep(MEMORY_CHECK_S)
            if flood.is_over(self._metrics.in_flight):
                await asyncio.to_thread(give_back)


def prepare_database(config: Config, clock: Clock) -> None:
    """Make the database and its default tenant where they are missing; one that is away is waited for later.

    So is one that another process brings up to date: requests do not wait for its migrations.
    """
    try:
        with open_database(config.store, migration_wait_s=0.0) as db:
            ensure_default_tenant(db, clock.now_s())
    except StoreError as exc:
        logger.warning("requests pass unmodified until the database is back: %s", exc)


def make_authenticator(config: Config, snapshots: Snapshots) -> Authenticator:
    """Return what the configured mode asks for."""
    if config.tenancy.mode == "open":
        return OpenAuthenticator(any_limit(config.limits))
    return KeyAuthenticator(snapshots.keys)


def make_route(section: UpstreamSection, environment: Mapping[str, str]) -> Route:
    """Return the route to one configured upstream, its key out of *environment*."""
    key = environment.get(section.api_key_env, "") if section.api_key_env else ""
    upstream = HttpUpstream(section) if section.provider == "openai" else LitellmUpstream(section, key)
    return Route.of(section, upstream, key.encode())


def make_remote(config: Config, environment: Mapping[str, str], metrics: Metrics) -> RemoteQuestions | None:
    """Return the asker of the configured embedding server, its key out of *environment*; None when none is asked."""
    section = config.embedding
    if section.model == LOCAL_MODEL or not section.ask_per_request:
        return None
    key = environment.get(section.api_key_env, "") if section.api_key_env else ""
    return RemoteQuestions(section, HttpUpstream(server_of(section)), key, metrics.question_vectors)


def environment() -> Mapping[str, str]:
    """Return this process's environment variables: the one place that reads them, for keys."""
    return os.environ
