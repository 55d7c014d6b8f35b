"""The learner's port: admin API, console and health, as one Starlette app."""

import http
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from learner.api import api_routes
from learner.api_errors import ApiError, error_response, from_store
from learner.console.pages import console_routes, error_page, page_templates
from learner.health import health_routes
from learner.services import Services
from store.errors import StoreError

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def create_app(services: Services, *, lifespan: Lifespan | None = None) -> Starlette:
    """Return the app; programs get errors as JSON, people as a page. *lifespan* runs beside it."""
    templates = page_templates()

    def answer_error(request: Request, exc: Exception) -> Response:
        problem = _problem(exc)
        if _is_for_program(request):
            return error_response(problem)
        return error_page(templates, problem)

    return Starlette(
        lifespan=lifespan,
        routes=[*health_routes(services), *api_routes(services), *console_routes(services, templates)],
        exception_handlers={
            ApiError: answer_error,
            StoreError: answer_error,
            HTTPException: answer_error,
            Exception: answer_error,
        },
    )


def _is_for_program(request: Request) -> bool:
    return request.url.path.startswith(("/api/", "/healthz", "/readyz", "/metrics"))


def _problem(exc: Exception) -> ApiError:
    if isinstance(exc, ApiError):
        return exc
    if isinstance(exc, StoreError):
        return from_store(exc)
    if isinstance(exc, HTTPException):
        code = http.HTTPStatus(exc.status_code).name.lower()
        return ApiError(exc.status_code, exc.detail, code=code)
    return ApiError(500, "internal error", code="internal_error")
