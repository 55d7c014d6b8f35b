"""A group's draft becomes a new entry, a new wording, support for one that exists, or nothing: one transaction."""

from dataclasses import replace

import numpy as np

from learner.knowledge.candidates import Candidate
from learner.knowledge.checks import problems
from learner.knowledge.extraction import (
    N_QUESTIONS,
    SAME_QUESTION,
    Draft,
    Group,
    best_exchange,
    question_text,
    says_the_same,
)
from learner.knowledge.privacy import declared_names, remove_personal_data
from learner.knowledge.progress import Run
from store.context_proposals import add_sources, create_context, propose_revision
from store.contexts import STANDING, ContextRow, RevisionRow, Source, Wording, known_revisions
from store.contradictions import Claim, open_contradiction
from store.embedding import Vector
from store.mining import Decision
from store.wordings import compose


def nearest_known(run: Run, vector: Vector) -> list[tuple[float, ContextRow, RevisionRow]]:
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


def store_draft(run: Run, members: Group, draft: Draft) -> None:
    """Store a group's draft, or what keeps it from being stored, with the marks of the group's conversations."""
    found = problems(draft, members, run.collaborators.embedder) if draft.action != "skip" else [draft.note]
    if found:
        _finish_group(run, members, "skipped", None, "; ".join(found))
        return
    wording = compose(
        draft.questions,
        draft.answer,
        draft.tags,
        embedder=run.collaborators.embedder,
        tokens=run.collaborators.tokens,
    )
    with run.db.transaction():
        if draft.context_id is not None:
            twin = next((c for _, c, _ in nearest_known(run, wording.embedding) if c.id == draft.context_id), None)
            _revise_or_skip(run, members, draft, wording, twin)
            return
        alike = _alike(run, draft, wording.embedding)
        standing = [entry for entry in alike if entry[0].status in STANDING and entry[1].status != "rejected"]
        turned_down = [c for c, r in alike if r.status == "rejected" or c.status in ("rejected", "retired")]
        same = [one for one in standing if says_the_same(run.collaborators.embedder, one[1].answer, draft.answer)]
        if same:
            context, revision = same[0]
            _support(run, members, context, revision)
            if _is_contradicted(run, context, draft) and context.id not in members.representative.injected_ids:
                _open(run, context, draft, members.representative)  # it says what waits beside what is in use
            _open_within(run, members, draft, context)
        elif turned_down:
            _finish_group(run, members, "skipped", turned_down[0].id, "a person turned the like of it down")
        elif standing:
            _revise_or_skip(run, members, draft, wording, standing[0][0])
        else:
            _create(run, members, draft, wording)


def _alike(run: Run, draft: Draft, vector: Vector) -> list[tuple[ContextRow, RevisionRow]]:
    """Return the known wordings that a draft repeats, the nearest first: the same question, or nearly, and answer."""
    embedder = run.collaborators.embedder
    answer = embedder.embed_one(draft.answer)
    alike = []
    for similarity, context, revision in nearest_known(run, vector):
        if similarity < SAME_QUESTION:
            break
        is_same_question = similarity >= run.section.duplicate_similarity
        if is_same_question or (
            float(embedder.embed_one(revision.answer) @ answer) >= run.section.duplicate_similarity
            and says_the_same(embedder, revision.answer, draft.answer)
        ):
            alike.append((context, revision))
    return alike


def _support(run: Run, members: Group, context: ContextRow, revision: RevisionRow) -> None:
    """Count conversations that say what an entry says, but for those that say it because it was injected."""
    independent = [m for m in members.members if context.id not in m.injected_ids]
    if not independent:
        _finish_group(run, members, "skipped", context.id, "its own echo")
        return
    sources = [Source(member.conversation_id, member.user_id) for member in independent]
    add_sources(run.db, run.tenant_id, context.id, sources, revision=revision.revision, now_s=run.now_s)
    _finish_group(run, members, "supported", context.id, "an entry says it already")


