"""Who words a group's entry: the model while it answers and may be paid, rules otherwise; or the next run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from learner.errors import BudgetExceededError, ModelError, UnusableDraftError
from learner.knowledge.candidates import Candidate
from learner.knowledge.checks import problems
from learner.knowledge.extraction import (
    Agent,
    Draft,
    Group,
    Nearest,
    best_exchange,
    draft_by_rules,
    n_tokens,
    prompt,
    question_text,
    whole_prompt,
)
from learner.knowledge.prescreen import MAX_FAILURES
from learner.knowledge.progress import Run
from learner.knowledge.storing import nearest_known
from store.contexts import STANDING
from store.mining import Mark

NEAR: Final = 0.4  # least cosine of an entry that the model is shown; unrelated texts stay under .32
MAX_RUNS: Final = 3  # that try a conversation with a model; the last of them decides whatever the model does


@dataclass(slots=True)
class Drafter:
    """Drafts group by group; what a model fails at is left to the next run, as often as ``MAX_RUNS`` allows."""

    run: Run
    marks: Mapping[str, Mark]  # of the groups' conversations as they were before
    agent: Agent | None
    n_failures: int = 0  # in a row

    def draft(self, members: Group) -> Draft | None:
        """Return what should become of a group; None when the next run should decide."""
        if self.agent is None:
            return draft_by_rules(members, self.run.collaborators.embedder)
        is_last = self.n_left(members) + 1 >= MAX_RUNS
        if self.n_failures == MAX_FAILURES:
            return draft_by_rules(members, self.run.collaborators.embedder) if is_last else None
        notes = self.run.tally.notes
        name = members.representative.conversation_id
        try:
            draft = self._by_model(self.agent, members)
        except BudgetExceededError as exc:
            notes.append(f"extraction: {exc}; the rest by rules")
            self.agent = None
            return self.draft(members)
        except UnusableDraftError as exc:
            self.n_failures = 0
            notes.append(f"{name}: {exc}" if is_last else f"{name} is left for the next run: {exc}")
            return Draft("skip", note=str(exc)) if is_last else None
        except ModelError as exc:
            self.n_failures += 1
            notes.append(f"{exc}; by rules: {name}" if is_last else f"{name} is left for the next run: {exc}")
            if self.n_failures == MAX_FAILURES:
                notes.append(f"extraction: failed {MAX_FAILURES} times in a row and is not asked any more")
            return draft_by_rules(members, self.run.collaborators.embedder) if is_last else None
        self.n_failures = 0
        return draft

    def n_left(self, members: Group) -> int:
        """Return in how many runs a model failed at a conversation of the group."""
        marks = (self.marks.get(member.conversation_id) for member in members.members)
        return max(mark.n_left if mark is not None else 0 for mark in marks)

    def _by_model(self, agent: Agent, members: Group) -> Draft:
        embedder = self.run.collaborators.embedder
        vector = embedder.embed_one(question_text(best_exchange(members.representative)))
        nearest = [
            Nearest(context.id, revision.questions, revision.answer, similarity)
            for similarity, context, revision in nearest_known(self.run, vector)
            if similarity >= NEAR and context.status in STANDING and revision.status != "rejected"
        ]
        return agent.draft(
            members, nearest[: self.run.section.max_nearest], lambda draft: problems(draft, members, embedder)
        )


def prompt_tokens(run: Run, groups: Sequence[Group]) -> int:
    """Return about how many tokens the large model reads when it is asked once about each of *groups*."""
    return sum(n_tokens(prompt(members, ()), run.collaborators.tokens.count) for members in groups)


def whole_prompt_tokens(run: Run, candidates: Sequence[Candidate]) -> int:
    """Return about how many tokens the large model would read of all of *candidates*, whole."""
    return sum(n_tokens(whole_prompt(candidate), run.collaborators.tokens.count) for candidate in candidates)
