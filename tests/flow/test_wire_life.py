"""Replies and requests on their way: at once, never held, and how they end when either side or the proxy leaves."""

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import pytest

from tests.flow.dialects import CHAT as CHAT_DIALECT
from tests.flow.dialects import MESSAGES, RESPONSES, Dialect
from tests.flow.product import Product, eventually
from tests.flow.raw import (
    BEARER,
    CHAT,
    DONE,
    JSON_TYPE,
    MB,
    Head,
    Memory,
    ScriptedUpstream,
    answer_with,
    ask,
    chat_body,
    client_of,
    completion,
    conversation,
    delta_event,
    digest_of,
    hold_little,
    outcome_of,
    pieces_of,
    read_in_pieces,
    send_until_blocked,
)
from tests.proxy.wire import STREAM_HEAD, Client, Peer, chunked, plain

WAIT_S = 10.0
END = b"0\r\n\r\n"
STREAM_TYPE = b"content-type: text/event-stream"
LARGE_BYTES = 40 * MB
HELD_BYTES = 15 * MB


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


@pytest.fixture
def signals() -> "Queue[str]":
    """What one side tells the other during a test."""
    return Queue()


# At once


@pytest.mark.parametrize("path", [CHAT, b"/v1/audio/speech"])
@pytest.mark.parametrize(
    ("head", "first", "rest"),
    [
        pytest.param(STREAM_HEAD, chunked(b"d"), chunked(delta_event("Hi")[1:], DONE) + END, id="chunks"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(completion()),
            completion()[:1],
            completion()[1:],
            id="length",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"d", delta_event("Hi")[1:] + DONE, id="end of connection"),
    ],
)
def test_the_head_and_the_first_byte_leave_when_they_arrive(
    proxy: Product, wire: ScriptedUpstream, signals: "Queue[str]", path: bytes, head: bytes, first: bytes, rest: bytes
) -> None:
    def one_by_one(peer: Peer, request: Head) -> None:
        request.read_body(peer)
        peer.send(head)
        signals.get(timeout=WAIT_S)  # the client has it
        peer.send(first)
        signals.get(timeout=WAIT_S)
        peer.send(rest)
        peer.close()

    wire.handle = one_by_one
    with client_of(proxy) as client:
        client.request(b"POST", path, chat_body(stream=True), [JSON_TYPE, BEARER, (b"connection", b"close")])
        status, headers = client.peer.read_head()
        signals.put("head")
        is_chunked = b"transfer-encoding" in dict(headers)
        got = client.peer.read_exactly(len(chunked(b"d")) if is_chunked else 1)
        signals.put("first")
        client.read_until_closed()
    assert status == b"HTTP/1.1 200 OK"
    assert got in (chunked(b"d"), first)


def test_every_event_leaves_when_it_arrives_also_in_the_smallest_pieces(
    proxy: Product, wire: ScriptedUpstream, signals: "Queue[str]"
) -> None:
    body = delta_event("Ü😀\u2028") + b": ping\r\n\r\n" + DONE

    def one_by_one(peer: Peer, request: Head) -> None:
        request.read_body(peer)
        peer.send(STREAM_HEAD)
        for position in range(len(body)):
            peer.send(chunked(body[position : position + 1]))
            signals.get(timeout=WAIT_S)
        peer.send(END)

    wire.handle = one_by_one
    with client_of(proxy) as client:
        ask(client, "byte-by-byte", chat_body(stream=True))
        client.peer.read_head()
        got = b""
        for _ in range(len(body)):
            got += client.peer.read_exactly(int(client.peer.read_line(), 16))
            client.peer.read_exactly(2)
            signals.put("read")
        end = client.peer.read_exactly(len(END))
    assert (got, end) == (body, END)


# Not held


def test_a_large_upload_is_streamed_and_not_held(proxy: Product, wire: ScriptedUpstream, signals: "Queue[str]") -> None:
    digests: Queue[bytes] = Queue()
    head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
    foot = b"\r\n--b--\r\n"

    def take(peer: Peer, request: Head) -> None:
        first = peer.read_exactly(1000)
        signals.put("begun")
        n_left = int(request.values(b"content-length")[0]) - len(first)
        digests.put(digest_of([first, *read_in_pieces(peer, n_left)]))
        peer.send(plain(b'{"id":"file-1"}'))

    wire.handle = take
    memory = Memory(proxy.running[0].pid)
    with client_of(proxy) as client:
        length = len(head) + LARGE_BYTES + len(foot)
        client.send(
            b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\n"
            b"content-length: %d\r\n\r\n" % length
        )
        client.send(head)
        pieces = pieces_of(LARGE_BYTES)
        for _ in range(20):  # 2 MB: above what may be held to send it again
            client.send(next(pieces))
        assert signals.get(timeout=WAIT_S) == "begun"  # the rest was not sent yet
        for piece in pieces:
            client.send(piece)
        client.send(foot)
        answer = client.answer()
    assert answer.body == b'{"id":"file-1"}'
    assert digests.get(timeout=WAIT_S) == digest_of([head, *pieces_of(LARGE_BYTES), foot])
    assert memory.growth_bytes() < HELD_BYTES


