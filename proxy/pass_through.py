"""Every path under ``/v1`` that nothing is learned from: untouched in both directions, bodies streamed."""

import posixpath
from collections.abc import AsyncGenerator
from typing import Final

from proxy.authentication import Authenticator
from proxy.client import Client
from proxy.delivery import Answer, Fail
from proxy.dialect import LEARNED
from proxy.errors import ApiError, Header, UpstreamError, not_found, only_chat
from proxy.forwarding import Forwarder
from proxy.headers import content_length, find
from proxy.json_body import model_of
from proxy.limits import Limiter
from proxy.metering import MeteredReply
from proxy.relay import relay_untouched
from proxy.renaming import rename_model
from proxy.routing import Route, Router
from proxy.sending import Reply, Sender, reply_of
from proxy.upstream import UpstreamRequest

REALTIME_PATH: Final = "/v1/realtime"
COMPLETIONS_PATH: Final = "/v1/completions"
REPEATABLE_PATHS: Final = frozenset(
    (
        COMPLETIONS_PATH,
        "/v1/embeddings",
        "/v1/moderations",
        "/v1/rerank",
        "/v1/messages/count_tokens",
        "/v1/images/generations",
        "/v1/audio/speech",
    )
)
"""A request of these makes nothing that stays: it may be sent again, where retries or fallbacks are configured."""
HELD_BYTES: Final = 1_000_000  # of a body; a larger one is streamed, over a connection of its own


class PassThrough:
    """The endpoint behind all other paths."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        router: Router,
        limiter: Limiter,
        forwarder: Forwarder,
        sender: Sender,
        max_body_mb: float,
    ) -> None:
        """Take collaborators; *max_body_mb* bounds what is held of a JSON body whose model has to be known."""
        self._authenticator = authenticator
        self._router = router
        self._limiter = limiter
        self._forwarder = forwarder
        self._sender = sender
        self._max_routed_bytes = int(max_body_mb * 1_000_000)

    async def __call__(self, client: Client) -> None:
        headers, path = client.headers, client.path
        caller = self._authenticator.authenticate(headers, "request")
        _check(path, headers)
        meter = self._limiter.admit(caller)
        is_read = _is_json(headers) and (meter is not None or len(self._router.routes) > 1)
        held, is_whole = await self._hold(client, max(HELD_BYTES, self._max_routed_bytes) if is_read else HELD_BYTES)
        metered = None
        if meter is not None:
            model = (model_of(held) if is_whole and is_read else None) or ""
            metered = MeteredReply(meter, model, held, is_text=client.method == "POST" and _is_of_text(path))
        upstream = ""
        try:
            route = self._route(path, headers, held, is_whole=is_whole)
            upstream = route.upstream.name
            end = await self._send(client, route, held, is_whole=is_whole)
            upstream = end.route.upstream.name
            await relay_untouched(client, reply_of(end), upstream, metered)
        except UpstreamError as exc:
            raise self._forwarder.failure(exc, upstream) from exc
        finally:
            if metered is not None:
                metered.settle(upstream, 0)

    async def _send(self, client: Client, first: Route, held: bytes, *, is_whole: bool) -> Answer[Reply] | Fail:
        """Return how it ended: only what may be sent twice without harm is sent again or elsewhere."""

        def request(route: Route) -> UpstreamRequest:
            made = self._forwarder.request(client, route, None, is_fallback=route is not first)
            if is_whole:
                body = held if held or _has_body(client.headers) else None
                made.body = rename_model(body, route.rename) if body and route.rename else body
            else:
                made.body_stream = _stream(held, client)
                made.content_length = content_length(client.headers)
            return made

        if is_whole and client.path in REPEATABLE_PATHS:
            return await self._sender.send(self._router.line(first, is_chat=False), request, client.cancellation)
        return await self._sender.send_once(first, request)

    async def _hold(self, client: Client, limit: int) -> tuple[bytes, bool]:
        """Return the beginning of a body, and whether it is all: as much as *limit* allows, in bytes."""
        body, is_last = await client.read_piece()
        if is_last or (content_length(client.headers) or 0) > limit:
            return body, is_last
        pieces, n_bytes = [body], len(body)
        while not is_last and n_bytes <= limit:
            body, is_last = await client.read_piece()
            pieces.append(body)
            n_bytes += len(body)
        return b"".join(pieces), is_last

    def _route(self, path: str, headers: list[Header], body: bytes, *, is_whole: bool) -> Route:
        is_routed_by_body = len(self._router.routes) > 1 and _is_json(headers)
        model = model_of(body) if is_whole and body and is_routed_by_body else None
        if model is None:
            return self._router.for_path(path)
        route = self._router.for_model(model)
        if route.upstream.is_learned_only:
            raise only_chat(route.upstream.name, path)
        return route


def _check(path: str, headers: list[Header]) -> None:
    if path == REALTIME_PATH and find(headers, b"upgrade") is not None:
        raise realtime_unsupported()
    if any(segment.partition(";")[0] == ".." for segment in path.split("/")):  # would leave the upstream's base path
        raise not_found(path)


def _is_of_text(path: str) -> bool:
    """Return whether what is asked for at *path* is text, also where only the upstream knows the path again.

    >>> [_is_of_text(path) for path in ("/v1/completions", "/v1//chat/./Completions/", "/v1/threads/1/messages")]
    [True, True, False]
    """
    named = posixpath.normpath(path).lower()
    return named == COMPLETIONS_PATH or named in LEARNED


def realtime_unsupported() -> ApiError:
    """Return the 501 of websockets."""
    return ApiError(
        501,
        "Websockets (the Realtime API) are not supported here; connect to the upstream directly.",
        code="realtime_unsupported",
    )


def _is_json(headers: list[Header]) -> bool:
    return b"json" in (find(headers, b"content-type") or b"").lower()


def _has_body(headers: list[Header]) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)


async def _stream(held: bytes, client: Client) -> AsyncGenerator[bytes]:
    """Yield a body piece by piece."""
    yield held
    is_last = False
    while not is_last:
        piece, is_last = await client.read_piece()
        yield piece
