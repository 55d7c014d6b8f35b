"""The data plane as one application: the whole flow of a request at a glance.

Learned endpoint: authenticate -> read the body -> wait for the tenant's contexts if they are not loaded, and for the
question's vector if a server makes it -> learning begins a turn (parse, select, inject) -> route -> upstream -> relay,
while the turn collects -> the turn is recorded.
Every other path under ``/v1`` passes through untouched. Every endpoint is ``async def endpoint(client)``.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from random import Random
from typing import Any, Final, Protocol

import orjson

from proxy.authentication import Authenticator
from proxy.browsers import FeedbackScript, Origins
from proxy.client import Client, Endpoint, read_body, send_body, send_error
from proxy.dialect import CHAT_PATH, LEARNED, Dialect, dialect_of
from proxy.errors import (
    JSON_TYPE,
    ApiError,
    ClientGoneError,
    Header,
    UpstreamError,
    internal_error,
    not_found,
    unavailable,
)
from proxy.forwarding import Forwarder
from proxy.headers import RESPONSE_ID
from proxy.incoming import IncomingRequest
from proxy.limits import Limiter
from proxy.metering import MeteredTurn
from proxy.metrics import CONTENT_TYPE, Metrics
from proxy.pass_through import PassThrough
from proxy.relay import Turn, relay
from proxy.renaming import rename_model
from proxy.routing import Route, Router
from proxy.sending import Sender, reply_of
from proxy.upstream import Cancellation, UpstreamRequest
from store.clock import Clock
from store.config import ProxySection
from store.ids import new_id

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

FEEDBACK_PATH: Final = "/v1/feedback"
SCRIPT_PATH: Final = "/feedback.js"

logger = logging.getLogger(__name__)


class Learning(Protocol):
    """Where learning meets a request; ``proxy.turn.Learning`` is the real one."""

    def lacks_contexts(self, tenant_id: str) -> bool:
        """Return whether ``load_contexts`` has something to do before a request of the tenant begins."""
        ...

    async def load_contexts(self, headers: Sequence[Header], tenant_id: str, cancellation: Cancellation) -> None:
        """Return once the tenant's contexts are loaded, or should not be waited for; raises ClientGoneError."""
        ...

    def lacks_vector(self, tenant_id: str) -> bool:
        """Return whether ``load_vector`` may have something to do before a request of the tenant begins."""
        ...

    async def load_vector(self, request: IncomingRequest, tenant_id: str, cancellation: Cancellation) -> None:
        """Return once the question's remote vector is known or will not be; raises ApiError, ClientGoneError."""
        ...

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


