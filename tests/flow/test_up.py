"""One command runs both processes, and one Ctrl-C stops both."""

import signal

import httpx
import pytest

from tests.flow.product import STOP_S, Product, eventually
from tests.upstream import Reply, Upstream, sse_reply


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_up_serves_both_ports_and_leaves_no_process_behind(product: Product, stop: signal.Signals) -> None:
    running = product.start("up")
    assert product.chat().status_code == 200
    assert httpx.get(f"{product.learner_url}/api/patterns", timeout=10).status_code == 200
    assert httpx.get(f"{product.learner_url}/", timeout=10).status_code == 200
    output = running.output()
    assert product.proxy_url in output
    assert product.learner_url in output
    assert f"{product.proxy_url}/v1" in output

    running.signal(stop)
    assert running.process.wait(STOP_S) == 0, running.output()
    assert eventually(lambda: not running.living())
    assert "Traceback" not in running.output()


def test_up_ends_when_one_of_its_processes_cannot_start(product: Product) -> None:
    running = product.start("proxy")
    second = product.start("up", wait=False)
    assert second.process.wait(STOP_S) != 0
    assert eventually(lambda: not second.living())
    assert running.process.poll() is None


def test_a_wrong_setting_is_named_with_the_nearest_known_one(product: Product) -> None:
    product.config_path.write_text(product.config_path.read_text() + "[patterns]\nmax_token = 3\n")
    done = product.command("proxy", check=False)
    assert done.returncode != 0
    assert "max_token" in done.stderr
    assert "max_tokens" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reply_that_streams_at_shutdown_is_finished_and_recorded(product: Product, upstream: Upstream) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "a"}}]}
    whole = sse_reply([chunk] * 20)
    upstream.script = lambda _: Reply(whole.parts, headers=whole.headers, is_chunked=True, gap_s=0.05)
    running = product.start("proxy")
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    with product.client.stream("POST", f"{product.proxy_url}/v1/chat/completions", json=body) as response:
        chunks = response.iter_raw()
        got = next(chunks)
        running.signal(signal.SIGTERM)
        got += b"".join(chunks)
    assert got == b"".join(whole.parts)
    assert running.process.wait(STOP_S) == 0
    (record,) = product.rows("SELECT outcome FROM responses")
    assert record["outcome"] == "ok"
