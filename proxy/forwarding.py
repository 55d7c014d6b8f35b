"""From a client's request to the one that goes upstream; shared by learned and passed-through endpoints."""

import logging

from proxy.authentication import Authenticator
from proxy.client import Client
from proxy.errors import ApiError, UpstreamError, UpstreamTimeoutError, upstream_failure
from proxy.headers import request_headers
from proxy.metrics import Metrics
from proxy.routing import Route
from proxy.upstream import UpstreamRequest

logger = logging.getLogger(__name__)


class Forwarder:
    """Makes upstream requests with the right headers and credentials, and words their failures."""

    def __init__(self, authenticator: Authenticator, metrics: Metrics) -> None:
        self._authenticator = authenticator
        self._metrics = metrics

    def request(self, client: Client, route: Route, body: bytes | None) -> UpstreamRequest:
        """Return the request of *client* with *body* as it goes to *route*."""
        credentials = self._authenticator.upstream_credentials(client.headers, route.credential)
        headers = request_headers(client.headers, credentials)
        return UpstreamRequest(client.method, client.target[3:], headers, body, client.cancellation)

    def failure(self, error: UpstreamError, upstream: str) -> ApiError:
        """Return what the client is told of *error*, counted and logged."""
        kind = "timeout" if isinstance(error, UpstreamTimeoutError) else "unreachable"
        self._metrics.upstream_failures[upstream, kind] += 1
        logger.warning("upstream %r: %s", upstream, error)
        return upstream_failure(error, upstream)
