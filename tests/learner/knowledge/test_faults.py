"""A model server that misbehaves in every way at random: nothing lost, nothing doubled, costs right."""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from learner.models import Models, load_models
from store.runs import last_completed_run
from tests.conftest import NOW_S
from tests.learner.knowledge.conftest import TENANT, Learning
from tests.learner.model_server import ModelServer, Reply, Request, error_reply, text_reply, tool_reply

# litellm warns about its own types at its first call.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("thread_loop")]
DAY_S = 86_400.0
TIMEOUT_S = 0.3
PRICES = {"small": (40.0, 40.0), "large": (300.0, 2500.0)}
ANSWERS = {
    "How do I reset my password?": "Open Settings, choose Security and press Reset password.",
    "Which languages does the app speak?": "The app speaks English, German and French.",
    "Can I export my invoices as PDF?": "Open Billing, select the invoices and press Export as PDF.",
    "How long is the warranty on a kettle?": "Kettles have a warranty of 24 months from the day of delivery.",
}


def right(request: Request) -> Reply:
    """Return what a model that behaves answers; what it counts depends on what it was sent."""
    text = "".join(str(message["content"]) for message in request["messages"])
    counted = {"prompt_tokens": len(text) // 4, "completion_tokens": 20 + len(text) % 7}
    if request["model"] == "small":
        n = request["messages"][1]["content"].count("<conversation id=")
        flags = dict.fromkeys(("resolved", "professional", "generalisable", "no_personal_data"), True)
        return text_reply(json.dumps({"verdicts": [{"id": i + 1, **flags, "score": 0.9} for i in range(n)]}), **counted)
    conversation = request["messages"][1]["content"].partition("</conversation>")[0]
    question, answer = next(item for item in ANSWERS.items() if item[0] in conversation)
    core = question.rstrip("?")
    questions = [question, f"Please tell me: {core}?", f"{core}, please?"]
    return tool_reply(
        "create_context", json.dumps({"questions": questions, "answer": answer, "tags": ["app"]}), **counted
    )


def changed(reply: Reply, **fields: Any) -> Reply:
    """Return *reply* with fields of its body replaced."""
    return replace(reply, body=json.dumps(json.loads(reply.body) | fields).encode())


def said(reply: Reply, **fields: Any) -> Reply:
    """Return *reply* with fields of its message replaced."""
    choice = json.loads(reply.body)["choices"][0]
    return changed(reply, choices=[choice | {"message": choice["message"] | fields}])


def called(reply: Reply, *calls: tuple[str, str]) -> Reply:
    made = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(calls)
    ]
    return said(reply, tool_calls=made, content=None)


SKIP = json.dumps({"reason": "several at once"})
UNUSABLE: dict[str, Callable[[Reply], Reply]] = {
    "malformed": lambda reply: said(reply, content='{"verdicts": [{"id": 1, "sco', tool_calls=None),
    "another shape": lambda reply: said(reply, content='[{"verdict": true}]', tool_calls=None),
    "refused": lambda reply: said(reply, content=None, refusal="I cannot help with that.", tool_calls=None),
    "prose": lambda reply: said(reply, content="I am sorry, but I cannot judge this.", tool_calls=None),
    "deep": lambda reply: said(reply, content="{" + '"a":[' * 50_000 + "}", tool_calls=None),
    "huge": lambda reply: said(reply, content="no " * 300_000, tool_calls=None),
    "halves": lambda reply: said(reply, content="\ud83d", tool_calls=None),
    "nothing chosen": lambda reply: changed(reply, choices=[]),
    "unknown tool": lambda reply: called(reply, ("drop_table", "{}")),
    "arguments cut": lambda reply: called(reply, ("create_context", '{"questions": ["How')),
    "arguments of a list": lambda reply: called(reply, ("create_context", "[]")),
    "an entry that is unknown": lambda reply: called(
        reply, ("update_context", '{"id": "ctx_0", "questions": ["a", "b", "c"], "answer": "x", "tags": []}')
    ),
    "several, the first bad": lambda reply: called(reply, ("create_context", "{}"), ("skip", SKIP)),
    "html": lambda _: Reply(body=b"<html>busy</html>", headers={"content-type": "text/html"}),
    "empty": lambda _: Reply(),
    "status 429": lambda _: error_reply(429, retry_after="3"),
    "status 500": lambda _: error_reply(500),
    "status 503": lambda _: error_reply(503, "overloaded"),
    "status 400": lambda _: error_reply(400),
    "dropped": lambda _: Reply(is_dropped=True),
}
HARMLESS: dict[str, Callable[[Reply], Reply]] = {
    "right": lambda reply: reply,
    "another content type": lambda reply: replace(reply, headers={"content-type": "text/plain"}),
    "fenced": lambda reply: said(reply, content=_fenced(json.loads(reply.body)["choices"][0]["message"]["content"])),
    "cut short, it says": lambda reply: changed(
        reply, choices=[json.loads(reply.body)["choices"][0] | {"finish_reason": "length"}]
    ),
}
LOST: dict[str, Callable[[Reply], Reply]] = {  # nobody here can know what they cost
    "deep arguments": lambda reply: called(reply, ("create_context", '{"a":' * 50_000)),
    "slow": lambda reply: replace(reply, delay_s=TIMEOUT_S * 2),
    "incomplete": lambda reply: replace(reply, body=reply.body[:-5], n_missing=5),
}
FAULTS = {**UNUSABLE, **HARMLESS, **LOST}


