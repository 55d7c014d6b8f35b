"""``POST /v1/messages``, Anthropic's Messages API, as the app sent it.

Learned text goes into blocks of its own wherever the app writes blocks, and no block gets a ``cache_control``. The
app's blocks stay as they are: a breakpoint on one of them is a prefix that other conversations, and the next turn
(which comes without our text), have in common with this one.

A request that continues a thread says only what is new: the API takes ``system`` and ``tools`` from the request that
created the thread, and refuses one that says them again.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from proxy.chat_shape import assistant_message, encode_message, function_call
from proxy.errors import ApiError
from proxy.json_body import empty, invalid_head, invalid_messages, parse_body
from proxy.parsed_request import EMPTY, Message, ParsedRequest, content_parts, is_list, is_string, plain, plain_text
from proxy.splice import Edit, escaped

TEXT: Final = b'"text"'
TOOL_USE: Final = b'"tool_use"'
RESULT: Final = b'"tool_result"'


class MessagesFields(msgspec.Struct, gc=False):
    """What the proxy reads of the body."""

    messages: msgspec.Raw
    system: msgspec.Raw = EMPTY
    model: str = ""
    stream: bool | None = None
    tools: msgspec.Raw = EMPTY
    metadata: msgspec.Raw = EMPTY
    thread: msgspec.Raw = EMPTY


class _SentMessage(msgspec.Struct, gc=False):
    role: str
    content: msgspec.Raw = EMPTY


class _Block(msgspec.Struct, gc=False):
    type: msgspec.Raw = EMPTY
    text: msgspec.Raw = EMPTY
    id: msgspec.Raw = EMPTY
    name: msgspec.Raw = EMPTY
    input: msgspec.Raw = EMPTY
    tool_use_id: msgspec.Raw = EMPTY
    content: msgspec.Raw = EMPTY


class MessagesRequest(ParsedRequest):
    """A valid Messages body."""

    __slots__ = ("_question_content", "_thread", "fields")

    def __init__(
        self,
        body: bytes,
        source: bytes,
        fields: MessagesFields,
        messages: list[Message],
        question: tuple[int, msgspec.Raw] | None,
    ) -> None:
        super().__init__(body, source, model=fields.model, is_stream=bool(fields.stream), messages=messages)
        self.fields = fields
        self.last_user = None if question is None else question[0]
        self._question_content = EMPTY if question is None else question[1]
        thread = plain(fields.thread)
        self._thread: dict[str, Any] = thread if isinstance(thread, dict) else {}
        """The thread that the upstream keeps; empty without one."""

    @property
    def previous_id(self) -> str:
        previous = self._thread.get("previous_message_id") if self.has_held_system else None
        return previous if isinstance(previous, str) else ""

    @property
    def has_held_system(self) -> bool:
        return self._thread.get("type") == "continue"

    def user(self) -> str:
        metadata = plain(self.fields.metadata)
        user_id = metadata.get("user_id") if isinstance(metadata, dict) else None
        return user_id if isinstance(user_id, str) else ""

    def tool_names(self) -> list[str]:
        tools = plain(self.fields.tools)
        offered = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
        return sorted(str(tool["name"]) for tool in offered if "name" in tool)

    def message_bytes(self, first: int) -> list[bytes]:
        return [encode_message(message) for message in self.messages[first:]]

    def pattern_edit(self, block: str) -> Edit | None:
        if self.has_held_system:
            return None
        system = self.fields.system
        if not system:
            return self.new_field("system", block)
        if bytes(system) == b"null":
            return self.replaced(system, block)
        return self._in_own_block(system, block)

    def context_edit(self, block: str) -> Edit | None:
        return self._in_own_block(self._question_content, block)

    def _in_own_block(self, content: msgspec.Raw, text: str) -> Edit | None:
        """Return the edit that puts *text* at the end: of the string, else as the last block (after tool results)."""
        if is_string(content):
            return self.before_end(content, escaped(text))
        parts = content_parts(content)
        return None if parts is None else self.with_part(content, text, part_type="text", is_empty=not parts)


_fields_decoder: Final = msgspec.json.Decoder(MessagesFields)
_messages_decoder: Final = msgspec.json.Decoder(list[_SentMessage])
_blocks_decoder: Final = msgspec.json.Decoder(list[_Block])
_raw_list_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])


def parse_messages_request(body: bytes) -> MessagesRequest:
    """Return the parsed request.

    Raises:
        ApiError: 400: not JSON, not an object, or ``model``, ``messages`` or ``stream`` is not what it must be;
            ``param`` names the field.
    """
    return parse_body(body, _parse, _invalid)


def _parse(body: bytes, source: bytes) -> MessagesRequest:
    fields = _fields_decoder.decode(source)
    sent = _messages_decoder.decode(fields.messages)
    if not sent:
        raise empty("messages")
    messages = [Message("system", fields.system)] if is_string(fields.system) or is_list(fields.system) else []
    question: tuple[int, msgspec.Raw] | None = None
    for message in sent:
        blocks = _blocks(message.content)
        if message.role == "assistant":
            messages.append(_assistant(message.content, blocks))
            continue
        messages += [
            Message("tool", block.content, tool_call_id=block.tool_use_id) for kind, block in blocks if kind == RESULT
        ]
        own = _own_content(message.content, blocks)
        if own:
            messages.append(Message(message.role, own))
        if message.role == "user" and (is_string(own) or any(kind == TEXT for kind, _ in blocks)):
            question = len(messages) - 1, message.content
    return MessagesRequest(body, source, fields, messages, question)


def _blocks(content: msgspec.Raw) -> list[tuple[bytes, _Block]]:
    """Return the blocks, each with its type as JSON; none for a string."""
    if not is_list(content):
        return []
    try:
        return [(bytes(block.type), block) for block in _blocks_decoder.decode(content)]
    except msgspec.ValidationError:  # not a list of objects: the upstream's to refuse
        return []


def _assistant(content: msgspec.Raw, blocks: Sequence[tuple[bytes, _Block]]) -> Message:
    """Return what the assistant said and called; its thinking, and tools that the API runs itself, left out."""
    if is_string(content):
        return Message("assistant", content)
    return assistant_message(
        [plain_text(block.text) for kind, block in blocks if kind == TEXT],
        [
            function_call(block.id, block.name, bytes(block.input or b"{}").decode())
            for kind, block in blocks
            if kind == TOOL_USE
        ],
    )


def _own_content(content: msgspec.Raw, blocks: Sequence[tuple[bytes, _Block]]) -> msgspec.Raw:
    """Return the content without tool results; empty when nothing else is there."""
    n_results = sum(kind == RESULT for kind, _ in blocks)
    if n_results == 0:
        return content
    if n_results == len(blocks):
        return EMPTY
    sent = zip(_raw_list_decoder.decode(content), blocks, strict=True)
    return msgspec.Raw(b"[" + b",".join([bytes(raw) for raw, (kind, _) in sent if kind != RESULT]) + b"]")


def _invalid(value: dict[str, Any]) -> ApiError:
    found = invalid_head(value) or invalid_messages(value)
    return found or ApiError(400, "The request body is not a request of the Messages API.")
