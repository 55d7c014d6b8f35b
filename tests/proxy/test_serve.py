"""The proxy as real processes: start, drain, restarts, several workers."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.proxy.wire import STREAM_HEAD, Client, Peer, RawUpstream, answering, chunked, plain

CHAT = b"/v1/chat/completions"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
REPLY = b'{"id":"c1","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]}'
JSON = b"content-type: application/json"


def eventually(condition: Callable[[], bool], timeout_s: float = 15.0) -> bool:
    """Return whether *condition* came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Product:
    """A running proxy and where it keeps things."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, database: Path) -> None:
        self.process = process
        self.port = port
        self.database = database

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError, EOFError), Client(self.port) as client:
            return client.ask(b"GET", b"/readyz").status == 200
        return False

    def outcomes(self) -> list[str]:
        with contextlib.closing(sqlite3.connect(self.database)) as db:
            return [row[0] for row in db.execute("SELECT outcome FROM responses ORDER BY seq")]

    def n_turns_by_conversation(self) -> list[int]:
        with contextlib.closing(sqlite3.connect(self.database)) as db:
            return [row[0] for row in db.execute("SELECT count(*) FROM responses GROUP BY conversation_id")]

    def workers(self) -> list[int]:
        """Return the process ids of all workers that live."""
        recorder = self.recorder()
        return [pid for pid in self.children() if pid != recorder and command_of(pid)]

    def n_listening(self) -> int:
        """Return how many sockets accept connections on the port."""
        mark = f":{self.port:04X} 00000000:0000 0A"
        return Path("/proc/net/tcp").read_text().count(mark)

    def children(self) -> list[int]:
        lists = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for one in lists for pid in one.read_text().split()]

    def recorder(self) -> int | None:
        """Return the recorder's process id, None while there is none."""
        return next((pid for pid in self.children() if b"proxy.recorder" in command_of(pid)), None)


