"""The console's pages: read with links alone, changed with plain forms; no script anywhere."""

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from learner.access import check_browser, check_right, check_site
from learner.api_errors import ApiError
from learner.api_request import read_bytes
from learner.console import actions, overview, pattern_views, views
from learner.console.attempts import SignInAttempts
from learner.console.format import moment, number, share, signed, usd
from learner.console.session import (
    COOKIE,
    SESSION_S,
    SignInNeededError,
    check_csrf,
    note_session,
    open_session,
    sign_in,
)
from learner.console.visit import Visit
from learner.reviewing import marked
from learner.rights import needed_right
from learner.services import Services
from store.runs import counted

logger = logging.getLogger(__name__)

FOLDER: Final = Path(__file__).parent
MAX_FORM_BYTES: Final = 1_000_000
HEADERS: Final = {
    # No script at all, nothing from elsewhere, no frames: what users wrote is shown here.
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; "
        "base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


View = Callable[[Visit], dict[str, Any]]
Action = Callable[[Visit], str]  # changes something and returns the page to show then
Endpoint = Callable[[Request], Awaitable[Response]]

PAGES: Final[tuple[tuple[str, str, View], ...]] = (
    ("/", "overview.html", overview.overview),
    ("/contexts", "contexts.html", views.contexts),
    ("/contexts/{id}", "context.html", views.context),
    ("/contradictions", "contradictions.html", views.contradictions),
    ("/contradictions/{id}", "contradiction.html", views.contradiction),
    ("/patterns", "patterns.html", pattern_views.patterns),
    ("/patterns/new", "new_pattern.html", pattern_views.new_pattern),
    ("/patterns/{id}", "pattern.html", pattern_views.pattern),
    ("/runs", "runs.html", views.runs),
    ("/generations", "generations.html", views.generations),
    ("/generations/{number}", "generation.html", views.generation),
    ("/alerts", "alerts.html", views.alerts),
    ("/audit", "audit.html", views.audit),
    ("/datasets", "datasets.html", views.datasets),
    ("/datasets/{id}", "dataset.html", views.dataset),
    ("/conversations", "conversations.html", views.conversations),
    ("/conversations/{id:path}", "conversation.html", views.conversation),
)
ACTIONS: Final[tuple[tuple[str, Action], ...]] = (
    ("/contexts/decide", actions.decide_on_contexts),
    ("/contexts/{id}/approve", actions.approve_context),
    ("/contexts/{id}/reject", actions.reject_context),
    ("/contexts/{id}/edit", actions.edit_context),
    ("/contexts/{id}/retire", actions.retire_context),
    ("/contradictions/{id}/resolve", actions.resolve),
    ("/patterns", actions.add_pattern),
    ("/patterns/{id}/edit", actions.edit_pattern),
    ("/patterns/{id}/state", actions.set_pattern_state),
    ("/patterns/{id}/approve", actions.approve_trial),
    ("/generations/{number}/revert", actions.revert_generation),
    ("/examples/{id}", actions.review_example),
    ("/alerts/{id}/acknowledge", actions.acknowledge_alert),
)


def page_templates() -> Environment:
    """Return the templates; everything that they print is escaped."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["version"] = version("tutelage")
    environment.filters |= {
        "moment": moment,
        "signed": signed,
        "share": share,
        "number": number,
        "marked": marked,
        "usd": usd,
        "counted": counted,
        "url": _quote,
    }
    return environment


def _quote(text: str) -> str:
    return quote(text, safe="")


def console_routes(services: Services, templates: Environment) -> list[BaseRoute]:
    """Return the routes of all pages, forms, sign-in and the stylesheet."""
    pages = [Route(path, _page(services, templates, name, view), methods=["GET"]) for path, name, view in PAGES]
    forms = [Route(path, _form(services, action), methods=["POST"]) for path, action in ACTIONS]
    return [
        Route("/console.css", _stylesheet, methods=["GET"]),
        Route("/login", _login_page(services, templates), methods=["GET"]),
        Route("/login", _login(services, templates), methods=["POST"]),
        Route("/logout", _logout(services), methods=["POST"]),
        *forms,
        *pages,
    ]


async def _stylesheet(_: Request) -> Response:
    return FileResponse(
        FOLDER / "console.css", media_type="text/css", headers={**HEADERS, "cache-control": "max-age=300"}
    )


def _guard(services: Services, request: Request) -> None:
    if services.config.tenancy.mode == "open":
        check_browser(request.headers)


def _page(services: Services, templates: Environment, name: str, view: View) -> Endpoint:
    def show(request: Request) -> Response:
        with services.open_database() as db:
            session = open_session(services, db, request.cookies.get(COOKIE))
            visit = Visit(services, db, session, request.path_params, request.query_params, {})
            return _html(templates, name, {"session": session, "path": request.url.path, **view(visit)})

    async def answer(request: Request) -> Response:
        _guard(services, request)
        try:
            return await run_in_threadpool(show, request)
        except SignInNeededError:
            return _to_login(request)

    return answer


def _form(services: Services, action: Action) -> Endpoint:
    def change(request: Request, form: Mapping[str, str]) -> Response:
        with services.open_database() as db:
            session = open_session(services, db, request.cookies.get(COOKIE))
            check_csrf(session, form.get("csrf_token"))
            check_right(session.principal, needed_right("POST", request.scope["path"]))
            target = action(Visit(services, db, session, request.path_params, request.query_params, form))
        return RedirectResponse(target, 303, headers=HEADERS)

    async def answer(request: Request) -> Response:
        _guard(services, request)
        form = await _read_form(request)
        try:
            return await run_in_threadpool(change, request, form)
        except SignInNeededError:
            return _to_login(request)

    return answer


async def _read_form(request: Request) -> dict[str, str]:
    check_site(request.headers)
    body = await read_bytes(request, MAX_FORM_BYTES)
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def _to_login(request: Request) -> Response:
    target = request.url.path if request.method == "GET" else "/"
    return RedirectResponse(f"/login?next={_quote(target)}", 303, headers=HEADERS)


def _login_page(services: Services, templates: Environment) -> Endpoint:
    async def answer(request: Request) -> Response:
        _guard(services, request)
        return _html(templates, "login.html", {"next": _own_path(request.query_params.get("next")), "problem": ""})

    return answer


def _login(services: Services, templates: Environment) -> Endpoint:
    section = services.config.learner
    attempts = SignInAttempts(section.sign_in_attempts, section.sign_in_window_s)

    def make_cookie(key: str) -> str:
        with services.open_database() as db:
            return sign_in(db, key, services.clock.now_s())

    async def answer(request: Request) -> Response:
        _guard(services, request)
        form = await _read_form(request)
        target = _own_path(form.get("next"))
        address = request.client.host if request.client else ""
        wait_s = attempts.wait_s(address, services.clock.now_s())
        if wait_s:
            problem = f"Too many keys that are none: try again in {math.ceil(wait_s / 60)} minutes."
            page = _html(templates, "login.html", {"next": target, "problem": problem}, 429)
            page.headers["retry-after"] = str(math.ceil(wait_s))
            return page
        try:
            cookie = await run_in_threadpool(make_cookie, form.get("key", ""))
        except ApiError as exc:
            attempts.failed(address, services.clock.now_s())
            logger.warning("somebody at %s could not sign in to the console: %s", address, exc.message)
            return _html(templates, "login.html", {"next": target, "problem": exc.message}, exc.status)
        response = RedirectResponse(target, 303, headers=HEADERS)
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=int(SESSION_S),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    return answer


def _logout(services: Services) -> Endpoint:
    def check(request: Request, form: Mapping[str, str]) -> None:
        with services.open_database() as db:
            session = open_session(services, db, request.cookies.get(COOKIE))
            check_csrf(session, form.get("csrf_token"))
            note_session(db, session.principal, "console.sign_out", services.clock.now_s())

    async def answer(request: Request) -> Response:
        _guard(services, request)
        form = await _read_form(request)
        try:
            await run_in_threadpool(check, request, form)
        except SignInNeededError:
            return _to_login(request)
        response = RedirectResponse("/login", 303, headers=HEADERS)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    return answer


def _own_path(target: str | None) -> str:
    """Return *target* when it is a path of this site, else the overview.

    >>> _own_path("/contexts/1"), _own_path("//evil.example/"), _own_path(None)
    ('/contexts/1', '/', '/')
    """
    is_own = target is not None and target.startswith("/") and target[1:2] not in ("/", "\\")
    return target if is_own and target is not None else "/"


def _html(templates: Environment, name: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    return HTMLResponse(templates.get_template(name).render(values), status, headers=HEADERS)


def error_page(templates: Environment, problem: ApiError) -> HTMLResponse:
    """Return the page that says what went wrong."""
    return _html(templates, "error.html", {"problem": problem}, problem.status)
