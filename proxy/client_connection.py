"""One client's connection, and one exchange after the other on it: asyncio's protocol plus httptools.

What serves a request is a coroutine that runs in this protocol's callbacks (``stepping``): there is no ASGI scope, no
task and no future for a request. uvicorn's server accepts connections, and drains them at shutdown.
"""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from proxy.client import Client
from proxy.errors import JSON_TYPE, ApiError, ClientGoneError, Header, error_body
from proxy.headers import OWN_PREFIX
from proxy.stepping import Stepper, Wakeup
from proxy.upstream import Cancellation

KEEP_ALIVE_S: Final = 75  # longer than clients keep idle connections (5 to 60 s), so that they close first
HELD_BYTES: Final = 64 * 1024  # of a request's body that nobody has read yet; reading from the client pauses above
# Of the bodies of pipelined requests whose turn has not come. More than of one that is being read: while reading
# pauses, nobody notices that the client hung up, and the request that runs goes on for nobody.
WAITING_BYTES: Final = 1024 * 1024
MAX_HEAD_BYTES: Final = 256 * 1024  # of a request; servers take 8 to 64 KB at most
MAX_PIPELINED: Final = 16  # requests that wait for the one before; reading from the client pauses there
UPGRADE_TO_HTTP2: Final = re.compile(rb"\r\nupgrade:(?=[ \t]*h2c)", re.IGNORECASE)
BODILESS: Final = (204, 304)
STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode("ascii")) for status in HTTPStatus
}

Endpoint = Callable[[Client], Awaitable[None]]


