"""The data plane as one ASGI application: the whole flow of a request at a glance.

Learned endpoint: authenticate -> read the body -> learning begins a turn (parse, select, inject) -> route -> upstream
-> relay, while the turn collects -> the turn is recorded. Every other path under ``/v1`` passes through untouched.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, Protocol

import orjson

from proxy.authentication import Authenticator
from proxy.dialect import LEARNED, dialect_of
from proxy.disconnect import ClientWatch, Receive
from proxy.errors import JSON_TYPE, ApiError, ClientGoneError, Header, UpstreamError, not_found, unavailable
from proxy.forwarding import Forwarder
from proxy.headers import RESPONSE_ID
from proxy.incoming import IncomingRequest, read_body
from proxy.metrics import CONTENT_TYPE, Metrics
from proxy.pass_through import PassThrough, realtime_unsupported
from proxy.relay import Send, Tee, relay, send_body, send_error
from proxy.routing import Router
from store.clock import Clock
from store.config import ProxySection

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FEEDBACK_PATH: Final = "/v1/feedback"

logger = logging.getLogger(__name__)


class Turn(Tee, Protocol):
    """One chat request and its reply, as learning sees them; ``proxy.turn.Turn`` is the real one."""

    body: bytes  # to send upstream
    model: str | None


class Learning(Protocol):
    """Where learning meets a request; ``proxy.turn.Learning`` is the real one."""

    def begin(self, request: IncomingRequest, tenant_id: str) -> Turn:
        """Return the turn; whatever fails inside learning, it sends the client's own bytes.

        Raises:
            ApiError: the request itself is wrong (malformed JSON, wrong types).
        """
        ...


class Feedback(Protocol):
    """Takes signals; ``proxy.feedback`` has the real one. Answers are (status, JSON body)."""

    async def add(self, tenant_id: str, body: bytes) -> tuple[int, bytes]:
        """Record one signal or a list of them; raises ApiError."""
        ...

    async def withdraw(self, tenant_id: str, signal_id: str) -> tuple[int, bytes]:
        """Take a signal back; raises ApiError."""
        ...


class Health(Protocol):
    """Knows what works."""

    def degraded(self) -> Mapping[str, str]:
        """Return what does not work, by name with the reason; empty when all is well."""
        ...

    def is_ready(self) -> bool:
        """Whether requests can be served."""
        ...


def create_app(
    section: ProxySection,
    *,
    authenticator: Authenticator,
    router: Router,
    learning: Learning,
    feedback: Feedback,
    health: Health,
    metrics: Metrics,
    clock: Clock,
    lifespan: Callable[[], AbstractAsyncContextManager[None]],
) -> App:
    """Return the application; *lifespan* is entered before the first request and left after the last."""
    forwarder = Forwarder(authenticator, metrics)
    learned = {
        path: LearnedEndpoint(
            path,
            authenticator=authenticator,
            router=router,
            learning=learning,
            forwarder=forwarder,
            metrics=metrics,
            clock=clock,
            max_body_mb=section.max_body_mb,
        )
        for path in LEARNED
    }
    signals = FeedbackEndpoint(authenticator, feedback, section.max_body_mb)
    pass_through = PassThrough(authenticator, router, forwarder, max_body_mb=section.max_body_mb)
    own = OwnEndpoints(health, metrics)

    def endpoint(path: str, method: str) -> tuple[str, App]:
        if method == "POST" and path in learned:
            return LEARNED[path].name, learned[path]
        if path == FEEDBACK_PATH or path.startswith(FEEDBACK_PATH + "/"):
            return "feedback", signals
        if path.startswith("/v1/"):
            return "passed_through", pass_through
        return "own", own

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            name, chosen = endpoint(scope["path"], scope["method"])
            await answer(chosen, scope, receive, send, count=partial(metrics.count_request, name))
        elif scope["type"] == "lifespan":
            await run_lifespan(lifespan, receive, send)
        else:
            await deny_websocket(scope, receive, send)

    return app


async def answer(endpoint: App, scope: Scope, receive: Receive, send: Send, *, count: Callable[[int], None]) -> None:
    """Let *endpoint* answer one request, with its errors in the API's shape; *count* is told the status, 0: none."""
    status = 0
    error_body = dialect_of(scope["path"], scope["headers"]).error_body

    async def counting_send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        await send(message)

    try:
        await endpoint(scope, receive, counting_send)
    except ApiError as exc:
        await send_error(counting_send, exc, error_body=error_body)
    except ClientGoneError:
        logger.debug("%s: the client left", scope["path"])
    except Exception:  # a fault of ours: this one request fails, in the API's shape
        logger.exception("%s %s failed", scope["method"], scope["path"])
        if status:
            raise
        failure = ApiError(500, "The proxy failed.", type="server_error", code="internal_error")
        await send_error(counting_send, failure, error_body=error_body)
    finally:
        count(status)


