"""What all flow tests share: a scripted upstream and installations of the product in folders of their own."""

import hashlib
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.flow.compared import KNOWLEDGE, PHRASINGS, RULE, Compare
from tests.flow.node import NodeClients
from tests.flow.product import Product, eventually
from tests.upstream import Upstream

NewProduct = Callable[..., Product]
LOOPBACK = ("127.0.0.1", "localhost", b"127.0.0.1", None)
TELEMETRY_OFF = {
    "ANONYMIZED_TELEMETRY": "false",
    "DO_NOT_TRACK": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "LOGFIRE_SEND_TO_LOGFIRE": "false",
    "OTEL_SDK_DISABLED": "true",
}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def new_product(tmp_path: Path, upstream: Upstream) -> Iterator[NewProduct]:
    """Return a function that makes an installation before the test's upstream; all are stopped at the end."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Product:
            return stack.enter_context(Product(tmp_path / "product", upstream.base_url, **settings))

        yield make


@pytest.fixture
def product(new_product: NewProduct) -> Product:
    """An installation with the shortest settings; nothing runs yet."""
    return new_product()


@pytest.fixture(scope="module")
def shared_upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Product]:
    """A running proxy that the tests of a module share: each uses ids of its own."""
    with Product(tmp_path_factory.mktemp("serving"), shared_upstream.base_url) as product:
        product.start("proxy")
        yield product


@pytest.fixture(scope="session")
def provider_server() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory, provider_server: Upstream) -> Iterator[Product]:
    """A running proxy that serves one rule and one piece of approved knowledge, in every conversation."""
    folder = tmp_path_factory.mktemp("taught")
    with Product(folder, provider_server.base_url, settings={"patterns": {"holdout": 0.0}}) as product:
        product.start("up")
        rule = {"type": "response_format", "rule": RULE, "conditions": {}, "state": "pinned"}
        product.client.post(f"{product.learner_url}/api/patterns", json=rule).raise_for_status()
        entry = {"questions": PHRASINGS, "answer": KNOWLEDGE, "tags": ["password"]}
        context = product.client.post(f"{product.learner_url}/api/contexts", json=entry).raise_for_status().json()
        product.client.post(f"{product.learner_url}/api/contexts/{context['id']}/approve").raise_for_status()

        def is_served() -> bool:
            product.chat(PHRASINGS[0]).raise_for_status()
            body = provider_server.last.body.decode()
            return RULE in body and KNOWLEDGE in body

        eventually(is_served)
        yield product


@pytest.fixture
def compare(
    taught: Product, provider_server: Upstream, offline_library: None, request: pytest.FixtureRequest
) -> Compare:
    """Plays a library's scenario at the provider itself and through the proxy."""
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:10]
    return Compare(taught, provider_server, f"{name}x")


@pytest.fixture
def offline_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Turn libraries' telemetry off, and fail the test when one looks up any host but this one."""
    for name, value in TELEMETRY_OFF.items():
        monkeypatch.setenv(name, value)
    strangers = []
    look_up = socket.getaddrinfo

    def watched(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in LOOPBACK:
            strangers.append(host)
            raise socket.gaierror(f"{host} is not this machine")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", watched)
    yield
    assert strangers == []


@pytest.fixture(scope="session")
def node() -> Iterator[NodeClients]:
    with NodeClients() as clients:
        yield clients
