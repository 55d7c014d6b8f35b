"""What the request path counts, for ``GET /metrics``. No tenant, user, model or text is a label.

The request path adds to plain numbers, which one thread alone touches; Prometheus' own objects take a lock for each
change and cost five times as much. They are made of the numbers when somebody asks.
"""

import asyncio
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.005, 0.02, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0)


class Histogram:
    """How often a value fell between two bounds, and the sum of all."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def cumulated(self) -> list[tuple[str, float]]:
        """Return (upper bound, how many values were at most that), the last bound ``+Inf``."""
        names = [*map(str, self._bounds), "+Inf"]
        return [(name, float(sum(self.counts[: index + 1]))) for index, name in enumerate(names)]


@dataclass(slots=True, eq=False)  # a registry holds collectors by identity
class TokenTotals(Collector):
    """Tokens of all recorded responses so far. Plain numbers: they are added to with every response."""

    injected: int = 0
    """cl100k_base, of what was put into requests."""
    prompt: int = 0
    """As the upstreams counted, like the next."""
    cached: int = 0

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the totals in the form that a registry shows."""
        for name, help_text, total in (
            ("tutelage_injected_tokens", "Tokens put into requests, as counted here (cl100k_base).", self.injected),
            ("tutelage_prompt_tokens", "Tokens of all prompts, as the upstreams counted them.", self.prompt),
            ("tutelage_cached_tokens", "Of these, tokens that the upstreams took from their caches.", self.cached),
        ):
            yield CounterMetricFamily(name, help_text, value=total)


class Metrics(Collector):
    """Numbers of one process; with several workers each answers for itself.

    Attributes:
        requests: by kind of endpoint and the status that the client saw (0: it left before one).
        upstream_failures: by upstream and kind of failure.
        retries: sent again to the upstream that failed them, by upstream.
        fallbacks: sent to another upstream because the one that serves their model failed, by the other.
        limited_requests: answered 429 because of a limit of their key, by limit.
        request_seconds: from the end of a learned request's body to the last byte of its reply.
        learning_failures: inside learning; the requests went on without it.
        requests_without_contexts: went on while the contexts of their tenant were not loaded yet.
        question_vectors: asked of the embedding server, by what became of it.
        in_flight: requests under way.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.upstream_failures: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.retries: defaultdict[str, int] = defaultdict(int)
        self.fallbacks: defaultdict[str, int] = defaultdict(int)
        self.limited_requests: defaultdict[str, int] = defaultdict(int)
        self.request_seconds = Histogram(SECONDS)
        self.learning_failures = 0
        self.requests_without_contexts = 0
        self.question_vectors: defaultdict[str, int] = defaultdict(int)
        self.in_flight = 0
        self._breakers: dict[str, Callable[[], float]] = {}
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._registry = registry
        registry.register(self)

    def count_learning_failure(self) -> None:
        self.learning_failures += 1

    def count_request_without_contexts(self) -> None:
        self.requests_without_contexts += 1

    def count_limited_request(self, limit: str) -> None:
        self.limited_requests[limit] += 1

    def watch_breaker(self, upstream: str, state: Callable[[], float]) -> None:
        """Show a circuit breaker: 0 closed, 1 half-open (the next request is a probe), 2 open."""
        self._breakers[upstream] = state

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Show what *value* returns whenever somebody asks."""
        self._gauges.append((name, help_text, value))

    def watch_tokens(self, totals: TokenTotals) -> None:
        """Show what the responses of this process cost and saved in tokens."""
        self._registry.register(totals)

    def collect(self) -> Iterator[Metric]:
        """Yield everything in Prometheus' terms."""
        yield _counter(
            "tutelage_requests",
            "Requests by kind of endpoint and by the status that the client saw (0: it left before one).",
            ("endpoint", "status"),
            self.requests,
        )
        yield _counter(
            "tutelage_upstream_failures",
            "Requests that an upstream failed, by upstream and kind of failure.",
            ("upstream", "kind"),
            self.upstream_failures,
        )
        yield from self._upstream_counters()
        yield _counter(
            "tutelage_limited_requests",
            "Requests answered 429 because of a limit of their key, by limit.",
            ("limit",),
            {(limit,): count for limit, count in self.limited_requests.items()},
        )
        yield HistogramMetricFamily(
            "tutelage_request_seconds",
            "Seconds from the end of a learned request's body to the last byte of its reply.",
            buckets=self.request_seconds.cumulated(),
            sum_value=self.request_seconds.total,
        )
        yield CounterMetricFamily(
            "tutelage_learning_failures",
            "Failures inside learning; the requests went on without it.",
            value=self.learning_failures,
        )
        yield CounterMetricFamily(
            "tutelage_requests_without_contexts",
            "Requests that went on with patterns alone: their tenant's contexts were not loaded in time.",
            value=self.requests_without_contexts,
        )
        yield _counter(
            "tutelage_question_vectors",
            "Questions whose vectors a remote embedding model was to make, by outcome; but for made and cached, the "
            "local vector was used.",
            ("outcome",),
            {(outcome,): count for outcome, count in self.question_vectors.items()},
        )
        yield GaugeMetricFamily("tutelage_requests_in_flight", "Requests under way.", value=self.in_flight)
        yield GaugeMetricFamily(
            "tutelage_event_loop_tasks", "Tasks of the event loop; at rest their number never grows.", value=_n_tasks()
        )
        for name, help_text, value in self._gauges:
            yield GaugeMetricFamily(name, help_text, value=value())

    def _upstream_counters(self) -> Iterator[Metric]:
        """Yield what happens when upstreams fail."""
        for name, help_text, counts in (
            ("tutelage_retries", "Requests sent again to the upstream that failed them, by upstream.", self.retries),
            (
                "tutelage_fallbacks",
                "Requests sent to another upstream because theirs failed, by the other.",
                self.fallbacks,
            ),
        ):
            yield _counter(name, help_text, ("upstream",), {(upstream,): count for upstream, count in counts.items()})
        breakers = GaugeMetricFamily(
            "tutelage_upstream_breaker",
            "Circuit breakers by upstream: 0 closed, 1 half-open, 2 open.",
            labels=("upstream",),
        )
        for upstream, state in self._breakers.items():
            breakers.add_metric([upstream], state())
        yield breakers

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text form."""
        return generate_latest(self._registry)


def _n_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # asked outside of the event loop
        return 0


def _counter(name: str, help_text: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help_text, labels=labels)
    for key, count in counts.items():
        family.add_metric([str(part) for part in key], count)
    return family
