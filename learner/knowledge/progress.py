"""What the stages of one knowledge run share: where it works, and what it has done so far."""

from dataclasses import dataclass, field
from typing import Any

from learner.knowledge.candidates import Candidate
from learner.knowledge.judgement import Verdict
from learner.models import Models, Usage
from learner.report import Collaborators
from store.config import KnowledgeSection
from store.database import Database
from store.mining import ChangedConversation, Decision, mark_conversation


@dataclass(slots=True)
class Tally:
    """What a run has done so far: counts and costs by stage, and lines for a reader."""

    counts: dict[str, int] = field(default_factory=dict)
    costs: dict[str, Usage] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)  # of the large model: a prompt for all, for groups; sent
    changes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def count(self, name: str, n: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + n

    def summary(self) -> dict[str, Any]:
        costs = {
            stage: {
                "calls": usage.calls,
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "cost_usd": usage.cost_usd,
            }
            for stage, usage in self.costs.items()
        }
        told = {"counts": self.counts, "costs": costs, "tokens": self.tokens, "saved": self.saved()}
        return {**told, "changes": self.changes, "notes": self.notes}

    def saved(self) -> float | None:
        """Return the share of the large model's prompt tokens that was saved by not sending it all, at most 1.

        What it was sent, entries near each group and refused drafts with it, against a first prompt for every
        candidate, whole. None when no model was asked.
        """
        if not self.tokens.get("sent") or not self.tokens.get("all"):
            return None
        return round(1 - self.tokens["sent"] / self.tokens["all"], 4)


@dataclass(frozen=True, slots=True)
class Run:
    """What every stage of one run needs."""

    db: Database
    tenant_id: str
    id: str
    now_s: float
    section: KnowledgeSection
    max_retries: int
    collaborators: Collaborators
    models: Models
    tally: Tally

    def mark(
        self,
        conversation: Candidate | ChangedConversation,
        decision: Decision | None,
        *,
        verdict: Verdict | None = None,
        context_id: str | None = None,
        note: str = "",
        n_left: int = 0,
    ) -> None:
        """Note how far a conversation was taken; it is not looked at again until something is added to it."""
        conversation_id = conversation.conversation_id if isinstance(conversation, Candidate) else conversation.id
        mark_conversation(
            self.db,
            self.tenant_id,
            conversation_id,
            changed_at=conversation.changed_at,
            decision=decision,
            verdict=verdict.as_json() if verdict is not None else None,
            context_id=context_id,
            note=note,
            n_left=n_left,
            run_id=self.id,
            now_s=self.now_s,
        )
