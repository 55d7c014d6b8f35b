"""docs/grafana-dashboard.json asks for metrics that are there, with labels that they have."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.flow.conftest import NewProduct

DASHBOARD: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "docs" / "grafana-dashboard.json").read_text(encoding="utf-8")
)
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_every_metric_of_the_dashboard_is_exported(new_product: NewProduct) -> None:
    product = new_product()
    product.start("up")
    product.response_row(product.chat())
    product.learn("patterns")
    texts = [product.client.get(f"{url}/metrics").text for url in (product.proxy_url, product.learner_url)]
    families = [family for text in texts for family in text_string_to_metric_families(text)]
    known = {name for family in families for name in names(family.name, family.type)}
    asked = {name for expression in EXPRESSIONS for name in re.findall(r"tutelage_\w+", expression)}
    assert asked - known == set()


def names(name: str, kind: str) -> set[str]:
    return {"counter": {f"{name}_total"}, "histogram": {f"{name}_bucket", f"{name}_sum", f"{name}_count"}}.get(
        kind, {name}
    )


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: panel["title"])
def test_panels_have_places_of_their_own(panel: dict[str, Any]) -> None:
    place = panel["gridPos"]
    assert place["x"] + place["w"] <= 24
    for other in DASHBOARD["panels"]:
        there = other["gridPos"]
        is_beside = place["x"] + place["w"] <= there["x"] or there["x"] + there["w"] <= place["x"]
        is_over = place["y"] + place["h"] <= there["y"] or there["y"] + there["h"] <= place["y"]
        assert other is panel or is_beside or is_over
