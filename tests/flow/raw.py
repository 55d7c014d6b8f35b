"""The wire from outside: an upstream that each test scripts byte by byte, and what clients and processes look like."""

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.flow.product import APP_KEY, Product
from tests.proxy.wire import TIMEOUT_S, Client, Peer, RawUpstream, Seen

Header = tuple[bytes, bytes]

CHAT = b"/v1/chat/completions"
JSON_TYPE = (b"content-type", b"application/json")
BEARER = (b"authorization", b"Bearer " + APP_KEY.encode())
MB = 1_000_000


@dataclass(frozen=True)
class Head:
    """The beginning of one request as the upstream saw it; the body is still to be read."""

    line: bytes
    headers: tuple[Header, ...]

    @property
    def method(self) -> bytes:
        return self.line.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1]

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]

    def read_body(self, peer: Peer) -> bytes:
        if self.values(b"transfer-encoding"):
            return peer.read_chunked()
        return peer.read_exactly(int((self.values(b"content-length") or [b"0"])[0]))

    def seen(self, peer: Peer) -> Seen:
        return Seen(self.line, self.headers, self.read_body(peer))


Handler = Callable[[Peer, Head], None]


def unexpected(_peer: Peer, head: Head) -> None:
    raise AssertionError(f"no test expects {head.line!r}")


class ScriptedUpstream(RawUpstream):
    """Gives every request to ``handle`` as it is at that moment, on whatever connection the request comes."""

    def __init__(self) -> None:
        self.handle: Handler = unexpected
        super().__init__(self._serve)

    def _serve(self, peer: Peer) -> None:
        while True:
            line, headers = peer.read_head()
            self.handle(peer, Head(line, headers))

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


def answer_with(*replies: bytes) -> Handler:
    """Return a handler that reads each request and sends the next of *replies*, the last for ever."""
    waiting = list(replies)
    lock = threading.Lock()

    def handle(peer: Peer, head: Head) -> None:
        head.read_body(peer)
        with lock:
            reply = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        peer.send(reply)

    return handle


def chat_body(content: str = "Hello?", **fields: Any) -> bytes:
    """Return a chat request's body."""
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **fields}).encode()


def completion(content: str = "Hello.", reply_id: str = "chatcmpl-1") -> bytes:
    """Return a whole chat completion's body."""
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": reply_id, "object": "chat.completion", "choices": [choice]}).encode()


def delta_event(content: str = "", finish_reason: str | None = None, end: bytes = b"\n\n") -> bytes:
    """Return one event of a streamed chat completion."""
    delta = {"content": content} if content else {}
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"id": "chatcmpl-1", "choices": [choice]}).encode() + end


DONE = b"data: [DONE]\n\n"


def conversation(name: str) -> Header:
    return (b"x-tutelage-conversation", name.encode())


def client_of(product: Product) -> Client:
    return Client(product.proxy_port)


def ask(client: Client, name: str, body: bytes | None = None, *headers: Header) -> None:
    """Send a chat request in the conversation *name*."""
    client.request(b"POST", CHAT, body or chat_body(), [JSON_TYPE, BEARER, conversation(name), *headers])


def outcome_of(product: Product, name: str) -> str:
    """Return the outcome of the one record of a conversation, waiting for it."""
    return str(product.row("SELECT outcome FROM responses WHERE conversation_id = :name", name=name)["outcome"])


def pieces_of(n_bytes: int, piece_bytes: int = 100_000) -> Iterator[bytes]:
    """Yield *n_bytes* of data of which no two pieces are alike."""
    for number in range(n_bytes // piece_bytes):
        yield (b"%08d" % number) * (piece_bytes // 8)


def digest_of(pieces: Iterable[bytes]) -> bytes:
    digest = hashlib.blake2b()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def read_in_pieces(peer: Peer, n_bytes: int) -> Iterator[bytes]:
    """Yield the next *n_bytes* as they come, holding none."""
    while n_bytes:
        piece = peer.buffer[:n_bytes] or peer.socket.recv(min(n_bytes, 256 * 1024))
        if not piece:
            raise EOFError
        peer.buffer = peer.buffer[len(piece) :]
        n_bytes -= len(piece)
        yield piece


def hold_little(end: socket.socket) -> None:
    """Bound what the system keeps for one end of a connection, which grows to megabytes by itself."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        end.setsockopt(socket.SOL_SOCKET, option, 64 * 1024)


def send_until_blocked(target: socket.socket, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Send *pieces* until the other side takes no more; yield what is left, the begun piece's rest first."""
    target.settimeout(0.5)
    rest = b""
    try:
        for piece in pieces:
            rest = piece
            while rest:
                rest = rest[target.send(rest) :]
    except TimeoutError:
        pass
    target.settimeout(TIMEOUT_S)
    if rest:
        yield rest
    yield from pieces


class Memory:
    """The largest resident size of a process since this was made, in bytes."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the high-water mark starts anew
        self.start_bytes = self._read("VmRSS")

    def growth_bytes(self) -> int:
        return self._read("VmHWM") - self.start_bytes

    def _read(self, name: str) -> int:
        (line,) = [line for line in self._status.read_text().splitlines() if line.startswith(name + ":")]
        return int(line.split()[1]) * 1024


def open_sockets(pid: int) -> int:
    """Return how many sockets a process holds open."""
    n_sockets = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            n_sockets += str(entry.readlink()).startswith("socket:")
        except FileNotFoundError:  # closed meanwhile
            continue
    return n_sockets
