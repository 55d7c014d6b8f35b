"""One HTTP/1.1 connection to an upstream, and one exchange at a time on it: raw asyncio protocol plus httptools.

Measured (bench/): 92 us of CPU a request against 259 for aiohttp and 3,220 for httpx.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

import httptools

from proxy.errors import (
    ClientGoneError,
    Header,
    UpstreamCutError,
    UpstreamError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from proxy.stepping import Wakeup

MAX_HEAD_BYTES: Final = 256 * 1024  # of a reply; servers send 8 to 64 KB at most
HIGH_WATER_BYTES: Final = 64 * 1024  # of a reply that the client has not taken yet; reading pauses above
STALE_S: Final = 1.0  # after a request was sent: what closed before it came shows within a round trip
READ_BYTES: Final = 64 * 1024  # at a time; what has arrived beyond is read next, or not before the client took this


class StaleConnectionError(UpstreamUnreachableError):
    """The connection was closed at once, before any byte of the reply: a reused one may have been idle too long."""


class Exchange:
    """One reply on its way; an ``UpstreamResponse`` once ``begun()`` has returned."""

    __slots__ = (
        "_buffered",
        "_connection",
        "_deadline",
        "_error",
        "_is_received",
        "_loop",
        "_pieces",
        "_timer",
        "_wakeup",
        "has_begun",
        "headers",
        "is_head",
        "status",
    )

    def __init__(self, connection: "Connection", loop: asyncio.AbstractEventLoop, *, is_head: bool) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.has_begun = False
        self.is_head = is_head
        self._connection: Connection | None = connection
        self._loop = loop
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._is_received = False
        self._error: Exception | None = None
        self._wakeup = Wakeup()
        self._timer: asyncio.TimerHandle | None = None  # of the head
        self._deadline: asyncio.TimerHandle | None = None  # of the whole reply

    @property
    def is_complete(self) -> bool:
        return self._is_received and not self._pieces

    async def begun(self) -> None:
        """Return once the head of the reply has arrived.

        Raises:
            UpstreamError, ClientGoneError: it did not.
        """
        while not self.has_begun:
            if self._error is not None:
                raise self._error
            await self._wakeup
        self._stop_timer()  # the deadline goes on

    async def read(self) -> bytes:
        while not self._pieces and not self._is_received:
            if self._error is not None:
                raise self._error
            await self._wakeup
        if isinstance(self._error, ClientGoneError):
            raise self._error
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = []
        if self._buffered > HIGH_WATER_BYTES and self._connection is not None:
            self._connection.resume_reading()
        self._buffered = 0
        return data

    def cancel(self) -> None:
        self.fail(ClientGoneError("the request was cancelled"))

    def expire_after(self, timeout_s: float) -> None:
        """Fail unless the head arrives within *timeout_s* from now."""
        if not self.has_begun and self._error is None:
            error = UpstreamTimeoutError(f"no answer within {timeout_s:g} s")
            self._timer = self._loop.call_later(timeout_s, self.fail, error)

    def end_after(self, timeout_s: float) -> None:
        """Fail unless all of the reply arrives within *timeout_s* from now."""
        self._deadline = self._loop.call_later(timeout_s, self._overrun, timeout_s)

    def _overrun(self, timeout_s: float) -> None:
        self.fail(UpstreamTimeoutError(f"its reply was not complete within {timeout_s:g} s"))

    def fail(self, error: Exception) -> None:
        """End the exchange and its connection with *error*; nothing happens after the end."""
        if self._is_received or self._error is not None:
            return
        self._error = error
        self._stop_timer()
        self._stop_deadline()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon(self)
        self.wake()

    # What the connection calls.

    def begin(self, status: int) -> None:
        self.status = status
        self.has_begun = True

    def add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._buffered += len(data)

    def finish(self) -> None:
        self._is_received = True
        self._stop_deadline()
        self._connection = None

    def is_over_high_water(self) -> bool:
        return self._buffered > HIGH_WATER_BYTES

    def is_ended_by_eof(self) -> bool:
        """Whether the end of the connection is the end of this reply: neither a length nor chunks were announced."""
        return self.has_begun and not any(
            name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self.headers
        )

    def wake(self) -> None:
        self._wakeup.wake()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Connection(asyncio.BufferedProtocol):
    """One connection; ``on_free`` gets it back after a reply that leaves it usable, ``on_lost`` when it is gone.

    All connections of an upstream read into one buffer: what is in it is parsed before the next read.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_free: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
        buffer: memoryview,
    ) -> None:
        self._buffer = buffer
        self.idle_since_s = 0.0  # loop time
        self._sent_s = 0.0  # loop time of the last request
        self._loop = loop
        self._on_free = on_free
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._headers: list[Header] = []
        self._n_head_bytes = 0
        self._is_interim = False  # inside a 1xx reply
        self._is_request_sent = True
        self._is_reusable = True
        self._is_finished = False  # a reply ended in the data that is being parsed
        self._writable: asyncio.Future[None] | None = None

    # What the pool and the pump of a streamed body call.

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def start(self, head: bytes, body: bytes | None, *, is_head: bool, is_whole: bool) -> Exchange:
        """Send a request and return its exchange; *is_whole* off: pieces of the body follow by ``write``."""
        exchange = self._exchange = Exchange(self, self._loop, is_head=is_head)
        self._headers = exchange.headers
        self._n_head_bytes = 0
        self._is_interim = False
        self._is_request_sent = is_whole
        if self._transport is None or self._transport.is_closing():
            exchange.fail(StaleConnectionError("the connection is closed"))
        else:
            self._sent_s = self._loop.time()
            self._transport.write(head + body if body else head)
        return exchange

    async def write(self, data: bytes) -> None:
        """Send a piece of a streamed body; waits while the upstream takes nothing."""
        if self._writable is not None:
            await self._writable
        if self.is_open:
            cast("asyncio.Transport", self._transport).write(data)

    def end_request(self) -> None:
        """Note that the last piece of a streamed body was sent."""
        self._is_request_sent = True

    def resume_reading(self) -> None:
        if self.is_open:
            cast("asyncio.Transport", self._transport).resume_reading()

    def abandon(self, exchange: Exchange) -> None:
        """Close at once, if *exchange* still is the one that runs here."""
        if self._exchange is exchange:
            self._exchange = None
            self.close()

    def close(self) -> None:
        """Close without waiting for anything; what is still to be written is dropped."""
        self._is_reusable = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        exchange = self._exchange
        if exchange is None:  # bytes that nobody asked for
            self.close()
            return
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._is_reusable = False
            if self._exchange is exchange:
                exchange.fail(self._garbled(exchange, exc))
        if self._is_finished:
            self._is_finished = False
            self._release()
        elif not exchange.has_begun:
            self._n_head_bytes += nbytes
            if self._n_head_bytes > MAX_HEAD_BYTES:
                exchange.fail(UpstreamUnreachableError(f"its reply's head is larger than {MAX_HEAD_BYTES} bytes"))
        elif exchange.is_over_high_water() and self.is_open:
            cast("asyncio.Transport", self._transport).pause_reading()
        exchange.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._is_reusable = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._end_with_connection(exchange, exc)
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        exchange = self._exchange
        if exchange is None:  # a second reply to one request
            self._is_reusable = False
            self._headers = []
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._is_interim = True
            self._headers.clear()
            return
        exchange.begin(status)
        self._headers = []  # trailers are no headers
        if exchange.is_head:  # the parser cannot know that no body follows
            self._is_reusable = False
            self._finish(exchange)

    def on_body(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.add(data)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None or self._is_interim:
            self._is_interim = False
            return
        self._is_reusable = self._is_reusable and self._is_request_sent and self._parser.should_keep_alive()
        self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        exchange.finish()
        self._exchange = None
        self._is_finished = True

    def _release(self) -> None:
        if self._is_reusable and self.is_open:
            self._on_free(self)
        else:
            self.close()

    def _end_with_connection(self, exchange: Exchange, exc: Exception | None) -> None:
        if exc is None and exchange.is_ended_by_eof():
            exchange.finish()
            exchange.wake()
        elif exchange.has_begun:
            exchange.fail(UpstreamCutError(f"the reply was cut off: {exc or 'connection closed'}"))
        elif self._n_head_bytes:
            exchange.fail(UpstreamUnreachableError(f"its reply was cut off in the head: {exc or 'connection closed'}"))
        else:
            # One that took the request and thought about it may have done, and charged, its work.
            is_stale = self._loop.time() - self._sent_s < STALE_S
            kind = StaleConnectionError if is_stale else UpstreamUnreachableError
            exchange.fail(kind(f"it closed the connection without an answer{f': {exc}' if exc else ''}"))

    @staticmethod
    def _garbled(exchange: Exchange, exc: Exception) -> UpstreamError:
        if exchange.has_begun:
            return UpstreamCutError(f"the reply is not HTTP: {exc}")
        return UpstreamUnreachableError(f"its reply is not HTTP: {exc}")
