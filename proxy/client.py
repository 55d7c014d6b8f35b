"""Whoever waits for a reply, as the endpoints of the request path see it; ``client_connection`` has the real one."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from proxy.dialect import Dialect
from proxy.errors import JSON_TYPE, ApiError, Header, body_too_large
from proxy.headers import content_length, find
from proxy.upstream import Cancellation

MAX_DISCARDED_BYTES: Final = 200_000_000  # of a body that is too large; a client beyond loses its connection


class Client(Protocol):
    """One request and the way back to who sent it.

    Attributes:
        method: such as ``POST``.
        path: percent-encoding undone, for telling endpoints apart.
        target: path and query as the client wrote them.
        headers: names in lower case, values as bytes.
        cancellation: told when the client has left after its body was read, or when the server cannot wait longer.
        is_gone: nobody is there to read a reply.
        status: of the reply whose head was sent; 0 before.
    """

    method: str
    path: str
    target: bytes
    headers: list[Header]
    cancellation: Cancellation
    is_gone: bool
    status: int

    async def read_piece(self) -> tuple[bytes, bool]:
        """Return the next piece of the request's body and whether it is the last.

        Raises:
            ClientGoneError: the client left before its end.
        """
        ...

    def begin(self, status: int, headers: Sequence[Header]) -> None:
        """Send the head of the reply; without a ``content-length`` among *headers* the body goes in chunks."""
        ...

    def write(self, data: bytes, *, is_last: bool) -> None:
        """Send the next bytes of the body; never waits, see ``is_congested``."""
        ...

    @property
    def is_congested(self) -> bool:
        """Whether the client takes bytes slower than they come: ``drain`` before more is written."""
        ...

    async def drain(self) -> None:
        """Return once more may be written.

        Raises:
            ClientGoneError: the client left meanwhile.
        """
        ...

    def cut(self, farewell: bytes = b"") -> None:
        """End the connection so that the client sees that its reply is not whole.

        *farewell*: last bytes of the body, where it has no announced length.
        """
        ...


Endpoint = Callable[[Client], Awaitable[None]]


async def read_body(client: Client, max_body_mb: float) -> bytes:
    """Return the whole body of *client*'s request.

    Raises:
        ApiError: 413, it is larger than *max_body_mb*; nothing beyond was held.
        ClientGoneError: the client left before its end.
    """
    max_bytes = int(max_body_mb * 1_000_000)
    if (content_length(client.headers) or 0) > max_bytes:
        await _discard(client)
        raise body_too_large(max_body_mb)
    body, is_last = await client.read_piece()
    if is_last and len(body) <= max_bytes:
        return body
    pieces, n_bytes = [body], len(body)
    while not is_last and n_bytes <= max_bytes:
        body, is_last = await client.read_piece()
        pieces.append(body)
        n_bytes += len(body)
    if n_bytes > max_bytes:
        pieces.clear()
        if not is_last:
            await _discard(client)
        raise body_too_large(max_body_mb)
    return b"".join(pieces)


async def _discard(client: Client) -> None:
    """Take the rest of a body and drop it.

    Many clients look for an answer only after their last byte, and a connection that is closed before that resets:
    they would never see why. One that announced ``expect: 100-continue`` waits for a word before it sends anything.
    """
    if find(client.headers, b"expect") is not None:
        return
    n_bytes, is_last = 0, False
    while not is_last and n_bytes <= MAX_DISCARDED_BYTES:
        piece, is_last = await client.read_piece()
        n_bytes += len(piece)


def send_body(client: Client, status: int, body: bytes, headers: Sequence[Header]) -> None:
    """Send an answer of our own."""
    client.begin(status, [*headers, (b"content-length", b"%d" % len(body))])
    client.write(body, is_last=True)


def send_error(client: Client, error: ApiError, dialect: Dialect, headers: Sequence[Header] = ()) -> None:
    """Send an error of our own in the shape of the client's API."""
    send_body(client, error.status, dialect.error_body(error), [JSON_TYPE, *error.headers, *headers])
