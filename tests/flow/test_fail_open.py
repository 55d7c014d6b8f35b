"""Learning never breaks serving: whatever fails behind the request path, requests pass."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.flow.conftest import NewProduct
from tests.flow.product import APP_KEY, START_S, Product, Running, eventually
from tests.upstream import Upstream

BODY = b'{"model": "gpt-test",  "messages": [{"role": "user", "content": "How do I reset my password?"}]}'
HEADERS = {"content-type": "application/json", "authorization": f"Bearer {APP_KEY}"}
DEGRADED_S = 20.0


def assert_passes_unmodified(product: Product, upstream: Upstream, n: int = 5) -> None:
    """Assert that *n* requests reach the upstream as they are and come back."""
    for _ in range(n):
        n_seen = len(upstream.requests)
        answer = product.client.post(
            f"{product.proxy_url}/v1/chat/completions", content=BODY, headers=HEADERS, timeout=3
        )
        assert answer.status_code == 200
        assert answer.json()["object"] == "chat.completion"
        assert [request.body for request in upstream.requests[n_seen:]] == [BODY]


def status(product: Product) -> str:
    answer = product.health()
    assert answer.status_code in (200, 503)
    return str(answer.json()["status"])


def assert_degraded(product: Product) -> None:
    eventually(lambda: status(product) == "degraded", DEGRADED_S)


def test_a_healthy_proxy_says_so(product: Product) -> None:
    product.start("proxy")
    assert product.health().status_code == 200
    assert status(product) == "ok"
    assert product.client.get(f"{product.proxy_url}/metrics").status_code == 200


def test_requests_pass_when_the_learner_is_killed(product: Product, upstream: Upstream) -> None:
    product.start("proxy")
    learner = product.start("learner")
    assert_passes_unmodified(product, upstream, 1)
    assert status(product) == "ok"
    learner.kill()
    assert_passes_unmodified(product, upstream)
    assert set(product.health().json()["degraded"]) == {"learner"}


def test_a_learner_that_was_stopped_or_never_started_is_not_missed(product: Product) -> None:
    product.start("proxy")
    assert status(product) == "ok"
    product.start("learner").kill()
    assert_degraded(product)
    second = product.start("learner")
    assert status(product) == "ok"
    second.stop()
    assert status(product) == "ok"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the write lock of a database as a stuck process would."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def test_requests_pass_while_the_database_is_locked_and_are_recorded_afterwards(
    new_product: NewProduct, upstream: Upstream
) -> None:
    product = new_product(settings={"store": {"busy_timeout_ms": 300}})
    product.start("proxy")
    before = product.chat()
    product.response_row(before)
    with locked(product.database_path):
        assert_passes_unmodified(product, upstream)
        during = product.chat()
        vote = {"response_id": before.headers["x-tutelage-response-id"], "signal": "thumbs_up", "user": "u"}
        refused = product.feedback(vote)
        assert refused.status_code == 503
        assert refused.json()["error"]["message"]
        assert_degraded(product)
    assert product.response_row(during)["outcome"] == "ok"
    assert eventually(lambda: product.feedback(vote).status_code == 201)
    assert eventually(lambda: status(product) == "ok")
    assert len(product.rows("SELECT id FROM responses")) == 7


def test_a_lock_is_in_healthz_within_seconds_with_the_shortest_settings(product: Product, upstream: Upstream) -> None:
    product.start("proxy")
    with locked(product.database_path):
        assert_passes_unmodified(product, upstream, 1)
        eventually(lambda: status(product) == "degraded", 4.0)  # [store] busy_timeout_ms is 5 s


def test_requests_pass_when_the_database_is_deleted(new_product: NewProduct, upstream: Upstream) -> None:
    product = new_product(settings={"store": {"busy_timeout_ms": 300}})
    product.start("proxy")
    answer = product.chat()
    product.response_row(answer)
    for path in product.folder.glob("tutelage.db*"):
        with contextlib.suppress(IsADirectoryError):
            path.unlink()
    assert_passes_unmodified(product, upstream)
    assert_degraded(product)
    assert_passes_unmodified(product, upstream)
    vote = {"response_id": answer.headers["x-tutelage-response-id"], "signal": "thumbs_up", "user": "u"}
    assert product.feedback(vote).status_code in (404, 503)


@pytest.mark.parametrize("broken", ["garbage", "folder"])
def test_the_proxy_starts_and_relays_without_a_usable_database(
    broken: str, product: Product, upstream: Upstream
) -> None:
    {
        "garbage": lambda path: path.write_bytes(b"this is no database " * 500),
        "folder": lambda path: path.mkdir(),
    }[broken](product.database_path)
    running = product.start("proxy", wait=False)
    eventually(lambda: is_live(product, running), START_S)
    assert_passes_unmodified(product, upstream)
    assert_degraded(product)


def is_live(product: Product, running: Running) -> bool:
    assert running.process.poll() is None, running.output()
    try:
        return bool(product.health().status_code)
    except httpx.TransportError:
        return False


def test_requests_pass_when_the_embedder_is_broken(new_product: NewProduct, upstream: Upstream, tmp_path: Path) -> None:
    shadow = tmp_path / "shadow" / "wordllama"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").touch()
    product = new_product(environment={"PYTHONPATH": str(shadow.parent)})
    product.start("proxy")
    assert_passes_unmodified(product, upstream)
    assert_degraded(product)
    record = product.row("SELECT * FROM responses")
    assert (record["outcome"], record["question_type"]) == ("ok", "unknown")


def test_a_request_with_learning_off_is_neither_injected_nor_recorded(product: Product, upstream: Upstream) -> None:
    product.start("proxy")
    headers = {"x-tutelage-learn": "off", "x-tutelage-conversation": "off"}
    answer = product.chat(headers=headers)
    assert answer.status_code == 200
    assert upstream.last.header("x-tutelage-learn") is None
    product.response_row(product.chat(headers={"x-tutelage-conversation": "on"}))
    assert [row["conversation_id"] for row in product.rows("SELECT conversation_id FROM responses")] == ["on"]
    assert json.loads(upstream.last.body)["messages"] == [{"role": "user", "content": "How do I reset my password?"}]
