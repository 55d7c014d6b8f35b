"""Training data as other tools write it: our JSON lines, Rasa's NLU YAML, OpenAI's fine-tuning and preference files.

Pure: values in, text out, and back.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec
import yaml

from learner.item_fields import confidence_of, flag_of, label_of, required_label, text_of, timestamp_ms
from store.clock import parse_iso
from store.datasets import NEEDS_REVIEW, ExampleRow, NewExample
from store.errors import InvalidError
from store.preferences import PreferencePair

Format = Literal["jsonl", "rasa", "openai", "dpo"]

SYSTEM: Final = "Name the intent of the user's message. Answer with its name alone."
FINGERPRINT: Final = re.compile(r"[0-9a-f]{32}")
IMPORTED: Final = "import"
RASA_VERSION: Final = "3.1"
# As Rasa reads an entity in an example: [text](entity), [text]{"entity": ...}, [text][{...}, {...}].
ENTITY: Final = re.compile(r"\[(?P<text>[^\]]+?)\](?:\([^)]+?\)|\{[^}]+?\}|\[\{.*?\}\])")
ANNOTATION: Final = re.compile(r"\](?=[(\[{])")
ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f", "\b": "\\b"}  # as Rasa writes them
IGNORED: Final = ("synonym", "regex", "lookup")
MAX_WARNINGS: Final = 20


@dataclass(frozen=True, slots=True)
class Read:
    """One item of a file with where it stands, or what is wrong there."""

    where: str  # such as "line 3" or "greet, example 2"
    item: NewExample | PreferencePair | Mapping[str, Any] | None  # a mapping is a conversation, as the ingest takes it
    problem: str = ""
    is_warning: bool = False  # it was left out because it means nothing here


def jsonl_line(row: ExampleRow, *, is_raw: bool) -> str:
    """Return an example as one line; only a raw one names the conversation that it came from."""
    source = next((tag.removeprefix("source:") for tag in row.tags if tag.startswith("source:")), IMPORTED)
    values = {
        "id": row.id,
        "text": row.input,
        "intent": row.intent,
        "confidence": row.confidence,
        "source": source,
        "tags": _own_tags(row.tags),
        "needs_review": row.needs_review,
        "current_step": row.current_step,
        "user_hash": row.user_hash,
        "conversation_id": row.conversation_id if is_raw else None,
        "occurred_at": row.occurred_at,
        "runner_up": row.runner_up,
        "margin": row.margin,
        "former_intent": row.former_intent,
        "reviewed_by": row.reviewed_by,
        "reviewed_at": row.reviewed_at,
        "fingerprint": row.fingerprint,
    }
    return json.dumps(
        {name: value for name, value in values.items() if value not in (None, "", [])}, ensure_ascii=False
    )


def _own_tags(tags: Iterable[str]) -> list[str]:
    return [tag for tag in tags if tag != NEEDS_REVIEW and not tag.startswith(("confidence:", "source:"))]


def openai_line(row: ExampleRow) -> str:
    """Return an example as one line of a fine-tuning file for chat models."""
    roles = (("system", SYSTEM), ("user", row.input), ("assistant", row.intent))
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in roles]}, ensure_ascii=False)


def dpo_line(pair: PreferencePair) -> str:
    """Return a pair as one line of OpenAI's preference format.

    Source: https://platform.openai.com/docs/guides/direct-preference-optimization
    """
    return json.dumps(
        {
            "input": {"messages": list(pair.messages), "tools": [], "parallel_tool_calls": True},
            "preferred_output": [{"role": "assistant", "content": pair.preferred}],
            "non_preferred_output": [{"role": "assistant", "content": pair.non_preferred}],
        },
        ensure_ascii=False,
    )


def rasa_head() -> str:
    """Return what a Rasa NLU file begins with."""
    return f'version: "{RASA_VERSION}"\nnlu:\n'


def rasa_intent(intent: str) -> str:
    """Return the lines that begin an intent; its examples follow."""
    return f"- intent: {json.dumps(_printable(intent), ensure_ascii=False)}\n  examples: |\n"


def rasa_example(text: str) -> str:
    r"""Return one example of an intent as a line.

    A bracket that Rasa would take for the begin of an entity's name gets a space behind it: it has no escape for it.

    >>> rasa_example("two\nlines [a](b)")
    '    - two\\nlines [a] (b)\n'
    """
    for character, escaped in ESCAPES.items():
        text = text.replace(character, escaped)
    return f"    - {ANNOTATION.sub('] ', _printable(text)).strip()}\n"


def _printable(text: str) -> str:
    """Return *text* without what YAML does not allow or takes for the end of a line."""
    return "".join(character if character.isprintable() else " " for character in text)


def read_rasa(content: str) -> Iterator[Read]:
    """Yield the examples of a Rasa NLU file (format 2 or 3); entities are read as their text.

    Raises:
        InvalidError: it is no such file.
    """
    for number, block in enumerate(_rasa_blocks(content), start=1):
        if not isinstance(block, Mapping):
            yield Read(f"nlu, item {number}", None, "must be a mapping")
            continue
        kind = next((kind for kind in IGNORED if kind in block), None)
        if kind is not None:
            yield Read(f"{kind} {block[kind]}", None, f"a {kind} is not used here", is_warning=True)
            continue
        intent = block.get("intent")
        texts = _rasa_texts(block.get("examples"))
        if texts is None:
            yield Read(f"nlu, item {number}", None, "examples must be a list")
            continue
        for index, text in enumerate(texts, start=1):
            yield _read(f"{intent}, example {index}", lambda text=text, intent=intent: _rasa_item(text, intent))


def _rasa_blocks(content: str) -> list[Any]:
    try:
        # A safe loader in C, where PyYAML has it: ten times as fast.
        document = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        raise InvalidError("content", f"is not YAML: {' '.join(str(exc).split())}") from exc
    blocks = document.get("nlu") if isinstance(document, Mapping) else None
    if not isinstance(blocks, list):
        raise InvalidError("content", "has no list under nlu: it is no Rasa NLU file")
    return blocks


def _rasa_texts(examples: Any) -> list[Any] | None:
    """Return the texts of an intent, from a block of lines that begin with "- " or from a list."""
    if isinstance(examples, str):
        lines = (line.strip() for line in examples.split("\n"))
        return [line.removeprefix("-").strip() if line.startswith("-") else None for line in lines if line]
    if isinstance(examples, list):
        texts = [one.get("text") if isinstance(one, Mapping) else one for one in examples]
        return [text.strip().removeprefix("- ") if isinstance(text, str) else None for text in texts]
    return None


def _rasa_item(text: Any, intent: Any) -> NewExample:
    if text is None:
        raise InvalidError("examples", 'an example must begin with "- "')
    said = ENTITY.sub(lambda match: match["text"], text)
    for character, escaped in ESCAPES.items():
        said = said.replace(escaped, character)
    return _curated({"text": said, "intent": intent}, "rasa")


def _curated(item: Mapping[str, Any], source: str) -> NewExample:
    """Return an example that a person put into a file: sure."""
    return NewExample(
        input=text_of(item, "text"),
        intent=required_label(item, "intent"),
        confidence=1.0,
        source=source,
        current_step=None,
        user_hash="",
        occurred_ms=None,
    )


def read_line(kind: Format, number: int, line: str) -> Read:
    """Return what stands in one line of a file of JSON lines."""
    readers = {"jsonl": _jsonl_item, "openai": _openai_item, "dpo": _dpo_item}
    return _read(f"line {number}", lambda: readers[kind](_object(line)))


def _read(where: str, read: Any) -> Read:
    try:
        return Read(where, read())
    except InvalidError as exc:
        return Read(where, None, str(exc))


def _object(line: str) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as exc:
        raise InvalidError("", f"not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise InvalidError("", "must be an object")
    return value


def _jsonl_item(item: Mapping[str, Any]) -> NewExample:
    confidence = confidence_of(item.get("confidence", 1.0), "confidence")
    runner_up = label_of(item, "runner_up")
    fingerprint = label_of(item, "fingerprint")
    if fingerprint is not None and not FINGERPRINT.fullmatch(fingerprint):
        raise InvalidError("fingerprint", "must be 32 hex digits, as an export has it")
    tags = item.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) and len(tag) <= 200 for tag in tags):
        raise InvalidError("tags", "must be a list of short texts")
    reviewed_at = label_of(item, "reviewed_at")
    if reviewed_at is not None:
        _moment("reviewed_at", reviewed_at)
    return NewExample(
        input=text_of(item, "text"),
        intent=required_label(item, "intent"),
        confidence=confidence,
        source=label_of(item, "source") or IMPORTED,
        current_step=label_of(item, "current_step"),
        user_hash=label_of(item, "user_hash") or "",
        occurred_ms=timestamp_ms(item.get("occurred_at"), "occurred_at"),
        runner_up=runner_up,
        runner_up_confidence=None
        if runner_up is None
        else max(0.0, confidence - confidence_of(item.get("margin", 0.0), "margin")),
        conversation_id=label_of(item, "conversation_id"),
        tags=tuple(_own_tags(tags)),
        needs_review=flag_of(item, "needs_review"),
        former_intent=label_of(item, "former_intent"),
        reviewed_by=label_of(item, "reviewed_by"),
        reviewed_at=reviewed_at,
        fingerprint=fingerprint,
    )


def _moment(field: str, text: str) -> None:
    try:
        parse_iso(text)
    except (ValueError, OverflowError) as exc:
        raise InvalidError(field, "must be an ISO 8601 moment") from exc


def _openai_item(item: Mapping[str, Any]) -> NewExample | Mapping[str, Any]:
    """Return an example where the chat names an intent, else the whole conversation."""
    messages = _messages(item.get("messages"), "messages")
    said = [(message["role"], message.get("content")) for message in messages]
    if [role for role, _ in said] == ["system", "user", "assistant"] and said[0][1] == SYSTEM:
        return _curated({"text": said[1][1], "intent": said[2][1]}, "openai")
    pair = PreferencePair(tuple(messages), "", "")
    return {"chatId": f"openai-{pair.fingerprint}", "messages": messages, "tags": ["openai"]}


def _dpo_item(item: Mapping[str, Any]) -> PreferencePair:
    asked = item.get("input")
    messages = _messages(asked.get("messages") if isinstance(asked, Mapping) else None, "input.messages")
    return PreferencePair(
        tuple(messages),
        _output(item.get("preferred_output"), "preferred_output"),
        _output(item.get("non_preferred_output"), "non_preferred_output"),
    )


def _messages(value: Any, field: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        raise InvalidError(field, "must be a list of messages")
    for index, message in enumerate(value):
        if not isinstance(message.get("role"), str):
            raise InvalidError(f"{field}[{index}].role", "must be a text")
    return value


def _output(value: Any, field: str) -> str:
    message = value[0] if isinstance(value, list) and len(value) == 1 else None
    content = message.get("content") if isinstance(message, dict) and message.get("role") == "assistant" else None
    if not isinstance(content, str) or not content:
        raise InvalidError(field, "must be one message of the assistant with a text")
    return content
