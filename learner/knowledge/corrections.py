"""Entries that somebody corrected after they had been injected: flagged, with the reason and the conversation."""

from collections.abc import Sequence
from typing import Final

from learner.knowledge import language
from learner.knowledge.candidates import names_in
from learner.knowledge.extraction import says_the_same
from learner.knowledge.privacy import declared_names, remove_personal_data
from store.alerts import raise_alert
from store.context_review import UserGuards, flag_context
from store.contexts import ContextRow, get_context
from store.conversations import transcript
from store.database import Database
from store.embedding import Embedder
from store.errors import ConflictError
from store.mining import CorrectedInjection, corrected_injections

SAME_MATTER: Final = 0.35  # least cosine of a person's later answer to the entry it may correct
MAX_REASON_CHARS: Final = 500


def flag_corrected(
    db: Database, tenant_id: str, embedder: Embedder, guards: UserGuards, *, since: str, run_id: str, now_s: float
) -> list[str]:
    """Flag the entries that were corrected since *since* (UTC text) and return a line for each flag that is new.

    Where one reply had several entries, only that nearest to the correction is flagged. Doing it again changes
    nothing: a conversation flags an entry once.
    """
    lines = []
    for correction in _nearest_of_each(db, tenant_id, corrected_injections(db, tenant_id, since=since), embedder):
        try:
            line = _flag(db, tenant_id, correction, embedder, guards, run_id=run_id, now_s=now_s)
        except ConflictError:  # rejected or retired meanwhile: nothing left to doubt
            continue
        lines += [line] if line else []
    return lines


def _flag(
    db: Database,
    tenant_id: str,
    correction: CorrectedInjection,
    embedder: Embedder,
    guards: UserGuards,
    *,
    run_id: str,
    now_s: float,
) -> str:
    """Return what changed; nothing when the conversation had flagged the entry before, or does not contradict it."""
    names = names_in(transcript(db, tenant_id, correction.conversation_id)).union(declared_names(correction.text))
    text = remove_personal_data(" ".join(correction.text.split()), names)[:MAX_REASON_CHARS]
    reason = f"{'a person' if correction.by_person else 'a user'} corrected it: {text}"
    with db.transaction():
        before = get_context(db, tenant_id, correction.context_id)
        if correction.by_person and not _contradicts(before, correction.text, embedder):
            return ""
        after = flag_context(
            db,
            tenant_id,
            correction.context_id,
            reason=reason,
            actor="learner",
            now_s=now_s,
            conversation_id=correction.conversation_id,
            by_person=correction.by_person,
            guards=guards,
        )
        if after.flag_count == before.flag_count:
            return ""
        state = "still served" if after.is_served else "out of service"
        raise_alert(
            db,
            tenant_id,
            kind="context_flagged",
            message=f"context {after.id} was corrected ({state})",
            detail={"context_id": after.id, "conversation_id": correction.conversation_id, "reason": reason},
            run_id=run_id,
            now_s=now_s,
        )
    return f"flagged {after.id} ({state}): corrected in {correction.conversation_id}"


def _nearest_of_each(
    db: Database, tenant_id: str, corrections: Sequence[CorrectedInjection], embedder: Embedder
) -> list[CorrectedInjection]:
    best: dict[tuple[str, str, str], tuple[float, CorrectedInjection]] = {}
    for correction in corrections:
        context = get_context(db, tenant_id, correction.context_id)
        similarity = _similarity(context, correction.text, embedder)
        key = (correction.conversation_id, correction.created_at, correction.text)
        if key not in best or similarity > best[key][0]:
            best[key] = (similarity, correction)
    return [correction for _, correction in best.values()]


def _similarity(context: ContextRow, text: str, embedder: Embedder) -> float:
    vectors = embedder.embed([context.answer, *context.questions])
    return float((vectors @ embedder.embed_one(text)).max())


def _contradicts(context: ContextRow, text: str, embedder: Embedder) -> bool:
    """Return whether a person's later answer is about the same matter and says something else."""
    if not language.content_words(text) or _similarity(context, text, embedder) < SAME_MATTER:
        return False
    return not says_the_same(embedder, context.answer, text)
