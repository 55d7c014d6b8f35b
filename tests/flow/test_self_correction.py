"""Corrections, contradictions and replacements through the running product."""

import json
from pathlib import Path
from typing import Any

from tests.flow.product import Product, eventually
from tests.upstream import Upstream, chat_reply

QUESTION = "How long do refunds take?"
ANSWER = "Refunds take 5 to 7 business days after we receive the item."
OTHER = "Refunds take 21 to 30 business days after we receive the item."


def taught(product: Product, folder: Path, chat_id: str, answer: str, **fields: Any) -> None:
    """Import a conversation in which a person answered, and learn from it."""
    path = folder / f"{chat_id}.jsonl"
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer, "agent": "human"}]
    path.write_text(json.dumps({"chatId": chat_id, "messages": messages, "resolved": True, **fields}) + "\n")
    product.command("import", path)
    product.learn("knowledge")


def served(product: Product, upstream: Upstream, answer: str) -> bool:
    product.chat(QUESTION)
    return answer in upstream.last.last_user_text


def test_a_contradiction_waits_and_its_replacement_is_served_within_a_second(
    product: Product, upstream: Upstream, tmp_path: Path
) -> None:
    product.start("proxy")
    taught(product, tmp_path, "c1", ANSWER)
    (entry,) = product.command_json("contexts", "list")
    product.command("contexts", "approve", entry["id"])
    eventually(lambda: served(product, upstream, ANSWER), timeout_s=1.0)

    taught(product, tmp_path, "c2", OTHER)

    (found,) = product.command_json("contexts", "contradictions")
    assert (found["context_id"], found["said_before"], found["answer"]) == (entry["id"], ANSWER, OTHER)
    assert served(product, upstream, ANSWER)
    product.command("contexts", "resolve", found["id"], "replace")
    eventually(lambda: served(product, upstream, OTHER), timeout_s=1.0)
    assert not served(product, upstream, ANSWER)
    product.learn("knowledge")
    assert product.command_json("contexts", "contradictions") == []


def test_corrections_of_new_accounts_flag_an_entry_and_leave_it_in_service(
    product: Product, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script = lambda request: chat_reply(request, ANSWER)
    product.start("proxy")
    taught(product, tmp_path, "c1", ANSWER)
    (entry,) = product.command_json("contexts", "list")
    product.command("contexts", "approve", entry["id"])
    eventually(lambda: served(product, upstream, ANSWER), timeout_s=1.0)
    for number in range(3):
        own = {"x-tutelage-conversation": f"talk-{number}", "x-tutelage-user": f"sybil-{number}"}
        reply = product.chat(QUESTION, headers=own)
        product.response_row(reply)
        signal = {
            "response_id": reply.headers["x-tutelage-response-id"],
            "signal": "correction",
            "user": f"sybil-{number}",
            "correction": "Refunds are never paid.",
        }
        assert product.feedback(signal).status_code == 201

    product.learn("knowledge")

    shown = product.command_json("contexts", "show", entry["id"])
    assert (shown["status"], shown["is_served"], shown["flag_count"]) == ("flagged", True, 3)
    assert served(product, upstream, ANSWER)
