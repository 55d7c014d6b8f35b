"""One chat request as it arrived, body and all; and reading that body within a limit."""

from dataclasses import dataclass
from typing import Final

from proxy.disconnect import Receive
from proxy.errors import ApiError, ClientGoneError, Header, body_too_large
from proxy.headers import find

MAX_DISCARDED_BYTES: Final = 200_000_000  # of a body that is too large; a client beyond loses its connection


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """What learning is told of a request.

    Attributes:
        endpoint: such as ``/v1/chat/completions``.
        headers: the client's, names in lower case, values as bytes.
        body: as the client sent it.
        received_s: when its body was complete, seconds of the system's clock.
    """

    endpoint: str
    headers: list[Header]
    body: bytes
    received_s: float


def content_length(headers: list[Header]) -> int | None:
    """Return the announced length of the body in bytes, None without one (no body, or chunks).

    Raises:
        ApiError: 400, it is not a number.
    """
    value = find(headers, b"content-length")
    if value is None:
        return None
    if not value.isdigit():
        raise ApiError(400, "The content-length header is not a number.")
    return int(value)


async def read_body(receive: Receive, headers: list[Header], max_body_mb: float) -> bytes:
    """Return the whole body.

    Raises:
        ApiError: 413, it is larger than *max_body_mb*; nothing beyond was held.
        ClientGoneError: the client left before its end.
    """
    max_bytes = int(max_body_mb * 1_000_000)
    if (content_length(headers) or 0) > max_bytes:
        await _discard(receive, headers)
        raise body_too_large(max_body_mb)
    body, is_last = await read_piece(receive)
    if is_last and len(body) <= max_bytes:
        return body
    pieces, n_bytes = [body], len(body)
    while not is_last and n_bytes <= max_bytes:
        body, is_last = await read_piece(receive)
        pieces.append(body)
        n_bytes += len(body)
    if n_bytes > max_bytes:
        pieces.clear()
        if not is_last:
            await _discard(receive, headers)
        raise body_too_large(max_body_mb)
    return b"".join(pieces)


async def _discard(receive: Receive, headers: list[Header]) -> None:
    """Take the rest of a body and drop it.

    Many clients look for an answer only after their last byte, and a connection that is closed before that resets:
    they would never see why. One that announced ``expect: 100-continue`` waits for a word before it sends anything.
    """
    if find(headers, b"expect") is not None:
        return
    n_bytes, is_last = 0, False
    while not is_last and n_bytes <= MAX_DISCARDED_BYTES:
        piece, is_last = await read_piece(receive)
        n_bytes += len(piece)


async def read_piece(receive: Receive) -> tuple[bytes, bool]:
    """Return the next piece of the body and whether it is the last.

    Raises:
        ClientGoneError: the client left.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError("the client left before the end of its request")
    return message.get("body", b""), not message.get("more_body", False)
