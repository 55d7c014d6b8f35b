"""A chat request as the app sent it: parsed for what the proxy needs, never serialised again.

Parts that are not needed stay raw. ``msgspec.Raw`` values are views into the body, so their place in it is known
exactly and a splice leaves every other byte as it was.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from proxy.errors import ApiError

EMPTY: Final = msgspec.Raw()
LEADING_ROLES: Final = ("system", "developer")


class Message(msgspec.Struct, gc=False):
    """One message; absent fields are empty."""

    role: str
    content: msgspec.Raw = EMPTY
    tool_calls: msgspec.Raw = EMPTY
    tool_call_id: msgspec.Raw = EMPTY
    function_call: msgspec.Raw = EMPTY

    @property
    def text(self) -> str:
        """Return the text: the content, or its text parts in order; other parts left out."""
        return content_text(self.content)


class ChatRequest(msgspec.Struct, gc=False):
    """What the proxy reads of ``POST /v1/chat/completions``."""

    messages: msgspec.Raw
    model: str = ""
    stream: bool | None = None
    tools: msgspec.Raw = EMPTY
    functions: msgspec.Raw = EMPTY
    user: msgspec.Raw = EMPTY
    safety_identifier: msgspec.Raw = EMPTY
    metadata: msgspec.Raw = EMPTY


class ParsedRequest:
    """A valid chat body with its messages and where they lie in it."""

    __slots__ = ("_base", "body", "fields", "messages", "raw_messages", "source")

    def __init__(
        self, body: bytes, source: bytes, fields: ChatRequest, messages: list[Message], raw: list[msgspec.Raw]
    ) -> None:
        self.body = body
        self.source = source
        """What was parsed: *body* itself, or a copy of equal length in which unusual characters are replaced."""
        self.fields = fields
        self.messages = messages
        self.raw_messages = raw
        self._base = _address(source)

    @property
    def is_stream(self) -> bool:
        return bool(self.fields.stream)

    def span(self, raw: msgspec.Raw) -> tuple[int, int]:
        """Return where *raw*, a part of this request, begins and ends in the body.

        Raises:
            ValueError: *raw* does not lie in this request's body.
        """
        start = _address(raw) - self._base
        end = start + len(memoryview(raw))
        if start < 0 or end > len(self.source):
            raise ValueError("not a part of this body")
        return start, end

    def message_bytes(self, index: int) -> bytes:
        """Return one message as the app sent it (unusual characters replaced)."""
        return bytes(self.raw_messages[index])

    def user(self) -> str:
        """Return who asks: ``user``, ``safety_identifier`` or metadata's user; "" when nobody says."""
        for raw in (self.fields.user, self.fields.safety_identifier):
            value = _plain(raw)
            if isinstance(value, str) and value:
                return value
        metadata = _plain(self.fields.metadata)
        if isinstance(metadata, dict):
            for key in ("user_id", "user"):
                if isinstance(metadata.get(key), str):
                    return str(metadata[key])
        return ""

    def tool_names(self) -> list[str]:
        """Return the names of the tools offered, sorted."""
        tools = _plain(self.fields.tools)
        functions = _plain(self.fields.functions)
        named = [tool.get("function", tool) for tool in tools if isinstance(tool, dict)] if _is_list(tools) else []
        named += functions if _is_list(functions) else []
        return sorted(str(tool["name"]) for tool in named if isinstance(tool, dict) and "name" in tool)


