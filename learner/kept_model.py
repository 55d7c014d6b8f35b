"""A model whose answers outlive the run that paid for them: a run that is killed and repeated pays no call twice."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from learner.models import Completion, Message, Model, Tool, ToolCall
from store.clock import Clock
from store.database import Database
from store.model_calls import keep_answer, kept_answer


@dataclass(slots=True)
class KeptAnswers:
    """Where one run keeps what models answered, and how many answers of a run that was killed it used again."""

    db: Database
    tenant_id: str
    run_id: str
    clock: Clock
    n_used_again: int = 0
    turns: Counter[str] = field(default_factory=Counter)  # how many times the run sent a request

    def of(self, model: Model | None, name: str) -> Model | None:
        """Return *model* with its answers kept; *name* tells its requests from those of the run's other models."""
        return None if model is None else KeptModel(model, name, self)


@dataclass(frozen=True, slots=True)
class KeptModel:
    """Answers from what was kept before it asks."""

    model: Model
    name: str
    answers: KeptAnswers

    def complete(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), json_object: bool = False
    ) -> Completion:
        kept = self.answers
        request = json.dumps([self.name, list(messages), list(tools), json_object], sort_keys=True, default=dict)
        request_hash = hashlib.sha256(request.encode("utf-8", "surrogatepass")).hexdigest()
        turn = kept.turns[request_hash]
        kept.turns[request_hash] += 1
        answer = kept_answer(kept.db, kept.tenant_id, request_hash=request_hash, turn=turn)
        if answer is not None:
            kept.n_used_again += 1
            return Completion(**answer | {"tool_calls": tuple(ToolCall(**call) for call in answer["tool_calls"])})
        completion = self.model.complete(messages, tools=tools, json_object=json_object)
        keep_answer(
            kept.db,
            kept.tenant_id,
            request_hash=request_hash,
            turn=turn,
            run_id=kept.run_id,
            answer=asdict(completion),
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            cost_usd=completion.cost_usd,
            now_s=kept.clock.now_s(),
        )
        return completion