def test_an_upload_waits_for_a_slow_upstream(proxy: Product, wire: ScriptedUpstream, signals: "Queue[str]") -> None:
    def take_late(peer: Peer, request: Head) -> None:
        signals.get(timeout=WAIT_S)
        n_bytes = sum(len(piece) for piece in read_in_pieces(peer, int(request.values(b"content-length")[0])))
        peer.send(plain(b"%d" % n_bytes))

    wire.handle = take_late
    memory = Memory(proxy.running[0].pid)
    with client_of(proxy) as client:
        client.send(b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % LARGE_BYTES)
        left = list(send_until_blocked(client.socket, pieces_of(LARGE_BYTES)))
        signals.put("now")
        for piece in left:
            client.send(piece)
        answer = client.answer()
    assert sum(map(len, left)) > LARGE_BYTES / 2
    assert answer.body == b"%d" % LARGE_BYTES
    assert memory.growth_bytes() < HELD_BYTES


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_large_download_is_streamed_and_not_held(proxy: Product, wire: ScriptedUpstream, framing: str) -> None:
    is_chunked = framing == "chunks"

    def give(peer: Peer, request: Head) -> None:
        request.read_body(peer)
        length = b"transfer-encoding: chunked" if is_chunked else b"content-length: %d" % LARGE_BYTES
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n" + length + b"\r\n\r\n")
        for piece in pieces_of(LARGE_BYTES):
            peer.send(chunked(piece) if is_chunked else piece)
        peer.send(END if is_chunked else b"")

    wire.handle = give
    memory = Memory(proxy.running[0].pid)
    with client_of(proxy) as client:
        client.request(b"GET", b"/v1/files/f/content", None, [BEARER])
        client.peer.read_head()
        body = read_chunks(client.peer) if is_chunked else read_in_pieces(client.peer, LARGE_BYTES)
        digest = digest_of(body)
    assert digest == digest_of(pieces_of(LARGE_BYTES))
    assert memory.growth_bytes() < HELD_BYTES


def read_chunks(peer: Peer) -> Iterator[bytes]:
    while size := int(peer.read_line(), 16):
        yield from read_in_pieces(peer, size)
        peer.read_exactly(2)
    peer.read_exactly(2)


def test_many_slow_clients_hold_the_upstream_back_and_little_memory(
    proxy: Product, wire: ScriptedUpstream, signals: "Queue[str]"
) -> None:
    n_clients, n_events = 2, 1500
    event = delta_event("x" * 30_000)  # 45 MB in each stream: more than the system keeps for the connections

    def flood(peer: Peer, request: Head) -> None:
        request.read_body(peer)
        peer.send(STREAM_HEAD)
        left = send_until_blocked(peer.socket, iter([chunked(event)] * n_events))
        first = next(left)
        signals.put("blocked")
        peer.send(first)
        for piece in left:
            peer.send(piece)
        peer.send(chunked(DONE) + END)

    wire.handle = flood
    memory = Memory(proxy.running[0].pid)
    clients = [client_of(proxy) for _ in range(n_clients)]
    for number, client in enumerate(clients):
        hold_little(client.socket)
        ask(client, f"slow-{number}", chat_body(stream=True))
    assert [signals.get(timeout=3 * WAIT_S) for _ in clients] == ["blocked"] * n_clients
    growth_bytes = memory.growth_bytes()

    def digest(client: Client) -> bytes:
        with client:
            client.peer.read_head()
            return digest_of(read_chunks(client.peer))

    with ThreadPoolExecutor(n_clients) as pool:
        digests = set(pool.map(digest, clients))
    assert digests == {digest_of([*[event] * n_events, DONE])}
    assert growth_bytes < n_clients * 2 * MB
    assert {outcome_of(proxy, f"slow-{number}") for number in range(n_clients)} == {"ok"}


# The client leaves

