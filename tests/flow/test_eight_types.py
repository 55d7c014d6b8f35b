"""All eight types of pattern are found at once, through the running product, when each of them pleases."""

import math
import random
from collections.abc import Mapping
from typing import Any, Final

from tests.flow.product import Product
from tests.upstream import Reply, SeenRequest, Upstream, chat_reply

GOOD_TOOL, OTHER_TOOL = "search_catalog", "ask_archive"
TOOLS: Final = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in (GOOD_TOOL, OTHER_TOOL)
]
# What pleases: type -> (value, the text with it, the text without it).
PLEASING: Final[Mapping[str, tuple[str, str, str]]] = {
    "prompt_strategy": ("summary_first", "In short: it works.", "The filter runs all day."),
    "domain_knowledge": ("SLA", "We keep the SLA of two days.", "We keep the promise of two days."),
    "insight_threshold": ("10", "We flag changes of more than 10 percent.", "It grew by 3 percent since May."),
    "visualization_preference": ("bar", "The bar chart below shows it.", "The figures below show it."),
    "query_style": (
        "cte",
        "\n```sql\nWITH x AS (SELECT a FROM t) SELECT a FROM x\n```\n",
        "\n```sql\nSELECT a FROM t WHERE a > 1\n```\n",
    ),
    "response_format": ("table", "\n| a | b |\n|---|---|\n| 1 | 2 |\n", ""),
    "follow_up_style": ("suggestions", "\n\nNext steps:\n- call us\n- read on", "\n\nThat is all of it."),
    "tool_preference": (GOOD_TOOL, "", ""),  # by the call, not by the text
}
SHARE: Final = 0.35  # of replies that have each of them
EFFECT: Final = 1.2  # of each of them on the log odds of a thumb up
N_USERS: Final = 80


class Assistant:
    """Each reply has each pleasing thing or not, by chance; it calls one of two tools first."""

    def __init__(self) -> None:
        self._random = random.Random(3)
        self.has: dict[str, bool] = {}

    def __call__(self, request: SeenRequest) -> Reply:
        if request.messages[-1]["role"] != "tool":
            self.has = {name: self._random.random() < SHARE for name in PLEASING}
            tool = GOOD_TOOL if self.has["tool_preference"] else OTHER_TOOL
            call = {"id": "call_1", "type": "function", "function": {"name": tool, "arguments": "{}"}}
            return chat_reply(request, None, tool_calls=[call])
        texts = [text if self.has[name] else other for name, (_, text, other) in PLEASING.items()]
        return chat_reply(request, " ".join(texts))


def visit(product: Product, assistant: Assistant, n: int) -> None:
    """Hold *n* turns; people like a reply the more of the pleasing things it has."""
    draw = random.Random(4)
    votes = []
    for number in range(n):
        user = f"user-{number % N_USERS}"
        headers = {"x-tutelage-user": user, "x-tutelage-conversation": f"visit-{number}"}
        question = {"role": "user", "content": f"Question number {number}: how does it run?"}
        first = product.chat(messages=[question], tools=TOOLS, headers=headers).json()
        said: dict[str, Any] = first["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": "call_1", "content": "3 hits"}
        answer = product.chat(messages=[question, said, result], tools=TOOLS, headers=headers)
        liking = EFFECT * (sum(assistant.has.values()) - SHARE * len(PLEASING))
        signal = "thumbs_up" if draw.random() < 1 / (1 + math.exp(-liking)) else "thumbs_down"
        votes.append({"response_id": answer.headers["x-tutelage-response-id"], "signal": signal, "user": user})
    for start in range(0, n, 50):
        assert product.feedback(votes[start : start + 50]).status_code == 201


def test_each_type_is_found_when_it_pleases(product: Product, upstream: Upstream) -> None:
    product.start("proxy")
    upstream.script = assistant = Assistant()
    visit(product, assistant, 350)

    product.learn("patterns")

    rows = product.rows("SELECT type, value FROM learned_patterns WHERE state = 'candidate'")
    found = {(row["type"], row["value"]) for row in rows}
    assert found >= {(name, value) for name, (value, _, _) in PLEASING.items()}
