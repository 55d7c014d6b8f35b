"""``POST /v1/responses`` as the app sent it.

The app's leading text is ``instructions``, or the system and developer items that ``input`` begins with. Output items
that the client sends again (messages and calls in a row, reasoning left out) are one assistant's message.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from proxy.chat_shape import assistant_message, custom_call, encode_message, function_call
from proxy.errors import ApiError
from proxy.json_body import invalid_head, parse_body, wrong_type
from proxy.parsed_request import EMPTY, Message, ParsedRequest, content_text, is_string, openai_user, plain
from proxy.splice import Edit

MESSAGE_ROLES: Final = ("user", "assistant", "system", "developer")


class ResponsesFields(msgspec.Struct, gc=False):
    """What the proxy reads of the body."""

    input: msgspec.Raw = EMPTY
    instructions: msgspec.Raw = EMPTY
    model: str = ""
    stream: bool | None = None
    tools: msgspec.Raw = EMPTY
    previous_response_id: str | None = None
    conversation: msgspec.Raw = EMPTY
    prompt: msgspec.Raw = EMPTY
    user: msgspec.Raw = EMPTY
    safety_identifier: msgspec.Raw = EMPTY
    metadata: msgspec.Raw = EMPTY


class _Item(msgspec.Struct, gc=False):
    type: str | None = None
    id: Any = None
    role: str | None = None
    content: msgspec.Raw = EMPTY
    call_id: msgspec.Raw = EMPTY
    name: msgspec.Raw = EMPTY
    arguments: msgspec.Raw = EMPTY
    input: msgspec.Raw = EMPTY
    output: msgspec.Raw = EMPTY


class ResponsesRequest(ParsedRequest):
    """A valid Responses body."""

    __slots__ = ("_reference", "fields")

    def __init__(
        self,
        body: bytes,
        source: bytes,
        fields: ResponsesFields,
        messages: list[Message],
        reference: tuple[str, int] | None,
    ) -> None:
        super().__init__(body, source, model=fields.model, is_stream=bool(fields.stream), messages=messages)
        self.fields = fields
        self._reference = reference

    @property
    def last_reference(self) -> tuple[str, int] | None:
        return self._reference

    @property
    def previous_id(self) -> str:
        return self.fields.previous_response_id or ""

    @property
    def conversation_id(self) -> str:
        if not self.fields.conversation:
            return ""
        named = plain(self.fields.conversation)
        if isinstance(named, dict):
            named = named.get("id")
        return named if isinstance(named, str) else ""

    def user(self) -> str:
        fields = self.fields
        return openai_user(fields.user, fields.safety_identifier, fields.metadata)

    def tool_names(self) -> list[str]:
        """Return the names of the tools offered, sorted; the API's own tools have a type alone."""
        tools = plain(self.fields.tools)
        offered = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
        return sorted(str(tool.get("name") or tool.get("type") or "") for tool in offered)

    def message_bytes(self, first: int) -> list[bytes]:
        return [encode_message(message) for message in self.messages[first:]]

    def pattern_edit(self, block: str) -> Edit | None:
        instructions = self.fields.instructions
        if is_string(instructions):
            return self.lengthened(instructions, block, part_type="input_text")
        if instructions and bytes(instructions) != b"null":
            return None
        if self.n_leading:
            return self.lengthened(self.messages[self.n_leading - 1].content, block, part_type="input_text")
        if self.fields.prompt and bytes(self.fields.prompt) != b"null":
            return None  # instructions would stand in place of those that the API keeps under the prompt's id
        return self.replaced(instructions, block) if instructions else self.new_field("instructions", block)

    def context_edit(self, block: str) -> Edit | None:
        if self.last_user is None:  # a tool loop over a history that the upstream keeps: its question was there before
            return None
        return self.lengthened(self.messages[self.last_user].content, block, part_type="input_text")


_fields_decoder: Final = msgspec.json.Decoder(ResponsesFields)
_items_decoder: Final = msgspec.json.Decoder(list[_Item])


def parse_responses_request(body: bytes) -> ResponsesRequest:
    """Return the parsed request.

    Raises:
        ApiError: 400: not JSON, not an object, or a field that is read is not what it must be; ``param`` names it.
    """
    return parse_body(body, _parse, _invalid)


def _parse(body: bytes, source: bytes) -> ResponsesRequest:
    fields = _fields_decoder.decode(source)
    messages = [Message("system", fields.instructions)] if is_string(fields.instructions) else []
    reference = None
    if is_string(fields.input):
        messages.append(Message("user", fields.input))
    elif fields.input and bytes(fields.input) != b"null":
        items = _items_decoder.decode(fields.input)
        reference = _last_reference(items, len(messages))
        messages += _messages(items)
    return ResponsesRequest(body, source, fields, messages, reference)


def _last_reference(items: Sequence[_Item], n_before: int) -> tuple[str, int] | None:
    """Return the id of the last item that stands for one of an earlier reply, and how many messages come before it."""
    for index in range(len(items) - 1, -1, -1):
        item = items[index]
        if item.type == "item_reference" and isinstance(item.id, str):
            return item.id, n_before + len(_messages(items[:index]))
    return None


def _messages(items: Sequence[_Item]) -> list[Message]:
    messages: list[Message] = []
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for item in items:
        kind = item.type or "message"
        if kind == "message" and item.role == "assistant":
            texts.append(content_text(item.content))
        elif kind == "function_call":
            calls.append(function_call(item.call_id, item.name, item.arguments))
        elif kind == "custom_tool_call":
            calls.append(custom_call(item.call_id, item.name, item.input))
        elif (message := _other_message(kind, item)) is not None:
            if texts or calls:
                messages.append(assistant_message(texts, calls))
                texts, calls = [], []
            messages.append(message)
    if texts or calls:
        messages.append(assistant_message(texts, calls))
    return messages


def _other_message(kind: str, item: _Item) -> Message | None:
    if kind == "message" and item.role in MESSAGE_ROLES:
        return Message(item.role, item.content)
    if kind in ("function_call_output", "custom_tool_call_output"):
        return Message("tool", item.output, tool_call_id=item.call_id)
    return None  # reasoning, references, calls that the API answers itself


def _invalid(value: dict[str, Any]) -> ApiError:
    return (
        invalid_head(value)
        or _invalid_previous(value)
        or _invalid_input(value.get("input"))
        or ApiError(400, "The request body is not a request of the Responses API.")
    )


def _invalid_previous(value: dict[str, Any]) -> ApiError | None:
    if not isinstance(value.get("previous_response_id"), str | None):
        return wrong_type("previous_response_id", "a string")
    return None


def _invalid_input(value: Any) -> ApiError | None:
    if not isinstance(value, list):
        return wrong_type("input", "a string or a list")
    for index, item in enumerate(value):
        name = f"input[{index}]"
        if not isinstance(item, dict):
            return wrong_type(name, "an object")
        for field in ("type", "role"):
            if not isinstance(item.get(field), str | None):
                return wrong_type(f"{name}.{field}", "a string")
    return None
