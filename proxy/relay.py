"""Bytes from an upstream to a client, unchanged and at once, with a tee to the turn that records them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Protocol

from proxy.errors import JSON_TYPE, ApiError, ClientGoneError, Header, UpstreamCutError, error_body
from proxy.headers import RESPONSE_ID, find, response_headers
from proxy.upstream import UpstreamResponse
from store.vocabulary import Outcome

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

logger = logging.getLogger(__name__)


class Tee(Protocol):
    """What the relay tells of a reply on its way; ``proxy.turn.Turn`` is one."""

    response_id: str

    @property
    def is_complete(self) -> bool:
        """Whether the client has all of the reply once it has what was fed (``data: [DONE]``)."""
        ...

    def begin_reply(self, status: int, content_encoding: str) -> None:
        """Take note of the reply's head."""
        ...

    def feed(self, chunk: bytes) -> None:
        """Take note of the next bytes of the reply's body."""
        ...

    def finish(self, outcome: Outcome, status: int, upstream: str) -> None:
        """Record the response; only the first call counts. *status*: what the client saw, 0 when nothing."""
        ...


async def relay(send: Send, response: UpstreamResponse, turn: Tee, upstream: str) -> None:
    """Pass a reply on to the client of a learned endpoint.

    The turn is recorded before the client gets the last byte, so what it saw complete outlives this process.
    A cut upstream ends the client's connection in the middle of the body (our server closes it when the body was
    not ended); a client that left ends the upstream's.
    """
    status = response.status
    outcome: Outcome = "ok" if status < 400 else "error"
    headers = response_headers(response.headers, status)
    turn.begin_reply(status, (find(headers, b"content-encoding") or b"").decode("latin-1"))
    headers.append((RESPONSE_ID, turn.response_id.encode()))
    try:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        is_last = False
        while not is_last:
            data = await response.read()
            is_last = response.is_complete
            turn.feed(data)
            if is_last or turn.is_complete:
                turn.finish(outcome, status, upstream)
            await send({"type": "http.response.body", "body": data, "more_body": not is_last})
    except UpstreamCutError as exc:
        turn.finish("upstream_error", status, upstream)
        logger.warning("%s: upstream %r: %s", turn.response_id, upstream, exc)
    except (ClientGoneError, asyncio.CancelledError):
        turn.finish("cancelled", status, upstream)
        raise
    finally:
        response.cancel()


async def relay_untouched(send: Send, response: UpstreamResponse, upstream: str) -> None:
    """Pass a reply on to the client of any other endpoint; cuts and disconnects as in ``relay``."""
    try:
        headers = response_headers(response.headers, response.status)
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        is_last = False
        while not is_last:
            data = await response.read()
            is_last = response.is_complete
            await send({"type": "http.response.body", "body": data, "more_body": not is_last})
    except UpstreamCutError as exc:
        logger.warning("upstream %r: %s", upstream, exc)
    finally:
        response.cancel()


async def send_body(send: Send, status: int, body: bytes, headers: Sequence[Header]) -> None:
    """Send an answer of our own."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_error(
    send: Send,
    error: ApiError,
    headers: Sequence[Header] = (),
    *,
    error_body: Callable[[ApiError], bytes] = error_body,
) -> None:
    """Send an error of our own in the API's shape."""
    await send_body(send, error.status, error_body(error), [JSON_TYPE, *error.headers, *headers])
