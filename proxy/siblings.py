"""What the workers of one machine tell each other: how each turn ended, before the client has the end of its reply.

The next turn may come at once and to another worker, sooner than the recorder can bring the record to the database. So
each worker has a socket of datagrams that all others write to. Nothing waits here: what does not go into a socket is
dropped, and then the database knows it some milliseconds later.
"""

import socket
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from proxy.selection import Facts

MAX_MESSAGE_BYTES: Final = 8192  # one is 200 to 400; longer ones (an app's own names of any length) are not sent
QUEUE_BYTES: Final = 1024 * 1024  # on the way to one worker, as the system counts: some 2,700 messages
MAX_HEARD: Final = 4096  # at a time: more than are ever on the way


class TurnEnded(msgspec.Struct, frozen=True, array_like=True, tag="ended", gc=False):
    """A turn is over: all by which a next one may name or recognise it."""

    tenant_id: str
    conversation_id: str
    facts: Facts | None
    history_hash: str
    """Of the history that now stands; "" without a reply."""
    request_hash: str
    asked_first_s: float | None
    """When a known user began the conversation with this request; None: it did not begin it."""
    reply_ids: tuple[str, ...]
    """By which a signal or a later request may name the reply: that in its body, and those of its items."""
    response_id: str


class TakenUp(msgspec.Struct, frozen=True, array_like=True, tag="taken", gc=False):
    """A request went on from a history, so that no other conversation that went alike should be taken for this one."""

    history_hash: str
    conversation_id: str
    request_hash: str


Said = TurnEnded | TakenUp

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[Said]] = msgspec.msgpack.Decoder(Said)


def encode(said: Said) -> bytes | None:
    """Return the message as bytes; None when it is too long to send, or holds text that has no bytes."""
    try:
        data = _encoder.encode(said)
    except UnicodeEncodeError:  # half of a surrogate pair, out of a client's JSON
        return None
    return data if len(data) <= MAX_MESSAGE_BYTES else None


def decode(data: bytes) -> Said:
    """Return what ``encode`` made bytes of."""
    return _decoder.decode(data)


class Siblings:
    """All other workers, as one of them hears and tells them.

    Args:
        incoming: what the others write to, not blocking.
        outgoing: what each of the others reads from, not blocking.
    """

    def __init__(self, incoming: socket.socket, outgoing: Sequence[socket.socket]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self.n_dropped = 0
        """Messages to one worker that it never gets."""

    def fileno(self) -> int:
        """Return what becomes readable when another worker said something."""
        return self._incoming.fileno()

    def tell(self, said: Said) -> None:
        """Tell all others, as far as they can be told without waiting."""
        data = encode(said)
        if data is None:
            self.n_dropped += len(self._outgoing)
            return
        for other in self._outgoing:
            try:
                other.send(data)
            except OSError:  # full: it is away or busy, and reads in the database what it missed
                self.n_dropped += 1

    def heard(self, limit: int = MAX_HEARD) -> Iterator[Said]:
        """Yield what the others have said by now, at most *limit* messages, in the order they were sent."""
        for _ in range(limit):
            try:
                data = self._incoming.recv(MAX_MESSAGE_BYTES)
            except OSError:  # usually BlockingIOError: that was all
                return
            yield decode(data)


class Sockets:
    """The sockets between *n_workers*, made before they are forked: a worker that is started again finds its own."""

    def __init__(self, n_workers: int) -> None:
        # Pairs: a socket that many unconnected ones write to holds 10 datagrams on Linux (net.unix.max_dgram_qlen); one
        # that is connected to its only writer holds what the writer's buffer takes. Here all writers share that one.
        self._pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(n_workers)]
        for incoming, outgoing in self._pairs:
            incoming.setblocking(False)
            outgoing.setblocking(False)
            outgoing.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, QUEUE_BYTES)

    def of(self, worker: int) -> Siblings:
        """Return the others as *worker* (0 .. n - 1) sees them."""
        others = [outgoing for number, (_, outgoing) in enumerate(self._pairs) if number != worker]
        return Siblings(self._pairs[worker][0], others)

    def close(self) -> None:
        """Close all of them in this process."""
        for pair in self._pairs:
            for end in pair:
                end.close()
