"""``/healthz``, ``/readyz`` and ``/metrics`` of the learner."""

from collections.abc import Awaitable, Callable, Iterable

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from learner.api_errors import json_response
from learner.services import Services
from store.config import LOCAL_MODEL
from store.context_vectors import vector_progress
from store.database import Database
from store.errors import StoreError
from store.remote_embedding import model_name
from store.statistics import installation_totals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class StoreMetrics(Collector):
    """What the database says at the moment of the scrape, over all tenants together."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        with self._services.open_database() as db:
            totals = installation_totals(db)
            vectors = self._vectors(db)
        jobs = GaugeMetricFamily("tutelage_jobs", "Learning jobs.", labels=("kind", "status"))
        for kind, status, number in totals.jobs:
            jobs.add_metric((kind, status), number)
        runs = GaugeMetricFamily(
            "tutelage_last_run_timestamp_seconds", "When a run of this kind last completed.", labels=("kind",)
        )
        for kind, finished_s in totals.last_runs:
            runs.add_metric((kind,), finished_s)
        patterns = GaugeMetricFamily("tutelage_patterns", "Patterns by state.", labels=("state",))
        for state, number in totals.patterns:
            patterns.add_metric((state,), number)
        contexts = GaugeMetricFamily("tutelage_contexts", "Knowledge entries by status.", labels=("status",))
        for status, number in totals.contexts:
            contexts.add_metric((status,), number)
        alerts = GaugeMetricFamily("tutelage_open_alerts", "Alerts that nobody acknowledged.", value=totals.open_alerts)
        return *([] if vectors is None else [vectors]), jobs, runs, patterns, contexts, alerts

    def _vectors(self, db: Database) -> Metric | None:
        """Return how far vectors of the remote model have come; None without one."""
        section = self._services.config.embedding
        if section.model == LOCAL_MODEL or not section.ask_per_request:
            return None
        progress = vector_progress(db, model_name(section))
        vectors = GaugeMetricFamily(
            "tutelage_context_vectors", "Entries in service by whether they have a remote vector.", labels=("state",)
        )
        vectors.add_metric(("made",), progress.n_made)
        vectors.add_metric(("missing",), progress.n_served - progress.n_made)
        return vectors


def health_routes(services: Services) -> list[BaseRoute]:
    """Return the routes that monitors ask."""
    registry = CollectorRegistry(auto_describe=False)

    async def healthz(_: Request) -> Response:
        return json_response({"status": "ok"})

    async def readyz(_: Request) -> Response:
        problem = await run_in_threadpool(_database_problem, services)
        if problem is not None:
            return json_response({"status": "not ready", "database": problem}, 503)
        return json_response({"status": "ready"})

    async def metrics(_: Request) -> Response:
        return Response(await run_in_threadpool(generate_latest, registry), headers={"content-type": CONTENT_TYPE})

    registry.register(StoreMetrics(services))
    handlers: tuple[tuple[str, Callable[[Request], Awaitable[Response]]], ...] = (
        ("/healthz", healthz),
        ("/readyz", readyz),
        ("/metrics", metrics),
    )
    return [Route(path, handler, methods=["GET"]) for path, handler in handlers]


def _database_problem(services: Services) -> str | None:
    try:
        with services.open_database() as db:
            db.value("SELECT 1")
    except StoreError:
        return "unavailable"
    return None
