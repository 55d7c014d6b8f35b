"""An OpenAI-compatible server behind a pool of kept-open connections."""

import asyncio
import socket
import ssl
from collections import deque
from contextlib import aclosing
from typing import Final
from urllib.parse import urlsplit

from proxy.errors import ClientGoneError, UpstreamTimeoutError, UpstreamUnreachableError
from proxy.upstream import Cancellation, UpstreamRequest
from proxy.upstream_connection import READ_BYTES, Connection, Exchange, StaleConnectionError
from store.config import UpstreamSection

MAX_IDLE_S: Final = 55.0  # load balancers drop silent connections after 60 s and more


class HttpUpstream:
    """Sends requests to one server; replies come back unchanged and no redirect is followed."""

    is_learned_only = False

    def __init__(self, section: UpstreamSection, tls: ssl.SSLContext | None = None) -> None:
        """Take the address from *section*; *tls* replaces the system's trusted certificates."""
        url = urlsplit(section.base_url)
        self.name = section.name
        self._host = url.hostname or ""
        self._tls = (tls or default_tls()) if url.scheme == "https" else None
        self._port = url.port or (443 if self._tls else 80)
        self._base_path = url.path.rstrip("/").encode()
        self._host_line = b" HTTP/1.1\r\nhost: " + url.netloc.rpartition("@")[2].encode("ascii")
        self._connect_timeout_s = section.connect_timeout_s
        self._first_byte_timeout_s = section.first_byte_timeout_s
        self._total_timeout_s = section.total_timeout_s
        self._max_idle = section.max_idle_connections
        self._idle: deque[Connection] = deque()
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._pumps: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def send(self, request: UpstreamRequest) -> Exchange:
        head = self._head(request)
        if request.body_stream is None:
            connection = self._take_idle()
            if connection is not None:
                try:
                    return await self._exchange(connection, head, request)
                except StaleConnectionError:
                    # Closed while it was idle, noticed only now: nothing was answered, so ask once more on a new one.
                    pass
        return await self._exchange(await self._connect(request.cancellation), head, request)

    async def close(self) -> None:
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    def _head(self, request: UpstreamRequest) -> bytes:
        parts = [request.method.encode(), b" ", self._base_path, request.target, self._host_line]
        for name, value in request.headers:
            parts += (b"\r\n", name, b": ", value)
        if request.body_stream is not None:
            length = request.content_length
            parts.append(b"\r\ntransfer-encoding: chunked" if length is None else b"\r\ncontent-length: %d" % length)
        elif request.body is not None:
            parts.append(b"\r\ncontent-length: %d" % len(request.body))
        parts.append(b"\r\n\r\n")
        return b"".join(parts)

    async def _exchange(self, connection: Connection, head: bytes, request: UpstreamRequest) -> Exchange:
        is_whole = request.body_stream is None
        exchange = connection.start(head, request.body, is_head=request.method == "HEAD", is_whole=is_whole)
        request.cancellation.listen(exchange.cancel)
        if self._total_timeout_s:
            exchange.end_after(self._total_timeout_s)
        if not is_whole:
            pump = asyncio.get_running_loop().create_task(self._pump(connection, exchange, request))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)
        elif self._first_byte_timeout_s:
            exchange.expire_after(self._first_byte_timeout_s)
        try:
            await exchange.begun()
        except asyncio.CancelledError:
            exchange.cancel()
            raise
        return exchange

    async def _pump(self, connection: Connection, exchange: Exchange, request: UpstreamRequest) -> None:
        """Send the pieces of a streamed body as they come from the client, as fast as the upstream takes them."""
        is_chunked = request.content_length is None
        assert request.body_stream is not None
        try:
            async with aclosing(request.body_stream) as pieces:
                async for piece in pieces:
                    if not connection.is_open:
                        return
                    if piece:
                        await connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
        except ClientGoneError as exc:
            exchange.fail(exc)
            return
        if is_chunked:
            await connection.write(b"0\r\n\r\n")
        connection.end_request()
        if self._first_byte_timeout_s:
            exchange.expire_after(self._first_byte_timeout_s)

    # Connections

    def _take_idle(self) -> Connection | None:
        now_s = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()  # the newest: the others may age and go
            if connection.is_open and now_s - connection.idle_since_s < MAX_IDLE_S:
                return connection
            connection.close()
        return None

    def _free(self, connection: Connection) -> None:
        connection.idle_since_s = now_s = asyncio.get_running_loop().time()
        while self._idle and now_s - self._idle[0].idle_since_s >= MAX_IDLE_S:
            self._idle.popleft().close()
        if self._is_closed or len(self._idle) >= self._max_idle:
            connection.close()
        else:
            self._idle.append(connection)

    def _lost(self, connection: Connection) -> None:
        try:
            self._idle.remove(connection)
        except ValueError:
            return  # it was not idle

    async def _connect(self, cancellation: Cancellation) -> Connection:
        # A task of its own, so that a client that leaves ends it at once; new connections are rare.
        connecting = asyncio.get_running_loop().create_task(self._open())
        cancellation.listen(connecting.cancel)
        try:
            return await connecting
        except TimeoutError as exc:
            raise UpstreamTimeoutError(f"no connection within {self._connect_timeout_s:g} s") from exc
        except (OSError, UnicodeError) as exc:
            raise UpstreamUnreachableError(f"cannot connect to {self._host}:{self._port}: {exc}") from exc
        except asyncio.CancelledError:
            connecting.cancel()
            if cancellation.is_cancelled:
                raise ClientGoneError("the request was cancelled") from None
            raise

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_timeout_s or None):
            transport, connection = await loop.create_connection(
                lambda: Connection(loop, self._free, self._lost, self._buffer), self._host, self._port, ssl=self._tls
            )
        peer = transport.get_extra_info("socket")
        if peer is not None:  # a peer that vanished without a word is noticed in the end
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection


def default_tls() -> ssl.SSLContext:
    """Return a context that trusts the system's certificates and asks for HTTP/1.1."""
    tls = ssl.create_default_context()
    tls.set_alpn_protocols(["http/1.1"])
    return tls
