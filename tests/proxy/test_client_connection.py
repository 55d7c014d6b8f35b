"""What a connection does with requests that are broken, come in doubt, or end otherwise than they began."""

import time
from queue import Queue

import pytest

from proxy.authentication import KeyAuthenticator
from store.config import Config
from tests.proxy.wire import (
    STREAM_HEAD,
    Client,
    FakeLearning,
    Peer,
    RawUpstream,
    Stack,
    answering,
    chunked,
    plain,
    section,
)

CHAT_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
MODELS = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
BODY = b'{"model":"m","messages":[]}'
WHOLE = CHAT_HEAD + b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param((CHAT_HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",), id="with its head"),
        pytest.param((CHAT_HEAD + b"transfer-encoding: chunked\r\n\r\n", b"zz\r\n"), id="after its head"),
    ],
)
def test_a_request_that_breaks_off_in_its_body_is_a_400_and_leaves_nothing_to_wait_for(
    config: Config, caplog: pytest.LogCaptureFixture, pieces: tuple[bytes, ...]
) -> None:
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        for piece in pieces:
            client.send(piece)
        assert client.answer().status == 400
        assert client.read_until_closed() == b""
    assert "running task" not in caplog.text  # which the server would have waited for


def test_what_is_no_request_does_not_disturb_the_reply_to_the_one_before(config: Config) -> None:
    with (
        RawUpstream(answering(plain(b'{"a":1}'))) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.send(WHOLE + b"nonsense\r\n\r\n")
        answer = client.answer()
        rest = client.read_until_closed()
    assert (answer.status, answer.body, rest) == (200, b'{"a":1}', b"")


def test_what_is_no_request_puts_no_byte_into_a_reply_under_way(config: Config) -> None:
    go_on: Queue[None] = Queue()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunked(b"data: 1\n\n"))
        go_on.get(timeout=10)
        peer.send(chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.send(WHOLE + b"nonsense\r\n\r\n")
        client.peer.read_head()
        first = client.peer.read_exactly(len(chunked(b"data: 1\n\n")))
        go_on.put(None)
        rest = client.read_until_closed()
    assert first + rest == chunked(b"data: 1\n\n", b"data: [DONE]\n\n") + b"0\r\n\r\n"


def test_a_broken_upload_puts_no_byte_into_a_reply_that_came_before_its_end(config: Config) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"a" * 100)
        peer.wait_closed()

    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.send(b"POST /v1/files HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        client.send(b"%x\r\n%b\r\n" % (1_100_000, b"x" * 1_100_000))
        client.peer.read_head()
        client.peer.read_exactly(100)
        client.send(b"zz\r\n")
        rest = client.read_until_closed()
    assert rest == b""


def test_a_client_that_stops_in_the_middle_of_a_body_is_not_waited_for_for_ever(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.client_connection.KEEP_ALIVE_S", 0.1)
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.send(CHAT_HEAD + b"content-length: 1000\r\n\r\nhalf")
        assert client.read_until_closed() == b""


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [(b"0\r\nx-trailer: ", b"a" * 60_000), (b"1;", b"a" * 60_000), (b"0\r\n", b"a: b\r\n" * 10_000)],
    ids=["a trailer", "an extension", "trailers"],
)
def test_what_stands_around_a_body_is_bounded(config: Config, beginning: bytes, piece: bytes) -> None:
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.send(CHAT_HEAD + b"transfer-encoding: chunked\r\n\r\n" + beginning)
        with pytest.raises(ConnectionError):
            client.send(piece * 1000)


def test_a_client_that_waits_for_its_reply_is_waited_for(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.client_connection.KEEP_ALIVE_S", 0.05)

    def script(peer: Peer) -> None:
        peer.read_request()
        time.sleep(0.2)
        peer.send(plain(b"late"))

    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.send(WHOLE)
        assert client.answer().body == b"late"


def send_half(peer: Peer) -> None:
    peer.read_request()
    peer.send(STREAM_HEAD + chunked(b"data: half an"))


def stop_at_half(peer: Peer) -> None:
    send_half(peer)
    peer.wait_closed()


def read_half(client: Client) -> None:
    """Ask as a client of HTTP/1.0 and read what comes of the reply."""
    client.send(WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"))
    client.peer.read_head()
    client.peer.read_exactly(len(b"data: half an"))


def test_a_client_of_http_1_0_can_tell_a_reply_that_was_cut(config: Config) -> None:
    with (
        RawUpstream(send_half) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        read_half(client)
        with pytest.raises(ConnectionResetError):
            client.socket.recv(1)


def test_a_client_of_http_1_0_that_leaves_in_a_reply_is_no_fault_of_ours(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    learning = FakeLearning()
    with (
        RawUpstream(stop_at_half) as upstream,
        Stack(config, [section(upstream, config)], learning).running() as port,
    ):
        with Client(port) as client:
            read_half(client)
        assert learning.turns[0].outcome() == ("cancelled", 200, "local")
    assert "failed" not in caplog.text


def test_a_client_of_http_1_0_is_told_between_two_events_that_the_stream_broke(config: Config) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunked(b"data: 1\n\n"))

    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.send(WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"))
        client.peer.read_head()
        body = client.read_until_closed()
    assert body.startswith(b'data: 1\n\ndata: {"error":{')


def test_a_client_that_was_not_told_to_go_on_is_told_that_the_connection_ends(config: Config) -> None:
    # Whether its body follows is in doubt: it may leave it out.
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], authenticator=KeyAuthenticator(dict)).running() as port,
        Client(port) as client,
    ):
        client.send(CHAT_HEAD + b"expect: 100-continue\r\ncontent-length: 1000\r\n\r\n")
        answer = client.answer()
        assert client.read_until_closed() == b""
    assert (answer.status, dict(answer.headers)[b"connection"]) == (401, b"close")


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_an_answer_before_the_end_of_a_body_is_seen_by_a_client_that_wants_no_further_one(
    config: Config, version: bytes
) -> None:
    size = 8_000_000
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)], authenticator=KeyAuthenticator(dict)).running() as port,
        Client(port) as client,
    ):
        head = b"POST /v1/files %b\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (version, size)
        client.send(head)
        for _ in range(8):
            client.send(b"x" * (size // 8))
        assert client.answer().status == 401
        assert client.read_until_closed() == b""


@pytest.mark.parametrize(
    "target", [b"/%76%31/models", b"/v%31/models", b"/v1%2Fmodels", b"/%2e%2e/v1/models", b"%2fv1/models"]
)
def test_what_only_decodes_to_a_path_below_v1_is_none(config: Config, target: bytes) -> None:
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        upstream.script = answering(plain(b"{}"), seen=upstream.seen)
        assert client.ask(b"GET", target).status in (400, 404)
    assert upstream.seen.empty()


@pytest.mark.parametrize(
    "target", [b"/v1/../admin", b"/v1/%2e%2e/admin", b"/v1/a/..%2Fadmin", b"/v1/..;x=1/admin", b"/v1/%2e%2e%3b/admin"]
)
def test_no_target_leaves_the_upstreams_base_path(config: Config, target: bytes) -> None:
    with (
        RawUpstream(answering(plain(b"{}"))) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        upstream.script = answering(plain(b"{}"), seen=upstream.seen)
        assert client.ask(b"GET", target).status == 404
    assert upstream.seen.empty()
