"""How a process logs: one line per record on stderr, as text or JSON. Message text of conversations is never logged."""

import logging
import sys
from datetime import UTC, datetime
from typing import Final

import msgspec

from store.config import LogSection

LITELLM_LOGGERS: Final = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure_logging(section: LogSection) -> None:
    """Send all records of this process to stderr; call it once, when the process starts."""
    handler = logging.StreamHandler(sys.stderr)
    if section.format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(section.level)


def tame_litellm() -> None:
    """Let litellm log as everything else does, and only what matters; call it once litellm is imported.

    Its own handlers print each record a second time, in another form, and at INFO it has two lines for every request.
    """
    for name in LITELLM_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.WARNING)
