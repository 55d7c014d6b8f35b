"""Bytes from an upstream to a client, unchanged and at once, with a tee to the turn that records them."""

import logging
from typing import Protocol

from proxy.client import Client
from proxy.errors import ApiError, ClientGoneError, UpstreamCutError, unavailable, upstream_failure
from proxy.headers import RESPONSE_ID, find, response_headers
from proxy.upstream import UpstreamResponse
from store.vocabulary import Outcome

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

    def stream_error(self, error: ApiError) -> bytes:
        """Return the event that tells a client that its stream broke; nothing where none can be told."""
        ...

    def finish(self, outcome: Outcome, status: int, upstream: str) -> None:
        """Record the response; only the first call counts. *status*: what the client saw, 0 when nothing."""
        ...


async def relay(client: Client, response: UpstreamResponse, turn: Tee, upstream: str) -> None:
    """Pass a reply on to the client of a learned endpoint.

    The turn is recorded before the client gets the last byte, so what it saw complete outlives this process.
    A cut upstream ends the client's connection in the middle of the body; a stream of events tells so with a last one
    of its API. A client that left ends the upstream's.
    """
    status = response.status
    outcome: Outcome = "ok" if status < 400 else "error"
    headers = response_headers(response.headers, status)
    turn.begin_reply(status, (find(headers, b"content-encoding") or b"").decode("latin-1"))
    headers.append((RESPONSE_ID, turn.response_id.encode()))
    try:
        client.begin(status, headers)
        is_last = False
        while not is_last:
            data = await response.read()
            is_last = response.is_complete
            turn.feed(data)
            if is_last or turn.is_complete:
                turn.finish(outcome, status, upstream)
            client.write(data, is_last=is_last)
            if client.is_congested:
                await client.drain()
    except UpstreamCutError as exc:
        turn.finish("upstream_error", status, upstream)
        logger.warning("%s: upstream %r: %s", turn.response_id, upstream, exc)
        client.cut(turn.stream_error(upstream_failure(exc, upstream)))
    except ClientGoneError:
        turn.finish("cancelled", status, upstream)
        client.cut(turn.stream_error(unavailable("The proxy is shutting down.", "shutting_down")))
        raise
    finally:
        response.cancel()


async def relay_untouched(client: Client, response: UpstreamResponse, upstream: str) -> None:
    """Pass a reply on to the client of any other endpoint; cuts and disconnects as in ``relay``."""
    try:
        client.begin(response.status, response_headers(response.headers, response.status))
        is_last = False
        while not is_last:
            data = await response.read()
            is_last = response.is_complete
            client.write(data, is_last=is_last)
            if client.is_congested:
                await client.drain()
    except UpstreamCutError as exc:
        logger.warning("upstream %r: %s", upstream, exc)
        client.cut()
    except ClientGoneError:
        client.cut()
        raise
    finally:
        response.cancel()
