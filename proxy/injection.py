"""Where learned text goes in a request: a splice into the client's own bytes.

Patterns stand at the end of the app's leading system text, contexts after the last user text. Every byte before an
insertion is the client's, so that the provider's prefix cache keeps working. Where exactly that is in its bodies, each
API's request knows.
"""

from proxy.parsed_request import ParsedRequest
from proxy.splice import splice


def inject(request: ParsedRequest, pattern_block: str, context_block: str) -> tuple[bytes, bool, bool]:
    """Return the body with both blocks in it, and whether each one found its place.

    Args:
        request: what the client sent.
        pattern_block: as ``store.blocks.pattern_block`` renders it; "" for none.
        context_block: as ``store.blocks.context_block`` renders it; "" for none.
    """
    patterns = request.pattern_edit(pattern_block) if pattern_block else None
    contexts = request.context_edit(context_block) if context_block else None
    body = splice(request.body, [edit for edit in (patterns, contexts) if edit is not None])
    return body, patterns is not None, contexts is not None
