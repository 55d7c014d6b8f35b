"""The wire, exactly: an upstream scripted byte by byte, the proxy on a real port, a client that sees raw bytes."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from queue import Queue
from random import Random
from types import TracebackType
from typing import Self

import uvicorn
from prometheus_client import CollectorRegistry

from proxy.app import Feedback, Health, Learning, create_app
from proxy.authentication import Authenticator, OpenAuthenticator
from proxy.browsers import Origins
from proxy.errors import ApiError, Header
from proxy.incoming import IncomingRequest
from proxy.limits import Limiter
from proxy.metrics import Metrics
from proxy.routing import Route, Router
from proxy.server import server_config
from proxy.upstream import Cancellation
from proxy.upstream_pool import HttpUpstream
from store.clock import SystemClock
from store.config import Config, UpstreamSection
from store.prices import PriceBook
from store.usage import Uses
from store.vocabulary import Outcome

TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Seen:
    """One request as the upstream saw it."""

    line: bytes
    headers: tuple[Header, ...]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]

    @property
    def names(self) -> set[bytes]:
        return {name for name, _ in self.headers}


class Peer:
    """One accepted connection, scripted with blocking calls."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.buffer = b""

    def read_head(self) -> tuple[bytes, tuple[Header, ...]]:
        while b"\r\n\r\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        pairs = (header.split(b": ", 1) for header in lines)
        return line, tuple((name, value) for name, value in pairs)

    def read_exactly(self, n_bytes: int) -> bytes:
        while len(self.buffer) < n_bytes:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        taken, self.buffer = self.buffer[:n_bytes], self.buffer[n_bytes:]
        return taken

    def read_line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def read_chunked(self) -> bytes:
        body = b""
        while (size := int(self.read_line(), 16)) > 0:
            body += self.read_exactly(size)
            self.read_exactly(2)
        self.read_exactly(2)
        return body

    def read_request(self) -> Seen:
        line, headers = self.read_head()
        lowered = {name.lower(): value for name, value in headers}
        if b"transfer-encoding" in lowered:
            return Seen(line, headers, self.read_chunked())
        return Seen(line, headers, self.read_exactly(int(lowered.get(b"content-length", 0))))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def wait_closed(self) -> None:
        """Return when the other side has closed or reset the connection."""
        with contextlib.suppress(ConnectionError):
            while self.socket.recv(65536):
                pass

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


Script = Callable[[Peer], None]


class RawUpstream:
    """Runs *script* once for every connection, each in a thread; ``seen`` and ``events`` are the script's to fill."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.tls = tls
        self.n_connections = 0
        self.seen: Queue[Seen] = Queue()
        self.events: Queue[str] = Queue()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(TIMEOUT_S)
            self.n_connections += 1
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with contextlib.suppress(EOFError, OSError):
            spoken = connection if self.tls is None else self.tls.wrap_socket(connection, server_side=True)
            with spoken:
                self.script(Peer(spoken))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def answering(*replies: bytes, seen: "Queue[Seen] | None" = None) -> Script:
    """Return a script that answers each request of a connection with the next of *replies*, the last for ever."""

    def script(peer: Peer) -> None:
        for index in range(1_000):
            request = peer.read_request()
            if seen is not None:
                seen.put(request)
            peer.send(replies[min(index, len(replies) - 1)])

    return script


def plain(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """Return a whole reply with a length."""
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*pieces: bytes) -> bytes:
    """Return *pieces* as chunks, without the end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass
class FakeTurn:
    """A turn that remembers what it was told."""

    body: bytes
    model: str | None = "m"
    response_id: str = "resp_1"
    content_encoding: str = ""
    fed: bytes = b""
    finished: Queue[tuple[Outcome, int, str]] = field(default_factory=Queue)
    is_finished: bool = False

    def begin_reply(self, content_encoding: str) -> None:
        self.content_encoding = content_encoding

    def feed(self, chunk: bytes) -> bool:
        self.fed += chunk
        return b"data: [DONE]" in self.fed

    def finish(self, outcome: Outcome, status: int, upstream: str) -> None:
        if not self.is_finished:
            self.is_finished = True
            self.finished.put((outcome, status, upstream))

    def outcome(self) -> tuple[Outcome, int, str]:
        return self.finished.get(timeout=TIMEOUT_S)


class FakeLearning:
    """Begins turns that send *body* (or the client's own) upstream."""

    def __init__(self, body: bytes | None = None, model: str | None = "m", error: Exception | None = None) -> None:
        self.body = body
        self.model = model
        self.error = error
        self.load: Callable[[Sequence[Header], str, Cancellation], Awaitable[None]] | None = None
        """Of contexts; None: they are there."""
        self.requests: list[tuple[IncomingRequest, str]] = []
        self.turns: list[FakeTurn] = []

    def lacks_contexts(self, _tenant_id: str) -> bool:
        return self.load is not None

    async def load_contexts(self, headers: Sequence[Header], tenant_id: str, cancellation: Cancellation) -> None:
        assert self.load is not None
        await self.load(headers, tenant_id, cancellation)

    def lacks_vector(self, _tenant_id: str) -> bool:
        return False

    async def load_vector(self, request: IncomingRequest, tenant_id: str, cancellation: Cancellation) -> None:
        raise AssertionError(f"{request.endpoint} of {tenant_id} lacks no vector: {cancellation.is_cancelled}")

    def begin(self, request: IncomingRequest, tenant_id: str) -> FakeTurn:
        self.requests.append((request, tenant_id))
        if self.error is not None:
            raise self.error
        turn = FakeTurn(request.body if self.body is None else self.body, self.model)
        self.turns.append(turn)
        return turn


