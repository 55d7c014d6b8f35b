"""Every other path under /v1: untouched, both ways."""

from dataclasses import replace
from queue import Queue

import pytest

from store.config import Config
from tests.proxy.wire import (
    Client,
    Peer,
    RawUpstream,
    Seen,
    Stack,
    answering,
    plain,
    section,
)


def test_a_request_arrives_as_it_was_sent(config: Config) -> None:
    target = b"/v1/files/a%2Fb%20c/content?limit=2&after=x%26y"
    headers = [
        (b"authorization", b"Bearer sk-client"),
        (b"openai-organization", b"org"),
        (b"x-name", b"\xc3\xa9\xff"),
        (b"accept", b"*/*"),
    ]
    seen_requests: Queue[Seen] = Queue()
    with (
        RawUpstream(answering(plain(b"{}"), seen=seen_requests)) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.ask(b"GET", target, None, headers)
        seen = seen_requests.get(timeout=10)
    assert seen.line == b"GET /base" + target + b" HTTP/1.1"
    assert seen.headers == ((b"host", b"127.0.0.1:%d" % upstream.port), *headers)


def test_headers_of_the_connection_and_our_own_stay_here(config: Config) -> None:
    sent = [
        (b"connection", b"keep-alive, X-Hop"),
        (b"keep-alive", b"timeout=5"),
        (b"x-hop", b"1"),
        (b"te", b"trailers"),
        (b"proxy-authorization", b"Basic eDp5"),
        (b"x-tutelage-user", b"u-1"),
        (b"x-tutelage-anything", b"1"),
        (b"expect", b"100-continue"),
    ]
    reply = plain(
        b"{}",
        b"connection: X-Secret-Hop",
        b"x-secret-hop: 1",
        b"keep-alive: timeout=9",
        b"x-stays: 1",
        b"X-Tutelage-Response-Id: theirs",
    )
    seen_requests: Queue[Seen] = Queue()
    with (
        RawUpstream(answering(reply, seen=seen_requests)) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.request(b"POST", b"/v1/embeddings", b"{}", sent)
        interim = client.peer.read_head()[0]
        answer = client.answer()
        seen = seen_requests.get(timeout=10)
    assert interim == b"HTTP/1.1 100 Continue"
    assert seen.names == {b"host", b"content-length"}
    assert {name for name, _ in answer.headers} == {b"content-length", b"x-stays"}


@pytest.mark.parametrize(
    ("method", "body"),
    [
        pytest.param(b"DELETE", None, id="delete"),
        pytest.param(b"DELETE", b'{"why":1}', id="delete with a body"),
        pytest.param(b"PUT", b"\x00\xff\r\n\r\n" * 100, id="binary"),
        pytest.param(b"POST", b"", id="empty"),
        pytest.param(b"PATCH", b"x" * 900_000, id="held"),
        pytest.param(b"POST", b"y" * 3_000_000, id="streamed"),
    ],
)
def test_bodies_pass_whatever_they_are(config: Config, method: bytes, body: bytes | None) -> None:
    reply = b"\x89PNG\r\n\x00" * 1000
    seen_requests: Queue[Seen] = Queue()
    with (
        RawUpstream(answering(plain(reply), seen=seen_requests)) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(method, b"/v1/files/f", body, [(b"content-type", b"application/octet-stream")])
        seen = seen_requests.get(timeout=10)
    assert answer.body == reply
    assert seen.body == (body or b"")
    assert seen.values(b"content-length") == ([] if body is None else [b"%d" % len(body)])


def test_chunks_arrive_as_chunks_while_they_come(config: Config) -> None:
    def script(peer: Peer) -> None:
        line, headers = peer.read_head()
        size = int(peer.read_line(), 16)
        upstream.events.put(peer.read_exactly(size)[:5].decode())
        peer.read_exactly(2)
        upstream.seen.put(Seen(line, headers, peer.read_chunked()))
        peer.send(plain(b"done"))

    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        first = b"a" * 2_000_000
        client.send(b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        client.send(b"%x\r\n%b\r\n" % (len(first), first))
        assert upstream.events.get(timeout=10) == "aaaaa"  # the rest was not sent yet
        client.send(b"3\r\nend\r\n0\r\n\r\n")
        answer = client.answer()
        seen = upstream.seen.get(timeout=10)
    assert answer.body == b"done"
    assert seen.values(b"transfer-encoding") == [b"chunked"]
    assert seen.body.endswith(b"end")


def test_an_answer_before_the_end_of_the_body_comes_through(config: Config) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(plain(b"too large", status=b"413 Payload Too Large"))
        peer.wait_closed()
        upstream.events.put("closed")

    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        client.send(b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 100_000)
        answer = client.answer()
        assert upstream.events.get(timeout=10) == "closed"
    assert (answer.status, answer.body) == (413, b"too large")


def test_a_client_that_leaves_while_sending_ends_the_upstreams_request(config: Config) -> None:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.wait_closed()
        upstream.events.put("closed")

    with RawUpstream(script) as upstream, Stack(config, [section(upstream, config)]).running() as port:
        with Client(port) as client:
            client.send(b"POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 2_000_000)
        assert upstream.events.get(timeout=10) == "closed"


def test_head_and_empty_statuses_have_no_body(config: Config) -> None:
    def script(peer: Peer) -> None:
        for reply in (
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\netag: e\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
        )[upstream.n_connections - 1 :]:
            peer.read_request()
            peer.send(reply)

    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        head = client.ask(b"HEAD", b"/v1/models")
        unchanged = client.ask(b"GET", b"/v1/models")
        empty = client.ask(b"DELETE", b"/v1/models/m")
    assert (head.status, head.values(b"content-length")) == (200, [b"5"])
    assert (unchanged.status, unchanged.values(b"etag")) == (304, [b"e"])
    assert empty.status == 204


@pytest.mark.parametrize("target", [b"/v1/../admin", b"/v1/files/%2e%2e/%2E%2E/x", b"/v2/models", b"/"])
def test_paths_outside_v1_are_unknown(config: Config, target: bytes) -> None:
    with (
        RawUpstream(answering(plain(b"secret"))) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"GET", target)
    assert answer.status == 404
    assert b'"code":"not_found"' in answer.body
    assert upstream.n_connections == 0


def test_a_websocket_is_a_501(config: Config) -> None:
    upgrade = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")]
    with (
        RawUpstream(answering(plain(b""))) as upstream,
        Stack(config, [section(upstream, config)]).running() as port,
        Client(port) as client,
    ):
        answer = client.ask(b"GET", b"/v1/realtime?model=m", None, upgrade)
    assert answer.status == 501
    assert b'"code":"realtime_unsupported"' in answer.body


def test_a_json_body_chooses_among_several_upstreams(config: Config) -> None:
    with RawUpstream(answering(plain(b"first"))) as first, RawUpstream(answering(plain(b"second"))) as second:
        sections = [
            section(first, config, models=("gpt-*",)),
            replace(section(second, config, models=("text-*",)), name="second"),
        ]
        json = [(b"content-type", b"application/json; charset=utf-8")]
        big = b'{"input":"' + b"x" * 2_000_000 + b'","model":"text-1"}'
        with Stack(config, sections).running() as port, Client(port) as client:
            answers = [
                client.ask(b"POST", b"/v1/embeddings", b'{"model":"text-1"}', json),
                client.ask(b"POST", b"/v1/embeddings", big, json),
                client.ask(b"POST", b"/v1/embeddings", b'{"model":"gpt-1"}', json),
                client.ask(b"POST", b"/v1/embeddings", b"not json", json),
                client.ask(b"POST", b"/v1/audio", b"--x", [(b"content-type", b"multipart/form-data; boundary=x")]),
                client.ask(b"GET", b"/v1/models"),
            ]
            unknown = client.ask(b"POST", b"/v1/embeddings", b'{"model":"other"}', json)
    assert [answer.body for answer in answers] == [b"second", b"second", b"first", b"first", b"first", b"first"]
    assert (unknown.status, b'"code":"model_not_found"' in unknown.body) == (404, True)


def test_a_body_too_deep_to_look_for_its_model_in_is_the_upstreams_to_judge(config: Config) -> None:
    deep = b'{"input":' + b"[" * 5000 + b"]" * 5000 + b"}"
    with RawUpstream(answering(plain(b"{}"))) as upstream:
        upstream.script = answering(plain(b"{}"), seen=upstream.seen)
        sections = [section(upstream, config), section(upstream, config, name="other")]
        with Stack(config, sections).running() as port, Client(port) as client:
            answer = client.ask(b"POST", b"/v1/embeddings", deep, [(b"content-type", b"application/json")])
        assert upstream.seen.get(timeout=10).body == deep
    assert answer.status == 200
