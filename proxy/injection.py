"""Where learned text goes in a chat request: a splice into the client's own bytes.

Patterns stand at the end of the app's leading system text, contexts after the last user text. Every byte before an
insertion is the client's, so that the provider's prefix cache keeps working.
"""

import msgspec

from proxy.chat_request import (
    LEADING_ROLES,
    Message,
    ParsedRequest,
    content_parts,
    is_text_part,
    last_user_index,
    leading_count,
)

Insertion = tuple[int, bytes]  # where in the body, and what


def inject(request: ParsedRequest, pattern_block: str, context_block: str) -> tuple[bytes, bool, bool]:
    """Return the body with both blocks in it, and whether each one found its place.

    Args:
        request: what the client sent.
        pattern_block: as ``store.blocks.pattern_block`` renders it; "" for none.
        context_block: as ``store.blocks.context_block`` renders it; "" for none.
    """
    patterns = _pattern_insertion(request, pattern_block) if pattern_block else None
    contexts = _context_insertion(request, context_block) if context_block else None
    insertions = [insertion for insertion in (patterns, contexts) if insertion is not None]
    return splice(request.body, insertions), patterns is not None, contexts is not None


def splice(body: bytes, insertions: list[Insertion]) -> bytes:
    """Return *body* with each text put in at its offset.

    >>> splice(b"abc", [(2, b"-"), (1, b"+")])
    b'a+b-c'
    """
    if not insertions:
        return body
    pieces: list[bytes | memoryview] = []
    view = memoryview(body)
    position = 0
    for offset, text in sorted(insertions):
        pieces += (view[position:offset], text)
        position = offset
    pieces.append(view[position:])
    return b"".join(pieces)


def _pattern_insertion(request: ParsedRequest, block: str) -> Insertion | None:
    n_leading = leading_count(request.messages)
    if n_leading:
        return _append_text(request, request.messages[n_leading - 1], block)
    start, _ = request.span(request.fields.messages)
    message = msgspec.json.encode({"role": LEADING_ROLES[0], "content": block.lstrip("\n")})
    return start + 1, message + b","


def _context_insertion(request: ParsedRequest, block: str) -> Insertion | None:
    index = last_user_index(request.messages)
    return None if index is None else _append_text(request, request.messages[index], block)


def _append_text(request: ParsedRequest, message: Message, text: str) -> Insertion | None:
    """Return the insertion that lengthens a message's text, or None when its content is neither text nor parts."""
    if bytes(memoryview(message.content)[:1]) == b'"':
        return _before_end(request, message.content, _escaped(text))
    parts = content_parts(message.content)
    if parts is None:
        return None
    text_parts = [part for part in parts if is_text_part(part)]
    if text_parts:
        return _before_end(request, text_parts[-1]["text"], _escaped(text))
    part = msgspec.json.encode({"type": "text", "text": text.lstrip("\n")})
    return _before_end(request, message.content, b"," + part if parts else part)


def _before_end(request: ParsedRequest, raw: msgspec.Raw, text: bytes) -> Insertion:
    _, end = request.span(raw)
    return end - 1, text


def _escaped(text: str) -> bytes:
    return msgspec.json.encode(text)[1:-1]
