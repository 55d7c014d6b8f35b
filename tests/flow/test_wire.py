"""What a hostile outsider sees on the wire: raw bytes on both sides of a running proxy, learning switched on."""

import json
import socket
import zlib
from collections.abc import Callable, Iterator
from queue import Queue

import pytest

from tests.flow.product import Product
from tests.flow.raw import (
    BEARER,
    CHAT,
    DONE,
    JSON_TYPE,
    MB,
    Head,
    Header,
    ScriptedUpstream,
    answer_with,
    ask,
    chat_body,
    client_of,
    completion,
    conversation,
    delta_event,
    outcome_of,
)
from tests.proxy.wire import STREAM_HEAD, Peer, Seen, chunked, plain

WAIT_S = 10.0
END = b"0\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
STREAM_TYPE = b"content-type: text/event-stream"
REPLY = plain(completion(), b"content-type: application/json")


@pytest.fixture(scope="module")
def shared_wire() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, shared_wire: ScriptedUpstream) -> Iterator[Product]:
    """A running proxy that the tests share; each uses conversations of its own."""
    with Product(tmp_path_factory.mktemp("wire"), shared_wire.base_url) as product:
        product.start("proxy")
        yield product


@pytest.fixture
def wire(shared_wire: ScriptedUpstream) -> ScriptedUpstream:
    return shared_wire


def keeping(seen: "Queue[Seen]", reply: bytes = REPLY) -> Callable[[Peer, Head], None]:
    """Return a handler that answers every request with *reply* and keeps the request."""

    def handle(peer: Peer, head: Head) -> None:
        seen.put(head.seen(peer))
        peer.send(reply)

    return handle


# What an upstream answers comes through as it is


def gzipped_events() -> list[bytes]:
    compress = zlib.compressobj(wbits=31)
    parts = [
        compress.compress(event) + compress.flush(zlib.Z_SYNC_FLUSH)
        for event in (delta_event("Zip"), delta_event("ped."), delta_event(finish_reason="stop"), DONE)
    ]
    return [*parts, compress.flush()]


@pytest.mark.parametrize(
    ("name", "encoding", "reply", "body", "text"),
    [
        (
            "gzip-stream",
            b"gzip",
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n" + STREAM_TYPE + b"\r\ntransfer-encoding: chunked\r\n\r\n",
            gzipped_events(),
            "Zipped.",
        ),
        (
            "brotli-stream",
            b"br",
            b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\n" + STREAM_TYPE + b"\r\ntransfer-encoding: chunked\r\n\r\n",
            [b"\x1b\x2f\x00\xf8", b"\xff\x00{data: [DONE]\n\n", b"\x80"],
            None,
        ),
    ],
    ids=["gzip", "brotli"],
)
def test_an_encoded_stream_is_relayed_as_it_is(
    proxy: Product, wire: ScriptedUpstream, name: str, encoding: bytes, reply: bytes, body: list[bytes], text: str
) -> None:
    wire.handle = answer_with(reply + chunked(*body) + END)
    with client_of(proxy) as client:
        ask(client, name, chat_body(stream=True), (b"accept-encoding", b"gzip, br"))
        answer = client.answer()
    assert (answer.body, answer.values(b"content-encoding")) == (b"".join(body), [encoding])
    record = proxy.row("SELECT outcome, reply_json FROM responses WHERE conversation_id = :name", name=name)
    assert record["outcome"] == "ok"
    assert json.loads(record["reply_json"] or "{}").get("content") == text


def test_a_brotli_body_is_relayed_as_it_is(proxy: Product, wire: ScriptedUpstream) -> None:
    body = b"\x0b\x02\x80{}\x03 not for our eyes \xff\xfe"
    wire.handle = answer_with(plain(body, b"content-encoding: br", b"vary: accept-encoding"))
    with client_of(proxy) as client:
        ask(client, "brotli-body")
        answer = client.answer()
    assert (answer.body, answer.values(b"content-encoding")) == (body, [b"br"])
    assert outcome_of(proxy, "brotli-body") == "ok"


