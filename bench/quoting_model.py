"""A model that judges by length and quotes what was said: what a run costs depends on what it is sent, not on wit."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from learner.models import Completion, Message, Meter, Models, Tool, ToolCall, Usage

SMALL_USD, LARGE_USD = (0.04, 0.04), (0.30, 2.50)  # per million tokens in and out: Ministral 3B, Gemini 2.5 Flash
CRITERIA = ("resolved", "professional", "generalisable", "no_personal_data")
TURN = re.compile(r"^(User|Assistant|Person): (.*)$", re.MULTILINE)


@dataclass
class QuotingModel:
    """Answers as the pre-screen's or the extraction's model would, and meters by cl100k_base."""

    count: Callable[[str], int]
    meter: Meter
    usd: tuple[float, float]
    calls: list[int] = field(default_factory=list)  # prompt tokens of each

    def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        json_object: bool = False,
    ) -> Completion:
        del json_object
        asked = str(messages[1]["content"])
        text, calls = ("", (draft(asked),)) if tools else (verdicts(asked), ())
        sent = [*(str(message["content"]) for message in messages), *(json.dumps(tool) for tool in tools)]
        n_in = sum(map(self.count, sent))
        n_out = self.count(text) + sum(self.count(call.arguments) for call in calls)
        cost_usd = (n_in * self.usd[0] + n_out * self.usd[1]) / 1e6
        self.calls.append(n_in)
        self.meter.usage += Usage(1, n_in, n_out, cost_usd)
        return Completion(text, calls, n_in, n_out, cost_usd)


def quoting_models(count: Callable[[str], int]) -> Models:
    """Return both models of a knowledge run."""
    meter = Meter(max_cost_usd=10.0)
    return Models(QuotingModel(count, meter, SMALL_USD), QuotingModel(count, meter, LARGE_USD), None, meter)


def verdicts(asked: str) -> str:
    """Return a pre-screen's answer: all are fit, the longer the better."""
    parts = asked.split("<conversation id=")[1:]
    flags = dict.fromkeys(CRITERIA, True)
    judged = [{"id": i + 1, **flags, "score": round(0.5 + min(len(p), 2400) / 4800, 3)} for i, p in enumerate(parts)]
    return json.dumps({"verdicts": judged})


def draft(asked: str) -> ToolCall:
    """Return a call that quotes the conversation's last question that was answered."""
    turns = TURN.findall(asked.partition("</conversation>")[0])
    told = [
        (question, answer)
        for (speaker, question), (other, answer) in pairwise(turns)
        if speaker == "User" and other != "User" and question.endswith("?") and not answer.endswith("?")
        if "[" not in question + answer  # what stands for something personal is of no use to others
    ]
    if not told:
        return ToolCall("call_1", "skip", json.dumps({"reason": "nothing was asked and answered"}))
    question, answer = max(told, key=lambda pair: len(pair[1]))
    core = question.rstrip("?")
    questions = [question, f"Please tell me: {core}?", f"{core}, please?"]
    return ToolCall("call_1", "create_context", json.dumps({"questions": questions, "answer": answer, "tags": []}))