class DataPlaneApp:
    """Serves every request of a client; as an ASGI application it knows the server's start and stop alone."""

    def __init__(
        self,
        endpoint: Callable[[str, str], tuple[str, Endpoint]],
        metrics: Metrics,
        lifespan: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        """Take what tells the name and the endpoint of a method and a path, what counts, and the lifespan."""
        self._endpoint = endpoint
        self._metrics = metrics
        self._lifespan = lifespan

    async def serve(self, client: Client) -> None:
        """Answer one request, with its errors in the API's shape."""
        name, endpoint = self._endpoint(client.method, client.path)
        self._metrics.in_flight += 1
        try:
            await endpoint(client)
        except ApiError as exc:
            send_error(client, exc, dialect_of(client.path, client.headers))
        except ClientGoneError:
            logger.debug("%s: the client left", client.path)
        except Exception:  # a fault of ours: this one request fails, in the API's shape
            logger.exception("%s %s failed", client.method, client.path)
            if client.status:
                client.cut()
            else:
                send_error(client, internal_error(), dialect_of(client.path, client.headers))
        finally:
            self._metrics.in_flight -= 1
            self._metrics.requests[name, client.status] += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Enter the lifespan when the server starts and leave it when it stops."""
        assert scope["type"] == "lifespan"
        await receive()
        stage = "startup"
        try:
            async with self._lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()
                stage = "shutdown"
        except Exception as exc:  # the server must hear of it, or it waits for ever
            logger.exception("the proxy's %s failed", stage)
            await send({"type": f"lifespan.{stage}.failed", "message": str(exc)})
        else:
            await send({"type": "lifespan.shutdown.complete"})


def create_app(
    section: ProxySection,
    *,
    authenticator: Authenticator,
    router: Router,
    learning: Learning,
    feedback: Feedback,
    origins: Origins,
    health: Health,
    limiter: Limiter,
    metrics: Metrics,
    clock: Clock,
    rng: Random,
    lifespan: Callable[[], AbstractAsyncContextManager[None]],
) -> DataPlaneApp:
    """Return the application; *lifespan* is entered before the first request and left after the last."""
    forwarder = Forwarder(authenticator, metrics)
    sender = Sender(metrics, clock, rng)
    learned = {
        path: LearnedEndpoint(
            path,
            dialect,
            authenticator=authenticator,
            router=router,
            learning=learning,
            limiter=limiter,
            forwarder=forwarder,
            sender=sender,
            metrics=metrics,
            clock=clock,
            max_body_mb=section.max_body_mb,
        )
        for path, dialect in LEARNED.items()
    }
    signals = FeedbackEndpoint(authenticator, feedback, origins, limiter, section.max_body_mb)
    pass_through = PassThrough(
        authenticator=authenticator,
        router=router,
        limiter=limiter,
        forwarder=forwarder,
        sender=sender,
        max_body_mb=section.max_body_mb,
    )
    own = OwnEndpoints(health, metrics, FeedbackScript())

    def endpoint(method: str, path: str) -> tuple[str, Endpoint]:
        if method == "POST" and path in learned:
            return LEARNED[path].name, learned[path]
        if path == FEEDBACK_PATH or path.startswith(FEEDBACK_PATH + "/"):
            return "feedback", signals
        if path.startswith("/v1/"):
            return "passed_through", pass_through
        return "own", own

    return DataPlaneApp(endpoint, metrics, lifespan)


class LearnedEndpoint:
    """An endpoint of one of the learned APIs: injected, relayed, recorded."""

    def __init__(
        self,
        path: str,
        dialect: Dialect,
        *,
        authenticator: Authenticator,
        router: Router,
        learning: Learning,
        limiter: Limiter,
        forwarder: Forwarder,
        sender: Sender,
        metrics: Metrics,
        clock: Clock,
        max_body_mb: float,
    ) -> None:
        self._path = path
        self._dialect = dialect
        self._authenticator = authenticator
        self._router = router
        self._learning = learning
        self._limiter = limiter
        self._forwarder = forwarder
        self._sender = sender
        self._metrics = metrics
        self._clock = clock
        self._max_body_mb = max_body_mb

    async def __call__(self, client: Client) -> None:
        try:
            turn, received_s = await self._begin(client)
        except ApiError as exc:  # no turn, so no record; an id all the same, as every response has one
            send_error(client, exc, self._dialect, [(RESPONSE_ID, new_id("resp", self._clock.now_s()).encode())])
            return
        try:
            await self._ask(client, turn)
        except Exception:  # a fault of ours or a message of ours: the first ending counts
            turn.finish("error", client.status or 500, "")
            raise
        finally:
            self._metrics.request_seconds.observe(self._clock.now_s() - received_s)

    async def _begin(self, client: Client) -> tuple[Turn, float]:
        """Return the turn that a request begins, and when its body was complete.

        Raises:
            ApiError: the caller may not ask, or asks for something wrong.
            ClientGoneError: the client left before.
        """
        caller = self._authenticator.authenticate(client.headers, "request")
        meter = self._limiter.admit(caller)
        body = await read_body(client, self._max_body_mb)
        received_s = self._clock.now_s()
        if self._learning.lacks_contexts(caller.tenant_id):
            await self._learning.load_contexts(client.headers, caller.tenant_id, client.cancellation)
        request = IncomingRequest(self._path, client.headers, body, received_s)
        if self._learning.lacks_vector(caller.tenant_id):
            await self._learning.load_vector(request, caller.tenant_id, client.cancellation)
        turn = self._learning.begin(request, caller.tenant_id)
        return (turn if meter is None else MeteredTurn(turn, meter)), received_s

    async def _ask(self, client: Client, turn: Turn) -> None:
        """Send the turn upstream and relay the reply; or answer, and record, why there is none."""
        upstream = ""
        try:
            route = self._router.for_model(turn.model if self._router.is_asked_by_model else None)
            upstream = route.upstream.name
            line = self._router.line(route, is_chat=self._path == CHAT_PATH)
            end = await self._sender.send(line, partial(self._request, client, turn, route), client.cancellation)
            upstream = end.route.upstream.name
            response = reply_of(end)
        except UpstreamError as exc:
            error = self._forwarder.failure(exc, upstream)
            turn.finish("upstream_error", error.status, upstream)
            send_error(client, error, self._dialect, [(RESPONSE_ID, turn.response_id.encode())])
        except ApiError as exc:
            turn.finish("error", exc.status, upstream)
            send_error(client, exc, self._dialect, [(RESPONSE_ID, turn.response_id.encode())])
        except ClientGoneError:
            turn.finish("cancelled", 0, upstream)
            raise
        else:
            await relay(client, response, turn, upstream, self._dialect)

    def _request(self, client: Client, turn: Turn, first: Route, route: Route) -> UpstreamRequest:
        """Return the turn's request as it goes to *route*: the same bytes to each, but for the model's name."""
        body = rename_model(turn.body, route.rename) if route.rename else turn.body
        return self._forwarder.request(client, route, body, is_fallback=route is not first)


class FeedbackEndpoint:
    """``POST /v1/feedback`` and ``DELETE /v1/feedback/{id}``, for apps and for pages in a browser."""

    def __init__(
        self,
        authenticator: Authenticator,
        feedback: Feedback,
        origins: Origins,
        limiter: Limiter,
        max_body_mb: float,
    ) -> None:
        self._authenticator = authenticator
        self._feedback = feedback
        self._origins = origins
        self._limiter = limiter
        self._max_body_mb = max_body_mb

    async def __call__(self, client: Client) -> None:
        signal_id = client.path[len(FEEDBACK_PATH) + 1 :]
        allowed = "DELETE" if signal_id else "POST"
        if client.method == "OPTIONS":
            send_body(client, 200, b"", [*self._origins.preflight(client.headers, allowed), _allow(allowed)])
            return
        told = self._origins.check(client.headers)
        try:
            status, answer = await self._take(client, signal_id, allowed)
        except ApiError as exc:  # the page must be able to read why
            exc.headers = (*exc.headers, *told)
            raise
        send_body(client, status, answer, [JSON_TYPE, *told])

    async def _take(self, client: Client, signal_id: str, allowed: str) -> tuple[int, bytes]:
        caller = self._authenticator.authenticate(client.headers, "feedback")
        if caller.scope == "feedback":  # in a page everybody reads the key; those of apps are limited by their requests
            self._limiter.admit(caller)
        if client.method != allowed:
            raise ApiError(
                405, f"{client.method} is not allowed here.", code="method_not_allowed", headers=[_allow(allowed)]
            )
        if signal_id:
            return await self._feedback.withdraw(caller.tenant_id, signal_id)
        body = await read_body(client, self._max_body_mb)
        return await self._feedback.add(caller.tenant_id, body)


class OwnEndpoints:
    """``/healthz``, ``/readyz``, ``/metrics`` and ``/feedback.js``; everything else is unknown."""

    def __init__(self, health: Health, metrics: Metrics, script: FeedbackScript) -> None:
        self._health = health
        self._metrics = metrics
        self._script = script

    async def __call__(self, client: Client) -> None:
        path = client.path
        if client.method not in ("GET", "HEAD"):
            raise not_found(path)
        if path == "/healthz":
            degraded = self._health.degraded()
            body = orjson.dumps({"status": "degraded" if degraded else "ok", "degraded": dict(degraded)})
            send_body(client, 200, body, [JSON_TYPE])
        elif path == "/readyz":
            if not self._health.is_ready():
                raise unavailable("Not ready to serve yet.", "not_ready")
            send_body(client, 200, b'{"status":"ready"}', [JSON_TYPE])
        elif path == "/metrics":
            send_body(client, 200, self._metrics.text(), [(b"content-type", CONTENT_TYPE)])
        elif path == SCRIPT_PATH:
            send_body(client, 200, self._script.body, self._script.headers())
        else:
            raise not_found(path)


def _allow(methods: str) -> Header:
    return (b"allow", methods.encode())