_request_decoder: Final = msgspec.json.Decoder(ChatRequest)
_messages_decoder: Final = msgspec.json.Decoder(list[Message])
_raw_list_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])
_parts_decoder: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def parse_chat_request(body: bytes) -> ParsedRequest:
    """Return the parsed request.

    Raises:
        ApiError: 400: not JSON, not an object, or ``model``, ``messages`` or ``stream`` is not what it must be;
            ``param`` names the field.
    """
    try:
        return _parse(body, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        if not isinstance(exc, msgspec.ValidationError):
            return _parse_unusual(body, exc)
        raise _invalid(body) from exc


def _parse(body: bytes, source: bytes) -> ParsedRequest:
    if not source.isascii():
        source.decode()  # raw parts are not checked by the decoder
    fields = _request_decoder.decode(source)
    messages = _messages_decoder.decode(fields.messages)
    if not messages:
        raise ApiError(400, "'messages' must not be empty.", param="messages", code="empty_array")
    return ParsedRequest(body, source, fields, messages, _raw_list_decoder.decode(fields.messages))


def _parse_unusual(body: bytes, cause: Exception) -> ParsedRequest:
    try:
        return _parse(body, usual_form(body))
    except msgspec.ValidationError as exc:
        raise _invalid(usual_form(body)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _not_json(cause) from cause


def _not_json(cause: Exception) -> ApiError:
    return ApiError(400, f"The request body is not valid JSON: {cause}", code="invalid_json")


_UNUSUAL: Final = re.compile(
    rb"""
    (?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})
    |(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})
    |(?P<escape>\\.)
    """,
    re.VERBOSE | re.DOTALL,
)
_STRING_OR_CONSTANT: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|NaN|-?Infinity', re.DOTALL)


def usual_form(body: bytes) -> bytes:
    r"""Return *body* at equal length with lone surrogates as U+FFFD and NaN and Infinity (Python writes them) as 0.

    >>> usual_form(rb'{"a": "\ud83d", "b": NaN}')
    b'{"a": "\\ufffd", "b": 0  }'
    """

    def replace_escape(match: re.Match[bytes]) -> bytes:
        return rb"\ufffd" if match["lone"] else match[0]

    def replace_constant(match: re.Match[bytes]) -> bytes:
        text = match[0]
        return text if text.startswith(b'"') else b"0".ljust(len(text))

    return _STRING_OR_CONSTANT.sub(replace_constant, _UNUSUAL.sub(replace_escape, body))


def _invalid(body: bytes) -> ApiError:
    """Return what is wrong with a body that is JSON but not a chat request."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as exc:  # wrong at its beginning, broken further on
        return _not_json(exc)
    if not isinstance(value, dict):
        return ApiError(400, "The request body must be a JSON object.")
    if not isinstance(value.get("model", ""), str):
        return ApiError(400, "'model' must be a string.", param="model", code="invalid_type")
    if not isinstance(value.get("stream"), bool | None):
        return ApiError(400, "'stream' must be true or false.", param="stream", code="invalid_type")
    if "messages" not in value:
        return ApiError(400, "'messages' is required.", param="messages", code="missing_required_parameter")
    return _invalid_messages(value["messages"])


def _invalid_messages(messages: Any) -> ApiError:
    if not isinstance(messages, list):
        return ApiError(400, "'messages' must be a list.", param="messages", code="invalid_type")
    for index, message in enumerate(messages):
        name = f"messages[{index}]"
        if not isinstance(message, dict):
            return ApiError(400, f"'{name}' must be an object.", param=name, code="invalid_type")
        if not isinstance(message.get("role"), str):
            return ApiError(400, f"'{name}.role' must be a string.", param=f"{name}.role", code="invalid_type")
    return ApiError(400, "The request body is not a chat request.")


def content_parts(content: msgspec.Raw) -> list[dict[str, msgspec.Raw]] | None:
    """Return the parts of a list *content*, or None when it is no list of objects."""
    if bytes(memoryview(content)[:1]) != b"[":
        return None
    try:
        return _parts_decoder.decode(content)
    except msgspec.ValidationError:
        return None


def is_text_part(part: dict[str, msgspec.Raw]) -> bool:
    """Return whether *part* is one of text."""
    text = part.get("text", EMPTY)
    return bytes(memoryview(text)[:1]) == b'"' and bytes(part.get("type", EMPTY)) in (b'"text"', b"")


def content_text(content: msgspec.Raw) -> str:
    """Return the text of *content*, a string or a list of parts; "" for anything else."""
    first = bytes(memoryview(content)[:1])
    if first == b'"':
        return str(msgspec.json.decode(content))
    if first != b"[":
        return ""
    return "".join(
        msgspec.json.decode(part["text"], type=str) for part in content_parts(content) or () if is_text_part(part)
    )


def leading_count(messages: Sequence[Message]) -> int:
    """Return how many of the first messages are the app's own system or developer text."""
    count = 0
    for message in messages:
        if message.role not in LEADING_ROLES:
            break
        count += 1
    return count


def last_user_index(messages: Sequence[Message]) -> int | None:
    """Return the place of the last message of the user, or None."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].role == "user":
            return index
    return None


def _plain(raw: msgspec.Raw) -> Any:
    return msgspec.json.decode(raw) if raw else None


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _address(data: bytes | msgspec.Raw) -> int:
    return int(np.frombuffer(data, np.uint8).__array_interface__["data"][0])
