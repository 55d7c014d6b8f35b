"""docs/openapi.yaml says what the ports do: every route, every status, the shape of every answer."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from learner.api import ROUTES
from learner.api_export import PATH as EXPORT_PATH
from tests.flow.conftest import NewProduct
from tests.flow.product import Product
from tests.upstream import Upstream, chat_reply

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT: dict[str, Any] = yaml.safe_load((DOCS / "openapi.yaml").read_text(encoding="utf-8"))
METHODS = ("get", "post", "patch", "delete")
EXAMPLES = 8  # made up for each operation, beside the ones on the edges of what is allowed
PROXY = ("/v1/feedback", "/v1/feedback/{id}", "/v1/chat/completions", "/feedback.js")
CHECKS = [checks.not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
PHRASINGS = ["How do I pay?", "Where can I pay?", "Which ways to pay are there?"]


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documented() -> set[tuple[str, str]]:
    return {(path, method.upper()) for path, item in DOCUMENT["paths"].items() for method in METHODS if method in item}


def test_every_route_of_the_admin_api_is_documented_and_no_other() -> None:
    routes = {(path.replace(":path", ""), method) for path, method, _, _ in ROUTES} | {(EXPORT_PATH, "GET")}
    assert {(path, method) for path, method in documented() if path.startswith("/api/")} == routes


@pytest.mark.parametrize(("path", "method", "status"), [(path, method, status) for path, method, _, status in ROUTES])
def test_a_good_answer_has_the_status_that_is_documented(path: str, method: str, status: int) -> None:
    answers = DOCUMENT["paths"][path.replace(":path", "")][method.lower()]["responses"]
    assert [code for code in answers if code < "300"] == [str(status)]


def test_the_reference_is_made_of_the_document() -> None:
    assert (DOCS / "api.md").read_text(encoding="utf-8") == maker().reference(DOCUMENT)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Product]:
    """Both ports, with something of everything behind them."""
    with Product(tmp_path_factory.mktemp("openapi"), shared_upstream.base_url) as product:
        shared_upstream.script = chat_reply
        product.start("up")
        response = product.chat(headers={"x-tutelage-conversation": "c-1"}, user="u-1")
        product.response_row(response)
        product.feedback({"response_id": response.headers["x-tutelage-response-id"], "signal": "thumbs_up"})
        product.command("contexts", "add", *(f"--question={one}" for one in PHRASINGS), "--answer=By card.")
        product.learn("patterns")
        yield product


def operations() -> list[tuple[str, str]]:
    """Return (path, method) of all that is tried with whatever is allowed, and what is not."""
    return sorted(
        (path, method)
        for path, method in documented()
        if not path.startswith("/v1/") or path in PROXY  # the other APIs are the upstream's own
    )


def attempts() -> list[tuple[str, str, GenerationMode]]:
    """Return each operation with what is allowed, and with what is not where it takes anything."""
    takes = [(one, DOCUMENT["paths"][one[0]][one[1].lower()]) for one in operations()]
    fed = [one for one, operation in takes if {"parameters", "requestBody"} & set(operation)]
    allowed = [(*one, GenerationMode.POSITIVE) for one in operations()]
    return [*allowed, *((*one, GenerationMode.NEGATIVE) for one in fed)]


@pytest.mark.parametrize(("path", "method", "mode"), attempts())
def test_an_operation_answers_whatever_comes_as_documented(
    running: Product, path: str, method: str, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.config.update(base_url=running.proxy_url if path in PROXY else running.learner_url)

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def answers(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    answers()


def test_garbage_on_the_wire_of_either_port_is_an_error_of_its_own_shape(new_product: NewProduct) -> None:
    product = new_product()
    product.start("up")
    for url in (f"{product.learner_url}/api/patterns", f"{product.proxy_url}/v1/feedback"):
        answer = product.client.post(url, content=b"\xff\x00{", headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
