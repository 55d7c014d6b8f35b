"""``POST /v1/chat/completions`` as the app sent it: parsed for what the proxy needs, never serialised again."""

from typing import Any, Final

import msgspec

from proxy.errors import ApiError
from proxy.json_body import empty, invalid_head, invalid_messages, parse_body
from proxy.parsed_request import EMPTY, LEADING_ROLES, Message, ParsedRequest, openai_user, plain
from proxy.splice import Edit


class ChatFields(msgspec.Struct, gc=False):
    """What the proxy reads of the body."""

    messages: msgspec.Raw
    model: str = ""
    stream: bool | None = None
    tools: msgspec.Raw = EMPTY
    functions: msgspec.Raw = EMPTY
    user: msgspec.Raw = EMPTY
    safety_identifier: msgspec.Raw = EMPTY
    metadata: msgspec.Raw = EMPTY


class ChatRequest(ParsedRequest):
    """A valid chat body."""

    __slots__ = ("fields",)

    def __init__(self, body: bytes, source: bytes, fields: ChatFields, messages: list[Message]) -> None:
        super().__init__(body, source, model=fields.model, is_stream=bool(fields.stream), messages=messages)
        self.fields = fields

    def user(self) -> str:
        fields = self.fields
        return openai_user(fields.user, fields.safety_identifier, fields.metadata)

    def tool_names(self) -> list[str]:
        if not self.fields.tools and not self.fields.functions:
            return []
        tools, functions = plain(self.fields.tools), plain(self.fields.functions)
        named = [tool.get("function", tool) for tool in tools if isinstance(tool, dict)] if _is_list(tools) else []
        named += functions if _is_list(functions) else []
        return sorted(str(tool["name"]) for tool in named if isinstance(tool, dict) and "name" in tool)

    def message_bytes(self, first: int) -> list[bytes]:
        return [bytes(message) for message in _raw_list_decoder.decode(self.fields.messages)[first:]]

    def pattern_edit(self, block: str) -> Edit | None:
        if self.n_leading:
            return self.lengthened(self.messages[self.n_leading - 1].content, block, part_type="text")
        start = self.span(self.fields.messages)[0] + 1
        message = msgspec.json.encode({"role": LEADING_ROLES[0], "content": block.lstrip("\n")})
        return start, start, message + b","

    def context_edit(self, block: str) -> Edit | None:
        if self.last_user is None:
            return None
        return self.lengthened(self.messages[self.last_user].content, block, part_type="text")


_fields_decoder: Final = msgspec.json.Decoder(ChatFields)
_messages_decoder: Final = msgspec.json.Decoder(list[Message])
_raw_list_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])


def parse_chat_request(body: bytes) -> ChatRequest:
    """Return the parsed request.

    Raises:
        ApiError: 400: not JSON, not an object, or ``model``, ``messages`` or ``stream`` is not what it must be;
            ``param`` names the field.
    """
    return parse_body(body, _parse, _invalid)


def _parse(body: bytes, source: bytes) -> ChatRequest:
    fields = _fields_decoder.decode(source)
    messages = _messages_decoder.decode(fields.messages)
    if not messages:
        raise empty("messages")
    return ChatRequest(body, source, fields, messages)


def _invalid(value: dict[str, Any]) -> ApiError:
    found = invalid_head(value) or invalid_messages(value)
    return found or ApiError(400, "The request body is not a chat request.")


def _is_list(value: Any) -> bool:
    return isinstance(value, list)