def command_of(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@contextlib.contextmanager
def running(folder: Path, upstream: RawUpstream, proxy_settings: str = "") -> Iterator[Product]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (folder / "config.toml").write_text(
        f'[proxy]\nport = {port}\n{proxy_settings}\n[store]\nurl = "sqlite:///{folder}/tutelage.db"\n'
        f'[[upstream]]\nname = "local"\nbase_url = "http://127.0.0.1:{upstream.port}/v1"\n'
    )
    program = (
        "import sys; from pathlib import Path; from proxy.serve import serve; from store.config import load_config;"
        "path = Path(sys.argv[1]); serve(path, load_config(path))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(folder / "config.toml")])
    product = Product(process, port, folder / "tutelage.db")
    try:
        assert eventually(product.is_ready)
        yield product
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()


def test_a_response_is_in_the_database_soon(tmp_path: Path) -> None:
    with RawUpstream(answering(plain(REPLY, JSON))) as upstream, running(tmp_path, upstream) as product:
        with Client(product.port) as client:
            answer = client.ask(b"POST", CHAT, BODY)
            health = client.ask(b"GET", b"/healthz")
        assert answer.body == REPLY
        assert eventually(lambda: product.outcomes() == ["ok"])
    assert health.body == b'{"status":"ok","degraded":{}}'
    assert product.process.returncode == 0


@pytest.mark.parametrize("settings", ["", "workers = 2"])
def test_shutdown_lets_running_replies_end(tmp_path: Path, settings: str) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunked(b'data: {"id":"c1","choices":[]}\n\n'))
        upstream.events.get(timeout=10)
        peer.send(chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    with RawUpstream(script) as upstream, running(tmp_path, upstream, settings) as product:
        with Client(product.port) as client:
            client.request(b"POST", CHAT, BODY)
            client.peer.read_head()
            product.process.send_signal(signal.SIGTERM)
            assert eventually(lambda: not product.is_ready())
            upstream.events.put("go on")
            body = client.peer.read_chunked()
        assert product.process.wait(20) == 0
        assert body.endswith(b"data: [DONE]\n\n")
        assert len(product.outcomes()) == 1


def test_a_reply_that_does_not_end_in_time_is_cut_and_recorded(tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(STREAM_HEAD + chunked(b'data: {"id":"c1","choices":[]}\n\n'))
        peer.wait_closed()

    with RawUpstream(script) as upstream, running(tmp_path, upstream, "drain_timeout_s = 1") as product:
        with Client(product.port) as client:
            client.request(b"POST", CHAT, BODY)
            client.peer.read_head()
            product.process.send_signal(signal.SIGTERM)
            assert not client.read_until_closed().endswith(b"0\r\n\r\n")
        product.process.wait(20)
        assert product.outcomes() == ["cancelled"]


def test_a_recorder_that_dies_is_started_again(tmp_path: Path) -> None:
    with RawUpstream(answering(plain(REPLY, JSON))) as upstream, running(tmp_path, upstream) as product:
        first = product.recorder()
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: product.recorder() not in (None, first))
        with Client(product.port) as client:
            client.ask(b"POST", CHAT, BODY)
        assert eventually(lambda: product.outcomes() == ["ok"])


def test_a_worker_that_dies_is_started_again(tmp_path: Path) -> None:
    with RawUpstream(answering(plain(REPLY, JSON))) as upstream, running(tmp_path, upstream, "workers = 2") as product:
        workers = {pid for pid in product.children() if pid != product.recorder()}
        os.kill(min(workers), signal.SIGKILL)
        assert eventually(lambda: len({pid for pid in product.children() if command_of(pid)} - workers) == 2)
        assert eventually(product.is_ready)
        for _ in range(8):
            with Client(product.port) as client:
                assert client.ask(b"POST", CHAT, BODY).status == 200
        assert eventually(lambda: product.outcomes() == ["ok"] * 8)


def play(port: int, names: Sequence[str], n_turns: int) -> None:
    """Hold a conversation for each name, each turn at once and on a connection of its own."""
    for name in names:
        messages = [{"role": "user", "content": name}]
        for number in range(n_turns):
            with Client(port) as client:
                body = json.dumps({"model": "m", "messages": messages}).encode()
                assert client.ask(b"POST", CHAT, body).status == 200
            messages += [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": f"{number}?"}]


def test_a_worker_that_was_started_again_still_knows_what_the_others_just_did(tmp_path: Path) -> None:
    with RawUpstream(answering(plain(REPLY, JSON))) as upstream, running(tmp_path, upstream, "workers = 2") as product:
        assert eventually(lambda: product.n_listening() == 2)
        play(product.port, [f"before {number}" for number in range(12)], 4)
        for killed in product.workers():
            os.kill(killed, signal.SIGKILL)
            assert eventually(lambda: product.n_listening() == 1)
            play(product.port, [f"without {killed} {number}" for number in range(4)], 4)
            assert eventually(lambda: product.n_listening() == 2)
            play(product.port, [f"after {killed} {number}" for number in range(12)], 4)
        assert eventually(lambda: len(product.outcomes()) == 4 * (12 + 4 + 12 + 4 + 12))
        assert product.n_turns_by_conversation() == [4] * (12 + 4 + 12 + 4 + 12)


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    with RawUpstream(answering(plain(REPLY, JSON))) as upstream, running(tmp_path, upstream, "workers = 2") as product:
        children = product.children()
        product.process.kill()
        assert eventually(lambda: not any(command_of(pid) for pid in children))


def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    with RawUpstream(answering(plain(REPLY, JSON))) as upstream, running(tmp_path, upstream) as product:
        second = subprocess.run(
            [sys.executable, "-m", "tutelage", "--config", str(tmp_path / "config.toml"), "proxy"],
            capture_output=True,
            check=False,
            timeout=30,
        )
        assert second.returncode == 1
        assert f"cannot listen on 127.0.0.1:{product.port}".encode() in second.stderr
        assert b"Traceback" not in second.stderr