LEAVE: dict[str, Callable[[Client], None]] = {"closes": Client.close, "resets": lambda client: client.peer.reset()}
STALLS = {
    "before the head": b"",
    "after the head": STREAM_HEAD,
    "in an event": STREAM_HEAD + chunked(delta_event("Hi"), b'data: {"id"'),
    "in a whole body": b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n" + completion()[:20],
    "in the head": b"HTTP/1.1 200 OK\r\ncontent-",
}


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("stall", STALLS, ids=lambda name: name.replace(" ", "-"))
def test_a_client_that_leaves_ends_the_upstreams_work_at_once(
    proxy: Product,
    wire: ScriptedUpstream,
    signals: "Queue[str]",
    stall: str,
    leave: str,
    *,
    is_stream: bool,
) -> None:
    def stall_then_listen(peer: Peer, request: Head) -> None:
        request.read_body(peer)
        peer.send(STALLS[stall])
        signals.put("stalled")
        peer.wait_closed()
        signals.put("closed")

    wire.handle = stall_then_listen
    name = f"leaves {stall} {is_stream} {leave}"
    with client_of(proxy) as client:
        ask(client, name, chat_body(stream=is_stream))
        assert signals.get(timeout=WAIT_S) == "stalled"
        LEAVE[leave](client)
    assert signals.get(timeout=WAIT_S) == "closed"
    assert outcome_of(proxy, name) == "cancelled"


@pytest.mark.parametrize("stall", ["before the head", "in a whole body"])
def test_a_client_that_leaves_ends_the_upstreams_work_on_other_paths_too(
    proxy: Product, wire: ScriptedUpstream, signals: "Queue[str]", stall: str
) -> None:
    def stall_then_listen(peer: Peer, request: Head) -> None:
        request.read_body(peer)
        peer.send(STALLS[stall])
        signals.put("stalled")
        peer.wait_closed()
        signals.put("closed")

    wire.handle = stall_then_listen
    with client_of(proxy) as client:
        client.request(b"POST", b"/v1/embeddings", b"{}", [BEARER])
        assert signals.get(timeout=WAIT_S) == "stalled"
    assert signals.get(timeout=WAIT_S) == "closed"


@pytest.mark.parametrize("n_bytes", [5, 900_000])
def test_a_client_that_leaves_with_a_further_request_under_way_ends_the_first(
    proxy: Product, wire: ScriptedUpstream, signals: "Queue[str]", n_bytes: int
) -> None:
    def never(peer: Peer, request: Head) -> None:
        request.read_body(peer)
        signals.put("asked")
        peer.wait_closed()
        signals.put("closed")

    wire.handle = never
    with client_of(proxy) as client:
        ask(client, f"pipelined-first {n_bytes}")
        ask(client, "pipelined-second", chat_body("x" * n_bytes))
        assert signals.get(timeout=WAIT_S) == "asked"
    assert signals.get(timeout=WAIT_S) == "closed"
    assert outcome_of(proxy, f"pipelined-first {n_bytes}") == "cancelled"
    assert signals.empty()


def test_a_client_that_stops_reading_and_leaves_ends_the_upstreams_work(
    proxy: Product, wire: ScriptedUpstream, signals: "Queue[str]"
) -> None:
    def flood(peer: Peer, request: Head) -> None:
        request.read_body(peer)
        peer.send(STREAM_HEAD)
        left = send_until_blocked(peer.socket, iter([chunked(delta_event("x" * 30_000))] * 1500))
        next(left)
        signals.put("blocked")
        try:
            for piece in left:
                peer.send(piece)
        except ConnectionError:
            signals.put("closed")
            raise

    wire.handle = flood
    with client_of(proxy) as client:
        hold_little(client.socket)
        ask(client, "stopped reading", chat_body(stream=True))
        assert signals.get(timeout=WAIT_S) == "blocked"
        client.peer.reset()
    assert signals.get(timeout=WAIT_S) == "closed"
    assert outcome_of(proxy, "stopped reading") == "cancelled"


def test_a_client_that_has_seen_the_end_mark_and_leaves_had_the_whole_reply(
    proxy: Product, wire: ScriptedUpstream, signals: "Queue[str]"
) -> None:
    def linger(peer: Peer, request: Head) -> None:
        request.read_body(peer)
        peer.send(STREAM_HEAD + chunked(delta_event("Hi"), delta_event(finish_reason="stop"), DONE))
        peer.wait_closed()
        signals.put("closed")

    wire.handle = linger
    with client_of(proxy) as client:
        ask(client, "saw the end", chat_body(stream=True))
        while DONE not in client.peer.buffer:
            client.peer.buffer += client.socket.recv(65536)
    assert signals.get(timeout=WAIT_S) == "closed"
    assert outcome_of(proxy, "saw the end") == "ok"


# The upstream leaves

