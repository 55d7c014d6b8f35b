"""Upstreams over https: trusted ones answer, others are not asked."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

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

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")

CHAT = b"/v1/chat/completions"
BODY = b'{"model":"m","messages":[]}'


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = ["openssl", "req", *kind, "-keyout", str(key), "-out", str(certificate), *names]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    return tls


def trusting(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate[0])


def test_a_trusted_upstream_answers_on_one_connection(
    config: Config, certificate: tuple[Path, Path], server_tls: ssl.SSLContext
) -> None:
    with RawUpstream(answering(plain(b"one"), plain(b"x" * 3_000_000)), server_tls) as upstream:
        there = section(upstream, config, base_url=f"https://localhost:{upstream.port}/v1")
        with Stack(config, [there], tls=trusting(certificate)).running() as port, Client(port) as client:
            bodies = [client.ask(b"POST", CHAT, BODY).body for _ in range(2)]
    assert bodies == [b"one", b"x" * 3_000_000]
    assert upstream.n_connections == 1


def test_a_cut_and_a_disconnect_are_seen_through_tls(
    config: Config, certificate: tuple[Path, Path], server_tls: ssl.SSLContext
) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunked(b"data: 1\n\n"))
        endings[upstream.n_connections - 1](peer)
        upstream.events.put("closed")

    endings = (Peer.close, Peer.wait_closed)
    learning = FakeLearning()
    with RawUpstream(script, server_tls) as upstream:
        there = section(upstream, config, base_url=f"https://localhost:{upstream.port}/v1")
        with Stack(config, [there], learning, tls=trusting(certificate)).running() as port:
            with Client(port) as client:
                client.request(b"POST", CHAT, BODY)
                client.read_until_closed()
            assert upstream.events.get(timeout=10) == "closed"
            with Client(port) as client:
                client.request(b"POST", CHAT, BODY)
                client.peer.read_head()
            assert upstream.events.get(timeout=10) == "closed"
            outcomes = [turn.outcome()[0] for turn in learning.turns]
    assert outcomes == ["upstream_error", "cancelled"]


def test_an_upstream_that_is_not_trusted_is_a_502(config: Config, server_tls: ssl.SSLContext) -> None:
    learning = FakeLearning()
    with RawUpstream(answering(plain(b"secret")), server_tls) as upstream:
        there = section(upstream, config, base_url=f"https://localhost:{upstream.port}/v1")
        with Stack(config, [there], learning).running() as port, Client(port) as client:
            answer = client.ask(b"POST", CHAT, BODY)
    assert answer.status == 502
    assert b"certificate" in answer.body
    assert learning.turns[0].outcome() == ("upstream_error", 502, "local")
