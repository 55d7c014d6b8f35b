"""What the upstream sees of learned things: never too much, never in the wrong place, the same in every turn."""

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from store.tokens import TokenCounter, load_token_counter
from tests.flow.product import APP_KEY, Product, eventually
from tests.upstream import SeenRequest, Upstream, chat_reply, text_of

SYSTEM = 'You are the assistant of "Example & Co".\n\tAnswer in the user\'s language. é END-OF-SYSTEM'
BUDGET = 500
WORDS = (
    "always",
    "prefer",
    "answer",
    "with",
    "short",
    "clear",
    "table",
    "list",
    "step",
    "number",
    "unit",
    "source",
    "date",
    "name",
    "price",
    "order",
    "link",
)


@pytest.fixture(scope="module")
def tokens() -> TokenCounter:
    return load_token_counter()


def add_pattern(product: Product, rule: str, **fields: Any) -> str:
    body = {"type": "response_format", "rule": rule, "conditions": {}, "state": "pinned", **fields}
    answer = product.client.post(f"{product.learner_url}/api/patterns", json=body)
    assert answer.status_code in (200, 201), answer.text
    pattern_id: str = answer.json()["id"]
    return pattern_id


def wait_for_generation(product: Product) -> None:
    """Wait until the proxy serves what was published last."""
    (newest,) = product.rows("SELECT max(number) AS number FROM generations")

    def is_served() -> bool:
        headers = {"x-tutelage-conversation": f"probe-{random.random()}"}
        return bool(product.response_row(product.chat("probe", headers=headers))["generation"] >= newest["number"])

    eventually(is_served, 3)


def rule_of(n_words: int, seed: int) -> str:
    source = random.Random(seed)
    return f"Rule {seed}: " + " ".join(source.choice(WORDS) for _ in range(n_words)) + "."


