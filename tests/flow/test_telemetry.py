"""What a response was like, for other programs: spans and metrics of a collector, lines of a log."""

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any, Self

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.flow.conftest import NewProduct
from tests.flow.product import Product, eventually, free_port
from tests.upstream import Upstream, chat_reply

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
TRACE_PARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
QUESTION = "How do I reset my secret password?"


class Collector:
    """An OTLP/HTTP collector that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.metrics: dict[str, Any] = {}
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/v1/traces":
                    traces = ExportTraceServiceRequest.FromString(body)
                    for resource in traces.resource_spans:
                        for scope in resource.scope_spans:
                            collector.spans.extend(scope.spans)
                else:
                    for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                        for scope in resource.scope_metrics:
                            collector.metrics.update({metric.name: metric for metric in scope.metrics})
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library calls it
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def attributes(span: Span) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def watched(new_product: NewProduct, endpoint: str, **telemetry: Any) -> Product:
    product = new_product(settings={"telemetry": {"otlp_endpoint": endpoint, "interval_s": 0.2, **telemetry}})
    product.start("proxy")
    return product


def test_a_response_is_a_span_below_the_clients_own_with_the_conventions_names(
    new_product: NewProduct, collector: Collector, upstream: Upstream
) -> None:
    usage = {"prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27}
    upstream.script = lambda request: chat_reply(request, usage=usage)
    product = watched(new_product, collector.url)
    response = product.chat(QUESTION, headers={"traceparent": TRACE_PARENT})
    eventually(lambda: collector.spans)
    (span,) = collector.spans
    told = attributes(span)
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.name) == (TRACE_ID, PARENT_ID, "chat gpt-test")
    assert span.kind == Span.SPAN_KIND_CLIENT
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "gpt-test"
    assert told["gen_ai.response.id"] == response.json()["id"]
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (20, 7)
    assert told["tutelage.response_id"] == response.headers["x-tutelage-response-id"]
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 60e9
    assert QUESTION not in str(span)
    assert upstream.last.header("traceparent") == TRACE_PARENT
    eventually(lambda: "gen_ai.client.token.usage" in collector.metrics)
    usage_points = collector.metrics["gen_ai.client.token.usage"].histogram.data_points
    kinds = {one.value.string_value for point in usage_points for one in point.attributes}
    assert {"input", "output"} <= kinds
    assert collector.metrics["gen_ai.client.operation.duration"].histogram.data_points[0].count == 1


def test_text_is_told_where_that_is_allowed(new_product: NewProduct, collector: Collector) -> None:
    product = watched(new_product, collector.url, messages=True)
    product.chat(QUESTION)
    eventually(lambda: collector.spans)
    assert QUESTION in attributes(collector.spans[0])["gen_ai.input.messages"]
    assert collector.spans[0].status.code == 0


def test_a_broken_upstream_is_told_as_an_error(new_product: NewProduct, collector: Collector) -> None:
    product = new_product(settings={"telemetry": {"otlp_endpoint": collector.url, "interval_s": 0.2}})
    product.upstream_url = f"http://127.0.0.1:{free_port()}/v1"
    product.write_config()
    product.start("proxy")
    answer = product.chat(QUESTION)
    eventually(lambda: collector.spans)
    assert answer.status_code >= 500
    assert collector.spans[0].status.code == 2
    assert attributes(collector.spans[0])["error.type"] == str(answer.status_code)


def test_a_collector_that_is_away_keeps_nothing_from_the_database(new_product: NewProduct) -> None:
    product = watched(new_product, f"http://127.0.0.1:{free_port()}")
    rows = [product.response_row(product.chat(f"{QUESTION} {number}")) for number in range(5)]
    assert [row["outcome"] for row in rows] == ["ok"] * 5
    assert product.health().json()["status"] == "ok"


@pytest.mark.parametrize("with_text", [False, True])
def test_the_log_has_a_line_for_each_response_and_text_only_where_that_is_allowed(
    new_product: NewProduct, with_text: bool
) -> None:
    product = new_product(settings={"log": {"format": "json", "requests": True, "messages": with_text}})
    running = product.start("proxy")
    response = product.chat(QUESTION, user="u-1")
    product.response_row(response)

    def lines() -> list[dict[str, Any]]:
        said = [json.loads(line) for line in running.output().splitlines() if line.startswith("{")]
        return [line for line in said if line["logger"] == "proxy.requests"]

    eventually(lines)
    (line,) = lines()
    assert line["response_id"] == response.headers["x-tutelage-response-id"]
    assert (line["outcome"], line["status"], line["model"]) == ("ok", 200, "gpt-test")
    assert line["latency_ms"] > 0
    assert (QUESTION in str(line)) is with_text
