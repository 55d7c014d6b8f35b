"""The APIs that are learned from: how each one's requests and replies are read, and how it words errors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from proxy.chat_reply import ChatReader
from proxy.chat_request import parse_chat_request
from proxy.errors import (
    ApiError,
    Header,
    anthropic_error_body,
    anthropic_stream_error,
    chat_stream_error,
    error_body,
    responses_stream_error,
)
from proxy.injection import inject
from proxy.messages_reply import MessagesReader
from proxy.messages_request import parse_messages_request
from proxy.parsed_request import ParsedRequest
from proxy.reply import ReplyReader
from proxy.reply_collector import ReplyCollector
from proxy.responses_reply import ResponsesReader
from proxy.responses_request import parse_responses_request

CHAT_PATH: Final = "/v1/chat/completions"
RESPONSES_PATH: Final = "/v1/responses"
MESSAGES_PATH: Final = "/v1/messages"
ANTHROPIC_VERSION: Final = b"anthropic-version"


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API."""

    name: str
    parse: Callable[[bytes], ParsedRequest]
    """Returns a body parsed; raises ApiError, 400, with the field's name."""
    reader: Callable[[int], ReplyReader]
    error_body: Callable[[ApiError], bytes]
    """Returns the body of an error answer."""
    stream_error: Callable[[ApiError], bytes]
    """Returns a whole event that tells a client in the middle of a stream that it broke."""

    def inject(self, parsed: ParsedRequest, pattern_block: str, context_block: str) -> tuple[bytes, bool, bool]:
        """Return the body with both blocks in it ("" for none), and whether each one found its place."""
        return inject(parsed, pattern_block, context_block)

    def collector(self, max_chars: int) -> ReplyCollector:
        """Return a new collector of one reply, which keeps *max_chars* of its text."""
        return ReplyCollector(max_chars, self.reader(max_chars))


_CHAT: Final = Dialect("chat", parse_chat_request, ChatReader, error_body, chat_stream_error)
_RESPONSES: Final = Dialect("responses", parse_responses_request, ResponsesReader, error_body, responses_stream_error)
_MESSAGES: Final = Dialect(
    "messages", parse_messages_request, MessagesReader, anthropic_error_body, anthropic_stream_error
)

LEARNED: Final[Mapping[str, Dialect]] = MappingProxyType(
    {CHAT_PATH: _CHAT, RESPONSES_PATH: _RESPONSES, MESSAGES_PATH: _MESSAGES}
)
"""By path; only ``POST`` to exactly these is injected and recorded."""


def dialect_of(path: str, headers: Sequence[Header]) -> Dialect:
    """Return the dialect in which a client of *path* expects errors; names in *headers* are lower case."""
    if path == MESSAGES_PATH or path.startswith(MESSAGES_PATH + "/"):
        return _MESSAGES
    if any(name == ANTHROPIC_VERSION for name, _ in headers):
        return _MESSAGES
    return LEARNED.get(path, _CHAT)
