"""One knowledge run: corrections, candidates, pre-screen, groups, drafts, entries that wait for a person.

Each group's entry is committed together with the marks of its conversations, and each pre-screened batch with its
verdicts: a killed run goes on where it stopped, repeats no paid call that was answered, and doubles no entry.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import numpy as np

from learner.errors import BudgetExceededError, ModelError
from learner.knowledge.candidates import Candidate, find_candidates
from learner.knowledge.checks import entry_vector, problems
from learner.knowledge.corrections import flag_corrected
from learner.knowledge.extraction import (
    Agent,
    Draft,
    Group,
    Nearest,
    best_exchange,
    draft_by_rules,
    make_group,
    question_text,
    says_the_same,
)
from learner.knowledge.grouping import group
from learner.knowledge.prescreen import Screener, Verdict, verdict_from_json
from learner.models import Models, Usage
from learner.report import Collaborators, RunReport
from store import blocks
from store.clock import iso, parse_iso
from store.config import Config, KnowledgeSection
from store.contexts import (
    ContextRow,
    RevisionRow,
    Source,
    add_sources,
    create_context,
    expire_pending,
    known_revisions,
    propose_revision,
)
from store.database import Database
from store.embedding import Vector
from store.generations import current_number
from store.mining import ChangedConversation, Decision, changed_conversations, get_marks, mark_conversation
from store.runs import finish_run, last_completed_run

log = logging.getLogger(__name__)

OVERLAP: Final = timedelta(hours=1)  # records that were late for the run before; marks keep them from counting twice
BEGINNING: Final = "0001-01-01T00:00:00.000Z"


@dataclass(slots=True)
class Tally:
    """What a run has done so far: counts and costs by stage, and lines for a reader."""

    counts: dict[str, int] = field(default_factory=dict)
    costs: dict[str, Usage] = field(default_factory=dict)
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
        return {"counts": self.counts, "costs": costs, "changes": self.changes, "notes": self.notes}


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


def run_knowledge(  # noqa: PLR0917  # the signature of every kind of run
    db: Database, config: Config, tenant_id: str, collaborators: Collaborators, run_id: str, now_s: float
) -> RunReport:
    """Return what one knowledge run of *tenant_id* read, changed and cost; the run's row is completed with it.

    Raises:
        UnavailableError: the database is missing, locked or damaged; what was committed stays, run again.
    """
    models = collaborators.models.for_run()
    tally = Tally()
    run = Run(
        db, tenant_id, run_id, now_s, config.knowledge, config.learner.models.max_retries, collaborators, models, tally
    )
    generation_before = current_number(db, tenant_id)
    cursor = _cursor(db, tenant_id)
    if config.knowledge.enabled:
        cursor = _learn(run, cursor)
    else:
        tally.notes.append("knowledge is switched off ([knowledge] enabled)")
    tally.notes += models.meter.notes()
    usage = models.meter.usage
    generation = current_number(db, tenant_id)
    published = generation if generation > generation_before else None
    finish_run(
        db,
        tenant_id,
        run_id,
        finished_s=collaborators.clock.now_s(),
        cursor={"changed_at": cursor},
        summary=tally.summary(),
        generation=published,
        model_calls=usage.calls,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cost_usd=usage.cost_usd,
    )
    return RunReport(
        kind="knowledge",
        run_id=run_id,
        generation=published,
        counts=dict(tally.counts),
        changes=(*tally.changes, *tally.notes),
        costs=usage,
    )


def _learn(run: Run, cursor: str) -> str:
    """Do all stages and return the cursor of the next run."""
    since = _before(cursor, OVERLAP)
    flagged = flag_corrected(run.db, run.tenant_id, run.collaborators.embedder, since=since, now_s=run.now_s)
    expired = expire_pending(run.db, run.tenant_id, pending_days=run.section.pending_days, now_s=run.now_s)
    changed = changed_conversations(run.db, run.tenant_id, since=since)
    found = find_candidates(run.db, run.tenant_id, changed, run.section)
    for conversation in found.unfit:
        _mark(run, conversation, "screened_out", note="nothing in it was accepted by anybody")
    kept, n_waiting = _prescreen(run, found.candidates)
    groups = _group(run, kept)
    run.tally.changes += [*flagged, *(f"expired {context_id}: nobody looked at it" for context_id in expired)]
    run.tally.counts |= {
        "conversations": len(changed),
        "candidates": len(found.candidates),
        "prescreened": len(kept),
        "groups": len(groups),
        "created": 0,
        "revised": 0,
        "supported": 0,
        "skipped": 0,
        "flagged": len(flagged),
        "expired": len(expired),
        "left_for_next_run": found.n_left + n_waiting,
    }
    _extract(run, groups)
    # While something waits the cursor stays: the next run finds it, and the marks keep the rest from coming again.
    is_all_seen = found.n_left + n_waiting == 0
    return max([cursor, *(conversation.changed_at for conversation in changed)]) if is_all_seen else cursor


def _cursor(db: Database, tenant_id: str) -> str:
    last = last_completed_run(db, tenant_id, "knowledge")
    return str(last.cursor.get("changed_at", BEGINNING)) if last is not None else BEGINNING


def _before(moment: str, span: timedelta) -> str:
    return moment if moment == BEGINNING else iso(parse_iso(moment) - span.total_seconds())


def _prescreen(run: Run, candidates: Sequence[Candidate]) -> tuple[list[Candidate], int]:
    """Return the candidates worth extracting, best first, and how many more are for the next run."""
    marks = get_marks(run.db, run.tenant_id, [candidate.conversation_id for candidate in candidates])
    verdicts: dict[str, Verdict] = {}
    for candidate in candidates:
        mark = marks.get(candidate.conversation_id)
        if mark is not None and mark.changed_at == candidate.changed_at and mark.verdict is not None:
            verdicts[candidate.conversation_id] = verdict_from_json(mark.verdict)
    unjudged = [candidate for candidate in candidates if candidate.conversation_id not in verdicts]
    before = run.models.meter.usage
    screener = Screener(run.models.prescreen, run.max_retries, run.tally.notes)
    for start in range(0, len(unjudged), run.section.prescreen_batch):
        batch = unjudged[start : start + run.section.prescreen_batch]
        judged = screener.judge(batch)
        with run.db.transaction():
            for candidate, verdict in zip(batch, judged, strict=True):
                verdicts[candidate.conversation_id] = verdict
                _mark(run, candidate, None if verdict.is_kept else "screened_out", verdict=verdict)
    run.tally.costs["prescreen"] = run.models.meter.usage - before
    fit = [candidate for candidate in candidates if verdicts[candidate.conversation_id].is_kept]
    fit.sort(key=lambda candidate: -verdicts[candidate.conversation_id].score)
    return fit[: run.section.max_prescreened], max(len(fit) - run.section.max_prescreened, 0)


def _group(run: Run, candidates: Sequence[Candidate]) -> list[Group]:
    if not candidates:
        return []
    asked = [question_text(best_exchange(candidate)) for candidate in candidates]
    embeddings = run.collaborators.embedder.embed(asked)
    rows = group(embeddings, [candidate.tags for candidate in candidates], run.section)
    return [make_group([candidates[row] for row in members]) for members in rows]


def _extract(run: Run, groups: Sequence[Group]) -> None:
    """Decide on each group, one transaction each."""
    before = run.models.meter.usage
    agent = Agent(run.models.extract, run.max_retries) if run.models.extract is not None else None
    for members in groups:
        draft = None
        if agent is not None:
            try:
                draft = _draft_by_model(run, agent, members)
            except BudgetExceededError as exc:
                run.tally.notes.append(f"extraction: {exc}; the rest by rules")
                agent = None
            except ModelError as exc:
                run.tally.notes.append(f"{exc}; by rules: {members.representative.conversation_id}")
        if draft is None:
            draft = draft_by_rules(members, run.collaborators.embedder)
        _decide(run, members, draft)
    run.tally.costs["extraction"] = run.models.meter.usage - before


def _draft_by_model(run: Run, agent: Agent, members: Group) -> Draft:
    vector = run.collaborators.embedder.embed_one(question_text(best_exchange(members.representative)))
    nearest = [
        Nearest(context.id, revision.questions, revision.answer, similarity)
        for similarity, context, revision in _nearest(run, vector)
        if context.status in ("approved", "pending_approval", "flagged") and revision.status != "rejected"
    ]
    return agent.draft(
        members,
        nearest[: run.section.max_nearest],
        lambda draft: problems(draft, members, run.collaborators.embedder),
    )


def _nearest(run: Run, vector: Vector) -> list[tuple[float, ContextRow, RevisionRow]]:
    """Return all known wordings with their cosine to *vector*, the nearest first."""
    name = run.collaborators.embedder.name
    known = [
        (context, revision)
        for context, revision in known_revisions(run.db, run.tenant_id)
        if revision.embedding_model == name
    ]
    if not known:
        return []
    similarities = np.stack([revision.embedding for _, revision in known]) @ vector
    order = np.argsort(-similarities, kind="stable")
    return [(float(similarities[row]), *known[row]) for row in order]


def _decide(run: Run, members: Group, draft: Draft) -> None:
    """Store a group's draft, or what keeps it from being stored, with the marks of the group's conversations."""
    found = problems(draft, members, run.collaborators.embedder) if draft.action != "skip" else [draft.note]
    if found:
        _finish_group(run, members, "skipped", None, "; ".join(found))
        return
    vector = entry_vector(draft.questions, run.collaborators.embedder)
    with run.db.transaction():
        if draft.context_id is not None:
            twin = next((c for _, c, _ in _nearest(run, vector) if c.id == draft.context_id), None)
            _revise_or_skip(run, members, draft, vector, twin)
            return
        alike = [entry for entry in _nearest(run, vector) if entry[0] >= run.section.duplicate_similarity]
        turned_down = [c for _, c, r in alike if r.status == "rejected" or c.status in ("rejected", "retired")]
        standing = [entry for entry in alike if entry[1].status in ("pending_approval", "approved", "flagged")]
        same = [c for _, c, r in standing if says_the_same(run.collaborators.embedder, r.answer, draft.answer)]
        if same:
            _support(run, members, same[0])
        elif turned_down:
            _finish_group(run, members, "skipped", turned_down[0].id, "a person turned the like of it down")
        elif standing:
            _revise_or_skip(run, members, draft, vector, standing[0][1])
        else:
            _create(run, members, draft, vector)


def _support(run: Run, members: Group, context: ContextRow) -> None:
    """Count conversations that say what an entry says, but for those that say it because it was injected."""
    independent = [m for m in members.members if context.id not in m.injected_ids]
    if not independent:
        _finish_group(run, members, "skipped", context.id, "its own echo")
        return
    sources = [Source(member.conversation_id, member.user_id) for member in independent]
    add_sources(run.db, run.tenant_id, context.id, sources, revision=context.revision, now_s=run.now_s)
    _finish_group(run, members, "supported", context.id, "an entry says it already")


def _revise_or_skip(run: Run, members: Group, draft: Draft, vector: Vector, context: ContextRow | None) -> None:
    if context is None or context.status not in ("pending_approval", "approved", "flagged"):
        _finish_group(run, members, "skipped", None, "the entry to update is gone")
        return
    if members.representative.provenance != "correction" and context.id in members.representative.injected_ids:
        _finish_group(run, members, "skipped", context.id, "its own echo")
        return
    propose_revision(
        run.db,
        run.tenant_id,
        context.id,
        questions=draft.questions,
        answer=draft.answer,
        tags=draft.tags,
        embedding=vector,
        embedding_model=run.collaborators.embedder.name,
        tokens=_tokens(run, draft),
        source_chat_id=members.representative.conversation_id,
        sources=_sources(members),
        run_id=run.id,
        actor="learner",
        now_s=run.now_s,
        note=draft.note,
    )
    run.tally.changes.append(f"proposed a new wording of {context.id}: {draft.questions[0]}")
    _finish_group(run, members, "revised", context.id, draft.note)


def _create(run: Run, members: Group, draft: Draft, vector: Vector) -> None:
    context = create_context(
        run.db,
        run.tenant_id,
        questions=draft.questions,
        answer=draft.answer,
        tags=draft.tags,
        embedding=vector,
        embedding_model=run.collaborators.embedder.name,
        tokens=_tokens(run, draft),
        provenance=draft.provenance,
        source_chat_id=members.representative.conversation_id,
        sources=_sources(members),
        run_id=run.id,
        actor="learner",
        now_s=run.now_s,
        note=draft.note,
    )
    run.tally.changes.append(f"learned {context.id} (waits for approval): {draft.questions[0]}")
    _finish_group(run, members, "created", context.id, draft.note)


def _tokens(run: Run, draft: Draft) -> int:
    return run.collaborators.tokens.count(blocks.context_entry(draft.questions[0], draft.answer))


def _sources(members: Group) -> list[Source]:
    first = members.representative
    return [
        Source(first.conversation_id, first.user_id, "representative"),
        *(Source(other.conversation_id, other.user_id) for other in members.others),
    ]


def _finish_group(run: Run, members: Group, decision: Decision, context_id: str | None, note: str) -> None:
    with run.db.transaction():
        for member in members.members:
            _mark(run, member, decision, context_id=context_id, note=note)
    run.tally.count(decision)


def _mark(
    run: Run,
    conversation: Candidate | ChangedConversation,
    decision: Decision | None,
    *,
    verdict: Verdict | None = None,
    context_id: str | None = None,
    note: str = "",
) -> None:
    conversation_id = conversation.conversation_id if isinstance(conversation, Candidate) else conversation.id
    mark_conversation(
        run.db,
        run.tenant_id,
        conversation_id,
        changed_at=conversation.changed_at,
        decision=decision,
        verdict=verdict.as_json() if verdict is not None else None,
        context_id=context_id,
        note=note,
        run_id=run.id,
        now_s=run.now_s,
    )
