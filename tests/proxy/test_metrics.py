"""What the request path counts, as Prometheus reads it."""

from prometheus_client import CollectorRegistry

from proxy.metrics import Metrics, TokenTotals


def test_token_totals_are_shown_as_they_stand() -> None:
    metrics, totals = Metrics(CollectorRegistry()), TokenTotals()
    metrics.watch_tokens(totals)
    totals.injected += 654
    totals.prompt += 900
    totals.cached += 512

    lines = metrics.text().decode().splitlines()

    assert {"tutelage_injected_tokens_total 654.0", "tutelage_prompt_tokens_total 900.0"} <= set(lines)
    assert "tutelage_cached_tokens_total 512.0" in lines
    assert "# TYPE tutelage_cached_tokens_total counter" in lines
