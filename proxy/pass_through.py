"""Every path under ``/v1`` that nothing is learned from: untouched in both directions, bodies streamed."""

from collections.abc import AsyncGenerator
from typing import Final

import msgspec

from proxy.authentication import Authenticator
from proxy.client import Client
from proxy.errors import ApiError, Header, UpstreamError, not_found
from proxy.forwarding import Forwarder
from proxy.headers import content_length, find
from proxy.relay import relay_untouched
from proxy.routing import Route, Router

REALTIME_PATH: Final = "/v1/realtime"
HELD_BYTES: Final = 1_000_000  # of a body; a larger one is streamed, over a connection of its own


class _ModelOnly(msgspec.Struct):
    model: str | None = None


_model_decoder: Final = msgspec.json.Decoder(_ModelOnly)


class PassThrough:
    """The endpoint behind all other paths."""

    def __init__(
        self, authenticator: Authenticator, router: Router, forwarder: Forwarder, *, max_body_mb: float
    ) -> None:
        """Take collaborators; *max_body_mb* bounds what is held of a JSON body to find its model."""
        self._authenticator = authenticator
        self._router = router
        self._forwarder = forwarder
        self._max_routed_bytes = int(max_body_mb * 1_000_000)

    async def __call__(self, client: Client) -> None:
        headers, path = client.headers, client.path
        self._authenticator.authenticate(headers, "request")
        _check(path, headers)
        held, is_whole = await self._hold(client)
        route = self._route(path, headers, held, is_whole=is_whole)
        request = self._forwarder.request(client, route, None)
        if is_whole:
            request.body = held if held or _has_body(headers) else None
        else:
            request.body_stream = _stream(held, client)
            request.content_length = content_length(headers)
        try:
            response = await route.upstream.send(request)
        except UpstreamError as exc:
            raise self._forwarder.failure(exc, route.upstream.name) from exc
        await relay_untouched(client, response, route.upstream.name)

    async def _hold(self, client: Client) -> tuple[bytes, bool]:
        """Return the beginning of a body, and whether it is all: as much as routing and resending need."""
        headers = client.headers
        limit = max(HELD_BYTES, self._max_routed_bytes) if self._is_routed_by_body(headers) else HELD_BYTES
        body, is_last = await client.read_piece()
        if is_last or (content_length(headers) or 0) > limit:
            return body, is_last
        pieces, n_bytes = [body], len(body)
        while not is_last and n_bytes <= limit:
            body, is_last = await client.read_piece()
            pieces.append(body)
            n_bytes += len(body)
        return b"".join(pieces), is_last

    def _is_routed_by_body(self, headers: list[Header]) -> bool:
        return len(self._router.routes) > 1 and b"json" in (find(headers, b"content-type") or b"").lower()

    def _route(self, path: str, headers: list[Header], body: bytes, *, is_whole: bool) -> Route:
        model = _model_of(body) if is_whole and body and self._is_routed_by_body(headers) else None
        if model is None:
            return self._router.for_path(path)
        route = self._router.for_model(model)
        if route.upstream.is_learned_only:
            raise not_found(path)
        return route


def _check(path: str, headers: list[Header]) -> None:
    if path == REALTIME_PATH and find(headers, b"upgrade") is not None:
        raise realtime_unsupported()
    if ".." in path.split("/"):  # would leave the upstream's base path
        raise not_found(path)


def realtime_unsupported() -> ApiError:
    """Return the 501 of websockets."""
    return ApiError(
        501,
        "Websockets (the Realtime API) are not supported here; connect to the upstream directly.",
        code="realtime_unsupported",
    )


def _has_body(headers: list[Header]) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)


def _model_of(body: bytes) -> str | None:
    try:
        return _model_decoder.decode(body).model
    except msgspec.DecodeError:
        return None  # not ours to judge: the upstream answers


async def _stream(held: bytes, client: Client) -> AsyncGenerator[bytes]:
    """Yield a body piece by piece."""
    yield held
    is_last = False
    while not is_last:
        piece, is_last = await client.read_piece()
        yield piece
