"""What a reply said, in the form of OpenAI's chat whatever its API, and the seam between APIs and their collector."""

import re
from dataclasses import dataclass
from typing import Any, Final, Protocol

from store.records import storable

MAX_TOKENS: Final = 2**44  # of one reply; the sum of hundreds of thousands of them fits into a column


@dataclass(slots=True)
class Reply:
    """What a reply said."""

    upstream_id: str | None = None
    message: dict[str, Any] | None = None
    """The first choice as an assistant message, partial when the reply is; None without one."""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    is_complete: bool = False
    is_readable: bool = True
    """Off: an encoding that cannot be decoded, or too large to keep; the fields above say nothing then."""
    has_error: bool = False
    """The upstream reported an error inside a reply that began well."""
    item_ids: tuple[str, ...] = ()
    """Of the items of a reply that has some: a later request may name one instead of sending it again."""


@dataclass(frozen=True, slots=True)
class EndMark:
    """How the last event of a stream is known before it is parsed."""

    words: tuple[bytes, ...]
    """Looked for first, as plain bytes: a pattern alone takes 20 ns a byte, on every byte of every stream."""
    pattern: re.Pattern[bytes]
    """The mark at the beginning of a line, the end of the line before included."""
    n_bytes: int
    """No mark is longer."""
    is_whole: bool
    """Whether it is all of its event; else that ends with the next empty line."""


class ReplyReader(Protocol):
    """Reads what one API's reply says."""

    end_mark: EndMark
    reply: Reply

    def take_events(self, events: list[bytes]) -> None:
        """Take the data of the next events of a stream, in order; what cannot be read is passed over."""
        ...

    def take_body(self, body: bytes) -> bool:
        """Take a whole body that is no stream; return whether it is JSON."""
        ...

    @property
    def has_finished(self) -> bool:
        """Whether what was taken says that the reply is at its end."""
        ...

    def message(self) -> dict[str, Any] | None:
        """Return the assistant's message as far as it came; None while there is none."""
        ...


class Kept:
    """The text kept of a reply, bounded: what goes beyond is cut and counted."""

    __slots__ = ("_max_chars", "_n_chars", "n_cut")

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._n_chars = 0
        self.n_cut = 0

    def cut(self, text: str) -> str:
        """Return as much of *text* as may still be kept."""
        self._n_chars += len(text)
        if self._n_chars > self._max_chars:
            n_cut = min(self._n_chars - self._max_chars, len(text))
            self.n_cut += n_cut
            text = text[: len(text) - n_cut]
        return text

    def marked(self, texts: list[str]) -> str:
        """Return *texts* as one that can be stored, with a mark when something was cut."""
        text = storable("".join(texts))
        return f"{text} [{self.n_cut} characters cut]" if self.n_cut else text


def assistant_message(content: str, refusal: str, tool_calls: list[dict[str, Any]]) -> dict[str, Any]:
    """Return an assistant's message in the form of OpenAI's chat; what is empty is left out."""
    message: dict[str, Any] = {"role": "assistant", "content": content or None}
    if refusal:
        message["refusal"] = refusal
    if tool_calls:
        message["tool_calls"] = tool_calls
    return message


def objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects in *value*; none when it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """Return *value* when it is a text, else ""."""
    return value if isinstance(value, str) else ""


def count(value: Any) -> int | None:
    """Return *value* when it is a number of tokens, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_TOKENS else None