def test_headers_of_a_reply_come_through_as_bytes_and_none_is_added(proxy: Product, wire: ScriptedUpstream) -> None:
    kept: list[Header] = [
        (b"content-type", b"application/json"),
        (b"x-request-id", b"req_1"),
        (b"retry-after", b"7"),
        (b"retry-after-ms", b"7001"),
        (b"x-should-retry", b"false"),
        (b"x-ratelimit-remaining-requests", b"59"),
        (b"x-ratelimit-reset-tokens", b"6m0s"),
        (b"openai-processing-ms", b"12"),
        (b"set-cookie", b"a=1; path=/"),
        (b"set-cookie", b"b=2; path=/"),
        (b"x-note", b"caf\xc3\xa9 \xff\xfe"),
        (b"x-empty", b""),
    ]
    ours: list[Header] = [
        (b"connection", b"X-Hop, x-other-hop"),
        (b"x-hop", b"1"),
        (b"X-Other-Hop", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-authenticate", b"Basic"),
        (b"x-tutelage-response-id", b"theirs"),
    ]
    wire.handle = answer_with(plain(completion(), *(name + b": " + value for name, value in kept + ours)))
    with client_of(proxy) as client:
        ask(client, "reply-headers")
        answer = client.answer()
    added = [header for header in answer.headers if header not in kept]
    assert [header for header in answer.headers if header in kept] == kept
    assert {name for name, _ in added} == {b"content-length", b"x-tutelage-response-id"}
    assert answer.values(b"x-tutelage-response-id") != [b"theirs"]


@pytest.mark.parametrize(
    "status",
    [
        b"400 Bad Request",
        b"401 Unauthorized",
        b"404 Not Found",
        b"429 Slow Down",
        b"500 Oops",
        b"503 Busy",
        b"529 Overloaded",
    ],
)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_an_error_before_the_first_byte_keeps_status_reason_and_body(
    proxy: Product, wire: ScriptedUpstream, status: bytes, *, is_stream: bool
) -> None:
    page = b"<html>\xff\r\n\r\n0\r\n\r\n</html>"
    name = f"error-{status.decode()}-{is_stream}"
    wire.handle = answer_with(plain(page, b"content-type: text/html", status=status))
    with client_of(proxy) as client:
        ask(client, name, chat_body(stream=is_stream))
        answer = client.answer()
    assert (answer.status, answer.body) == (int(status[:3]), page)
    assert outcome_of(proxy, name) == {"4": "error", "5": "upstream_error"}[status.decode()[0]]


def test_a_reply_without_a_body_leaves_the_connection_in_step(proxy: Product, wire: ScriptedUpstream) -> None:
    wire.handle = answer_with(
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 30\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        REPLY,
    )
    with client_of(proxy) as client:
        statuses = [client.ask(b"GET", b"/v1/files/f", None, [BEARER]).status for _ in range(3)]
        ask(client, "in-step")
        last = client.answer()
    assert statuses == [204, 304, 200]
    assert last.body == completion()


def test_interim_replies_and_trailers_do_not_confuse_what_is_recorded(proxy: Product, wire: ScriptedUpstream) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    events = [delta_event("Hi"), delta_event(finish_reason="stop"), DONE]
    wire.handle = answer_with(interim + STREAM_HEAD + chunked(*events) + b"0\r\nx-checksum: 1\r\n\r\n")
    with client_of(proxy) as client:
        ask(client, "trailers", chat_body(stream=True))
        answer = client.answer()
        ask(client, "after-trailers", chat_body(stream=True))
        again = client.answer()
    assert (answer.status, answer.body, again.body) == (200, b"".join(events), b"".join(events))
    assert outcome_of(proxy, "trailers") == outcome_of(proxy, "after-trailers") == "ok"


# What a client asks reaches the upstream as it is


@pytest.mark.parametrize("method", [b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"POST", b"GET"])
@pytest.mark.parametrize(
    "target",
    [
        b"/v1/files/a%2Fb%20c/%C3%A9?after=x%26y&limit=2&empty=&flag",
        b"/v1/chat/completions/chatcmpl-1?order=asc",
        b"/v1/a//b/;p=1/@:~!$&'()*+,=?q=%25/?&#",
        b"/v1/threads/%E2%80%A8",
    ],
)
def test_every_method_and_target_passes_as_it_was_written(
    proxy: Product, wire: ScriptedUpstream, method: bytes, target: bytes
) -> None:
    seen: Queue[Seen] = Queue()
    wire.handle = keeping(seen)
    body = b"\x00\xffbinary\r\n\r\n" if method in (b"PUT", b"PATCH", b"POST") else None
    with client_of(proxy) as client:
        answer = client.ask(method, target.partition(b"#")[0], body, [BEARER, (b"x-note", b"\xc3\xa9\xff")])
    request = seen.get(timeout=WAIT_S)
    assert request.line == method + b" " + target.partition(b"#")[0] + b" HTTP/1.1"
    assert (request.body, request.values(b"x-note")) == (body or b"", [b"\xc3\xa9\xff"])
    assert answer.body == completion()


@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"PUT"])
def test_other_methods_on_a_learned_path_pass_through(proxy: Product, wire: ScriptedUpstream, method: bytes) -> None:
    seen: Queue[Seen] = Queue()
    wire.handle = keeping(seen)
    with client_of(proxy) as client:
        answer = client.ask(method, CHAT + b"?limit=1", None, [BEARER])
    assert answer.status == 200
    assert seen.get(timeout=WAIT_S).line == method + b" " + CHAT + b"?limit=1 HTTP/1.1"


