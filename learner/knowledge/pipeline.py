"""One knowledge run: corrections, candidates, pre-screen, groups, drafts, entries that wait for a person.

Each group's entry is committed together with the marks of its conversations, and each pre-screened batch with its
verdicts: a killed run goes on where it stopped, repeats no paid call that was answered, and doubles no entry.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from learner.errors import BudgetExceededError, ModelError
from learner.knowledge.candidates import Candidate, find_candidates
from learner.knowledge.checks import problems
from learner.knowledge.corrections import flag_corrected
from learner.knowledge.evidence import judge_entries
from learner.knowledge.extraction import (
    Agent,
    Draft,
    Group,
    Nearest,
    best_exchange,
    draft_by_rules,
    join_groups,
    make_groups,
    question_text,
)
from learner.knowledge.grouping import group
from learner.knowledge.judgement import Verdict, verdict_from_json
from learner.knowledge.prescreen import Screener
from learner.knowledge.progress import Run, Tally
from learner.knowledge.storing import nearest_known, store_draft
from learner.report import Collaborators, RunReport
from store.clock import iso, parse_iso
from store.config import Config, ContextsSection
from store.context_review import UserGuards, expire_pending
from store.contexts import STANDING
from store.database import Database
from store.generations import current_number
from store.mining import changed_conversations, get_marks
from store.runs import finish_run, last_completed_run

OVERLAP: Final = timedelta(hours=1)  # records that were late for the run before; marks keep them from counting twice
BEGINNING: Final = "0001-01-01T00:00:00.000Z"


def run_knowledge(  # noqa: PLR0917  # the signature of every kind of run
    db: Database, config: Config, tenant_id: str, collaborators: Collaborators, run_id: str, now_s: float
) -> RunReport:
    """Return what one knowledge run read, changed and cost, its row completed; call it under the tenant's run lock.

    Raises:
        UnavailableError: the database is missing, locked or damaged; what was committed stays, run again.
    """
    run = Run(
        db=db,
        tenant_id=tenant_id,
        id=run_id,
        now_s=now_s,
        section=config.knowledge,
        max_retries=config.learner.models.max_retries,
        collaborators=collaborators,
        models=collaborators.models.for_run(),
        tally=Tally(),
    )
    generation_before = current_number(db, tenant_id)
    cursor = _cursor(db, tenant_id)
    if config.knowledge.enabled:
        cursor = _learn(run, config.contexts, cursor)
    else:
        run.tally.notes.append("knowledge is switched off ([knowledge] enabled)")
    run.tally.notes += run.models.meter.notes()
    generation = current_number(db, tenant_id)
    return _finish(run, cursor, generation if generation > generation_before else None)


def _finish(run: Run, cursor: str, generation: int | None) -> RunReport:
    usage = run.models.meter.usage
    finish_run(
        run.db,
        run.tenant_id,
        run.id,
        finished_s=run.collaborators.clock.now_s(),
        cursor={"changed_at": cursor},
        summary=run.tally.summary(),
        generation=generation,
        model_calls=usage.calls,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cost_usd=usage.cost_usd,
    )
    return RunReport(
        kind="knowledge",
        run_id=run.id,
        generation=generation,
        counts=dict(run.tally.counts),
        changes=(*run.tally.changes, *run.tally.notes),
        costs=usage,
    )


def _learn(run: Run, contexts: ContextsSection, cursor: str) -> str:
    """Do all stages and return the cursor of the next run."""
    since = _before(cursor, OVERLAP)
    guards = UserGuards(run.section.correction_history_h, run.section.max_removals_per_day)
    flagged = flag_corrected(
        run.db, run.tenant_id, run.collaborators.embedder, guards, since=since, run_id=run.id, now_s=run.now_s
    )
    n_proposed = judge_entries(run, contexts)
    expired = expire_pending(run.db, run.tenant_id, pending_days=run.section.pending_days, now_s=run.now_s)
    changed = changed_conversations(run.db, run.tenant_id, since=since)
    found = find_candidates(run.db, run.tenant_id, changed, run.section)
    for conversation in found.unfit:
        run.mark(conversation, "screened_out", note="nothing in it was accepted by anybody")
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
        "contradicted": 0,
        "contradictions": 0,
        "skipped": 0,
        "flagged": len(flagged),
        "expired": len(expired),
        "proposed_deletions": n_proposed,
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
                run.mark(candidate, None if verdict.is_kept else "screened_out", verdict=verdict)
    run.tally.costs["prescreen"] = run.models.meter.usage - before
    fit = [candidate for candidate in candidates if verdicts[candidate.conversation_id].is_kept]
    fit.sort(key=lambda candidate: -verdicts[candidate.conversation_id].score)
    return fit[: run.section.max_prescreened], max(len(fit) - run.section.max_prescreened, 0)


def _group(run: Run, candidates: Sequence[Candidate]) -> list[Group]:
    if not candidates:
        return []
    asked = [question_text(best_exchange(candidate)) for candidate in candidates]
    embedder = run.collaborators.embedder
    embeddings = embedder.embed(asked)
    rows = group(embeddings, [candidate.tags for candidate in candidates], run.section)
    found = (make_groups([candidates[row] for row in members], embedder) for members in rows)
    return join_groups([divided for groups in found for divided in groups], embedder)


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
        store_draft(run, members, draft)
    run.tally.costs["extraction"] = run.models.meter.usage - before


def _draft_by_model(run: Run, agent: Agent, members: Group) -> Draft:
    vector = run.collaborators.embedder.embed_one(question_text(best_exchange(members.representative)))
    nearest = [
        Nearest(context.id, revision.questions, revision.answer, similarity)
        for similarity, context, revision in nearest_known(run, vector)
        if context.status in STANDING and revision.status != "rejected"
    ]
    return agent.draft(
        members,
        nearest[: run.section.max_nearest],
        lambda draft: problems(draft, members, run.collaborators.embedder),
    )
