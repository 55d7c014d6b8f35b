"""300 conversations become 50, those become groups, and the groups entries; the run's record says what each cost."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from bench.quoting_model import LARGE_USD, SMALL_USD, draft, verdicts
from learner.models import load_models
from store.runs import last_completed_run
from tests.learner.knowledge.conftest import TENANT, Learning
from tests.learner.model_server import ModelServer, Reply, Request, text_reply, tool_reply

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("thread_loop")]
THINGS = (
    *("kettle", "toaster", "blender", "heater", "dryer", "fridge", "freezer", "printer", "scanner", "monitor"),
    *("keyboard", "headset", "speaker", "camera", "drone", "scooter", "helmet", "tent", "backpack", "sofa"),
)
MATTERS = (
    (
        (
            "How long is the warranty on a {thing}?",
            "What warranty does a {thing} have?",
            "Is there a warranty on a {thing}?",
        ),
        "A {thing} has a warranty of {months} months from the day of delivery. Keep the receipt, it is the proof.",
        "warranty",
    ),
    (
        ("How do I clean a {thing}?", "What is the right way to clean a {thing}?", "How should I clean a {thing}?"),
        "Unplug the {thing}, wipe it with a damp cloth and let it dry for {months} hours. Never use solvents.",
        "cleaning",
    ),
    (
        ("Where do I register a {thing}?", "How can I register a {thing}?", "Where can a {thing} be registered?"),
        "Open Products, press Register and enter the number below the {thing}. It takes {months} minutes.",
        "registration",
    ),
    (
        ("How do I return a {thing}?", "Can I send a {thing} back?", "What do I do to return a {thing}?"),
        "Print the label under Orders, pack the {thing} with all parts and bring it to a shop within {months} days.",
        "returns",
    ),
    (
        (
            "Which spare parts exist for a {thing}?",
            "Are there spare parts for a {thing}?",
            "Can I buy parts for a {thing}?",
        ),
        "For a {thing} we keep cables, feet and filters for {months} years. Open Spare parts and choose the {thing}.",
        "parts",
    ),
)
SMALL_TALK = ("Hello, I hope you can help me today.", "Of course, what is it about?")


def conversations() -> list[dict[str, Any]]:
    """Return three users' conversations about each of a hundred matters, some longer than others."""
    made = []
    for number in range(300):
        matter, user = divmod(number, 3)
        thing, (questions, answer, tag) = THINGS[matter % len(THINGS)], MATTERS[matter // len(THINGS)]
        values = {"thing": thing, "months": 12 + matter}
        talk = [questions[user].format(**values), answer.format(**values), "Thank you, that helps!"]
        texts = [*(SMALL_TALK if number % 4 == 0 else ()), *talk]
        made.append(
            {
                "chatId": f"chat-{number:03}",
                "messages": [
                    {"role": ("user", "assistant")[row % 2], "content": text} for row, text in enumerate(texts)
                ],
                "user": f"user-{number}",
                "resolved": True,
                "tags": [tag, thing],
            }
        )
    return made


def test_three_hundred_conversations_become_fifty_and_the_large_model_reads_a_fifth_at_most(learning: Learning) -> None:
    learning.import_all(conversations())
    bill: Counter[str] = Counter()

    def script(request: Request) -> Reply:
        content = request["messages"][1]["content"]
        model = request["model"]
        n_in = learning._tokens.count("".join(str(message["content"]) for message in request["messages"]))
        bill.update({f"{model} calls": 1, f"{model} in": n_in, f"{model} out": 50})
        counted = {"prompt_tokens": n_in, "completion_tokens": 50}
        if model == "small":
            return text_reply(verdicts(content), **counted)
        call = draft(content)
        return tool_reply(call.name, call.arguments, **counted)

    with ModelServer(script) as server:
        section = replace(
            learning.config.learner.models,
            prescreen="openai/small",
            extract="openai/large",
            api_base=server.base_url,
        )
        learning.run(models=load_models(section, {"small": SMALL_USD, "large": LARGE_USD}))

    run = last_completed_run(learning.db, TENANT, "knowledge")
    assert run is not None
    counts, costs, tokens = run.summary["counts"], run.summary["costs"], run.summary["tokens"]
    assert (counts["candidates"], counts["prescreened"], counts["left_for_next_run"]) == (300, 50, 250)
    assert 17 <= counts["groups"] <= 50
    assert counts["created"] == counts["groups"] == len(learning.entries())
    assert (costs["prescreen"]["calls"], costs["extraction"]["calls"]) == (30, counts["groups"])
    for stage, model, usd in (("prescreen", "small", SMALL_USD), ("extraction", "large", LARGE_USD)):
        assert costs[stage]["prompt_tokens"] == bill[f"{model} in"]
        assert costs[stage]["completion_tokens"] == bill[f"{model} out"]
        cost_usd = (bill[f"{model} in"] * usd[0] + bill[f"{model} out"] * usd[1]) / 1e6
        assert costs[stage]["cost_usd"] == pytest.approx(cost_usd)
    assert run.cost_usd == pytest.approx(costs["prescreen"]["cost_usd"] + costs["extraction"]["cost_usd"])
    assert tokens["all"] > tokens["sent"] >= tokens["grouped"] > 0
    assert run.summary["saved"] == pytest.approx(1 - tokens["sent"] / tokens["all"], abs=1e-4)
    assert 1 - tokens["grouped"] / tokens["all"] >= 0.8
    assert run.summary["saved"] >= 0.7  # with the entries near each group, which are many here


def test_without_a_model_nothing_is_said_to_be_saved(learning: Learning) -> None:
    learning.import_all(conversations()[:6])

    learning.run()

    run = last_completed_run(learning.db, TENANT, "knowledge")
    assert run is not None
    assert (run.summary["tokens"]["sent"], run.summary["saved"]) == (0, None)