def test_a_head_request_has_no_body_and_keeps_its_length(proxy: Product, wire: ScriptedUpstream) -> None:
    wire.handle = lambda peer, _head: peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4096\r\nx-kind: file\r\n\r\n")
    with client_of(proxy) as client:
        answers = [client.ask(b"HEAD", b"/v1/files/f/content", None, [BEARER]) for _ in range(3)]
    assert [(answer.status, answer.values(b"content-length")) for answer in answers] == [(200, [b"4096"])] * 3


def test_a_target_in_absolute_form_means_its_path(proxy: Product, wire: ScriptedUpstream) -> None:
    # RFC 9112, section 3.2.2: a server must accept it. What goes upstream is the path.
    seen: Queue[Seen] = Queue()
    wire.handle = keeping(seen)
    with client_of(proxy) as client:
        answer = client.ask(b"GET", b"http://proxy.test/v1/models?limit=1", None, [BEARER])
    assert answer.status == 200
    assert seen.get(timeout=WAIT_S).line == b"GET /v1/models?limit=1 HTTP/1.1"


def test_headers_of_a_learned_request_come_through_but_for_ours_and_the_connections(
    proxy: Product, wire: ScriptedUpstream
) -> None:
    kept: list[Header] = [
        BEARER,
        JSON_TYPE,
        (b"accept-encoding", b"gzip, br"),
        (b"openai-organization", b"org"),
        (b"openai-beta", b"assistants=v2"),
        (b"openai-beta", b"realtime=v1"),
        (b"x-stainless-retry-count", b"0"),
        (b"idempotency-key", b"i-1"),
        (b"x-note", b"caf\xc3\xa9 \xff"),
        (b"cookie", b"a=1"),
    ]
    ours: list[Header] = [
        conversation("request-headers"),
        (b"x-tutelage-user", b"u-secret"),
        (b"X-Tutelage-Whatever", b"secret"),
        (b"x-tutelage-response-id", b"secret"),
        (b"connection", b"keep-alive, X-Hop"),
        (b"x-hop", b"secret"),
        (b"keep-alive", b"timeout=5"),
        (b"te", b"trailers"),
        (b"proxy-authorization", b"Basic secret"),
    ]
    seen: Queue[Seen] = Queue()
    wire.handle = keeping(seen)
    body = chat_body()
    with client_of(proxy) as client:
        client.ask(b"POST", CHAT, body, kept + ours)
    request = seen.get(timeout=WAIT_S)
    length = (b"content-length", b"%d" % len(body))
    assert sorted(request.headers) == sorted([*kept, (b"host", b"127.0.0.1:%d" % wire.port), length])
    assert request.body == body


