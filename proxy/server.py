"""uvicorn as the data plane needs it: nothing added to replies, drained at shutdown, connections bounded."""

import asyncio
import re
import sys
from functools import partial
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from proxy.app import App
from proxy.disconnect import Receive
from proxy.errors import JSON_TYPE, ApiError, error_body, unavailable
from proxy.headers import OWN_PREFIX
from proxy.relay import Send, send_error
from store.config import ProxySection

KEEP_ALIVE_S: Final = 75  # longer than clients keep idle connections (5 to 60 s), so that they close first
UPGRADE_TO_HTTP2: Final = re.compile(rb"\r\nupgrade:(?=[ \t]*h2c)", re.IGNORECASE)


def without_http2_offer(data: bytes) -> bytes:
    r"""Return the beginning of a request with its offer of HTTP/2 made one of our own headers, which nobody forwards.

    >>> without_http2_offer(b"POST / HTTP/1.1\r\nUpgrade: h2c\r\n\r\nUpgrade: h2c")
    b'POST / HTTP/1.1\r\nx-tutelage-upgrade: h2c\r\n\r\nUpgrade: h2c'
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return UPGRADE_TO_HTTP2.sub(b"\r\n" + OWN_PREFIX + b"upgrade:", head) + end + rest


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with errors of its own in the API's shape and connections beyond a bound refused."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        max_connections: int,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._max_connections = max_connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._max_connections:
            self.app = overloaded

    def data_received(self, data: bytes) -> None:
        # Java's HttpClient offers HTTP/2 with its first request. A server may ignore that (RFC 9110, section 7.8), but
        # httptools takes what follows the head for the other protocol, and the body would be lost.
        if b"h2c" in data and (self.cycle is None or not self.cycle.more_body):
            data = without_http2_offer(data)
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        body = error_body(ApiError(400, msg))
        lines = [
            b"HTTP/1.1 400 Bad Request",
            b": ".join(JSON_TYPE),
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.transport.close()


async def overloaded(_scope: Any, _receive: Receive, send: Send) -> None:
    """Answer 503: more connections are open than ``[proxy] max_connections`` allows."""
    await send_error(send, unavailable("Too many open connections.", "overloaded"), [(b"connection", b"close")])


def server_config(app: App, section: ProxySection) -> uvicorn.Config:
    """Return uvicorn's settings for *app*."""
    return uvicorn.Config(
        app,
        host=section.host,
        port=section.port,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=partial(BoundedProtocol, max_connections=section.max_connections),  # type: ignore[arg-type]
        ws="none",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(section.drain_timeout_s)),
    )
