"""Messages of other APIs in the form of OpenAI's chat, in which they are recorded and learned from."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from proxy.parsed_request import EMPTY, Message, content_parts, is_text_part, plain_text

Fields = dict[str, msgspec.Raw]


def function_call(call_id: msgspec.Raw, name: msgspec.Raw, arguments: msgspec.Raw | str) -> dict[str, Any]:
    """Return a call of a function as an assistant's message holds it; empty parts are empty texts."""
    function = {"name": name or "", "arguments": arguments or ""}
    return {"id": call_id or "", "type": "function", "function": function}


def custom_call(call_id: msgspec.Raw, name: msgspec.Raw, text: msgspec.Raw) -> dict[str, Any]:
    """Return a call of a tool that takes free text."""
    return {"id": call_id or "", "type": "custom", "custom": {"name": name or "", "input": text or ""}}


def assistant_message(texts: Iterable[str], calls: list[dict[str, Any]]) -> Message:
    """Return what the assistant said and called, as one message."""
    text = "".join(texts)
    return Message(
        "assistant",
        content=_raw(text) if text else EMPTY,
        tool_calls=_raw(calls) if calls else EMPTY,
    )


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def encode_message(message: Message) -> bytes:
    """Return *message* as JSON in the form of OpenAI's chat."""
    fields: dict[str, Any] = {"role": message.role}
    if message.tool_call_id:
        fields["tool_call_id"] = message.tool_call_id
    fields["content"] = _chat_content(message.content)
    if message.tool_calls:
        fields["tool_calls"] = message.tool_calls
    return msgspec.json.encode(fields)


def _chat_content(content: msgspec.Raw) -> Any:
    parts = content_parts(content)
    if parts is None:
        return content or None
    return [_chat_part(part) for part in parts]


_IMAGE_TYPES: Final = (b'"image"', b'"input_image"')


def _chat_part(part: Fields) -> Any:
    if is_text_part(part):
        return {"type": "text", "text": part["text"]}
    url = _image_url(part) if bytes(part.get("type", EMPTY)) in _IMAGE_TYPES else ""
    return {"type": "image_url", "image_url": {"url": url}} if url else part


class _Source(msgspec.Struct, gc=False):
    type: str = ""
    url: str = ""
    media_type: str = ""
    data: str = ""


_source_decoder: Final = msgspec.json.Decoder(_Source)


def _image_url(part: Fields) -> str:
    """Return the URL of an image, a data URL when it lies in the request itself; "" for anything else."""
    if url := plain_text(part.get("image_url", EMPTY)):
        return url
    try:
        source = _source_decoder.decode(part.get("source", EMPTY))
    except msgspec.DecodeError:
        return ""
    return f"data:{source.media_type};base64,{source.data}" if source.type == "base64" else source.url