BREAKS: dict[str, Callable[[Peer], None]] = {
    "closes": Peer.close,
    "resets": Peer.reset,
    "sends garbage": lambda peer: peer.send(b"zz\r\nnonsense"),
}
EVENTS = delta_event("Hel") + delta_event("lo")
ENCODED = b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\n" + STREAM_TYPE + b"\r\ntransfer-encoding: chunked\r\n\r\n"
WITH_LENGTH = b"HTTP/1.1 200 OK\r\n" + STREAM_TYPE + b"\r\ncontent-length: 5000\r\n\r\n"


def cut_off(
    proxy: Product,
    wire: ScriptedUpstream,
    name: str,
    head: bytes,
    body: bytes,
    end: str,
    dialect: Dialect = CHAT_DIALECT,
) -> tuple[bytes, bytes]:
    """Return what a client gets of a reply that breaks off after *body* was read: first *body*, then the rest."""
    read: Queue[str] = Queue()
    framed = chunked(body) if b"chunked" in head else body

    def break_off(peer: Peer, request: Head) -> None:
        request.read_body(peer)
        peer.send(head + framed)
        read.get(timeout=WAIT_S)
        BREAKS[end](peer)

    wire.handle = break_off
    with client_of(proxy) as client:
        question = dialect.question("Hello?", "m", is_stream=True, has_tools=False)
        client.request(b"POST", dialect.path, question, [JSON_TYPE, BEARER, conversation(name)])
        client.peer.read_head()
        got = client.peer.read_exactly(len(framed))
        read.put("read")
        return got, client.read_until_closed()


@pytest.mark.parametrize("end", BREAKS)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_a_stream_cut_between_events_ends_with_an_error_event_and_a_broken_connection(
    proxy: Product, wire: ScriptedUpstream, line_end: bytes, end: str
) -> None:
    name = f"cut between {line_end!r} {end}"
    body = EVENTS.replace(b"\n", line_end)
    got, rest = cut_off(proxy, wire, name, STREAM_HEAD, body, end)
    assert got == chunked(body)
    size, _, chunk = rest.partition(b"\r\n")
    event = chunk[: int(size, 16)]
    assert chunk[len(event) :] == b"\r\n"  # and no last chunk
    assert event.startswith(b"data: {")
    assert event.endswith(b"\n\n")
    error = json.loads(event.removeprefix(b"data: "))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert outcome_of(proxy, name) == "upstream_error"


@pytest.mark.parametrize("dialect", [RESPONSES, MESSAGES], ids=["responses", "messages"])
@pytest.mark.parametrize("end", ["closes", "resets"])
def test_a_cut_stream_of_the_other_apis_ends_with_their_own_error_event(
    proxy: Product, wire: ScriptedUpstream, dialect: Dialect, end: str
) -> None:
    name = f"cut {dialect.path.decode()} {end}"
    body = b"".join(dialect.events("reply-1", ["Hel", "lo"])[:3])
    got, rest = cut_off(proxy, wire, name, STREAM_HEAD, body, end, dialect)
    assert got == chunked(body)
    size, _, chunk = rest.partition(b"\r\n")
    event, after = chunk[: int(size, 16)], chunk[int(size, 16) :]
    data = json.loads(event.removeprefix(b"event: error\ndata: "))
    assert (event[-2:], after, data["type"]) == (b"\n\n", b"\r\n", "error")
    assert {"type", "message"} <= set(data["error"])
    assert outcome_of(proxy, name) == "upstream_error"


@pytest.mark.parametrize("end", ["closes", "resets"])
@pytest.mark.parametrize(
    ("case", "head", "body"),
    [
        pytest.param("in an event", STREAM_HEAD, EVENTS + b'data: {"id":', id="in-an-event"),
        pytest.param("after a line", STREAM_HEAD, EVENTS + b"event: x\n", id="after-a-line"),
        pytest.param("encoded", ENCODED, b"\x1b\x2f\x00\n\n", id="encoded"),
        pytest.param("length", WITH_LENGTH, EVENTS, id="length"),
    ],
)
def test_where_an_error_event_would_not_be_understood_only_the_connection_breaks(
    proxy: Product,
    wire: ScriptedUpstream,
    case: str,
    head: bytes,
    body: bytes,
    end: str,
) -> None:
    name = f"cut {case} {end}"
    got, rest = cut_off(proxy, wire, name, head, body, end)
    assert got in (body, chunked(body))
    assert rest == b""
    assert outcome_of(proxy, name) == "upstream_error"


