"""One conversation is enough: imported or had through the proxy, it waits as one entry and is served once approved."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.flow.product import Product, eventually
from tests.upstream import Upstream, chat_reply

QUESTION = "How long do refunds take?"
REWORDED = "How long does a refund take?"
ANSWER = "Refunds take 5 to 7 business days after we receive the item."


def conversation(agent: str | None = None) -> dict[str, Any]:
    answer = {"role": "assistant", "content": ANSWER}
    return {
        "chatId": "c1",
        "messages": [
            {"role": "user", "content": QUESTION},
            answer if agent is None else {**answer, "agent": agent},
            {"role": "user", "content": "Thanks, that answers it!"},
        ],
        "resolved": True,
        "tags": ["billing", "refund"],
    }


def approve_and_ask(product: Product, upstream: Upstream) -> None:
    """Approve the only entry and see that the next reworded question carries it, as it did not before."""
    (entry,) = product.command_json("contexts", "list")
    assert (entry["status"], entry["answer"], len(set(entry["questions"]))) == ("pending_approval", ANSWER, 3)
    shown = " ".join(product.command("contexts", "show", entry["id"]).stdout.split())
    assert entry["source_chat_id"] in shown
    assert QUESTION in shown
    product.chat(REWORDED)
    assert upstream.last.last_user_text == REWORDED

    product.command("contexts", "approve", entry["id"])

    def text_upstream_sees() -> str:
        product.chat(REWORDED)
        return upstream.last.last_user_text

    assert ANSWER in eventually(lambda: [text for text in [text_upstream_sees()] if text != REWORDED], timeout_s=1.0)[0]


@pytest.mark.parametrize("agent", [None, "ai", "human"])
def test_one_imported_conversation_becomes_one_entry_that_serves_the_reworded_question(
    agent: str | None, product: Product, upstream: Upstream, tmp_path: Path
) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(conversation(agent)) + "\n")
    product.start("proxy")
    product.command("import", path)

    product.learn("knowledge")

    assert [row["source_chat_id"] for row in product.command_json("contexts", "list")] == ["c1"]
    approve_and_ask(product, upstream)
    product.learn("knowledge")
    assert len(product.command_json("contexts", "list")) == 1


def test_an_answer_that_got_a_thumbs_up_becomes_an_entry(product: Product, upstream: Upstream) -> None:
    upstream.script = lambda request: chat_reply(request, ANSWER)
    product.start("proxy")
    liked = product.chat(QUESTION, headers={"x-tutelage-conversation": "c1", "x-tutelage-tags": "billing,refund"})
    product.chat("Do you sell boats?")
    response_id = liked.headers["x-tutelage-response-id"]
    assert product.feedback({"response_id": response_id, "signal": "thumbs_up", "user": "u"}).status_code == 201
    product.response_row(liked)

    product.learn("knowledge")

    approve_and_ask(product, upstream)
