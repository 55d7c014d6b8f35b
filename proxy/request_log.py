"""One line in the log for each response, by the recorder: it costs a request nothing."""

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from store.records import ResponseRecord

logger = logging.getLogger("proxy.requests")

FIELDS = (
    "tenant_id",
    "conversation_id",
    "upstream_id",
    "endpoint",
    "upstream",
    "model",
    "outcome",
    "status",
    "is_stream",
    "latency_ms",
    "first_byte_ms",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "injected_tokens",
    "generation",
    "is_holdout",
    "question_type",
)
TEXT_FIELDS = ("question", "reply_json")


class Observer(Protocol):
    """Whoever is told of records once they are in the database."""

    def note(self, records: Sequence[ResponseRecord]) -> None:
        """Take note of *records*; never raises, never waits for a network."""
        ...


class RequestLog:
    """Writes a line for each record; *with_text*: with question and reply."""

    def __init__(self, *, with_text: bool) -> None:
        self._fields = FIELDS + TEXT_FIELDS if with_text else FIELDS

    def note(self, records: Sequence[ResponseRecord]) -> None:
        for record in records:
            fields: dict[str, Any] = {"response_id": record.id}
            for name in self._fields:
                value = getattr(record, name)
                if value is not None and value != "":
                    fields[name] = value
            logger.info("%s", _line(fields), extra={"fields": fields})


def _line(fields: dict[str, Any]) -> str:
    """Return *fields* as people read them.

    >>> _line({"response_id": "resp_1", "model": "m", "question": "a b"})
    "response_id=resp_1 model=m question='a b'"
    """
    return " ".join(f"{name}={value if ' ' not in str(value) else repr(value)}" for name, value in fields.items())