class LearnedEndpoint:
    """A chat endpoint: injected, relayed, recorded."""

    def __init__(
        self,
        path: str,
        *,
        authenticator: Authenticator,
        router: Router,
        learning: Learning,
        forwarder: Forwarder,
        metrics: Metrics,
        clock: Clock,
        max_body_mb: float,
    ) -> None:
        self._path = path
        self._error_body = LEARNED[path].error_body
        self._authenticator = authenticator
        self._router = router
        self._learning = learning
        self._forwarder = forwarder
        self._metrics = metrics
        self._clock = clock
        self._max_body_mb = max_body_mb

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: list[Header] = scope["headers"]
        caller = self._authenticator.authenticate(headers, "request")
        body = await read_body(receive, headers, self._max_body_mb)
        received_s = self._clock.now_s()
        turn = self._learning.begin(IncomingRequest(self._path, headers, body, received_s), caller.tenant_id)
        watch = ClientWatch(receive)
        watch.start()
        try:
            await self._ask(scope, turn, watch, send)
        finally:
            watch.stop()
            self._metrics.request_seconds.observe(self._clock.now_s() - received_s)

    async def _ask(self, scope: Scope, turn: Turn, watch: ClientWatch, send: Send) -> None:
        """Send the turn upstream and relay the reply; or answer, and record, why there is none."""
        upstream = ""
        try:
            route = self._router.for_model(turn.model)
            upstream = route.upstream.name
            response = await route.upstream.send(self._forwarder.request(scope, route, turn.body, watch))
        except UpstreamError as exc:
            error = self._forwarder.failure(exc, upstream)
            turn.finish("upstream_error", error.status, upstream)
            await send_error(send, error, [(RESPONSE_ID, turn.response_id.encode())], error_body=self._error_body)
        except ApiError as exc:
            turn.finish("error", exc.status, upstream)
            await send_error(send, exc, [(RESPONSE_ID, turn.response_id.encode())], error_body=self._error_body)
        except (ClientGoneError, asyncio.CancelledError):
            turn.finish("cancelled", 0, upstream)
            raise
        else:
            await relay(send, response, turn, upstream)


class FeedbackEndpoint:
    """``POST /v1/feedback`` and ``DELETE /v1/feedback/{id}``."""

    def __init__(self, authenticator: Authenticator, feedback: Feedback, max_body_mb: float) -> None:
        self._authenticator = authenticator
        self._feedback = feedback
        self._max_body_mb = max_body_mb

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = self._authenticator.authenticate(scope["headers"], "feedback")
        signal_id = scope["path"][len(FEEDBACK_PATH) + 1 :]
        allowed = "DELETE" if signal_id else "POST"
        if scope["method"] != allowed:
            raise ApiError(
                405, f"{scope['method']} is not allowed here.", code="method_not_allowed", headers=_allow(allowed)
            )
        if signal_id:
            status, body = await self._feedback.withdraw(caller.tenant_id, signal_id)
        else:
            sent = await read_body(receive, scope["headers"], self._max_body_mb)
            status, body = await self._feedback.add(caller.tenant_id, sent)
        await send_body(send, status, body, [JSON_TYPE])


class OwnEndpoints:
    """``/healthz``, ``/readyz``, ``/metrics``; everything else is unknown."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._health = health
        self._metrics = metrics

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            raise not_found(path)
        if path == "/healthz":
            degraded = self._health.degraded()
            body = orjson.dumps({"status": "degraded" if degraded else "ok", "degraded": dict(degraded)})
            await send_body(send, 200, body, [JSON_TYPE])
        elif path == "/readyz":
            if not self._health.is_ready():
                raise unavailable("Not ready to serve yet.", "not_ready")
            await send_body(send, 200, b'{"status":"ready"}', [JSON_TYPE])
        elif path == "/metrics":
            await send_body(send, 200, self._metrics.text(), [(b"content-type", CONTENT_TYPE)])
        else:
            raise not_found(path)


def _allow(method: str) -> list[Header]:
    return [(b"allow", method.encode())]


async def deny_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a websocket: with a 501 where the server can say so, else by closing it."""
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1011, "reason": "not supported"})
        return

    async def send_denial(message: MutableMapping[str, Any]) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    await send_error(send_denial, realtime_unsupported())


async def run_lifespan(lifespan: Callable[[], AbstractAsyncContextManager[None]], receive: Receive, send: Send) -> None:
    """Enter *lifespan* when the server starts and leave it when it stops."""
    await receive()
    stage = "startup"
    try:
        async with lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
            stage = "shutdown"
    except Exception as exc:  # the server must hear of it, or it waits for ever
        logger.exception("the proxy's %s failed", stage)
        await send({"type": f"lifespan.{stage}.failed", "message": str(exc)})
    else:
        await send({"type": "lifespan.shutdown.complete"})