def test_a_stream_cut_after_its_end_mark_was_whole_for_the_client(proxy: Product, wire: ScriptedUpstream) -> None:
    body = EVENTS + delta_event(finish_reason="stop") + DONE
    got, rest = cut_off(proxy, wire, "cut after the end", STREAM_HEAD, body, "closes")
    assert (got, b"error" in rest) == (chunked(body), False)
    assert outcome_of(proxy, "cut after the end") == "ok"


@pytest.mark.parametrize("end", ["closes", "resets"])
def test_a_whole_body_cut_short_breaks_the_clients_connection(proxy: Product, wire: ScriptedUpstream, end: str) -> None:
    name = f"cut body {end}"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n"
    got, rest = cut_off(proxy, wire, name, head, completion()[:40], end)
    assert (got, rest) == (completion()[:40], b"")
    assert outcome_of(proxy, name) == "upstream_error"


def test_an_upstream_that_answers_before_it_read_the_request_is_heard(proxy: Product, wire: ScriptedUpstream) -> None:
    def refuse(peer: Peer, _head: Head) -> None:
        peer.send(plain(b"<h1>too large</h1>", b"connection: close", status=b"413 Payload Too Large"))
        peer.wait_closed()

    wire.handle = refuse
    with client_of(proxy) as client:
        ask(client, "refused early", chat_body("x" * 5 * MB))
        answer = client.answer()
    assert (answer.status, answer.body) == (413, b"<h1>too large</h1>")
    assert outcome_of(proxy, "refused early") == "error"


def test_after_an_early_answer_the_rest_of_the_body_is_passed_over(proxy: Product, wire: ScriptedUpstream) -> None:
    def refuse(peer: Peer, request: Head) -> None:
        if request.target == b"/v1/files":
            peer.send(plain(b"too large", b"connection: close", status=b"413 Payload Too Large"))
            peer.wait_closed()
        else:
            request.read_body(peer)
            peer.send(plain(completion()))

    wire.handle = refuse
    with client_of(proxy) as client:
        client.send(b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n" + b"x" * 2 * MB)
        early = client.answer()
        client.send(b"GET / HTTP/1.1\r\n\r\n" + b"x" * (MB - 18))  # looks like a request, and is a body's end
        ask(client, "after an early answer")
        answer = client.answer()
    assert (early.status, answer.status, answer.body) == (413, 200, completion())


# The proxy leaves


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), WAIT_S).close()
    except ConnectionRefusedError:
        return True
    return False


def test_at_shutdown_running_streams_get_their_time_and_nobody_new_is_let_in(tmp_path: Path) -> None:
    go_on, asked = threading.Event(), threading.Barrier(4)

    def stream(peer: Peer, request: Head) -> None:
        content = json.loads(request.read_body(peer))["messages"][0]["content"]
        if content != "waits":
            peer.send(STREAM_HEAD + chunked(delta_event("Hel")))
        asked.wait(WAIT_S)
        if content == "ends":
            assert go_on.wait(WAIT_S)
            peer.send(chunked(delta_event("lo"), delta_event(finish_reason="stop"), DONE) + END)
        peer.wait_closed()

    with ScriptedUpstream() as upstream:
        upstream.handle = answer_with(plain(completion()))
        settings = {"proxy": {"drain_timeout_s": 2}}
        with Product(tmp_path / "product", upstream.base_url, settings=settings) as product:
            running = product.start("proxy")
            idle, ends, never, waits = (client_of(product) for _ in range(4))
            ask(idle, "idle")
            assert idle.answer().status == 200
            upstream.handle = stream
            for client, name in ((ends, "ends"), (never, "never"), (waits, "waits")):
                ask(client, name, chat_body(name, stream=name != "waits"))
            asked.wait(WAIT_S)
            for client in (ends, never):
                client.peer.read_head()
            running.signal(signal.SIGTERM)
            assert idle.read_until_closed() == b""
            assert eventually(lambda: is_refused(product.proxy_port))
            go_on.set()
            whole = ends.peer.read_chunked()
            cut = never.read_until_closed()
            unanswered = waits.read_until_closed()
            assert running.process.wait(WAIT_S) == 0
            for client in (idle, ends, never, waits):
                client.close()
            assert whole.endswith(DONE)
            assert not cut.endswith(END)
            assert not unanswered.startswith(b"HTTP/1.1 200")
            outcomes = product.rows("SELECT conversation_id, outcome FROM responses")
            log = running.output()
    # Cut by us: neither the upstream's fault nor an answer of its own, so nobody waited for the end: cancelled.
    assert {row["conversation_id"]: row["outcome"] for row in outcomes} == {
        "idle": "ok",
        "ends": "ok",
        "never": "cancelled",
        "waits": "cancelled",
    }
    assert "Traceback" not in log
    assert "Error" not in log
