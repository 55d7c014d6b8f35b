"""A user is forgotten while the proxy serves: what rested on them leaves it within a second and never comes back."""

import json
import time
from pathlib import Path

from tests.flow.product import Product, eventually
from tests.flow.test_knowledge import ANSWER, QUESTION, REWORDED
from tests.upstream import Upstream, chat_reply


def has_canary(product: Product) -> list[str]:
    files = [path for path in product.folder.iterdir() if path.name.startswith("tutelage.db") and path.is_file()]
    files += product.folder.glob("tutelage.db.segments/*")
    return [path.name for path in files if b"canary" in path.read_bytes()]


def test_what_was_learned_from_a_forgotten_user_leaves_a_serving_proxy_within_a_second(
    product: Product, upstream: Upstream, tmp_path: Path
) -> None:
    talk = {
        "chatId": "c1",
        "user": "ann",
        "messages": [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": ANSWER, "agent": "human"},
            {"role": "user", "content": "Thanks, that answers it!"},
        ],
        "resolved": True,
    }
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(talk) + "\n")
    product.command("import", path)
    product.learn("knowledge")
    (waiting,) = product.command_json("contexts", "list")
    product.command("contexts", "approve", waiting["id"])
    product.start("proxy")
    upstream.script = lambda request: chat_reply(request, "Sure.")

    def seen() -> str:
        product.chat(REWORDED)
        return upstream.last.last_user_text

    eventually(lambda: ANSWER in seen())

    product.command("forget", "--user", "ann")

    eventually(lambda: seen() == REWORDED, timeout_s=1.0)


def test_records_of_a_forgotten_user_stay_away_when_the_proxy_is_killed_and_started_again(
    product: Product, upstream: Upstream
) -> None:
    upstream.script = lambda request: chat_reply(request, "Sure.")
    proxy = product.start("proxy")
    for number in range(5):
        product.chat(f"canary {number}", headers={"x-tutelage-user": "ann", "x-tutelage-conversation": f"a{number}"})
    other = product.chat("words of bob", headers={"x-tutelage-user": "bob", "x-tutelage-conversation": "b"})
    product.response_row(other)
    assert has_canary(product) != []

    product.command("forget", "--user", "ann")

    assert has_canary(product) == []
    proxy.kill()
    product.start("proxy")
    later = product.chat("I am back", headers={"x-tutelage-user": "ann", "x-tutelage-conversation": "new"})
    product.response_row(later)
    time.sleep(0.5)
    rows = product.rows("SELECT user_id, question FROM responses ORDER BY seq")
    assert [(row["user_id"], row["question"]) for row in rows] == [("bob", "words of bob"), ("ann", "I am back")]