def _fenced(content: str | None) -> str | None:
    return None if content is None else f"Here it is:\n```json\n{content}\n```\nAnything else?"


@dataclass
class Provider:
    """Answers with the faults that chance deals, and counts what a provider would put on its bill."""

    deal: Callable[[], str] = lambda: "right"
    dealt: Counter[str] = field(default_factory=Counter)
    usage: Counter[str] = field(default_factory=Counter)
    cost_usd: float = 0.0

    def __call__(self, request: Request) -> Reply:
        fault = self.deal()
        self.dealt[fault] += 1
        reply = FAULTS[fault](right(request))
        if reply.status == 200 and reply.body.startswith(b"{") and fault not in LOST:
            counted = json.loads(reply.body)["usage"]
            self.usage += Counter(calls=1, prompt=counted["prompt_tokens"], completion=counted["completion_tokens"])
            prompt, completion = PRICES[request["model"]]
            self.cost_usd += (counted["prompt_tokens"] * prompt + counted["completion_tokens"] * completion) / 1e6
        return reply


def models_of(learning: Learning, server: ModelServer, *, max_cost_usd: float = 1000.0) -> Models:
    section = replace(
        learning.config.learner.models,
        prescreen="openai/small",
        extract="openai/large",
        api_base=server.base_url,
        timeout_s=TIMEOUT_S,
        max_cost_usd_per_run=max_cost_usd,
    )
    return load_models(section, PRICES, sleep=lambda _: None)


def fill(learning: Learning) -> None:
    learning.config = replace(learning.config, knowledge=replace(learning.config.knowledge, prescreen_batch=2))
    for number, (question, answer) in enumerate(ANSWERS.items()):
        learning.chat(f"chat-{number}", question, answer, "Thank you!", tags=[f"topic-{number}"])


def entries(learning: Learning) -> Counter[tuple[Any, ...]]:
    return Counter((entry.source_chat_id, entry.questions, entry.answer, entry.tags) for entry in learning.entries())


EXPECTED = Counter(
    (
        f"chat-{number}",
        (question, f"Please tell me: {question.rstrip('?')}?", f"{question.rstrip('?')}, please?"),
        answer,
        ("app",),
    )
    for number, (question, answer) in enumerate(ANSWERS.items())
)


def assert_costs_are(learning: Learning, provider: Provider) -> None:
    run = last_completed_run(learning.db, TENANT, "knowledge")
    assert run is not None
    counted = Counter(calls=run.model_calls, prompt=run.prompt_tokens, completion=run.completion_tokens)
    assert counted - Counter() == provider.usage
    assert run.cost_usd == pytest.approx(provider.cost_usd)
    stages = run.summary["costs"].values()
    assert sum(stage["cost_usd"] for stage in stages) == pytest.approx(run.cost_usd)


@pytest.mark.parametrize("seed", range(24))
def test_whatever_a_model_server_does_the_rest_is_left_and_the_next_run_completes_it(
    learning: Learning, seed: int
) -> None:
    fill(learning)
    chance = random.Random(seed)
    n_harmless = (0, 20, 60)[seed % 3]  # from hopeless to mostly well
    names = [*FAULTS, *["right"] * n_harmless]
    for day, provider in enumerate((Provider(lambda: chance.choice(names)), Provider())):
        with ModelServer(provider) as server:
            report = learning.run(models=models_of(learning, server), now_s=NOW_S + day * DAY_S)
        n_left = report.counts["left_for_next_run"]
        found = entries(learning)
        assert found <= EXPECTED
        assert found.total() + n_left == len(ANSWERS)
        assert learning.db.value("SELECT count(*) FROM mined_conversations WHERE decision IS NULL") == n_left
        assert_costs_are(learning, provider)

    assert (found, n_left) == (EXPECTED, 0)


@pytest.mark.parametrize("fault", UNUSABLE | LOST)
def test_a_fault_that_lasts_leaves_everything_and_costs_what_was_answered(learning: Learning, fault: str) -> None:
    fill(learning)
    provider = Provider(lambda: fault)

    with ModelServer(provider) as server:
        report = learning.run(models=models_of(learning, server))

    assert (learning.entries(), report.counts["left_for_next_run"]) == ([], len(ANSWERS))
    assert_costs_are(learning, provider)


@pytest.mark.parametrize("fault", HARMLESS)
def test_an_oddity_that_harms_nobody_costs_no_further_call(learning: Learning, fault: str) -> None:
    fill(learning)
    provider = Provider(lambda: fault)

    with ModelServer(provider) as server:
        learning.run(models=models_of(learning, server))

    assert entries(learning) == EXPECTED
    assert provider.usage["calls"] == 2 + len(ANSWERS)


@pytest.mark.parametrize("cap_usd", [0.001, 0.1, 0.2, 0.3])
def test_the_cap_holds_within_one_call(learning: Learning, cap_usd: float) -> None:
    fill(learning)
    bills = [0.0]
    provider = Provider()

    def script(request: Request) -> Reply:
        reply = provider(request)
        bills.append(provider.cost_usd)
        return reply

    with ModelServer(script) as server:
        models = models_of(learning, server, max_cost_usd=cap_usd)
        report = learning.run(models=models)

    assert bills[-2] < cap_usd <= bills[-1]
    assert report.costs.cost_usd == pytest.approx(bills[-1])
    assert {entry.source_chat_id for entry in learning.entries()} == {f"chat-{n}" for n in range(len(ANSWERS))}
    assert any("max_cost_usd_per_run" in change for change in report.changes)
