"""Nothing acknowledged is lost: ``kill -9`` under load, then count."""

import threading
from dataclasses import dataclass, field

import httpx

from tests.flow.product import APP_KEY, Product, Running, eventually
from tests.upstream import Reply, SeenRequest, Upstream, chat_reply

N_CLIENTS = 8
N_ACKNOWLEDGED = 60  # signals before the kill
RECORDED_S = 10.0


@dataclass
class Acknowledged:
    """What clients saw: replies that were complete, signals that were answered with 201."""

    responses: set[str] = field(default_factory=set)
    signals: set[str] = field(default_factory=set)


def load(product: Product, number: int, seen: Acknowledged, stop: threading.Event) -> None:
    """Ask and vote, streaming and not in turns, until the proxy is gone or *stop* is set."""
    with httpx.Client(timeout=10, headers={"authorization": f"Bearer {APP_KEY}"}) as client:
        for turn in range(100_000):
            if stop.is_set():
                return
            try:
                response_id = ask(product, client, is_stream=turn % 2 == 0)
                seen.responses.add(response_id)
                vote = {"response_id": response_id, "signal": "thumbs_up", "user": f"user-{number}"}
                answer = product.feedback(vote, client=client)
            except httpx.TransportError:
                return
            assert answer.status_code == 201, answer.text
            seen.signals.add(answer.json()["id"])


def ask(product: Product, client: httpx.Client, *, is_stream: bool) -> str:
    """Return the id of a reply that came whole; httpx raises when it was cut."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}], "stream": is_stream}
    with client.stream("POST", f"{product.proxy_url}/v1/chat/completions", json=body) as response:
        text = response.read()
        assert response.status_code == 200, text
        return response.headers["x-tutelage-response-id"]


def slow_stream(request: SeenRequest) -> Reply:
    reply = chat_reply(request, "one two three four five six seven eight")
    return Reply(reply.parts, headers=reply.headers, is_chunked=reply.is_chunked, gap_s=0.002)


def run_load_and_kill(product: Product, running: Running, *, alone: bool) -> Acknowledged:
    seen, stop = Acknowledged(), threading.Event()
    threads = [threading.Thread(target=load, args=(product, i, seen, stop), daemon=True) for i in range(N_CLIENTS)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(seen.signals) >= N_ACKNOWLEDGED, timeout_s=30)
    (running.kill_alone if alone else running.kill)()
    stop.set()
    for thread in threads:
        thread.join(15)
    assert not any(thread.is_alive() for thread in threads)
    return seen


def missing(product: Product, seen: Acknowledged) -> tuple[set[str], set[str]]:
    responses = {row["id"] for row in product.rows("SELECT id FROM responses WHERE outcome = 'ok'")}
    signals = {row["id"] for row in product.rows("SELECT id FROM response_feedback")}
    return seen.responses - responses, seen.signals - signals


def assert_all_there(product: Product, seen: Acknowledged) -> None:
    assert len(seen.responses) > 50
    assert len(seen.signals) > 40
    eventually(lambda: missing(product, seen) == (set(), set()), RECORDED_S)
    ids = [row["id"] for row in product.rows("SELECT id FROM responses")]
    assert len(ids) == len(set(ids))


def test_what_was_acknowledged_is_in_the_database_after_the_proxy_is_killed_under_load(
    product: Product, upstream: Upstream
) -> None:
    upstream.script = slow_stream
    running = product.start("proxy")
    seen = run_load_and_kill(product, running, alone=True)
    assert_all_there(product, seen)
    assert eventually(lambda: not running.living(), RECORDED_S)


def test_what_was_acknowledged_is_there_after_a_restart_when_every_process_is_killed(
    product: Product, upstream: Upstream
) -> None:
    upstream.script = slow_stream
    seen = run_load_and_kill(product, product.start("proxy"), alone=False)
    product.start("proxy")
    assert_all_there(product, seen)
    assert product.chat().status_code == 200


def test_a_killed_learner_leaves_the_database_whole_and_starts_again(product: Product) -> None:
    product.start("proxy")
    running = product.start("learner")
    product.response_row(product.chat())
    running.kill()
    product.start("learner")
    with product.database() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
