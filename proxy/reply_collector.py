"""Collects the bytes of a reply that pass by, streamed or not, without holding them up.

Bytes are kept up to a bound and parsed in large pieces: once at the end of a short reply, every now and then in a
long one.
"""

from typing import Final

from proxy.content_coding import Decoder, decoder_for
from proxy.reply import Reply, ReplyReader

PARSE_BYTES: Final = 64 * 1024  # of a stream are kept before they are parsed: rare enough to cost nothing per chunk
FULL_BODY_FACTOR: Final = 8  # a body without a stream is kept up to this many times the text kept of it
BLANK_LINES: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")
BLANK_LINE_BYTES: Final = 4
IDENTITY: Final = ("", "identity")
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class ReplyCollector:
    """Takes the bytes of one reply, chunk by chunk; bounded in memory.

    Args:
        max_chars: of text kept; what is longer is cut and marked.
        reader: of the API that the reply belongs to, new.
    """

    def __init__(self, max_chars: int, reader: ReplyReader) -> None:
        self._max_bytes = max_chars * FULL_BODY_FACTOR
        self._reader = reader
        self._end_mark = reader.end_mark
        self._words = reader.end_mark.words  # to look for in the bytes that pass; then what ends the last event
        self._n_tail = reader.end_mark.n_bytes
        self._buffer: list[bytes] = []
        self._n_buffered = 0
        self._rest = b""  # of a stream: the event that is not complete yet
        self._is_stream: bool | None = None  # unknown before the first byte
        self._mark = b""  # the first bytes of all, while they are a byte order mark as far as they came
        self._decoder: Decoder | None = None
        self._tail = b"\n"  # the end of what was fed; the first line of all begins after an end of line, too
        self._has_body = False  # a body that is no stream is whole, and was read
        self._is_lost = False
        self._is_ending = False  # the last event has begun
        self._is_done = False

    def begin(self, content_encoding: str) -> None:
        """Take note of how the body is encoded; call it before the first ``feed``."""
        encoding = content_encoding.strip().lower()
        if encoding not in IDENTITY:
            self._decoder = decoder_for(encoding)
            if self._decoder is None:
                self._lose()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body, as the upstream sent them."""
        if self._decoder is not None and chunk and not self._is_lost:
            decoded = self._decoder.decode(chunk, self._max_bytes)
            if decoded is None:
                self._lose()
                return
            chunk = decoded
        if self._is_lost or not chunk:
            return
        if self._is_stream is None:
            chunk = self._without_mark(chunk)
            if not chunk:
                return
            self._is_stream = chunk.lstrip()[:1] not in (b"{", b"[")
        self._buffer.append(chunk)
        self._n_buffered += len(chunk)
        if self._is_stream:
            window = self._tail + chunk
            self._tail = window[-self._n_tail :]
            for word in self._words:
                if word in window:
                    self._look_for_end(window)
                    break
            if self._n_buffered > PARSE_BYTES:
                self._parse_stream()
        elif self._n_buffered > self._max_bytes:
            self._lose()

    def _without_mark(self, chunk: bytes) -> bytes:
        """Return the first bytes without one byte order mark, which says nothing; none while more of it may come.

        Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
        """
        begun = self._mark + chunk
        if BYTE_ORDER_MARK.startswith(begun):
            self._mark = begun
            return b""
        return begun.removeprefix(BYTE_ORDER_MARK)

    def _look_for_end(self, window: bytes) -> None:
        """Look closer at the end of the stream, in which one of the words stands."""
        if not self._is_ending:
            place = min(place for word in self._words if (place := window.find(word)) >= 0)
            found = self._end_mark.pattern.search(window, max(place - self._n_tail, 0))
            if found is None:
                return
            self._is_ending = True
            self._tail = window = window[found.end() :]
            self._words = BLANK_LINES
            self._n_tail = BLANK_LINE_BYTES
        if self._end_mark.is_whole or any(line in window for line in BLANK_LINES):
            self._is_done = True
            self._words = ()

    def _lose(self) -> None:
        """Give up: too large or not readable."""
        self._is_lost = True
        self._buffer.clear()
        self._n_buffered = 0

    @property
    def is_complete(self) -> bool:
        """Return whether the whole reply is here: its end mark, its own word for it, or a whole JSON body."""
        if self._is_done:
            return True
        if self._is_stream is None or self._is_lost:
            return False
        if self._is_stream:
            return not self._n_buffered and self._reader.has_finished
        return self._read_body()

    def _read_body(self) -> bool:
        """Return whether the body is whole; what it says is taken once."""
        if not self._has_body:
            body = b"".join(self._buffer)
            self._buffer = [body]
            self._has_body = body.rstrip()[-1:] == b"}" and self._reader.take_body(body)
        return self._has_body

    def reply(self) -> Reply:
        """Return what was collected; call it once, at the end."""
        reader = self._reader
        if self._is_stream:
            self._parse_stream()
            if self._rest:
                reader.take_events([_event_data(self._rest)])  # some servers end without the last empty line
        elif self._is_stream is False and not self._is_lost:
            self._read_body()
        reply = reader.reply
        reply.is_readable = not self._is_lost
        reply.is_complete = self._is_done or reader.has_finished
        reply.message = reader.message()
        return reply

    def _parse_stream(self) -> None:
        data = self._rest + b"".join(self._buffer)
        self._buffer.clear()
        self._n_buffered = 0
        held = b""
        if b"\r" in data:
            held = data[-1:] if data.endswith(b"\r") else b""  # half of a line end, perhaps
            data = data.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *events, rest = data.split(b"\n\n")
        self._reader.take_events([_event_data(event) for event in events])
        self._rest = rest + held
        if len(self._rest) > self._max_bytes:
            self._lose()


def _event_data(event: bytes) -> bytes:
    """Return the data of an event of any form: of several lines, with comments or other fields; empty without."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]  # the usual event of a chat
    return b"\n".join(line[5:] for line in event.split(b"\n") if line.startswith(b"data:"))
