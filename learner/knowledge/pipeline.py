"""One knowledge run: corrections, candidates, pre-screen, groups, drafts, entries that wait for a person.

Each group's entry is committed together with the marks of its conversations, each pre-screened batch with its verdicts,
and each answer of a model the moment it is there: a killed run goes on where it stopped, repeats no paid call that was
answered, and doubles no entry. What a model fails at is left to the next run, and after some runs decided without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from learner.kept_model import KeptAnswers
from learner.knowledge.candidates import Candidate, find_candidates
from learner.knowledge.corrections import flag_corrected
from learner.knowledge.drafting import MAX_RUNS, Drafter, prompt_tokens, whole_prompt_tokens
from learner.knowledge.evidence import judge_entries
from learner.knowledge.extraction import Agent, Group, best_exchange, join_groups, make_groups, question_text
from learner.knowledge.grouping import group
from learner.knowledge.judgement import Verdict, verdict_from_json
from learner.knowledge.prescreen import Screener, judge_by_rules
from learner.knowledge.progress import Run, Tally
from learner.knowledge.storing import store_draft
from learner.report import Collaborators, RunReport
from store.clock import iso, parse_iso
from store.config import Config, ContextsSection
from store.context_review import UserGuards, expire_pending
from store.database import Database
from store.generations import current_number
from store.mining import ChangedConversation, Mark, changed_conversations, get_marks
from store.model_calls import forget_answers
from store.runs import finish_run, last_completed_run

OVERLAP: Final = timedelta(hours=1)  # records that were late for the run before; marks keep them from counting twice
BEGINNING: Final = "0001-01-01T00:00:00.000Z"


@dataclass(frozen=True, slots=True)
class Period:
    """Conversations whose newest message or signal is in it are looked at; UTC text, *end* is not in it."""

    start: str | None
    end: str | None


def run_knowledge(  # noqa: PLR0917  # the signature of every kind of run
    db: Database,
    config: Config,
    tenant_id: str,
    collaborators: Collaborators,
    run_id: str,
    now_s: float,
    *,
    period: Period | None = None,
) -> RunReport:
    """Return what one knowledge run read, changed and cost, its row completed; call it under the tenant's run lock.

    A run of a *period* mines its conversations and nothing else: where the next run begins stays as it was.

    Raises:
        UnavailableError: the database is missing, locked or damaged; what was committed stays, run again.
    """
    models = collaborators.models.for_run()
    answers = KeptAnswers(db, tenant_id, run_id, collaborators.clock)
    run = Run(
        db=db,
        tenant_id=tenant_id,
        id=run_id,
        now_s=now_s,
        section=config.knowledge,
        max_retries=config.learner.models.max_retries,
        collaborators=collaborators,
        models=replace(
            models,
            prescreen=answers.of(models.prescreen, config.learner.models.prescreen),
            extract=answers.of(models.extract, config.learner.models.extract),
        ),
        tally=Tally(),
    )
    generation_before = current_number(db, tenant_id)
    cursor = _cursor(db, tenant_id)
    if not config.knowledge.enabled:
        run.tally.notes.append("knowledge is switched off ([knowledge] enabled)")
    elif period is not None:
        _learn_from(run, changed_conversations(db, tenant_id, since=period.start or BEGINNING, until=period.end))
    else:
        cursor = _learn(run, config.contexts, cursor)
    run.tally.notes += run.models.meter.notes()
    if answers.n_used_again:
        run.tally.notes.append(f"{answers.n_used_again} answers of a run that was interrupted were used again")
    generation = current_number(db, tenant_id)
    return _finish(run, cursor, generation if generation > generation_before else None)


def _finish(run: Run, cursor: str, generation: int | None) -> RunReport:
    usage = run.models.meter.usage
    with run.db.transaction():
        forget_answers(run.db, run.tenant_id)
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
    """Do all stages over what is new since *cursor* and return the cursor of the next run."""
    since = _before(cursor, OVERLAP)
    guards = UserGuards(run.section.correction_history_h, run.section.max_removals_per_day)
    flagged = flag_corrected(
        run.db, run.tenant_id, run.collaborators.embedder, guards, since=since, run_id=run.id, now_s=run.now_s
    )
    n_proposed = judge_entries(run, contexts)
    expired = expire_pending(run.db, run.tenant_id, pending_days=run.section.pending_days, now_s=run.now_s)
    run.tally.changes += [*flagged, *(f"expired {context_id}: nobody looked at it" for context_id in expired)]
    changed = changed_conversations(run.db, run.tenant_id, since=since)
    _learn_from(run, changed)
    run.tally.counts |= {"flagged": len(flagged), "expired": len(expired), "proposed_deletions": n_proposed}
    # While something waits the cursor stays: the next run finds it, and the marks keep the rest from coming again.
    is_all_seen = run.tally.counts["left_for_next_run"] == 0
    return max([cursor, *(conversation.changed_at for conversation in changed)]) if is_all_seen else cursor


def _learn_from(run: Run, changed: Sequence[ChangedConversation]) -> None:
    """Mine the *changed* conversations: candidates, pre-screen, groups, entries."""
    found = find_candidates(run.db, run.tenant_id, changed, run.section)
    for conversation in found.unfit:
        run.mark(conversation, "screened_out", note="nothing in it was accepted by anybody")
    kept, n_waiting = _prescreen(run, found.candidates)
    groups = _group(run, kept)
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
        "flagged": 0,
        "expired": 0,
        "proposed_deletions": 0,
        "left_for_next_run": found.n_left + n_waiting,
    }
    _extract(run, groups)
    run.tally.tokens |= {"all": whole_prompt_tokens(run, found.candidates), "grouped": prompt_tokens(run, groups)}


def _cursor(db: Database, tenant_id: str) -> str:
    last = last_completed_run(db, tenant_id, "knowledge")
    return str(last.cursor.get("changed_at", BEGINNING)) if last is not None else BEGINNING


def _before(moment: str, span: timedelta) -> str:
    return moment if moment == BEGINNING else iso(parse_iso(moment) - span.total_seconds())


def _prescreen(run: Run, candidates: Sequence[Candidate]) -> tuple[list[Candidate], int]:
    """Return the candidates worth extracting, best first, and how many more are for the next run."""
    marks = _marks(run, candidates)
    verdicts = {
        conversation_id: verdict_from_json(mark.verdict)
        for conversation_id, mark in marks.items()
        if mark.verdict is not None
    }
    unjudged = [candidate for candidate in candidates if candidate.conversation_id not in verdicts]
    before = run.models.meter.usage
    screener = Screener(run.models.prescreen, run.max_retries, run.tally.notes)
    n_unjudged = 0
    for start in range(0, len(unjudged), run.section.prescreen_batch):
        batch = unjudged[start : start + run.section.prescreen_batch]
        judged: Sequence[Verdict | None] | None = screener.judge(batch)
        if judged is None:
            judged = [judge_by_rules(c) if _n_left(marks, c) + 1 >= MAX_RUNS else None for c in batch]
        with run.db.transaction():
            for candidate, verdict in zip(batch, judged, strict=True):
                if verdict is None:
                    n_unjudged += 1
                    run.mark(candidate, None, n_left=_n_left(marks, candidate) + 1)
                else:
                    verdicts[candidate.conversation_id] = verdict
                    run.mark(candidate, None if verdict.is_kept else "screened_out", verdict=verdict)
    run.tally.costs["prescreen"] = run.models.meter.usage - before
    fit = [c for c in candidates if c.conversation_id in verdicts and verdicts[c.conversation_id].is_kept]
    fit.sort(key=lambda candidate: -verdicts[candidate.conversation_id].score)
    n_waiting = max(len(fit) - run.section.max_prescreened, 0)
    return fit[: run.section.max_prescreened], n_waiting + n_unjudged


def _marks(run: Run, candidates: Sequence[Candidate]) -> dict[str, Mark]:
    """Return the marks of those candidates that are still in the state in which they were marked."""
    marks = get_marks(run.db, run.tenant_id, [candidate.conversation_id for candidate in candidates])
    states = {candidate.conversation_id: candidate.changed_at for candidate in candidates}
    return {name: mark for name, mark in marks.items() if mark.changed_at == states[name]}


def _n_left(marks: Mapping[str, Mark], candidate: Candidate) -> int:
    mark = marks.get(candidate.conversation_id)
    return mark.n_left if mark is not None else 0


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
    model = run.models.extract
    agent = Agent(model, run.max_retries, run.collaborators.tokens.count) if model is not None else None
    drafter = Drafter(run, _marks(run, [member for members in groups for member in members.members]), agent)
    for members in groups:
        draft = drafter.draft(members)
        if draft is not None:
            store_draft(run, members, draft)
            continue
        with run.db.transaction():
            for member in members.members:
                run.mark(member, None, n_left=drafter.n_left(members) + 1)
        run.tally.count("left_for_next_run", len(members.members))
    run.tally.costs["extraction"] = run.models.meter.usage - before
    run.tally.tokens["sent"] = agent.n_prompt_tokens if agent is not None else 0
