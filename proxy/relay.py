"""Bytes from an upstream to a client, unchanged and at once, with a tee to the turn that records them."""

import logging
from typing import Protocol

from proxy.client import Client
from proxy.dialect import Dialect
from proxy.errors import ApiError, ClientGoneError, UpstreamError, unavailable, upstream_failure
from proxy.event_boundary import EventBoundary
from proxy.headers import RESPONSE_ID, find, response_headers
from proxy.upstream import UpstreamResponse
from store.vocabulary import Outcome

logger = logging.getLogger(__name__)


class Tee(Protocol):
    """What the relay tells of a reply on its way; ``proxy.turn.Turn`` is one."""

    response_id: str

    def begin_reply(self, content_encoding: str) -> None:
        """Take note of the reply's head."""
        ...

    def feed(self, chunk: bytes) -> bool:
        """Take note of the next bytes of the body; return whether the client has all of the reply once it has them."""
        ...

    def finish(self, outcome: Outcome, status: int, upstream: str) -> None:
        """Record the response; only the first call counts. *status*: what the client saw, 0 when nothing."""
        ...


class Turn(Tee, Protocol):
    """One chat request and its reply, as learning sees them; ``proxy.turn.Turn`` is the real one."""

    body: bytes  # to send upstream

    @property
    def model(self) -> str | None:
        """The model that the request names; None without one."""
        ...


def _outcome(status: int) -> Outcome:
    """Return what a reply with *status* is, once it is whole: the upstream failed, or it refused the request.

    >>> [_outcome(status) for status in (200, 404, 429, 500)]
    ['ok', 'error', 'error', 'upstream_error']
    """
    if status < 400:
        return "ok"
    return "error" if status < 500 else "upstream_error"


async def relay(client: Client, response: UpstreamResponse, turn: Tee, upstream: str, dialect: Dialect) -> None:
    """Pass a reply on to the client of a learned endpoint.

    The turn is recorded before the client gets the last byte, so what it saw complete outlives this process.
    A cut upstream ends the client's connection in the middle of the body; a stream of events tells so with a last one
    of its API. A client that left ends the upstream's.
    """
    status = response.status
    outcome = _outcome(status)
    headers = response_headers(response.headers, status)
    encoding = find(headers, b"content-encoding")
    turn.begin_reply(encoding.decode("latin-1") if encoding else "")
    boundary = None if encoding else EventBoundary.of(find(headers, b"content-type"))
    headers.append((RESPONSE_ID, turn.response_id.encode()))
    try:
        client.begin(status, headers)
        is_last = False
        while not is_last:
            data = await response.read()
            is_last = response.is_complete
            if turn.feed(data) or is_last:
                turn.finish(outcome, status, upstream)
                boundary = None  # the client has its whole reply: whatever comes now, no error is told
            client.write(data, is_last=is_last)
            if boundary is not None:
                boundary.feed(data)
            if client.is_congested:
                await client.drain()
    except UpstreamError as exc:
        turn.finish("upstream_error", status, upstream)
        logger.warning("%s: upstream %r: %s", turn.response_id, upstream, exc)
        _cut(client, boundary, dialect, upstream_failure(exc, upstream))
    except ClientGoneError:
        # An error's body is often left unread by a client that tries again.
        turn.finish("cancelled" if outcome == "ok" else outcome, status, upstream)
        _cut(client, boundary, dialect, unavailable("The proxy is shutting down.", "shutting_down"))
        raise
    finally:
        response.cancel()


def _cut(client: Client, boundary: EventBoundary | None, dialect: Dialect, error: ApiError) -> None:
    """End the client's connection; where it reads events and stands between two of them, *error* is the last one."""
    client.cut(dialect.stream_error(error) if boundary is not None and boundary.is_here else b"")


class Metered(Protocol):
    """Told of a reply whose use is counted; ``proxy.metering.MeteredReply`` is one."""

    def begin(self, content_encoding: str) -> None: ...

    def feed(self, data: bytes) -> None: ...

    def settle(self, upstream: str, status: int) -> None: ...


async def relay_untouched(
    client: Client, response: UpstreamResponse, upstream: str, metered: Metered | None = None
) -> None:
    """Pass a reply on to the client of any other endpoint; cuts and disconnects as in ``relay``."""
    headers = response_headers(response.headers, response.status)
    if metered is not None:
        metered.begin((find(headers, b"content-encoding") or b"").decode("latin-1"))
    try:
        client.begin(response.status, headers)
        is_last = False
        while not is_last:
            data = await response.read()
            is_last = response.is_complete
            if metered is not None:
                metered.feed(data)
                if is_last:
                    metered.settle(upstream, response.status)
            client.write(data, is_last=is_last)
            if client.is_congested:
                await client.drain()
    except UpstreamError as exc:
        logger.warning("upstream %r: %s", upstream, exc)
        client.cut()
    except ClientGoneError:
        client.cut()
        raise
    finally:
        if metered is not None:
            metered.settle(upstream, response.status)
        response.cancel()
