"""From a client's request to the one that goes upstream; shared by learned and passed-through endpoints."""

import logging
from collections.abc import Sequence
from typing import Final

from proxy.authentication import Authenticator, own_credentials
from proxy.client import Client
from proxy.errors import (
    ApiError,
    Header,
    UpstreamError,
    UpstreamRestingError,
    UpstreamTimeoutError,
    upstream_failure,
)
from proxy.headers import request_headers
from proxy.metrics import Metrics
from proxy.routing import Route
from proxy.upstream import UpstreamRequest

_KINDS: Final = {UpstreamTimeoutError: "timeout", UpstreamRestingError: "resting"}

logger = logging.getLogger(__name__)


class Forwarder:
    """Makes upstream requests with the right headers and credentials, and words their failures."""

    def __init__(self, authenticator: Authenticator, metrics: Metrics) -> None:
        self._authenticator = authenticator
        self._metrics = metrics

    def request(
        self, client: Client, route: Route, body: bytes | None, *, is_fallback: bool = False
    ) -> UpstreamRequest:
        """Return the request of *client* with *body* as it goes to *route*.

        A fallback never sees the client's own key, which is meant for another server: it gets its own, or none.
        """
        if is_fallback:
            credentials: Sequence[Header] | None = own_credentials(client.headers, route.credential)
        else:
            credentials = self._authenticator.upstream_credentials(client.headers, route.credential)
        headers = request_headers(client.headers, credentials)
        return UpstreamRequest(client.method, client.target[3:], headers, body, client.cancellation)

    def failure(self, error: UpstreamError, upstream: str) -> ApiError:
        """Return what the client is told of *error*, counted and logged."""
        kind = _KINDS.get(type(error), "unreachable")
        self._metrics.upstream_failures[upstream, kind] += 1
        logger.warning("upstream %r: %s", upstream, error)
        return upstream_failure(error, upstream)
