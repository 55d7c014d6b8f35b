"""Bad input is answered in OpenAI's error shape, never reaches the upstream and is never recorded as a success."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import httpx
import pytest

from tests.flow.product import APP_KEY, Product
from tests.upstream import Upstream

HI = [{"role": "user", "content": "Hi"}]
BAD_BODIES = {
    "malformed JSON": (b'{"model": "gpt-1", "messages": [', None),
    "empty body": (b"", None),
    "no object": (b"[1, 2]", None),
    "nested a hundred thousand deep": (b"[" * 100_000, None),
    "messages are a text": (json.dumps({"model": "gpt-1", "messages": "Hi"}).encode(), "messages"),
    "messages are missing": (json.dumps({"model": "gpt-1"}).encode(), "messages"),
    "a message is a number": (json.dumps({"model": "gpt-1", "messages": [*HI, 7]}).encode(), "messages"),
    "the model is a number": (json.dumps({"model": 7, "messages": HI}).encode(), "model"),
    "the model is missing": (json.dumps({"messages": HI}).encode(), "model"),
    "stream is a text": (json.dumps({"model": "gpt-1", "messages": HI, "stream": "yes"}).encode(), "stream"),
}


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    """The shared upstream, which has seen nothing yet."""
    shared_upstream.requests.clear()
    return shared_upstream


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Product]:
    """A running proxy that knows models named gpt-* only."""
    with Product(tmp_path_factory.mktemp("strict"), shared_upstream.base_url, models=("gpt-*",)) as product:
        product.start("proxy")
        yield product


def post(product: Product, content: bytes | Iterator[bytes]) -> httpx.Response:
    return product.client.post(
        f"{product.proxy_url}/v1/chat/completions", content=content, headers={"content-type": "application/json"}
    )


def assert_refused(answer: httpx.Response, status: int, product: Product, upstream: Upstream) -> dict[str, object]:
    """Assert an OpenAI-shaped error, nothing sent upstream and no success recorded; return the error."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    error: dict[str, object] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    assert upstream.requests == []
    assert product.rows("SELECT id FROM responses WHERE outcome = 'ok' AND model <> 'gpt-served'") == []
    return error


@pytest.mark.parametrize(("content", "param"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_bad_body_is_a_400_that_names_the_field(
    content: bytes, param: str | None, strict: Product, upstream: Upstream
) -> None:
    error = assert_refused(post(strict, content), 400, strict, upstream)
    assert error["type"] == "invalid_request_error"
    assert str(error["param"] or "").partition("[")[0].partition(".")[0] == (param or "")


def test_a_model_that_no_upstream_serves_is_a_404(strict: Product, upstream: Upstream) -> None:
    answer = post(strict, json.dumps({"model": "llama-3", "messages": HI}).encode())
    error = assert_refused(answer, 404, strict, upstream)
    assert error["code"] == "model_not_found"
    assert "llama-3" in str(error["message"])


BIG = json.dumps({"model": "gpt-1", "messages": [{"role": "user", "content": "x" * 25_000_000}]}).encode()


def test_a_body_of_25_megabytes_is_a_413(strict: Product, upstream: Upstream) -> None:
    assert_refused(post(strict, BIG), 413, strict, upstream)


def test_a_body_of_25_megabytes_without_a_length_is_a_413(strict: Product, upstream: Upstream) -> None:
    pieces = (BIG[start : start + 65536] for start in range(0, len(BIG), 65536))
    assert_refused(post(strict, pieces), 413, strict, upstream)


def test_a_client_that_reads_after_its_last_byte_still_sees_the_413(strict: Product, upstream: Upstream) -> None:
    # Python's urllib asks for the connection to be closed: a close in the middle of its body would be a reset.
    request = urllib.request.Request(f"{strict.proxy_url}/v1/chat/completions", BIG)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 413
    assert json.load(refused.value)["error"]["code"] == "request_too_large"
    assert upstream.requests == []


def test_a_path_outside_of_v1_is_a_404_in_openais_shape(strict: Product, upstream: Upstream) -> None:
    answer = strict.client.get(f"{strict.proxy_url}/admin")
    assert_refused(answer, 404, strict, upstream)


def test_the_proxy_still_serves_after_all_of_this(strict: Product) -> None:
    answer = strict.chat(model="gpt-served")
    assert answer.status_code == 200
    assert strict.response_row(answer)["outcome"] == "ok"
    assert strict.health().json()["status"] == "ok"


BAD_SIGNALS = {
    "no response_id": ({"signal": "thumbs_up"}, "response_id"),
    "a response_id that is a number": ({"response_id": 5, "signal": "thumbs_up"}, "response_id"),
    "no signal": ({"response_id": "r"}, "signal"),
    "an unknown signal": ({"response_id": "r", "signal": "applause"}, "signal"),
    "a user that is a list": ({"response_id": "r", "signal": "copy", "user": []}, "user"),
    "a value that is a text": ({"response_id": "r", "signal": "dwell_time", "value": "long"}, "value"),
    "a comment that is a number": ({"response_id": "r", "signal": "copy", "comment": 3}, "comment"),
    "metadata that is a text": ({"response_id": "r", "signal": "copy", "metadata": "x"}, "metadata"),
    "an id that is a number": ({"response_id": "r", "signal": "copy", "id": 9}, "id"),
}


@pytest.mark.parametrize(("signal", "param"), BAD_SIGNALS.values(), ids=BAD_SIGNALS.keys())
def test_a_bad_signal_is_a_400_that_names_the_field(signal: object, param: str, strict: Product) -> None:
    answer = strict.feedback(signal)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"].endswith(param)
    assert strict.rows("SELECT id FROM response_feedback") == []


@pytest.mark.parametrize("content", [b"", b"{", b"7", b'"thumbs_up"'])
def test_feedback_that_is_no_signal_is_a_400(content: bytes, strict: Product) -> None:
    answer = strict.client.post(
        f"{strict.proxy_url}/v1/feedback",
        content=content,
        headers={"authorization": f"Bearer {APP_KEY}", "content-type": "application/json"},
    )
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
