"""One request of a client and its reply, as an endpoint sees it: the body piece by piece, and HTTP/1.1 back to it."""

import asyncio
from collections.abc import Coroutine, Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import unquote

from uvicorn.protocols.http.flow_control import FlowControl

from proxy.errors import ClientGoneError, Header
from proxy.stepping import Stepper, Wakeup
from proxy.upstream import Cancellation

HELD_BYTES: Final = 64 * 1024  # of a request's body that nobody has read yet; reading from the client pauses above
BODILESS: Final = (204, 304)
STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode("ascii")) for status in HTTPStatus
}


class Connection(Protocol):
    """What an exchange needs of its connection; ``client_connection.ClientConnection`` is the real one."""

    transport: asyncio.Transport
    flow: FlowControl

    def run(self, exchange: "ClientExchange") -> Coroutine[Any, None, None]:
        """Serve *exchange* to its end."""
        ...

    def resume_reading(self) -> None:
        """Read on, as far as bounds allow."""
        ...

    def reset(self) -> None:
        """End the connection so that the client sees that it is broken."""
        ...


class ClientExchange:
    """One request on a connection and its reply; a ``Client``."""

    __slots__ = (
        "_arrived",
        "_connection",
        "_expects_continue",
        "_is_chunked",
        "_is_http_10",
        "_is_over",
        "_is_unframed",
        "_pieces",
        "cancellation",
        "headers",
        "is_gone",
        "is_started",
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
        connection: Connection,
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
        # Not its beginning: what is forwarded is the target as it was written, below the very "/v1".
        self.path = path[:4] + unquote(path[4:]) if "%" in path else path
        self.target = url
        self.headers = headers
        self.cancellation = Cancellation()
        self.is_gone = False
        self.is_started = False
        self.status = 0
        self.is_whole = False  # the reply was sent to its end
        self.keep_alive = keep_alive
        self.more_body = True
        self._connection = connection
        self._expects_continue = expects_continue
        self._is_http_10 = is_http_10
        self._is_chunked = False
        self._is_unframed = False  # the end of the connection is the end of the body
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
            self._connection.resume_reading()
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
            if self._is_http_10:
                self._is_unframed = True
                self.keep_alive = False
            else:
                self._is_chunked = True
                parts.append(b"transfer-encoding: chunked\r\n")
        if self._expects_continue and self.more_body:  # never told to go on: whether the body comes is in doubt
            self.keep_alive = False
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
        self.is_whole = False
        if farewell and self._is_chunked:
            self._send(b"%x\r\n%b\r\n" % (len(farewell), farewell))
        elif farewell and self._is_unframed:
            self._send(farewell)
        elif self._is_unframed:
            self._connection.reset()

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
        if self.is_started:
            self._arrived.wake()
        elif not self.is_gone:
            self.is_started = True
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
