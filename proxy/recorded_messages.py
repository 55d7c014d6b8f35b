"""The messages that a turn added, in the form that is recorded: OpenAI's chat, with very long parts cut."""

from typing import Any, Final

import msgspec

from proxy.parsed_request import ParsedRequest

DATA_URL_CHARS: Final = 64  # kept of an image or file inside a message: enough to see what it was
DATA_URL_BYTES: Final = 4096  # a message with a data URL is cut above this: a log of images fills disks
DATA_URL_MARK: Final = ";base64,"

_DATA_URL_MARK: Final = DATA_URL_MARK.encode()


class _Head(msgspec.Struct, gc=False):
    role: str


_head_decoder: Final = msgspec.json.Decoder(_Head)


def messages_json(parsed: ParsedRequest, n_known: int, max_chars: int) -> str:
    """Return the messages from *n_known* on as JSON text: a chat's as the app sent them.

    Very long texts and data URLs are cut and marked.
    """
    pieces = [
        _cut_message(piece, max_chars) if _is_long(piece, max_chars) else piece
        for piece in parsed.message_bytes(n_known)
    ]
    return (b"[" + b",".join(pieces) + b"]").decode("utf-8", "replace")


def _is_long(piece: bytes, max_chars: int) -> bool:
    return len(piece) > max_chars or (len(piece) > DATA_URL_BYTES and _DATA_URL_MARK in piece)


def _cut_message(piece: bytes, max_chars: int) -> bytes:
    try:
        cut = msgspec.json.encode(_cut(msgspec.json.decode(piece), max_chars))
    except (msgspec.DecodeError, RecursionError):  # a number or a nesting beyond what can be read
        cut = b""
    if 0 < len(cut) <= 4 * max_chars:
        return cut
    role = _head_decoder.decode(piece).role
    return msgspec.json.encode({"role": role, "content": f"[{len(piece)} bytes cut]"})


def _cut(value: Any, max_chars: int) -> Any:
    if isinstance(value, str):
        is_data_url = value.startswith("data:") and DATA_URL_MARK in value[:DATA_URL_CHARS]
        limit = DATA_URL_CHARS if is_data_url else max_chars
        return value if len(value) <= limit else f"{value[:limit]} [{len(value) - limit} characters cut]"
    if isinstance(value, list):
        return [_cut(item, max_chars) for item in value]
    if isinstance(value, dict):
        return {name: _cut(item, max_chars) for name, item in value.items()}
    return value