def test_a_learned_request_in_chunks_arrives_whole_with_its_length(proxy: Product, wire: ScriptedUpstream) -> None:
    seen: Queue[Seen] = Queue()
    wire.handle = keeping(seen)
    body = chat_body("é" * 3000)
    head = b"POST " + CHAT + b" HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with client_of(proxy) as client:
        for part in (head, *(chunked(body[start : start + 777]) for start in range(0, len(body), 777)), END):
            client.send(part)
        answer = client.answer()
    request = seen.get(timeout=WAIT_S)
    assert (answer.status, request.body) == (200, body)
    assert request.values(b"content-length") == [b"%d" % len(body)]
    assert request.values(b"transfer-encoding") == []


def test_a_request_that_comes_byte_by_byte_is_like_any_other(proxy: Product, wire: ScriptedUpstream) -> None:
    seen: Queue[Seen] = Queue()
    wire.handle = keeping(seen)
    body = chat_body()
    with client_of(proxy) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (CHAT, len(body), body)
        for position in range(len(data)):
            client.send(data[position : position + 1])
        answer = client.answer()
    assert (answer.status, seen.get(timeout=WAIT_S).body) == (200, body)


@pytest.mark.parametrize("path", [CHAT, b"/v1/files"])
def test_a_client_that_waits_for_100_continue_gets_it_before_it_sends_its_body(
    proxy: Product, wire: ScriptedUpstream, path: bytes
) -> None:
    seen: Queue[Seen] = Queue()
    wire.handle = keeping(seen)
    body = chat_body()
    head = b"POST %b HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n" % (path, len(body))
    with client_of(proxy) as client:
        client.send(head)
        interim = client.peer.read_exactly(len(INTERIM))
        client.send(body)
        answer = client.answer()
    request = seen.get(timeout=WAIT_S)
    assert interim == INTERIM
    assert (answer.status, request.body, request.values(b"expect")) == (200, body, [])


@pytest.mark.parametrize("path", [CHAT, b"/v1/files"])
def test_trailers_of_a_request_do_not_become_headers(proxy: Product, wire: ScriptedUpstream, path: bytes) -> None:
    # RFC 9110, section 6.5.1: a trailer must not pass as a header, or it says what the header's check did not see.
    seen: Queue[Seen] = Queue()
    wire.handle = keeping(seen)
    body = chat_body()
    head = b"POST " + path + b" HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntrailer: x-late\r\n\r\n"
    trailers = b"0\r\nx-late: 1\r\nauthorization: Bearer late\r\ncontent-encoding: gzip\r\n\r\n"
    with client_of(proxy) as client:
        client.send(head + chunked(body) + trailers)
        answer = client.answer()
        again = client.ask(b"POST", CHAT, body)
    request = seen.get(timeout=WAIT_S)
    assert (answer.status, again.status, request.body) == (200, 200, body)
    assert request.names <= {b"host", b"content-length", b"transfer-encoding"}


@pytest.mark.parametrize(
    "start", [b"GET /v1/models HTTP/1.1\r\nx-a: ", b"GET /v1/", b""], ids=["value", "target", "names"]
)
def test_a_head_without_an_end_is_refused_within_a_bound(proxy: Product, start: bytes) -> None:
    piece = b"x" * 65_536 if start else b"x-a: b\r\n" * 6_500
    n_sent = 0
    with client_of(proxy) as client:
        client.send(start or b"GET /v1/models HTTP/1.1\r\n")
        try:
            while n_sent < 16 * MB:
                client.send(piece)
                n_sent += len(piece)
        except ConnectionError:
            pass
    assert n_sent < 16 * MB


# Connections