def _revise_or_skip(run: Run, members: Group, draft: Draft, wording: Wording, context: ContextRow | None) -> None:
    if context is None or context.status not in STANDING:
        _finish_group(run, members, "skipped", None, "the entry to update is gone")
        return
    if members.representative.provenance != "correction" and context.id in members.representative.injected_ids:
        _finish_group(run, members, "skipped", context.id, "its own echo")
        return
    is_contradicted = _is_contradicted(run, context, draft)
    if is_contradicted:
        _open(run, context, draft, members.representative)
    propose_revision(
        run.db,
        run.tenant_id,
        context.id,
        wording,
        source_chat_id=members.representative.conversation_id,
        sources=_sources(run, members),
        run_id=run.id,
        actor="learner",
        now_s=run.now_s,
        note=draft.note,
    )
    run.tally.changes.append(f"proposed a new wording of {context.id}: {draft.questions[0]}")
    if is_contradicted:
        _finish_group(run, members, "contradicted", context.id, "an entry in use says something else")
    else:
        _finish_group(run, members, "revised", context.id, draft.note)


def _is_contradicted(run: Run, context: ContextRow, draft: Draft) -> bool:
    """Return whether a draft says something else than an entry that was approved."""
    embedder = run.collaborators.embedder
    return context.status != "pending_approval" and not says_the_same(embedder, context.answer, draft.answer)


def _create(run: Run, members: Group, draft: Draft, wording: Wording) -> None:
    context = create_context(
        run.db,
        run.tenant_id,
        wording,
        provenance=draft.provenance,
        source_chat_id=members.representative.conversation_id,
        sources=_sources(run, members),
        run_id=run.id,
        actor="learner",
        now_s=run.now_s,
        note=draft.note,
    )
    run.tally.changes.append(f"learned {context.id} (waits for approval): {draft.questions[0]}")
    _open_within(run, members, draft, context)
    _finish_group(run, members, "created", context.id, draft.note)


def _open_within(run: Run, members: Group, draft: Draft, context: ContextRow) -> None:
    """Open a contradiction for each other user of the group who was answered otherwise."""
    for other in members.others:
        if context.id in other.injected_ids or _agrees(run, members, other):
            continue
        exchange = best_exchange(other)
        names = declared_names(other.text)
        question = remove_personal_data(question_text(exchange), names)
        claim = replace(
            draft,
            questions=(question, *(asked for asked in draft.questions if asked != question))[:N_QUESTIONS],
            answer=remove_personal_data(exchange.answer, names),
            provenance=other.provenance,
        )
        if not problems(claim, Group(other, members.members), run.collaborators.embedder):
            _open(run, context, claim, other)


def _open(run: Run, context: ContextRow, draft: Draft, source: Candidate) -> None:
    claim = Claim(draft.questions, draft.answer, draft.tags, source.conversation_id, draft.provenance)
    opened = open_contradiction(
        run.db, run.tenant_id, context.id, context.answer, claim, run_id=run.id, now_s=run.now_s
    )
    if opened is not None:
        run.tally.count("contradictions")
        run.tally.changes.append(f"{source.conversation_id} contradicts {context.id} ({opened}): {draft.answer}")


def _sources(run: Run, members: Group) -> list[Source]:
    first = members.representative
    return [
        Source(first.conversation_id, first.user_id, "representative"),
        *(Source(other.conversation_id, other.user_id) for other in members.others if _agrees(run, members, other)),
    ]


def _agrees(run: Run, members: Group, other: Candidate) -> bool:
    """Return whether another conversation of the group gave the representative's answer too."""
    said = best_exchange(members.representative).answer
    return any(says_the_same(run.collaborators.embedder, exchange.answer, said) for exchange in other.exchanges)


def _finish_group(run: Run, members: Group, decision: Decision, context_id: str | None, note: str) -> None:
    with run.db.transaction():
        for member in members.members:
            run.mark(member, decision, context_id=context_id, note=note)
    run.tally.count(decision)
