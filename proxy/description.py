"""What one request's headers and body say about it: who asks, what, and under which conditions."""

from collections.abc import Sequence
from typing import Final

import msgspec

from proxy.conversation import Asker, Recent
from proxy.errors import Header
from proxy.parsed_request import ParsedRequest
from store.plan import digest

MAX_TAGS: Final = 32
MAX_TEMPLATES: Final = 256  # leading texts whose names are remembered; an app has a few
MAX_TEMPLATE_BYTES: Final = 65_536  # longer ones are worked out each time


class Description(msgspec.Struct, gc=False):
    """What one request's headers and body say about it."""

    asker: Asker
    question: str
    question_type: str = ""
    data_source: str = ""
    prompt_template: str = ""
    segment: str = ""
    tags: tuple[str, ...] = ()
    agent: str = "ai"


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


class Describer:
    """Describes requests; remembers what the latest leading texts are called, for they are long and few."""

    def __init__(self) -> None:
        self._templates: Recent[bytes, str] = Recent(MAX_TEMPLATES)

    def describe(self, parsed: ParsedRequest, own: dict[str, str], tenant_id: str) -> Description:
        """Return what *own* headers and the body say about a request; what nobody says is empty."""
        if not own:
            return Description(
                Asker(tenant_id, parsed.user(), parsed.conversation_id),
                parsed.question,
                prompt_template=self._template(parsed),
            )
        tags = dict.fromkeys(tag for part in own.get("tags", "").split(",") if (tag := part.strip()))
        return Description(
            Asker(tenant_id, own.get("user") or parsed.user(), own.get("conversation") or parsed.conversation_id),
            parsed.question,
            question_type=own.get("question-type", ""),
            data_source=own.get("data-source", ""),
            prompt_template=own.get("prompt-template") or self._template(parsed),
            segment=own.get("segment", ""),
            tags=tuple(tags)[:MAX_TAGS],
            agent="human" if own.get("agent", "").lower() == "human" else "ai",
        )

    def _template(self, parsed: ParsedRequest) -> str:
        n_leading = parsed.n_leading
        if n_leading == 0:
            return ""
        key = b"".join([bytes(message.content) for message in parsed.messages[:n_leading]])
        name = self._templates.get(key)
        if name is None:
            name = digest(*(message.text for message in parsed.messages[:n_leading]))
            if len(key) <= MAX_TEMPLATE_BYTES:
                self._templates.put(key, name)
        return name