def without_http2_offer(data: bytes) -> bytes:
    r"""Return the beginning of a request with its offer of HTTP/2 made one of our own headers, which nobody forwards.

    >>> without_http2_offer(b"POST / HTTP/1.1\r\nUpgrade: h2c\r\n\r\nUpgrade: h2c")
    b'POST / HTTP/1.1\r\nx-tutelage-upgrade: h2c\r\n\r\nUpgrade: h2c'
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return UPGRADE_TO_HTTP2.sub(b"\r\n" + OWN_PREFIX + b"upgrade:", head) + end + rest


class ClientExchange:
    """One request on a ``ClientConnection`` and its reply; a ``Client``."""

    __slots__ = (
        "_arrived",
        "_connection",
        "_expects_continue",
        "_is_chunked",
        "_is_http_10",
        "_is_over",
        "_is_started",
        "_pieces",
        "cancellation",
        "headers",
        "is_gone",
        "is_whole",
        "keep_alive",
        "method",
        "more_body",
        "n_held",
        "path",
        "status",
        "target",
    )

    def __init__(
        self,
        connection: "ClientConnection",
        *,
        method: str,
        url: bytes,
        headers: list[Header],
        is_http_10: bool,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        if not url.startswith(b"/"):  # the absolute form, as proxies are asked
            url = _origin_form(url)
        path = url.partition(b"?")[0].decode("ascii", "replace")
        self.method = method
        self.path = unquote(path) if "%" in path else path
        self.target = url
        self.headers = headers
        self.cancellation = Cancellation()
        self.is_gone = False
        self.status = 0
        self.is_whole = False  # the reply was sent to its end
        self.keep_alive = keep_alive
        self.more_body = True
        self._connection = connection
        self._expects_continue = expects_continue
        self._is_http_10 = is_http_10
        self._is_started = False
        self._is_chunked = False
        self._is_over = False
        self._pieces: list[bytes] = []
        self.n_held = 0  # bytes of the body that nobody has read yet
        self._arrived = Wakeup()

    # What the endpoint calls.

    async def read_piece(self) -> tuple[bytes, bool]:
        if self._expects_continue:  # a client may wait for this word before it sends its body
            self._expects_continue = False
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self._pieces and self.more_body:
            if self.is_gone or self._is_over:
                raise ClientGoneError("the request is over before its body's end")
            self._connection.flow.resume_reading()
            await self._arrived
        pieces, self._pieces = self._pieces, []
        self.n_held = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), not self.more_body

    def begin(self, status: int, headers: Sequence[Header]) -> None:
        self.status = status
        parts = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        is_measured = self.method == "HEAD" or status in BODILESS
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                is_measured = True
        if not is_measured:
            if self._is_http_10:  # the end of the connection is the end of the body
                self.keep_alive = False
            else:
                self._is_chunked = True
                parts.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        self._send(b"".join(parts))

    def write(self, data: bytes, *, is_last: bool) -> None:
        self.is_whole = is_last
        if self._is_chunked:
            if data:
                self._send((b"%x\r\n%b\r\n0\r\n\r\n" if is_last else b"%x\r\n%b\r\n") % (len(data), data))
            elif is_last:
                self._send(b"0\r\n\r\n")
        elif data and self.method != "HEAD":
            self._send(data)

    @property
    def is_congested(self) -> bool:
        return self._connection.flow.write_paused and not self.is_gone

    async def drain(self) -> None:
        await self._connection.flow.drain()
        if self.is_gone:
            raise ClientGoneError("the client left before the end of the reply")

    def cut(self, farewell: bytes = b"") -> None:
        if farewell and self._is_chunked:
            self._send(b"%x\r\n%b\r\n" % (len(farewell), farewell))
        self.is_whole = False

    def _send(self, data: bytes) -> None:
        transport = self._connection.transport
        if not self.is_gone and not transport.is_closing():
            transport.write(data)

    # What the connection calls.

    def take(self, piece: bytes) -> bool:
        """Take a piece of the body; return whether more than should be held waits now."""
        if self._is_over:  # answered before its end: nobody reads it any more
            return False
        self._pieces.append(piece)
        self.n_held += len(piece)
        return self.n_held > HELD_BYTES

    def advance(self) -> None:
        """Go on with what has arrived."""
        if self._is_started:
            self._arrived.wake()
        else:
            self._is_started = True
            Stepper(self._connection.run(self)).step()

    def close(self) -> None:
        """Note that the reply has ended: whoever still reads the body is told."""
        self._is_over = True
        self._arrived.wake()

    def leave(self) -> None:
        """Note that the client is gone."""
        self.is_gone = True
        self.cancellation.cancel()
        self._arrived.wake()

    # What uvicorn's server calls of whatever still runs when the time to drain is over, as of a task.

    def cancel(self, msg: object = None) -> None:
        del msg
        asyncio.get_running_loop().call_soon(self._interrupt)

    def _interrupt(self) -> None:
        self.cancellation.cancel()
        if self.more_body or self.is_congested:  # it waits for the client, not for the upstream
            self._connection.transport.abort()


def _origin_form(url: bytes) -> bytes:
    """Return path and query of an absolute *url*.

    >>> _origin_form(b"http://proxy.test/v1/models?limit=2"), _origin_form(b"http://proxy.test"), _origin_form(b"*")
    (b'/v1/models?limit=2', b'/', b'*')
    """
    _, found, rest = url.partition(b"://")
    if not found:
        return url
    return b"/" + rest.partition(b"/")[2]


class ClientConnection(asyncio.Protocol):
    """One client's connection; uvicorn's server makes it, counts it and asks it to shut down.

    Args:
        config: uvicorn's settings; not used here.
        server_state: the server's connections and what runs on them.
        app_state: not used here.
        serve: serves each request.
        max_connections: open at a time; those beyond are answered by *overloaded*.
        overloaded: serves each request there.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        serve: Endpoint,
        max_connections: int,
        overloaded: Endpoint,
    ) -> None:
        del config, app_state
        self.serve = serve
        self.flow: FlowControl
        self.transport: asyncio.Transport
        self._loop = _loop or asyncio.get_running_loop()
        self._connections: set[Any] = server_state.connections
        self._tasks: set[Any] = server_state.tasks  # exchanges among them: uvicorn waits for them too
        self._max_connections = max_connections
        self._overloaded = overloaded
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # pipelined after ``connection: close``
        self._url = b""
        self._headers: list[Header] = []
        self._expects_continue = False
        self._n_head_bytes: int | None = None  # of a head that is being received
        self._newest: ClientExchange | None = None  # whose request is being received, or was last
        self._running: ClientExchange | None = None
        self._waiting: deque[ClientExchange] = deque()  # pipelined: their turn comes when the one before has ended
        self._idle_since_s = 0.0  # loop time
        self._idle_timer: asyncio.TimerHandle | None = None
        self._is_closing = False  # after the reply that runs, or comes next

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.flow = FlowControl(self.transport)
        self._connections.add(self)
        if len(self._connections) > self._max_connections:
            self.serve = self._overloaded
            self._is_closing = True
        self._idle_since_s = self._loop.time()
        self._idle_timer = self._loop.call_later(KEEP_ALIVE_S, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._connections.discard(self)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self.flow.resume_writing()
        for exchange in self._waiting:
            self._tasks.discard(exchange)
        self._waiting.clear()
        if self._running is not None:
            self._running.leave()

    def data_received(self, data: bytes) -> None:
        # Java's HttpClient offers HTTP/2 with its first request. A server may ignore that (RFC 9110, section 7.8), but
        # httptools takes what follows the head for the other protocol, and the body would be lost.
        if b"h2c" in data and (self._newest is None or not self._newest.more_body):
            data = without_http2_offer(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse(400, "Invalid HTTP request received.")
            return
        except httptools.HttpParserUpgrade:  # to a protocol that is not spoken here: answered as what it is
            if self._newest is not None:
                self._newest.keep_alive = self._newest.more_body = False
        if self._n_head_bytes is not None:
            self._n_head_bytes += len(data)
            if self._n_head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "The request's head is too large.")
                return
        # Not in the parser's callbacks: by now the whole of a short request is here, and one step takes it upstream.
        if self._running is not None:
            self._running.advance()

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()

    def shutdown(self) -> None:
        """End the connection: at once when nothing runs, else after the reply that does."""
        self._is_closing = True
        if self._running is None:
            self.transport.close()
        else:
            self._running.keep_alive = False

    # httptools

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._expects_continue = False
        self._n_head_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._n_head_bytes is None:  # trailers are no headers
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        is_http_10 = self._parser.get_http_version() == "1.0"
        self._n_head_bytes = None
        exchange = self._newest = ClientExchange(
            self,
            method=self._parser.get_method().decode("ascii"),
            url=self._url,
            headers=self._headers,
            is_http_10=is_http_10,
            keep_alive=not is_http_10 and not self._is_closing and self._parser.should_keep_alive(),
            expects_continue=self._expects_continue,
        )
        self._tasks.add(exchange)
        if self._running is None:
            self._running = exchange
        else:
            self._waiting.append(exchange)
            if len(self._waiting) >= MAX_PIPELINED:  # up to here reading goes on, so that a hang-up is noticed
                self.flow.pause_reading()

    def on_body(self, body: bytes) -> None:
        if self._newest is None or not self._newest.take(body):
            return
        if self._newest is self._running or sum([waiting.n_held for waiting in self._waiting]) > WAITING_BYTES:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        if self._newest is not None:
            self._newest.more_body = False

    # Exchanges

    async def run(self, exchange: "ClientExchange") -> None:
        """Serve *exchange* to its end."""
        try:
            await self.serve(exchange)
        finally:
            self._tasks.discard(exchange)
            self._ended(exchange)

    def _ended(self, exchange: "ClientExchange") -> None:
        """Go on to the next request, or close the connection."""
        self._running = None
        exchange.close()
        if not exchange.keep_alive or not exchange.is_whole or self.transport.is_closing():
            self.transport.close()
            return
        self.flow.resume_reading()
        if self._waiting:
            self._running = self._waiting.popleft()
            self._loop.call_soon(self._running.advance)  # not at once: the one before is still on the stack
        else:
            self._idle_since_s = self._loop.time()

    def _refuse(self, status: int, message: str) -> None:
        body = error_body(ApiError(status, message))
        lines = [
            STATUS_LINES[status].rstrip(),
            b": ".join(JSON_TYPE),
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.transport.close()

    def _close_if_idle(self) -> None:
        """Close a connection without requests; one timer is set anew now and then, not with each request."""
        idle_s = 0.0 if self._running is not None else self._loop.time() - self._idle_since_s
        if idle_s >= KEEP_ALIVE_S:
            self.transport.close()
        else:
            self._idle_timer = self._loop.call_later(KEEP_ALIVE_S - idle_s, self._close_if_idle)
