"""The whole circle from outside: traffic and votes in, a measured pattern and an approved piece of knowledge out."""

import gzip
import json
import random
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from tests.flow.product import Product, eventually
from tests.upstream import Reply, SeenRequest, Upstream, chat_reply

ROOT = Path(__file__).parents[2]
TABLE = "Here is the comparison:\n\n| plan | price |\n|---|---|\n| basic | 10 |\n| pro | 25 |\n"
PROSE = "The basic plan costs ten euros a month and the pro plan costs twenty-five euros a month."
COMPARISON = "comparison"
N_USERS = 60
LOOKS = 400  # conversations tried before a test gives up on finding one in an arm (holdout: 5 %)


def real_conversations() -> list[dict[str, Any]]:
    """Return the real conversations that ship with the project."""
    (sample,) = (ROOT / "tutelage" / "demo" / "data").glob("*.jsonl*")
    text = gzip.decompress(sample.read_bytes()) if sample.suffix == ".gz" else sample.read_bytes()
    return [json.loads(line) for line in text.splitlines() if line.strip()]


class ObedientModel:
    """Answers as a table when it is told to; otherwise as ``share_of_tables`` says."""

    def __init__(self, share_of_tables: float) -> None:
        self.share_of_tables = share_of_tables
        self.rules: list[str] = []
        self._random = random.Random(7)

    def __call__(self, request: SeenRequest) -> Reply:
        is_told = any(rule in request.system_text for rule in self.rules)
        is_table = is_told or self._random.random() < self.share_of_tables
        return chat_reply(request, TABLE if is_table else PROSE)


class Visitors:
    """Users who vote for tables when they compare, and at random when they chat."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self._numbers = count()
        self._random = random.Random(11)

    def visit(self, question_type: str, n: int) -> None:
        """Hold *n* conversations of one turn each and vote on every reply."""
        for start in range(0, n, 50):
            votes = [self._ask_and_vote(question_type) for _ in range(min(50, n - start))]
            answer = self.product.feedback(votes)
            assert answer.status_code == 201, answer.text

    def _ask_and_vote(self, question_type: str) -> dict[str, Any]:
        number = next(self._numbers)
        user = f"user-{number % N_USERS}"
        headers = {
            "x-tutelage-question-type": question_type,
            "x-tutelage-user": user,
            "x-tutelage-conversation": f"visit-{number}",
        }
        answer = self.product.chat(f"Question number {number}: how do the plans compare?", headers=headers)
        assert answer.status_code == 200, answer.text
        is_table = "|---|" in answer.json()["choices"][0]["message"]["content"]
        is_happy = is_table if question_type == COMPARISON else self._random.random() < 0.5
        return {
            "response_id": answer.headers["x-tutelage-response-id"],
            "signal": "thumbs_up" if is_happy else "thumbs_down",
            "user": user,
        }


def format_patterns(product: Product) -> list[dict[str, Any]]:
    return [
        row
        for row in product.rows("SELECT * FROM learned_patterns WHERE type = 'response_format'")
        if "table" in row["rule"].lower() and COMPARISON in row["conditions_json"]
    ]


def states(product: Product) -> dict[str, str]:
    return {row["id"]: row["state"] for row in format_patterns(product)}


def looks(product: Product, upstream: Upstream, rule: str) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield one fresh matching conversation after the other: its record, and whether the upstream saw *rule*."""
    for number in range(LOOKS):
        headers = {"x-tutelage-question-type": COMPARISON, "x-tutelage-conversation": f"look-{number}"}
        answer = product.chat("How do the plans compare?", headers=headers)
        yield product.response_row(answer), rule in upstream.last.system_text


