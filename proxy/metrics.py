"""What the request path counts, for ``GET /metrics``. No tenant, user, model or text is a label."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.005, 0.02, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0)


class Metrics:
    """Counters of one process; with several workers each answers for itself."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter(
            "tutelage_requests",
            "Requests by kind of endpoint and by the status that the client saw (0: it left before one).",
            ("endpoint", "status"),
            registry=registry,
        )
        self.upstream_failures = Counter(
            "tutelage_upstream_failures",
            "Requests that an upstream failed, by upstream and kind of failure.",
            ("upstream", "kind"),
            registry=registry,
        )
        self.retries = Counter(
            "tutelage_retries",
            "Requests sent again to the upstream that failed them, by upstream.",
            ("upstream",),
            registry=registry,
        )
        self.fallbacks = Counter(
            "tutelage_fallbacks",
            "Requests sent to another upstream because the one that serves their model failed, by the other.",
            ("upstream",),
            registry=registry,
        )
        self.limited_requests = Counter(
            "tutelage_limited_requests",
            "Requests answered 429 because of a limit of their key, by limit.",
            ("limit",),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "tutelage_request_seconds",
            "Seconds from the end of a learned request's body to the last byte of its reply.",
            registry=registry,
            buckets=_SECONDS,
        )

        self.learning_failures = Counter(
            "tutelage_learning_failures",
            "Failures inside learning; the requests went on without it.",
            registry=registry,
        )
        self._breakers = Gauge(
            "tutelage_upstream_breaker",
            "Circuit breakers by upstream: 0 closed, 1 half-open, 2 open.",
            ("upstream",),
            registry=registry,
        )
        self._request_children: dict[tuple[str, int], Counter] = {}

    def count_request(self, endpoint: str, status: int) -> None:
        """Count a request; *status* is 0 when the client left before one."""
        child = self._request_children.get((endpoint, status))
        if child is None:
            child = self._request_children[endpoint, status] = self.requests.labels(endpoint, str(status))
        child.inc()

    def watch_records(self, n_written: Callable[[], float], n_dropped: Callable[[], float]) -> None:
        """Show how many records this process wrote and how many it had to drop."""
        for name, help_text, count in (
            ("tutelage_records_written", "Records written to segments.", n_written),
            ("tutelage_records_dropped", "Records dropped: the disk or the backlog is full.", n_dropped),
        ):
            Gauge(name, help_text, registry=self.registry).set_function(count)

    def watch_breaker(self, upstream: str, state: Callable[[], float]) -> None:
        """Show a circuit breaker: 0 closed, 1 half-open (the next request is a probe), 2 open."""
        self._breakers.labels(upstream).set_function(state)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text form."""
        return generate_latest(self.registry)