def test_requests_in_one_packet_are_answered_in_their_order(proxy: Product, wire: ScriptedUpstream) -> None:
    def echo(peer: Peer, head: Head) -> None:
        content = json.loads(head.read_body(peer))["messages"][0]["content"]
        peer.send(plain(completion(content)))

    wire.handle = echo
    words = [f"word-{number}" for number in range(40)]  # more than are kept waiting at a time
    with client_of(proxy) as client:
        packet = b""
        for word in words:
            body = chat_body(word)
            lines = [b"POST " + CHAT + b" HTTP/1.1", b"host: x", b": ".join(conversation(f"pipelined-{word}"))]
            packet += b"\r\n".join([*lines, b"content-length: %d" % len(body)]) + b"\r\n\r\n" + body
        client.send(packet)
        bodies = [client.answer().body for _ in words]
    assert bodies == [completion(word) for word in words]
    assert {outcome_of(proxy, f"pipelined-{word}") for word in words} == {"ok"}


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_connection_close_is_kept_to_after_a_whole_reply(
    proxy: Product, wire: ScriptedUpstream, *, is_stream: bool
) -> None:
    events = [delta_event("Hi"), delta_event(finish_reason="stop"), DONE]
    wire.handle = answer_with(STREAM_HEAD + chunked(*events) + END if is_stream else REPLY)
    with client_of(proxy) as client:
        ask(client, f"close-{is_stream}", chat_body(stream=is_stream), (b"connection", b"close"))
        answer = client.answer()
        rest = client.read_until_closed()
    assert (answer.body, rest) == (b"".join(events) if is_stream else completion(), b"")


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_a_client_of_http_1_0_gets_no_chunks_and_the_end_of_the_connection(
    proxy: Product, wire: ScriptedUpstream, *, is_stream: bool
) -> None:
    events = [delta_event("Hi"), delta_event(finish_reason="stop"), DONE]
    wire.handle = answer_with(STREAM_HEAD + chunked(*events) + END if is_stream else REPLY)
    body = chat_body(stream=is_stream)
    with client_of(proxy) as client:
        client.send(b"POST %b HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (CHAT, len(body), body))
        head, _, got = client.read_until_closed().partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert got == (b"".join(events) if is_stream else completion())


def test_a_websocket_is_a_501_and_the_connection_stays_in_step_or_ends(proxy: Product) -> None:
    upgrade = [(b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-key", b"eDp5")]
    with client_of(proxy) as client:
        client.request(b"GET", b"/v1/realtime?model=m", None, [BEARER, *upgrade])
        answer = client.answer()
        client.send(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        rest = client.read_until_closed()
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (501, "realtime_unsupported")
    assert rest == b"" or rest.startswith(b"HTTP/1.1 200")


SMUGGLED = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        pytest.param(b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", id="both"),
        pytest.param(b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", id="two lengths"),
        pytest.param(b"content-length: +5\r\n\r\nhello", id="signed"),
        pytest.param(b"content-length: 5, 5\r\n\r\nhello", id="listed"),
        pytest.param(b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", id="chunked is not last"),
        pytest.param(b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", id="unknown coding"),
        pytest.param(b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n", id="space before the colon"),
        pytest.param(b"x-a: b\r\n folded\r\ncontent-length: 0\r\n\r\n", id="folded"),
        pytest.param(b"x-a: b\x00c\r\ncontent-length: 0\r\n\r\n", id="null byte"),
    ],
)
def test_a_request_whose_end_is_in_doubt_takes_nothing_along(
    proxy: Product, wire: ScriptedUpstream, framing: bytes
) -> None:
    seen: Queue[Seen] = Queue()
    wire.handle = keeping(seen)
    with client_of(proxy) as client:
        client.send(b"POST /v1/files HTTP/1.1\r\nhost: x\r\n" + framing + SMUGGLED)
        answer = client.answer()
        rest = client.read_until_closed()
    assert (answer.status, rest) == (400, b"")
    assert json.loads(answer.body)["error"]["type"] == "invalid_request_error"
    assert seen.empty()
