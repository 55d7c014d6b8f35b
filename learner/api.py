"""The routes of the admin API, and what each of them has in common: guard, body, key, database, JSON."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from learner import (
    api_contexts,
    api_contradictions,
    api_forget,
    api_generations,
    api_patterns,
    api_records,
    api_training,
)
from learner.access import check_browser, check_right, principal_of_key
from learner.api_errors import json_response
from learner.api_export import export_route
from learner.api_request import Call, Principal, read_object
from learner.rights import needed_right
from learner.services import Services
from store.database import Database

Handler = Callable[[Call], Any]
Endpoint = Callable[[Request], Awaitable[Response]]

# path, method, handler, status of a good answer
ROUTES: Final[tuple[tuple[str, str, Handler, int], ...]] = (
    ("/api/training/conversations/bulk", "POST", api_training.ingest, 200),
    ("/api/training/datasets", "GET", api_training.datasets, 200),
    ("/api/training/datasets/{id}", "GET", api_training.dataset, 200),
    ("/api/training/datasets/{id}/examples", "GET", api_training.examples_of, 200),
    ("/api/training/datasets/{id}/facets", "GET", api_training.facets_of, 200),
    ("/api/training/datasets/{id}/review", "GET", api_training.review_of, 200),
    ("/api/training/datasets/{id}/import", "POST", api_training.import_into, 200),
    ("/api/training/examples/{id}", "GET", api_training.example, 200),
    ("/api/training/examples/{id}", "PATCH", api_training.patch_example, 200),
    ("/api/training/jobs", "POST", api_training.add_job, 201),
    ("/api/training/jobs", "GET", api_training.jobs, 200),
    ("/api/training/jobs/{id}", "GET", api_training.job, 200),
    ("/api/training/jobs/{id}/cancel", "POST", api_training.cancel, 200),
    ("/api/training/models", "GET", api_training.models, 200),
    ("/api/training/models/rollback", "POST", api_training.roll_back, 200),
    ("/api/training/models/{version}", "GET", api_training.model, 200),
    ("/api/patterns", "GET", api_patterns.patterns, 200),
    ("/api/patterns", "POST", api_patterns.add_pattern, 201),
    ("/api/patterns/{id}", "GET", api_patterns.pattern, 200),
    ("/api/patterns/{id}", "PATCH", api_patterns.patch_pattern, 200),
    ("/api/patterns/{id}/conversations", "GET", api_patterns.conversations, 200),
    ("/api/contexts", "GET", api_contexts.contexts, 200),
    ("/api/contexts", "POST", api_contexts.add_context, 201),
    ("/api/contexts/bulk", "POST", api_contradictions.bulk, 200),
    ("/api/contradictions", "GET", api_contradictions.contradictions, 200),
    ("/api/contradictions/{id}", "GET", api_contradictions.contradiction, 200),
    ("/api/contradictions/{id}/resolve", "POST", api_contradictions.resolve, 200),
    ("/api/contexts/{id}", "GET", api_contexts.context, 200),
    ("/api/contexts/{id}", "PATCH", api_contexts.patch_context, 200),
    ("/api/contexts/{id}/approve", "POST", api_contexts.approve, 200),
    ("/api/contexts/{id}/reject", "POST", api_contexts.reject, 200),
    ("/api/conversations", "GET", api_records.conversations, 200),
    ("/api/conversations/{id:path}", "GET", api_records.conversation, 200),
    ("/api/conversations/{id:path}", "DELETE", api_forget.conversation, 200),
    ("/api/users/{user:path}", "DELETE", api_forget.user, 200),
    ("/api/runs", "GET", api_records.runs, 200),
    ("/api/runs/{id}", "GET", api_records.run, 200),
    ("/api/generations", "GET", api_generations.generations, 200),
    ("/api/generations/{number}/revert", "GET", api_generations.preview, 200),
    ("/api/generations/{number}/revert", "POST", api_generations.revert_to, 200),
    ("/api/alerts", "GET", api_records.alerts, 200),
    ("/api/alerts/{id}/acknowledge", "POST", api_records.acknowledge, 200),
    ("/api/stats", "GET", api_records.statistics, 200),
    ("/api/audit", "GET", api_records.audit, 200),
)


def api_routes(services: Services) -> list[BaseRoute]:
    """Return the routes; one route per path, so that a wrong method on a known path is a 405."""
    by_path: dict[str, dict[str, tuple[Handler, int]]] = {}
    for path, method, handler, status in ROUTES:
        by_path.setdefault(path, {})[method] = (handler, status)
    routes = [Route(path, _endpoint(services, handlers), methods=list(handlers)) for path, handlers in by_path.items()]
    return [*routes, export_route(services)]


def _endpoint(services: Services, handlers: dict[str, tuple[Handler, int]]) -> Endpoint:
    max_bytes = int(services.config.learner.max_body_mb * 1_000_000)

    async def answer(request: Request) -> Response:
        if services.config.tenancy.mode == "open":
            check_browser(request.headers)
        handler, status = handlers["GET" if request.method == "HEAD" else request.method]
        if request.method in ("POST", "PATCH"):
            # A stranger gets no body read: the key comes first.
            await run_in_threadpool(_authorize, services, request)
            body = await read_object(request, max_bytes)
        else:
            body = {}
        return await run_in_threadpool(_answer, services, request, handler, status, body)

    return answer


def _authorize(services: Services, request: Request) -> None:
    with services.open_database() as db:
        _principal(services, db, request)


def _principal(services: Services, db: Database, request: Request) -> Principal:
    """Return who asks, when they may do so."""
    principal = principal_of_key(services, db, request.headers.get("x-api-key"))
    check_right(principal, needed_right(request.method, request.scope["path"]))
    return principal


def _answer(services: Services, request: Request, handler: Handler, status: int, body: Any) -> Response:
    with services.open_database() as db:
        principal = _principal(services, db, request)
        call = Call(services, db, principal, request.path_params, request.query_params, body)
        return json_response(handler(call), status)
