"""One client's connection, and one exchange after the other on it: asyncio's protocol plus httptools.

What serves a request is a coroutine that runs in this protocol's callbacks (``stepping``): there is no ASGI scope, no
task and no future for a request. uvicorn's server accepts connections, and drains them at shutdown.

A client that closes its half of the connection has left: nothing tells it from one that would still read its answer,
and an upstream must not go on for nobody.
"""

import asyncio
import re
import socket
import struct
from collections import deque
from typing import Any, Final, cast

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from proxy.client import Endpoint
from proxy.client_exchange import STATUS_LINES, ClientExchange
from proxy.errors import JSON_TYPE, ApiError, Header, error_body
from proxy.headers import OWN_PREFIX

KEEP_ALIVE_S: Final = 75  # longer than clients keep idle connections (5 to 60 s), so that they close first
"""Also how long a client may pause in the middle of a body."""
# Of the bodies of pipelined requests whose turn has not come. More than of one that is being read: while reading
# pauses, nobody notices that the client hung up, and the request that runs goes on for nobody.
WAITING_BYTES: Final = 1024 * 1024
MAX_HEAD_BYTES: Final = 256 * 1024  # of a request; servers take 8 to 64 KB at most
MAX_FRAMING_BYTES: Final = 2 * MAX_HEAD_BYTES  # of a body's trailers and chunk extensions, which nobody reads
MAX_PIPELINED: Final = 16  # requests that wait for the one before; reading from the client pauses there
LINGER_S: Final = 5  # for the rest of a body that nobody reads, after the last answer on a connection
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: a connection that is closed resets
UPGRADE_TO_HTTP2: Final = re.compile(rb"\r\nupgrade:(?=[ \t]*h2c)", re.IGNORECASE)


def without_http2_offer(data: bytes) -> bytes:
    r"""Return the beginning of a request with its offer of HTTP/2 made one of our own headers, which nobody forwards.

    >>> without_http2_offer(b"POST / HTTP/1.1\r\nUpgrade: h2c\r\n\r\nUpgrade: h2c")
    b'POST / HTTP/1.1\r\nx-tutelage-upgrade: h2c\r\n\r\nUpgrade: h2c'
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return UPGRADE_TO_HTTP2.sub(b"\r\n" + OWN_PREFIX + b"upgrade:", head) + end + rest


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
        self._n_framing_bytes = 0  # that came since the last piece of a body, or with it
        self._newest: ClientExchange | None = None  # whose request is being received, or was last
        self._running: ClientExchange | None = None
        self._waiting: deque[ClientExchange] = deque()  # pipelined: their turn comes when the one before has ended
        self._idle_since_s = 0.0  # loop time
        self._idle_timer: asyncio.TimerHandle | None = None
        self._is_closing = False  # after the reply that runs, or comes next
        self._is_deaf = False  # what still comes is no request, or none that is answered
        self._is_lingering = False  # the last answer was sent, the rest of its request still comes

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
            if not self._running.is_started:
                self._tasks.discard(self._running)
            self._running.leave()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        # Java's HttpClient offers HTTP/2 with its first request. A server may ignore that (RFC 9110, section 7.8), but
        # httptools takes what follows the head for the other protocol, and the body would be lost.
        if b"h2c" in data and (self._newest is None or not self._newest.more_body):
            data = without_http2_offer(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse(400, "Invalid HTTP request received.")
        except httptools.HttpParserUpgrade:  # to a protocol that is not spoken here: answered as what it is
            self._is_deaf = True
            if self._newest is not None:
                self._newest.keep_alive = self._newest.more_body = False
        if not self._is_deaf:
            self._bound(len(data))
        # Not in the parser's callbacks: by now the whole of a short request is here, and one step takes it upstream.
        if self._running is not None and not self.transport.is_closing():
            self._running.advance()

    def _bound(self, n_bytes: int) -> None:
        """Take note of how much came, and refuse what goes on for ever without being a request or its body."""
        if self._n_head_bytes is not None:
            self._n_head_bytes += n_bytes
            if self._n_head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "The request's head is too large.")
        elif self._newest is not None and self._newest.more_body:
            self._idle_since_s = self._loop.time()
            self._n_framing_bytes += n_bytes
            if self._n_framing_bytes > MAX_FRAMING_BYTES:
                self._refuse(431, "The request's trailers are too large.")

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

    def resume_reading(self) -> None:
        if self.flow.read_paused:
            self._idle_since_s = self._loop.time()  # until now it was not the client that stopped
            self.flow.resume_reading()

    def reset(self) -> None:
        """End the connection at once so that the client does not take its end for the reply's."""
        if self.transport.is_closing():
            return
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()

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
        self._n_framing_bytes = 0
        if self._newest is None or not self._newest.take(body):
            return
        if self._newest is self._running or sum([waiting.n_held for waiting in self._waiting]) > WAITING_BYTES:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        if self._newest is not None:
            self._newest.more_body = False
        if self._is_lingering:
            self.transport.close()

    # Exchanges

    async def run(self, exchange: ClientExchange) -> None:
        """Serve *exchange* to its end."""
        try:
            await self.serve(exchange)
        finally:
            self._tasks.discard(exchange)
            self._ended(exchange)

    def _ended(self, exchange: ClientExchange) -> None:
        """Go on to the next request, or close the connection."""
        self._running = None
        exchange.close()
        if not exchange.is_whole or self.transport.is_closing():
            self.transport.close()
            return
        self.resume_reading()
        if not exchange.keep_alive:
            self._close_after(exchange)
        elif self._waiting:
            self._running = self._waiting.popleft()
            self._loop.call_soon(self._running.advance)  # not at once: the one before is still on the stack
        else:
            self._idle_since_s = self._loop.time()

    def _close_after(self, exchange: ClientExchange) -> None:
        """Close once the body of the last request has come: while bytes come, closing resets, and takes the answer."""
        if not exchange.more_body or self._is_deaf:
            self.transport.close()
            return
        self._is_lingering = True
        self.transport.write_eof()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._idle_timer = self._loop.call_later(LINGER_S, self.transport.close)

    def _refuse(self, status: int, message: str) -> None:
        """Answer what is no request, and close. No other reply is touched by it: that of a whole request goes on."""
        self._is_deaf = True
        running = self._running
        if running is not None and not running.more_body:
            running.keep_alive = False
            return
        if not self._is_lingering and (running is None or not running.status):
            self._answer_unread(ApiError(status, message))
        self.transport.close()

    def _answer_unread(self, error: ApiError) -> None:
        body = error_body(error)
        lines = [
            STATUS_LINES[error.status].rstrip(),
            b": ".join(JSON_TYPE),
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    def _close_if_idle(self) -> None:
        """Close a connection on which only the client could go on; one timer is set now and then, not a request."""
        running = self._running
        is_clients_turn = running is None or (running.more_body and not self.flow.read_paused)
        idle_s = self._loop.time() - self._idle_since_s if is_clients_turn else 0.0
        if idle_s >= KEEP_ALIVE_S:
            self.transport.close()
        else:
            self._idle_timer = self._loop.call_later(KEEP_ALIVE_S - idle_s, self._close_if_idle)