def test_a_format_that_users_prefer_is_found_tried_measured_and_switched_on(
    product: Product, upstream: Upstream, tmp_path: Path
) -> None:
    conversations = tmp_path / "real.jsonl"
    conversations.write_text("".join(json.dumps(value) + "\n" for value in real_conversations()[:40]))
    product.start("proxy")
    product.command("import", conversations)
    model = upstream.script = ObedientModel(share_of_tables=0.5)
    visitors = Visitors(product)

    visitors.visit(COMPARISON, 160)
    visitors.visit("chit_chat", 80)
    product.learn("patterns")
    assert set(states(product).values()) == {"candidate"}, product.rows("SELECT * FROM learned_patterns")

    product.learn("patterns")
    (pattern,) = [row for row in format_patterns(product) if row["state"] == "trial"]
    assert pattern["lift"] is None
    model.rules = [pattern["rule"]]
    model.share_of_tables = 0.0

    time.sleep(1)  # a generation is live within a second
    visitors.visit(COMPARISON, 360)
    visitors.visit("chit_chat", 60)
    product.learn("patterns")
    (active,) = [row for row in format_patterns(product) if row["id"] == pattern["id"]]
    assert active["state"] == "active", active
    assert active["lift_low"] > 0
    assert active["lift_low"] < active["lift"] < active["lift_high"]
    assert active["signal_count"] >= 10
    assert 0.9 < active["confidence"] <= 1

    time.sleep(1)
    seen = list(looks(product, upstream, pattern["rule"]))
    injections = {
        row["response_id"]: row
        for row in product.rows("SELECT * FROM injections WHERE item_id = :id", id=pattern["id"])
    }
    treated = [record for record, is_carried in seen if is_carried]
    holdout = [(record, is_carried) for record, is_carried in seen if record["is_holdout"]]
    assert 0.3 * LOOKS < len(treated) < 0.97 * LOOKS
    assert 0 < len(holdout) < 0.15 * LOOKS
    assert not [record for record, is_carried in holdout if is_carried]
    assert all(
        injections[record["id"]]["treated"] == is_carried for record, is_carried in seen if not record["is_holdout"]
    )
    assert all(0 < record["injected_tokens"] <= 500 for record in treated)
    assert {record["injected_tokens"] for record, is_carried in seen if not is_carried} == {0}

    (listed,) = [row for row in product.command_json("patterns", "list") if row["id"] == pattern["id"]]
    assert listed["state"] == "active"


def test_evidence_counts_when_the_runs_time_is_ahead_of_the_traffic(product: Product, upstream: Upstream) -> None:
    product.start("proxy")
    model = upstream.script = ObedientModel(share_of_tables=0.5)
    visitors = Visitors(product)
    visitors.visit(COMPARISON, 60)
    product.learn("patterns", now="2027-01-01T00:00:00Z")
    product.learn("patterns", now="2027-01-01T06:00:00Z")
    (pattern,) = [row for row in format_patterns(product) if row["state"] == "trial"]
    model.rules, model.share_of_tables = [pattern["rule"]], 0.0
    time.sleep(1)
    visitors.visit(COMPARISON, 200)
    product.learn("patterns", now="2027-01-01T12:00:00Z")
    assert states(product)[pattern["id"]] == "active"


SOLVED = [
    ("I cancelled my order, how do I get my money back?", "Thanks, that worked!"),
    ("How can I get a refund for a cancelled order?", "Perfect, thank you so much."),
    ("My order was cancelled, where do I ask for the refund?", "Great, that solved it, thank you!"),
]
ANSWER = (
    "Open Orders, choose the cancelled order and press Request refund. "
    "The money is back on your card within five business days."
)


def resolved_conversations() -> list[dict[str, Any]]:
    return [
        {
            "chatId": f"refund-{number}",
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": ANSWER, "agent": "human"},
                {"role": "user", "content": thanks},
            ],
            "tags": ["refund", "orders"],
            "resolved": True,
        }
        for number, (question, thanks) in enumerate(SOLVED)
    ]


def test_knowledge_from_a_resolved_conversation_is_used_once_a_person_approved_it(
    product: Product, upstream: Upstream, tmp_path: Path
) -> None:
    conversations = tmp_path / "resolved.jsonl"
    values = [*resolved_conversations(), *real_conversations()[:60]]
    conversations.write_text("".join(json.dumps(value) + "\n" for value in values))
    product.start("proxy")
    product.command("import", conversations)
    product.learn("knowledge")
    (entry,) = product.rows("SELECT * FROM ai_contexts WHERE source_chat_id LIKE 'refund-%'")
    assert entry["status"] == "pending_approval"
    assert len(json.loads(entry["questions_json"])) == 3
    assert "Request refund" in entry["answer"]

    question = "How do I get a refund for my cancelled order?"
    product.chat(question)
    assert upstream.last.last_user_text == question

    shown = product.command("contexts", "show", entry["id"]).stdout
    source = SOLVED[int(entry["source_chat_id"].removeprefix("refund-"))]
    assert entry["source_chat_id"] in shown
    assert source[0] in " ".join(shown.split())
    assert source[1] in " ".join(shown.split())

    product.command("contexts", "approve", entry["id"])

    def text_upstream_sees() -> str:
        product.chat(question)
        return upstream.last.last_user_text

    text = eventually(lambda: [text for text in [text_upstream_sees()] if text != question], timeout_s=1.0)[0]
    assert text.startswith(question)
    assert "Request refund" in text
    assert "reference" in text.lower()

    answer = product.chat(question)
    record = product.response_row(answer)
    (injection,) = product.rows("SELECT * FROM injections WHERE response_id = :id", id=record["id"])
    assert (injection["kind"], injection["item_id"], injection["treated"]) == ("context", entry["id"], 1)
    assert record["injected_tokens"] > 0
    assert json.loads(record["messages_json"]) == [{"role": "user", "content": question}]

    product.chat("What is the tallest mountain of the moon Europa?")
    assert "Request refund" not in upstream.last.last_user_text
