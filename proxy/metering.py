"""What a metered reply used, read as its bytes pass by: of any API, streamed or not, recorded or not."""

import re
from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec

from proxy.content_coding import Decoder, decoder_for
from proxy.limits import CHARS_PER_TOKEN, Usage
from proxy.relay import Turn
from proxy.reply import count
from store.vocabulary import Outcome

MAX_PIECE_BYTES: Final = 8_000_000  # that one piece of an encoded reply may unfold to
MAX_REPORT_BYTES: Final = 16_384  # of one "usage" object
# Bytes that are no text: the base64 of images, sounds and files. No word is as long.
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]{400,}")
_KEY: Final = b'"usage"'
_BEFORE_VALUE: Final = re.compile(rb"\s*+(:?+)\s*+(\S)")  # possessive: a colon at the end of a piece is no value
_BRACE: Final = re.compile(rb"[{}]")
_CHAT_NAMES: Final = frozenset(("prompt_tokens", "completion_tokens"))
_LATER_NAMES: Final = frozenset(
    ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
)
"""Of the Responses and the Messages API."""


class Meter(Protocol):
    """Is told what a request used; ``proxy.limits.Meter`` is the real one."""

    def settle(self, usage: Usage) -> None:
        """Take note of it; only the first call counts."""
        ...


class UsageReader:
    """Finds every ``usage`` object in the bytes of a reply; what a later one says of a number goes before.

    Inside a text its quotes would be escaped, so that bytes alone tell it.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._rest = b""
        self.n_bytes = 0
        self.n_events = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self.n_bytes += len(data)
        self.n_events += data.count(b"data:")
        window = self._rest + data
        place = window.find(_KEY)
        while place >= 0:
            end = self._read(window, place)
            if end is None:
                break
            place = window.find(_KEY, end)
        keep = len(_KEY) if place < 0 else min(len(window) - place, MAX_REPORT_BYTES)
        self._rest = window[-keep:]

    def _read(self, window: bytes, place: int) -> int | None:
        """Take the object behind the key at *place*; return where it ends, None when it goes on in the next piece."""
        before = _BEFORE_VALUE.match(window, place + len(_KEY))
        if before is None:
            return None
        if not before[1] or before[2] != b"{":
            return before.end()
        start, depth = before.start(2), 0
        for brace in _BRACE.finditer(window, start):
            depth += 1 if brace[0] == b"{" else -1
            if not depth:
                self._take(window[start : brace.end()])
                return brace.end()
        return None if len(window) - place < MAX_REPORT_BYTES else before.end()

    def _take(self, report: bytes) -> None:
        try:
            value = msgspec.json.decode(report, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # something else of this name
        numbers = dict(_numbers(value))
        # An API counts under names of one kind. Those of the other were not its own: a tool's schema, or a call of one,
        # that the reply holds before its usage says whatever the client likes.
        for names, others in ((_CHAT_NAMES, _LATER_NAMES), (_LATER_NAMES, _CHAT_NAMES)):
            if names & numbers.keys():
                self._counts = {name: n for name, n in self._counts.items() if name not in others}
        self._counts |= numbers

    def report(self) -> tuple[int | None, int | None, int | None]:
        """Return tokens of the prompt, of the reply, and of the prompt's those that were cached; None: not said."""
        found = self._counts.get
        prompt, completion = found("prompt_tokens"), found("completion_tokens")
        if prompt is None and "input_tokens" in self._counts:
            # Anthropic counts what it read from its cache, and wrote to it, beside the rest of the prompt.
            beside = (found("cache_read_input_tokens") or 0) + (found("cache_creation_input_tokens") or 0)
            prompt = self._counts["input_tokens"] + beside
        if completion is None:
            completion = found("output_tokens")
        cached = found("cached_tokens")
        return prompt, completion, found("cache_read_input_tokens") if cached is None else cached


def _numbers(report: dict[str, Any]) -> Iterator[tuple[str, int]]:
    details = ("prompt_tokens_details", "input_tokens_details")
    for name, value in report.items():
        n = count(value)
        if n is not None:
            yield name, n
        elif name in details and isinstance(value, dict) and (n := count(value.get("cached_tokens"))) is not None:
            yield "cached_tokens", n


class MeteredReply:
    """One reply on its way to a client whose use is counted."""

    def __init__(self, meter: Meter, model: str, body: bytes = b"", *, is_text: bool) -> None:
        """Take whom to tell, and the model that the app asked for.

        *is_text*: whether *body* and the reply are text, so that what nobody counts can be estimated.
        """
        self._meter = meter
        self._model = model
        self._body = body
        self._is_text = is_text
        self._reader = UsageReader()
        self._decoder: Decoder | None = None

    def begin(self, content_encoding: str) -> None:
        """Take note of the reply's head."""
        self._decoder = decoder_for(content_encoding.strip().lower())

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body, as the upstream sent them."""
        decoded = self._decoder.decode(data, MAX_PIECE_BYTES) if self._decoder is not None else None
        if decoded is None:
            self._decoder = None  # not readable from here on
            self._reader.n_bytes += len(data)
        else:
            self._reader.feed(decoded)

    def settle(self, upstream: str, status: int) -> None:
        """Tell what the request used of *upstream*; only the first call counts.

        An error, or no answer at all (*status* 0), used nothing unless it says so.
        """
        prompt, completion, cached = self._reader.report()
        is_estimated = self._is_text and 0 < status < 400 and prompt is None and completion is None
        self._meter.settle(
            Usage(
                upstream=upstream,
                model=self._model,
                prompt_tokens=prompt,
                completion_tokens=completion,
                cached_tokens=cached,
                prompt_chars=n_text_bytes(self._body) if is_estimated else 0,
                completion_chars=self._n_completion_chars() if is_estimated else 0,
            )
        )

    def _n_completion_chars(self) -> int:
        """Return about how much text came: each event of a stream wraps about one token."""
        reader = self._reader
        return CHARS_PER_TOKEN * reader.n_events if reader.n_events else reader.n_bytes


class MeteredTurn:
    """A turn whose use is counted too, whether or not it is recorded; otherwise the turn that it is made of."""

    def __init__(self, turn: Turn, meter: Meter) -> None:
        """Take a turn that has just begun, and whom to tell."""
        self.body = turn.body
        self.model = turn.model
        self.response_id = turn.response_id
        self._turn = turn
        self._metered = MeteredReply(meter, turn.model or "", turn.body, is_text=True)

    def begin_reply(self, content_encoding: str) -> None:
        self._metered.begin(content_encoding)
        self._turn.begin_reply(content_encoding)

    def feed(self, chunk: bytes) -> bool:
        self._metered.feed(chunk)
        return self._turn.feed(chunk)

    def finish(self, outcome: Outcome, status: int, upstream: str) -> None:
        self._metered.settle(upstream, status)
        self._turn.finish(outcome, status, upstream)


def n_text_bytes(body: bytes) -> int:
    """Return how much of *body* may be text: all but the base64 of images and files.

    >>> n_text_bytes(b'{"url":"data:image/png;base64,' + b"A" * 1000 + b'"}')
    32
    """
    return len(body) - sum(len(match[0]) for match in _BASE64.finditer(body))
