"""Connections to upstreams: kept open, noticed when stale, bounded in time, HTTP in all its endings."""

import socket
import time
from dataclasses import replace

import pytest

from store.config import Config
from tests.proxy.wire import (
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

CHAT = b"/v1/chat/completions"
BODY = b'{"model":"m","messages":[]}'


def test_a_connection_serves_the_next_request_too(config: Config) -> None:
    with (
        RawUpstream(answering(plain(b"one"), plain(b"two"))) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        bodies = [client.ask(b"POST", CHAT, BODY).body for _ in range(2)]
    assert bodies == [b"one", b"two"]
    assert upstream.n_connections == 1


@pytest.mark.parametrize("end", [pytest.param(Peer.close, id="closed"), pytest.param(Peer.reset, id="reset")])
def test_a_request_on_a_stale_connection_is_sent_again_on_a_new_one(config: Config, end) -> None:  # type: ignore[no-untyped-def]
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(plain(b"ok"))
        peer.read_head()  # the next request, which a server that just closes never answers
        end(peer)

    learning = FakeLearning()
    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)], learning).running() as port,
        Client(port) as client,
    ):
        answers = [client.ask(b"POST", CHAT, BODY).status for _ in range(3)]
    assert answers == [200, 200, 200]
    assert upstream.n_connections == 3


def test_a_request_that_an_upstream_worked_on_before_it_closed_is_not_sent_again(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.upstream_connection.STALE_S", 0.05)

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(plain(b"ok"))
        peer.read_request()
        time.sleep(0.1)

    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        answers = [client.ask(b"POST", CHAT, BODY).status for _ in range(2)]
    assert answers == [200, 502]
    assert upstream.n_connections == 1


def test_an_upstream_that_closes_a_new_connection_without_an_answer_is_not_asked_again(config: Config) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()

    learning = FakeLearning()
    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)], learning).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY)
    assert answer.status == 502
    assert b'"code":"upstream_unreachable"' in answer.body
    assert answer.values(b"x-tutelage-response-id") == [b"resp_1"]
    assert upstream.n_connections == 1
    assert learning.turns[0].outcome() == ("upstream_error", 502, "local")


def test_an_unreachable_upstream_is_a_502(config: Config) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port_of_nobody = listener.getsockname()[1]
    nobody = replace(config.upstream[0], name="local", base_url=f"http://127.0.0.1:{port_of_nobody}/v1", models=("*",))
    learning = FakeLearning()
    with Stack(config, [nobody], learning).running() as port, Client(port) as client:
        answer = client.ask(b"POST", CHAT, BODY)
        passed = client.ask(b"GET", b"/v1/models")
    assert (answer.status, passed.status) == (502, 502)
    assert b'{"error":{"message":"Upstream \'local\'' in answer.body
    assert learning.turns[0].outcome() == ("upstream_error", 502, "local")


def test_a_late_first_byte_is_a_504(config: Config) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.wait_closed()
        upstream.events.put("closed")

    learning = FakeLearning()
    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config, first_byte_timeout_s=0.05)], learning).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY)
        assert upstream.events.get(timeout=10) == "closed"
    assert answer.status == 504
    assert learning.turns[0].outcome() == ("upstream_error", 504, "local")


@pytest.mark.parametrize(
    ("wire", "body"),
    [
        pytest.param(plain(b"whole"), b"whole", id="length"),
        pytest.param(plain(b""), b"", id="empty"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"a", b"b") + b"0\r\n\r\n",
            b"ab",
            id="chunks",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"a") + b"0\r\nx-trailer: 1\r\n\r\n",
            b"a",
            id="trailers",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end", id="end of connection"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nold", b"old", id="HTTP/1.0"),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + plain(b"at last"),
            b"at last",
            id="interim replies",
        ),
    ],
)
def test_every_ending_of_a_reply_is_understood(config: Config, wire: bytes, body: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(wire)

    learning = FakeLearning()
    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)], learning).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY)
    assert (answer.status, answer.body) == (200, body)
    assert answer.values(b"x-trailer") + answer.values(b"link") == []
    assert learning.turns[0].outcome() == ("ok", 200, "local")


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-le", id="cut in the head"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 400_000, id="endless head"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", id="upgrade"),
    ],
)
def test_a_reply_that_is_not_http_is_a_502(config: Config, wire: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(wire)

    learning = FakeLearning()
    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)], learning).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY)
    assert answer.status == 502
    assert learning.turns[0].outcome() == ("upstream_error", 502, "local")


def test_a_connection_with_bytes_that_nobody_asked_for_is_not_used_again(config: Config) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(plain(b"mine") + plain(b"somebody else's"))
        peer.wait_closed()

    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        bodies = [client.ask(b"POST", CHAT, BODY).body for _ in range(2)]
    assert bodies == [b"mine", b"mine"]
    assert upstream.n_connections == 2


def test_a_redirect_is_passed_on_and_not_followed(config: Config) -> None:
    reply = plain(b"", b"location: http://elsewhere.test/", status=b"307 Temporary Redirect")
    with (
        RawUpstream(answering(reply)) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY)
    assert (answer.status, answer.values(b"location")) == (307, [b"http://elsewhere.test/"])


def test_forty_streams_at_once_do_not_mix(config: Config) -> None:
    def script(peer: Peer) -> None:
        body = peer.read_request().body
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(20):
            peer.send(chunked(body))
            time.sleep(0.001)
        peer.send(b"0\r\n\r\n")

    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
    ):
        clients = [Client(port) for _ in range(40)]
        for number, client in enumerate(clients):
            client.request(b"POST", CHAT, b"<%d>" % number)
        bodies = [client.answer().body for client in clients]
        for client in clients:
            client.close()
    assert bodies == [b"<%d>" % number * 20 for number in range(40)]
