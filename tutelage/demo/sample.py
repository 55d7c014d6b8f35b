"""The conversations that ship with the project; origin and licence stand in ``data/LICENSE.md`` beside them."""

import json
from importlib.resources import files
from typing import Any


def load_sample() -> list[dict[str, Any]]:
    """Return the sample conversations in the shape that ``tutelage import`` reads.

    Each is ``{"chatId", "messages": [{"role", "content", "intent"?}], "tags", "resolved"}``.
    """
    text = files("tutelage.demo").joinpath("data", "conversations.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
