"""What kind of answer a reply is, and how long."""

import re
from typing import Any, Final, Literal

import msgspec

SHORT_CHARS: Final = 600  # an answer that is read at a glance: [feedback] dwell_short_answer_chars says the same
LONG_CHARS: Final = 2000  # beyond about a screen
FORMAT_CHARS: Final = 20_000  # are looked at to tell the format

ResponseFormat = Literal["table", "code", "list", "prose", "json", "tool_calls", ""]
LengthBand = Literal["short", "medium", "long", ""]

_FENCE: Final = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_TABLE: Final = re.compile(r"^[ \t]*\|?[ \t]*:?-{2,}:?[ \t]*(?:\|[ \t]*:?-{2,}:?[ \t]*)+\|?[ \t]*$", re.MULTILINE)
_ITEM: Final = re.compile(r"^[ \t]*(?:[-*+\u2022]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)


def response_format(message: dict[str, Any] | None) -> ResponseFormat:
    r"""Return what kind of answer *message* is.

    >>> response_format({"content": "| a | b |\n|---|---|\n| 1 | 2 |"}), response_format({"content": "- a\n- b"})
    ('table', 'list')
    >>> response_format({"content": None, "tool_calls": [{}]}), response_format({"content": '{"a": 1}'})
    ('tool_calls', 'json')
    """
    if not message:
        return ""
    if message.get("tool_calls") or message.get("function_call"):
        return "tool_calls"
    text = str(message.get("content") or message.get("refusal") or "")[:FORMAT_CHARS].strip()
    return _text_format(text) if text else ""


def _text_format(text: str) -> ResponseFormat:
    # Looked for as plain text first: each pattern stops at every line, and most replies are prose.
    if _is_json(text):
        return "json"
    if "--" in text and _TABLE.search(text):
        return "table"
    if ("```" in text or "~~~" in text) and _FENCE.search(text):
        return "code"
    return "list" if "\n" in text and len(_ITEM.findall(text)) >= 2 else "prose"


def _is_json(text: str) -> bool:
    if text[0] not in "{[" or text[-1] not in "}]":
        return False
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def length_band(message: dict[str, Any] | None) -> LengthBand:
    """Return how long the text of *message* is; "" without text."""
    text = str((message or {}).get("content") or "")
    if not text:
        return ""
    if len(text) <= SHORT_CHARS:
        return "short"
    return "medium" if len(text) <= LONG_CHARS else "long"
