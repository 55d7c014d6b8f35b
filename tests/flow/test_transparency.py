"""What passes through the proxy on rough days: many streams, odd encodings, upstreams that fail in every way."""

import asyncio
import gzip
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI

from tests.flow.conftest import NewProduct
from tests.flow.product import Product, eventually
from tests.upstream import JSON_TYPE, Reply, SeenRequest, Upstream, chat_reply, sse_reply

N_STREAMS = 40
CHUNK = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "a"}}]}


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Iterator[Upstream]:
    """The shared upstream, its script set back afterwards."""
    yield shared_upstream
    shared_upstream.script = chat_reply


def echo_slowly(request: SeenRequest) -> Reply:
    reply = chat_reply(request, " ".join([request.last_user_text] * 20))
    return Reply(reply.parts, headers=reply.headers, is_chunked=True, gap_s=0.005)


def test_forty_streams_at_once_do_not_mix(upstream: Upstream, serving: Product) -> None:
    upstream.script = echo_slowly

    async def words(client: AsyncOpenAI, number: int) -> list[str]:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": f"word-{number}"}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream]).split()

    async def all_words() -> list[list[str]]:
        async with AsyncOpenAI(api_key="k", base_url=f"{serving.proxy_url}/v1", max_retries=0) as client:
            return await asyncio.gather(*(words(client, number) for number in range(N_STREAMS)))

    assert asyncio.run(all_words()) == [[f"word-{number}"] * 20 for number in range(N_STREAMS)]


def test_a_compressed_reply_is_relayed_as_it_is_and_recorded_as_text(upstream: Upstream, serving: Product) -> None:
    def zipped(request: SeenRequest) -> Reply:
        (body,) = chat_reply(request, "Zipped answer.").parts
        return Reply((gzip.compress(body),), headers=(JSON_TYPE, (b"content-encoding", b"gzip")))

    upstream.script = zipped
    answer = serving.chat()
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["choices"][0]["message"]["content"] == "Zipped answer."
    record = serving.response_row(answer)
    assert record["outcome"] == "ok"
    assert json.loads(record["reply_json"])["content"] == "Zipped answer."


def test_a_query_is_forwarded_and_the_request_still_recorded(upstream: Upstream, serving: Product) -> None:
    answer = serving.client.post(
        f"{serving.proxy_url}/v1/chat/completions?api-version=1%2F2",
        json={"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    )
    assert upstream.last.target == "/v1/chat/completions?api-version=1%2F2"
    assert serving.response_row(answer)["outcome"] == "ok"


def test_a_large_file_passes_both_ways(upstream: Upstream, serving: Product) -> None:
    content = os.urandom(30_000_000)
    upstream.script = lambda _: Reply((content,), headers=((b"content-type", b"application/octet-stream"),))
    answer = serving.client.post(f"{serving.proxy_url}/v1/files", content=content)
    assert answer.content == content
    assert upstream.last.body == content


def test_a_client_that_leaves_before_the_first_byte_ends_the_upstreams_work(
    upstream: Upstream, serving: Product
) -> None:
    upstream.script = lambda request: Reply(chat_reply(request).parts, delay_s=10)
    n_disconnects = upstream.n_disconnects
    with httpx.Client(timeout=0.5) as client, pytest.raises(httpx.ReadTimeout):
        serving.chat(headers={"x-tutelage-conversation": "early"}, client=client)
    record = serving.row("SELECT * FROM responses WHERE conversation_id = 'early'")
    assert record["outcome"] == "cancelled"
    assert eventually(lambda: upstream.n_disconnects > n_disconnects)


FAILURES = {
    "a stream that says it failed": sse_reply([{"error": {"message": "overloaded", "type": "x"}}], done=False),
    "a stream without an end": sse_reply([CHUNK], done=False),
    "an empty body": Reply((b"",)),
    "a page": Reply((b"<h1>bad gateway</h1>",), status=502, headers=((b"content-type", b"text/html"),)),
    "a rate limit": Reply((b"{}",), status=429, headers=(JSON_TYPE, (b"retry-after-ms", b"1500"))),
}


@pytest.mark.parametrize("reply", FAILURES.values(), ids=FAILURES.keys())
def test_a_failed_reply_is_relayed_as_it_is_and_never_a_success(
    reply: Reply, upstream: Upstream, serving: Product
) -> None:
    upstream.script = lambda _: reply
    answer = serving.chat(stream=True)
    assert (answer.status_code, answer.content) == (reply.status, b"".join(reply.parts))
    assert dict(reply.headers).items() <= dict(answer.headers.raw).items()
    assert serving.response_row(answer)["outcome"] not in ("ok", "cancelled")


@pytest.mark.parametrize(
    "reply", [Reply((), end="reset"), Reply((), end="cut", is_chunked=True)], ids=["a reset", "a cut head"]
)
def test_an_upstream_that_breaks_off_is_an_error_for_the_client(
    reply: Reply, upstream: Upstream, serving: Product
) -> None:
    upstream.script = lambda _: reply
    conversation = f"broken-{reply.end}"
    with httpx.Client(timeout=10) as client:
        assert is_error(serving, client, conversation)
    record = serving.row("SELECT * FROM responses WHERE conversation_id = :id", id=conversation)
    assert record["outcome"] == "upstream_error"


def is_error(serving: Product, client: httpx.Client, conversation: str) -> bool:
    try:
        return serving.chat(headers={"x-tutelage-conversation": conversation}, client=client).status_code >= 500
    except httpx.RemoteProtocolError:
        return True


def test_the_proxy_starts_and_serves_while_the_database_is_locked(new_product: NewProduct) -> None:
    product = new_product(settings={"store": {"busy_timeout_ms": 120_000}})
    product.start("proxy").stop()
    with closing(sqlite3.connect(product.database_path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        product.start("proxy")
        answer = product.chat()
        assert answer.status_code == 200
        connection.execute("ROLLBACK")
    assert product.response_row(answer)["outcome"] == "ok"


def test_requests_pass_when_records_cannot_be_written(new_product: NewProduct, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    product = new_product(settings={"recording": {"directory": str(tmp_path / "file" / "segments")}})
    product.start("proxy")
    assert product.chat().status_code == 200
    assert product.health().json()["status"] == "degraded"


def test_the_command_learns_while_both_processes_run(product: Product) -> None:
    product.start("up")
    product.response_row(product.chat())
    for kind in ("patterns", "knowledge", "all"):
        assert product.learn(kind)
    assert {row["status"] for row in product.rows("SELECT status FROM learning_runs")} == {"completed"}


def test_a_learning_run_of_nobody_or_at_no_time_is_refused(product: Product) -> None:
    product.learn("patterns")
    for arguments in (["--tenant", "nobody"], ["--now", "someday"], ["--now", "0001-01-01"], ["--kind", "magic"]):
        done = product.command("learn", *arguments, check=False)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
