"""From a client's request to the one that goes upstream; shared by learned and passed-through endpoints."""

import logging
from collections.abc import MutableMapping
from typing import Any

from proxy.authentication import Authenticator
from proxy.errors import ApiError, Header, UpstreamError, UpstreamTimeoutError, upstream_failure
from proxy.headers import request_headers
from proxy.metrics import Metrics
from proxy.routing import Route
from proxy.upstream import Cancellation, UpstreamRequest

logger = logging.getLogger(__name__)


class Forwarder:
    """Makes upstream requests with the right headers and credentials, and words their failures."""

    def __init__(self, authenticator: Authenticator, metrics: Metrics) -> None:
        self._authenticator = authenticator
        self._metrics = metrics

    def request(
        self, scope: MutableMapping[str, Any], route: Route, body: bytes | None, cancellation: Cancellation
    ) -> UpstreamRequest:
        """Return the request of *scope* with *body* as it goes to *route*."""
        headers: list[Header] = scope["headers"]
        credentials = self._authenticator.upstream_credentials(headers, route.credential)
        return UpstreamRequest(
            scope["method"], upstream_target(scope), request_headers(headers, credentials), body, cancellation
        )

    def failure(self, error: UpstreamError, upstream: str) -> ApiError:
        """Return what the client is told of *error*, counted and logged."""
        kind = "timeout" if isinstance(error, UpstreamTimeoutError) else "unreachable"
        self._metrics.upstream_failures.labels(upstream, kind).inc()
        logger.warning("upstream %r: %s", upstream, error)
        return upstream_failure(error, upstream)


def upstream_target(scope: MutableMapping[str, Any]) -> bytes:
    """Return the request's target below ``/v1`` as the client wrote it, query included.

    >>> upstream_target({"raw_path": b"/v1/files/a%2Fb", "query_string": b"limit=2"})
    b'/files/a%2Fb?limit=2'
    """
    target: bytes = scope["raw_path"][3:]
    return target + b"?" + scope["query_string"] if scope["query_string"] else target