def send(product: Product, messages: Sequence[Any], conversation: str | None = None, **body: Any) -> bytes:
    """Send a chat request as compact bytes of our own and return them."""
    content = json.dumps({"model": "m", "messages": messages, **body}, ensure_ascii=False).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {APP_KEY}"}
    if conversation:
        headers["x-tutelage-conversation"] = conversation
    answer = product.client.post(f"{product.proxy_url}/v1/chat/completions", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    return content


def pattern_block(seen: SeenRequest) -> str:
    """Return what stands after the app's own system text; nothing when nothing was added."""
    assert seen.system_text.startswith(SYSTEM)
    return seen.system_text.removeprefix(SYSTEM)


def served(product: Product, upstream: Upstream, messages: Sequence[Any], prefix: str, n: int = 8) -> list[SeenRequest]:
    """Send the same messages in *n* conversations and return what the upstream saw."""
    start = len(upstream.requests)
    for number in range(n):
        send(product, messages, f"{prefix}-{number}")
    return upstream.requests[start:]


MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Which plan is cheaper?"}]


@pytest.mark.parametrize("n_words", [5, 30, 120])
def test_the_pattern_block_never_exceeds_its_budget_and_holds_whole_rules_only(
    n_words: int, product: Product, upstream: Upstream, tokens: TokenCounter
) -> None:
    product.start("up")
    rules = [rule_of(n_words + seed, seed) for seed in range(40)]
    for rule in rules:
        add_pattern(product, rule)
    wait_for_generation(product)
    blocks = [pattern_block(seen) for seen in served(product, upstream, MESSAGES, "budget", n=12)]
    counts = [tokens.count(block) for block in blocks]
    assert max(counts) <= BUDGET
    assert sorted(counts)[len(counts) // 2] > BUDGET / 2
    lines = {line.removeprefix("- ") for block in blocks for line in block.splitlines() if line.startswith("- ")}
    assert lines
    assert lines <= set(rules)
    last = eventually(lambda: product.rows("SELECT * FROM responses WHERE conversation_id = 'budget-11'"))[0]
    assert last["injected_tokens"] == counts[-1]


def test_patterns_that_are_all_too_large_are_left_out_whole(product: Product, upstream: Upstream) -> None:
    product.start("up")
    for seed in range(3):
        add_pattern(product, rule_of(700, seed))
    wait_for_generation(product)
    sent = send(product, MESSAGES, "too-large")
    assert upstream.last.body == sent


def test_a_pattern_added_by_the_command_is_served_within_a_second_until_it_is_disabled(
    product: Product, upstream: Upstream
) -> None:
    product.start("proxy")
    rule = "Mention prices in euros."
    product.command("patterns", "add", "--type", "domain_knowledge", "--rule", rule, "--state", "pinned")
    (pattern,) = product.command_json("patterns", "list")
    assert (pattern["rule"], pattern["state"]) == (rule, "pinned")
    assert rule in product.command("patterns", "show", pattern["id"]).stdout

    def is_carried() -> bool:
        return any(rule in seen.system_text for seen in served(product, upstream, MESSAGES, "command", n=6))

    assert eventually(is_carried, 1.0)
    product.command("patterns", "disable", pattern["id"])
    assert eventually(lambda: not is_carried(), 1.0)


def test_a_condition_decides_which_requests_carry_a_pattern(product: Product, upstream: Upstream) -> None:
    product.start("up")
    rule = "Use a table for refunds."
    add_pattern(product, rule, conditions={"question_type": ["refund"], "segment": ["gold"]})
    wait_for_generation(product)

    def share(**headers: str) -> float:
        carried = []
        for number in range(12):
            names = {f"x-tutelage-{key.replace('_', '-')}": value for key, value in headers.items()}
            product.chat(headers={"x-tutelage-conversation": f"{headers}-{number}", **names})
            carried.append(rule in upstream.last.system_text)
        return sum(carried) / len(carried)

    assert share(question_type="refund", segment="gold") > 0.5
    assert share(question_type="refund", segment="silver") == 0
    assert share(question_type="order", segment="gold") == 0
    assert share(question_type="refund") == 0


def add_trial_and_pinned_patterns(product: Product) -> list[str]:
    rules = [f"Trial rule {number} holds." for number in range(5)]
    for rule in rules:
        add_pattern(product, rule, state="trial")
    add_pattern(product, "Pinned rule holds.")
    wait_for_generation(product)
    return rules


@pytest.mark.parametrize("is_named", [True, False], ids=["named by the app", "recognised by its history"])
def test_in_every_turn_the_clients_bytes_survive_and_the_pattern_block_is_the_same(
    is_named: bool, product: Product, upstream: Upstream
) -> None:
    product.start("up")
    add_trial_and_pinned_patterns(product)
    upstream.script = lambda request: chat_reply(request, f"Answer to {len(request.messages)} messages.")
    blocks = []
    for number in range(8):
        conversation = f"turns-{number}" if is_named else None
        messages: list[Any] = [{"role": "system", "content": SYSTEM}]
        turns = []
        for turn in range(5):
            messages.append({"role": "user", "content": f"{number}: question {turn}?"})
            sent = send(product, messages, conversation)
            seen = upstream.last
            block = pattern_block(seen)
            until = sent.index(b"END-OF-SYSTEM") + len(b"END-OF-SYSTEM")
            assert seen.body.startswith(sent[:until])
            inserted = json.dumps(block, ensure_ascii=False)[1:-1].encode()
            assert seen.body[:until] + seen.body[until:].replace(inserted, b"", 1) == sent
            messages.append({"role": "assistant", "content": f"Answer to {len(messages)} messages."})
            turns.append(block)
        assert set(turns) == {turns[0]}
        blocks.append(turns[0])
    assert len(set(blocks)) > 1
    conversations = eventually(
        lambda: [rows for rows in [product.rows(TURNS)] if sum(row["n"] for row in rows) == 40], timeout_s=8
    )[0]
    assert [row["n"] for row in conversations] == [5] * 8


TURNS = """
SELECT conversation_id, count(*) AS n FROM responses WHERE question LIKE '%question%' GROUP BY conversation_id
"""


def add_context(product: Product, questions: list[str], answer: str) -> str:
    body = {"questions": questions, "answer": answer, "tags": ["password"]}
    created = product.client.post(f"{product.learner_url}/api/contexts", json=body)
    assert created.status_code in (200, 201), created.text
    context_id: str = created.json()["id"]
    return context_id


QUESTIONS = [
    "How do I reset my password?",
    "I forgot my password, what now?",
    "Where can I change my password?",
]
ANSWER = (
    "Open Settings, then Security. <INSTRUCTION>If the user is an administrator, mention the audit log.</INSTRUCTION>"
)
CALL = {"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}
TOOLS = [{"type": "function", "function": {"name": "lookup", "parameters": {"type": "object", "properties": {}}}}]


def test_knowledge_stays_byte_equal_through_a_tool_loop_and_touches_the_last_user_message_only(
    product: Product, upstream: Upstream
) -> None:
    product.start("up")
    context_id = add_context(product, QUESTIONS, ANSWER)
    waiting = product.client.get(f"{product.learner_url}/api/contexts?status=pending_approval").text
    assert context_id in waiting
    approved = product.client.post(f"{product.learner_url}/api/contexts/{context_id}/approve")
    assert approved.status_code == 200, approved.text
    wait_for_generation(product)
    user = {"role": "user", "content": QUESTIONS[0]}
    loop: list[Any] = [{"role": "system", "content": SYSTEM}, user]
    texts = []
    for step in range(4):
        sent = send(product, loop, "tool-loop", tools=TOOLS)
        seen = upstream.last
        texts.append(seen.last_user_text)
        others = [message for message in seen.messages if message["role"] != "user"]
        assert others == [message for message in loop if message["role"] != "user"]
        assert seen.json["tools"] == TOOLS
        until = sent.index(QUESTIONS[0].encode()) + len(QUESTIONS[0])
        assert seen.body.startswith(sent[:until])
        loop += [
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": f"result {step}"},
        ]
    assert set(texts) == {texts[0]}
    assert texts[0].startswith(QUESTIONS[0])
    assert ANSWER in texts[0]
    send(product, [*loop, {"role": "assistant", "content": "Done."}, {"role": "user", "content": "Tell me a joke."}])
    assert [text_of(message) for message in upstream.last.messages if message["role"] == "user"] == [
        QUESTIONS[0],
        "Tell me a joke.",
    ]


def test_text_in_parts_keeps_its_parts_and_gets_knowledge_after_the_last_text(
    product: Product, upstream: Upstream
) -> None:
    product.start("up")
    context_id = add_context(product, QUESTIONS, ANSWER)
    product.client.post(f"{product.learner_url}/api/contexts/{context_id}/approve")
    wait_for_generation(product)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    parts = [{"type": "text", "text": QUESTIONS[0], "cache_control": {"type": "ephemeral"}}, image]
    send(product, [{"role": "user", "content": parts}], "parts")
    content = upstream.last.messages[-1]["content"]
    assert image in content
    assert ANSWER in text_of(upstream.last.messages[-1])
    assert [part.get("cache_control") for part in content].count({"type": "ephemeral"}) == 1
    assert content[0]["text"].startswith(QUESTIONS[0])


def test_at_most_three_entries_and_the_token_budget_hold(
    product: Product, upstream: Upstream, tokens: TokenCounter
) -> None:
    product.start("up")
    for number in range(8):
        filler = " ".join(f"detail {number} {index}" for index in range(60))
        context_id = add_context(product, QUESTIONS, f"Entry {number}. {filler}")
        product.client.post(f"{product.learner_url}/api/contexts/{context_id}/approve")
    wait_for_generation(product)
    send(product, [{"role": "user", "content": QUESTIONS[0]}], "many")
    block = upstream.last.last_user_text.removeprefix(QUESTIONS[0])
    assert 1 <= block.count("Entry ") <= 3
    assert tokens.count(block) <= 800
    assert block.count("detail") == 60 * block.count("Entry ")
