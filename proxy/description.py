"""What one request's headers and body say about it: who asks, what, and under which conditions."""

from collections.abc import Sequence
from typing import Final

import msgspec

from proxy.chat_request import ParsedRequest, last_user_index, leading_count
from proxy.conversation import Asker
from proxy.errors import Header
from store.plan import digest

MAX_TAGS: Final = 32


class Description(msgspec.Struct, kw_only=True):
    """What one request's headers and body say about it."""

    asker: Asker
    question: str
    question_type: str
    data_source: str
    prompt_template: str
    segment: str
    tags: tuple[str, ...]
    agent: str


def own_headers(headers: Sequence[Header]) -> dict[str, str]:
    """Return our own headers by name without their prefix; names in *headers* are lower case.

    >>> own_headers([(b"x-tutelage-user", b" u-42 "), (b"accept", b"*/*")])
    {'user': 'u-42'}
    """
    return {
        name[11:].decode("latin-1"): value.decode("utf-8", "replace").strip()
        for name, value in headers
        if name.startswith(b"x-tutelage-")
    }


def describe(parsed: ParsedRequest, own: dict[str, str], tenant_id: str) -> Description:
    """Return what *own* headers and the body say about a request; what nobody says is empty."""
    index = last_user_index(parsed.messages)
    n_leading = leading_count(parsed.messages)
    template = own.get("prompt-template") or (
        digest(*(message.text for message in parsed.messages[:n_leading])) if n_leading else ""
    )
    tags = dict.fromkeys(tag for part in own.get("tags", "").split(",") if (tag := part.strip()))
    return Description(
        asker=Asker(tenant_id, own.get("user") or parsed.user(), own.get("conversation", "")),
        question="" if index is None else parsed.messages[index].text,
        question_type=own.get("question-type", ""),
        data_source=own.get("data-source", ""),
        prompt_template=template,
        segment=own.get("segment", ""),
        tags=tuple(tags)[:MAX_TAGS],
        agent="human" if own.get("agent", "").lower() == "human" else "ai",
    )
