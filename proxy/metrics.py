"""What the request path counts, for ``GET /metrics``. No tenant, user, model or text is a label."""

import asyncio
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
        Gauge(
            "tutelage_event_loop_tasks",
            "Tasks of the event loop, those of the server itself included; at rest their number never grows.",
            registry=registry,
        ).set_function(_count_tasks)
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

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text form."""
        return generate_latest(self.registry)


def _count_tasks() -> float:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # nobody serves: asked outside the event loop
        return 0