class FakeFeedback:
    async def add(self, tenant_id: str, body: bytes) -> tuple[int, bytes]:
        return 201, b'{"tenant":"%b","body":%b}' % (tenant_id.encode(), body)

    async def withdraw(self, tenant_id: str, signal_id: str) -> tuple[int, bytes]:
        if signal_id == "none":
            raise ApiError(404, f"No signal {signal_id!r}.", param="id", code="not_found")
        return 200, b'{"tenant":"%b","id":"%b"}' % (tenant_id.encode(), signal_id.encode())


@dataclass
class FakeHealth:
    broken: dict[str, str] = field(default_factory=dict)
    ready: bool = True

    def degraded(self) -> dict[str, str]:
        return self.broken

    def is_ready(self) -> bool:
        return self.ready


@dataclass
class Stack:
    """The proxy of one test; replace what the test is about before ``running``."""

    config: Config
    upstreams: Sequence[UpstreamSection]
    learning: Learning = field(default_factory=FakeLearning)
    feedback: Feedback = field(default_factory=FakeFeedback)
    health: Health = field(default_factory=FakeHealth)
    authenticator: Authenticator = field(default_factory=OpenAuthenticator)
    limiter: Limiter = field(default_factory=lambda: make_limiter([]))
    metrics: Metrics = field(default_factory=lambda: Metrics(CollectorRegistry()))
    credential: bytes = b"sk-upstream"
    max_body_mb: float = 20
    max_connections: int = 1000
    allowed_origins: Sequence[str] = ()
    tls: ssl.SSLContext | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[int]:
        """Serve in a thread; gives the port."""
        section = replace(
            self.config.proxy,
            port=0,
            max_body_mb=self.max_body_mb,
            max_connections=self.max_connections,
            drain_timeout_s=1,
        )
        routes = [Route.of(one, HttpUpstream(one, self.tls), self.credential) for one in self.upstreams]

        @contextlib.asynccontextmanager
        async def lifespan():  # type: ignore[no-untyped-def]
            yield
            for route in routes:
                await route.upstream.close()

        app = create_app(
            section,
            authenticator=self.authenticator,
            router=Router(routes),
            learning=self.learning,
            feedback=self.feedback,
            origins=Origins(self.allowed_origins),
            health=self.health,
            limiter=self.limiter,
            metrics=self.metrics,
            clock=SystemClock(),
            rng=Random(1),
            lifespan=lifespan,
        )
        with serving(uvicorn.Server(server_config(app, section))) as port:
            yield port


def make_limiter(lines: list[bytes]) -> Limiter:
    """Return a limiter that knows no earlier use and writes to *lines*."""
    return Limiter(
        n_workers=1,
        process="use_1",
        write=lines.append,
        uses=Uses,
        prices=PriceBook({"gpt-5": (1000.0, 1000.0)}, dict),
        providers={},
        clock=SystemClock(),
        count_refusal=lambda _: None,
    )


@contextlib.contextmanager
def serving(server: uvicorn.Server) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    started = threading.Event()

    async def run() -> None:
        task = asyncio.get_running_loop().create_task(server.serve([listener]))
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        started.set()
        await task

    loop_factory = server.config.get_loop_factory()

    def target() -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(run())

    thread = threading.Thread(target=target)
    thread.start()
    assert started.wait(TIMEOUT_S)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


class Client:
    """A client that sends and sees raw bytes."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self.peer = Peer(self.socket)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, method: bytes, target: bytes, body: bytes | None = None, headers: Sequence[Header] = ()) -> "Answer":
        self.request(method, target, body, headers)
        return self.answer(is_head=method == b"HEAD")

    def request(self, method: bytes, target: bytes, body: bytes | None = None, headers: Sequence[Header] = ()) -> None:
        lines = [
            method + b" " + target + b" HTTP/1.1",
            b"host: proxy.test",
            *(name + b": " + value for name, value in headers),
        ]
        if body is not None:
            lines.append(b"content-length: %d" % len(body))
        self.send(b"\r\n".join(lines) + b"\r\n\r\n" + (body or b""))

    def answer(self, *, is_head: bool = False) -> "Answer":
        line, headers = self.peer.read_head()
        status = int(line.split(b" ")[1])
        lowered = dict(headers)
        if is_head or status in (204, 304):
            body = b""
        elif b"transfer-encoding" in lowered:
            body = self.peer.read_chunked()
        else:
            body = self.peer.read_exactly(int(lowered[b"content-length"]))
        return Answer(status, headers, body)

    def read_until_closed(self) -> bytes:
        """Return all bytes up to the end of the connection."""
        data = self.peer.buffer
        with contextlib.suppress(ConnectionError):
            while received := self.socket.recv(65536):
                data += received
        return data

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: tuple[Header, ...]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


def section(upstream: RawUpstream, config: Config, **changes: object) -> UpstreamSection:
    """Return the settings of an upstream at *upstream*'s port, any model."""
    base = replace(
        config.upstream[0], name="local", base_url=f"http://127.0.0.1:{upstream.port}/base/v1", models=("*",)
    )
    return replace(base, **changes)  # type: ignore[arg-type]
