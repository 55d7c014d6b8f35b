"""Bytes from the upstream to the client: unchanged, at once, recorded before the last one."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.config import Config
from tests.proxy.wire import (
    STREAM_HEAD,
    Client,
    FakeLearning,
    Peer,
    RawUpstream,
    Script,
    Stack,
    chunked,
    plain,
    section,
)

CHAT = b"/v1/chat/completions"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
REPLY = b'{"id":"chatcmpl-1","choices":[]}'


def once(*parts: bytes) -> Script:
    """Return a script that answers one request with *parts* and keeps the connection open until the proxy closes it."""

    def script(peer: Peer) -> None:
        peer.read_request()
        for part in parts:
            peer.send(part)
        peer.wait_closed()

    return script


def test_a_whole_reply_reaches_the_client_byte_for_byte(config: Config) -> None:
    learning = FakeLearning()
    reply = plain(
        REPLY, b"X-Request-Id: r1", b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"x-name: \xc3\xa9\xff", b"Date: today"
    )
    with (
        RawUpstream(once(reply)) as upstream,
        Stack(config, [section(upstream, config)], learning).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY)
    assert (answer.status, answer.body) == (200, REPLY)
    assert answer.values(b"set-cookie") == [b"a=1", b"b=2"]
    assert answer.values(b"x-name") == [b"\xc3\xa9\xff"]
    assert answer.values(b"date") == [b"today"]
    assert answer.values(b"x-request-id") == [b"r1"]
    assert answer.values(b"x-tutelage-response-id") == [b"resp_1"]
    assert answer.values(b"server") == []
    assert learning.turns[0].fed == REPLY
    assert learning.turns[0].outcome() == ("ok", 200, "local")


STREAM = (
    b": ping\r\n\r\n"
    b'data: {"choices":[{"delta":{"content":"\xf0\x9f\x98\x80"}}]}\n\n'
    b"event: x\rdata: a\rdata: b\r\r"
    b'data: {"choices":[],"usage":{}}\r\n\r\n'
    b"data: [DONE]\n\n"
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 4 * len(STREAM)), max_size=12), pieces=st.lists(st.integers(1, 40), max_size=12))
def test_no_byte_of_a_stream_changes_wherever_it_is_split(config: Config, cuts: list[int], pieces: list[int]) -> None:
    body, events = STREAM, []
    for size in pieces:
        events.append(body[:size])
        body = body[size:]
    wire = STREAM_HEAD + chunked(*filter(None, [*events, body])) + b"0\r\n\r\n"
    edges = [0, *sorted(cut for cut in cuts if cut < len(wire)), len(wire)]
    parts = [wire[start:end] for start, end in pairwise(edges)]
    learning = FakeLearning()
    with (
        RawUpstream(once(*parts)) as upstream,
        Stack(config, [section(upstream, config)], learning).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY)
    assert answer.body == STREAM
    assert learning.turns[0].fed == STREAM


def test_the_first_byte_leaves_when_it_arrives(config: Config) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunked(b"data: 1\n\n"))
        upstream.events.get(timeout=10)  # the client has read it
        peer.send(chunked(b"data: 2\n\n") + b"0\r\n\r\n")

    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.request(b"POST", CHAT, BODY)
        client.peer.read_head()
        first = client.peer.read_exactly(len(chunked(b"data: 1\n\n")))
        upstream.events.put("read")
        rest = client.peer.read_chunked()
    assert (first, rest) == (chunked(b"data: 1\n\n"), b"data: 2\n\n")


def test_the_turn_is_recorded_before_the_client_sees_the_end(config: Config) -> None:
    learning = FakeLearning()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunked(b"data: 1\n\n", b"data: [DONE]\n\n"))
        peer.wait_closed()

    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)], learning).running() as port,
        Client(port) as client,
    ):
        client.request(b"POST", CHAT, BODY)
        client.peer.read_head()
        while b"[DONE]" not in client.peer.buffer:
            client.peer.buffer += client.socket.recv(65536)
        was_finished = learning.turns[0].is_finished
    assert was_finished
    assert learning.turns[0].outcome() == ("ok", 200, "local")


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(Peer.close, id="closed"),
        pytest.param(Peer.reset, id="reset"),
        pytest.param(lambda peer: peer.send(b"zz\r\nnonsense"), id="garbled"),
    ],
)
def test_a_cut_upstream_breaks_the_clients_connection(config: Config, end: Callable[[Peer], None]) -> None:
    learning = FakeLearning()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunked(b"data: 1\n\n"))
        upstream.events.get(timeout=10)
        end(peer)

    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)], learning).running() as port,
        Client(port) as client,
    ):
        client.request(b"POST", CHAT, BODY)
        client.peer.read_head()
        client.peer.read_exactly(1)
        upstream.events.put("end it")
        rest = client.read_until_closed()
    assert not rest.endswith(b"0\r\n\r\n")
    assert learning.turns[0].outcome() == ("upstream_error", 200, "local")


def cut_after(head: bytes, *pieces: bytes) -> Script:
    """Return a script that answers with *head* and *pieces*, in chunks, and hangs up."""

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(head + chunked(*pieces))

    return script


@pytest.mark.parametrize(
    ("path", "event"),
    [
        (b"/v1/chat/completions", b'data: {"error":{"message":"Upstream \'local\''),
        (b"/v1/responses", b'event: error\ndata: {"type":"error"'),
        (b"/v1/messages", b'event: error\ndata: {"type":"error","error":{"type":"api_error"'),
    ],
)
def test_a_stream_that_broke_between_two_events_ends_with_an_error_of_its_api(
    config: Config, path: bytes, event: bytes
) -> None:
    with (
        RawUpstream(cut_after(STREAM_HEAD, b"data: 1\n", b"\n")) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.request(b"POST", path, BODY)
        client.peer.read_head()
        rest = client.read_until_closed()
    told = rest.partition(b"data: 1\n\n\r\n")[2].partition(b"\r\n")[2]
    assert told.startswith(event)
    assert told.endswith(b"}\n\n\r\n")


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(cut_after(STREAM_HEAD, b"data: 1\n\ndata"), id="within an event"),
        pytest.param(cut_after(STREAM_HEAD[:-2] + b"content-encoding: br\r\n\r\n", b"x\n\n"), id="encoded"),
        pytest.param(cut_after(STREAM_HEAD.replace(b"event-stream", b"plain"), b"x\n\n"), id="no events"),
    ],
)
def test_what_does_not_stand_between_two_events_is_cut_without_a_word(config: Config, script: Script) -> None:
    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.request(b"POST", CHAT, BODY)
        client.peer.read_head()
        rest = client.read_until_closed()
    assert b"error" not in rest
    assert not rest.endswith(b"0\r\n\r\n")


def test_a_reply_shorter_than_its_length_breaks_the_clients_connection(config: Config) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort")

    learning = FakeLearning()
    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)], learning).running() as port,
        Client(port) as client,
    ):
        client.request(b"POST", CHAT, BODY)
        assert client.read_until_closed().endswith(b"\r\n\r\nshort")
    assert learning.turns[0].outcome() == ("upstream_error", 200, "local")


def test_a_client_that_leaves_before_the_first_byte_cancels_the_upstream(config: Config) -> None:
    learning = FakeLearning()

    def script(peer: Peer) -> None:
        peer.read_request()
        upstream.events.put("asked")
        peer.wait_closed()
        upstream.events.put("cancelled")

    with RawUpstream(script) as upstream, Stack(config, [section(upstream, config)], learning).running() as port:
        with Client(port) as client:
            client.request(b"POST", CHAT, BODY)
            assert upstream.events.get(timeout=10) == "asked"
        assert upstream.events.get(timeout=10) == "cancelled"
        assert learning.turns[0].outcome() == ("cancelled", 0, "local")


def test_a_client_that_leaves_mid_stream_cancels_the_upstream(config: Config) -> None:
    learning = FakeLearning()

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunked(b"data: 1\n\n"))
        peer.wait_closed()
        upstream.events.put("cancelled")

    with RawUpstream(script) as upstream, Stack(config, [section(upstream, config)], learning).running() as port:
        with Client(port) as client:
            client.request(b"POST", CHAT, BODY)
            client.peer.read_head()
            client.peer.read_exactly(5)
        assert upstream.events.get(timeout=10) == "cancelled"
        assert learning.turns[0].outcome() == ("cancelled", 200, "local")


def test_an_upstreams_error_comes_through_as_it_is(config: Config) -> None:
    body = b"<html>slow down</html>"
    reply = plain(body, b"retry-after: 7", b"content-type: text/html", status=b"429 Too Many Requests")
    learning = FakeLearning()
    with (
        RawUpstream(once(reply)) as upstream,
        Stack(config, [section(upstream, config)], learning).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"POST", CHAT, BODY)
    assert (answer.status, answer.body) == (429, body)
    assert answer.values(b"retry-after") == [b"7"]
    assert answer.values(b"content-type") == [b"text/html"]
    assert learning.turns[0].outcome() == ("error", 429, "local")


def test_a_slow_client_pauses_the_upstream(config: Config) -> None:
    size = 30_000_000

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.socket.settimeout(0.5)
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        n_sent, piece = 0, b"x" * 100_000
        try:
            while n_sent < size:
                n_sent += peer.socket.send(piece[: size - n_sent])
        except TimeoutError:
            upstream.events.put("blocked")
        peer.socket.settimeout(10)
        while n_sent < size:
            n_sent += peer.socket.send(piece[: size - n_sent])

    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.request(b"POST", CHAT, BODY)
        assert upstream.events.get(timeout=10) == "blocked"
        assert len(client.answer().body) == size
