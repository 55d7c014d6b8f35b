"""Spans and metrics of responses for an OTLP collector, after OpenTelemetry's conventions for generative AI.

Made from records by the recorder: the request path does nothing for it. A response's span is a child of the client's
own when the request had a ``traceparent``. https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from store.clock import parse_iso
from store.config import TelemetrySection
from store.records import ResponseRecord

SCOPE: Final = "tutelage.proxy"
OPERATION: Final = "chat"
INJECTED: Final = "tutelage.injected_tokens"
EXPORT_TIMEOUT_S: Final = 3.0  # of one export with its retries; so long a collector that is away holds up the end
# As the conventions advise for each.
SECONDS: Final = tuple(0.01 * 2**power for power in range(14))
TOKENS: Final = tuple(float(4**power) for power in range(14))
BOUNDS: Final = (
    (gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION, SECONDS),
    (gen_ai_metrics.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK, SECONDS),
    (gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE, TOKENS),
)

logger = logging.getLogger(__name__)


class ResponseIds(IdGenerator):
    """Ids that follow from the response: one that is told twice, after a crash, is the same span."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self.response_id = ""

    def generate_span_id(self) -> int:
        return self._digest(8, b"span") or self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        return self._digest(16, b"trace") or self._random.generate_trace_id()

    def _digest(self, size: int, use: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(self.response_id.encode(), digest_size=size, person=use).digest(), "big")


class Telemetry:
    """Sends a span and metrics for each record; a collector that is away costs what it did not get."""

    def __init__(self, section: TelemetrySection) -> None:
        base = section.otlp_endpoint.rstrip("/")
        interval_ms = section.interval_s * 1000
        resource = Resource.create({"service.name": "tutelage"})
        self._with_text = section.messages
        self._ids = ResponseIds()
        self._spans = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._spans.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(f"{base}/v1/traces", timeout=EXPORT_TIMEOUT_S),
                max_queue_size=section.max_waiting,
                schedule_delay_millis=interval_ms,
                max_export_batch_size=min(512, section.max_waiting),
            )
        )
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(f"{base}/v1/metrics", timeout=EXPORT_TIMEOUT_S), export_interval_millis=interval_ms
        )
        self._meters = MeterProvider(
            [reader],
            resource=resource,
            shutdown_on_exit=False,
            views=[
                View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(bounds))
                for name, bounds in BOUNDS
            ],
        )
        self._tracer = self._spans.get_tracer(SCOPE)
        meter = self._meters.get_meter(SCOPE)
        self._duration = meter.create_histogram(gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION, "s")
        self._first_chunk = meter.create_histogram(gen_ai_metrics.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK, "s")
        self._tokens = meter.create_histogram(gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE, "{token}")
        self._injected = meter.create_counter(INJECTED, "{token}", "Learned text put into requests.")

    def note(self, records: Sequence[ResponseRecord]) -> None:
        """Take note of *records*; what cannot be told is logged and left out."""
        for record in records:
            try:
                self._tell(record)
            except Exception:  # telemetry must never keep records from the database
                logger.exception("no telemetry of %s", record.id)

    def close(self) -> None:
        """Send what waits, once."""
        self._spans.shutdown()
        self._meters.shutdown()

    def _tell(self, record: ResponseRecord) -> None:
        shared = {
            gen_ai.GEN_AI_OPERATION_NAME: OPERATION,
            gen_ai.GEN_AI_PROVIDER_NAME: record.upstream or "unknown",
            gen_ai.GEN_AI_REQUEST_MODEL: record.model,
        }
        error = {} if record.outcome == "ok" else {ERROR_TYPE: str(record.status or record.outcome)}
        self._measure(record, shared, error)
        began_s = parse_iso(record.created_at)
        self._ids.response_id = record.id
        span = self._tracer.start_span(
            f"{OPERATION} {record.model}".rstrip(),
            context=parent_of(record.trace_parent),
            kind=SpanKind.CLIENT,
            attributes={**shared, **error},
            start_time=int(began_s * 1e9),
        )
        self._describe(span, record)
        if error:
            span.set_status(Status(StatusCode.ERROR, record.outcome))
        span.end(int((began_s + record.latency_ms / 1000) * 1e9))

    def _measure(self, record: ResponseRecord, shared: Mapping[str, str], error: Mapping[str, str]) -> None:
        self._duration.record(record.latency_ms / 1000, {**shared, **error})
        if record.first_byte_ms is not None and record.is_stream:
            self._first_chunk.record(record.first_byte_ms / 1000, dict(shared))
        for kind, count in (("input", record.prompt_tokens), ("output", record.completion_tokens)):
            if count is not None:
                self._tokens.record(count, {**shared, gen_ai.GEN_AI_TOKEN_TYPE: kind})
        self._injected.add(record.injected_tokens, {"tutelage.tenant": record.tenant_id})

    def _describe(self, span: Span, record: ResponseRecord) -> None:
        told: dict[str, str | int | float | None] = {
            gen_ai.GEN_AI_RESPONSE_ID: record.upstream_id,
            gen_ai.GEN_AI_CONVERSATION_ID: record.conversation_id,
            gen_ai.GEN_AI_USAGE_INPUT_TOKENS: record.prompt_tokens,
            gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS: record.completion_tokens,
            gen_ai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: record.cached_tokens,
            "http.response.status_code": record.status or None,
            "url.path": record.endpoint,
            "tutelage.response_id": record.id,
            "tutelage.tenant": record.tenant_id,
            "tutelage.outcome": record.outcome,
            "tutelage.generation": record.generation,
            "tutelage.holdout": record.is_holdout,
            "tutelage.question_type": record.question_type,
            INJECTED: record.injected_tokens,
        }
        if record.is_stream and record.first_byte_ms is not None:
            told[gen_ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = record.first_byte_ms / 1000
        if self._with_text:
            told[gen_ai.GEN_AI_INPUT_MESSAGES] = record.messages_json
            told[gen_ai.GEN_AI_OUTPUT_MESSAGES] = record.reply_json
        span.set_attributes({name: value for name, value in told.items() if value is not None})
        if record.finish_reason:
            span.set_attribute(gen_ai.GEN_AI_RESPONSE_FINISH_REASONS, (record.finish_reason,))


def parent_of(trace_parent: str) -> context.Context:
    """Return the context that a ``traceparent`` names; an empty one when it names none that can be read."""
    empty = context.Context()
    if not trace_parent:
        return empty
    found = TraceContextTextMapPropagator().extract({"traceparent": trace_parent}, context=empty)
    return found if trace.get_current_span(found).get_span_context().is_valid else empty
