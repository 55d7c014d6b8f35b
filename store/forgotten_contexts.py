"""What becomes of knowledge whose conversations are forgotten: withdrawn, or without what they alone said.

Tables ``ai_contexts``, ``context_revisions``, ``context_sources``, ``context_flags``; written by the learner and the
command, inside the transaction that forgets.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from store.clock import iso
from store.context_changes import serve, take_texts
from store.contexts import ContextRow, RevisionRow, Wording, get_context, list_revisions
from store.contradictions import forget_contradictions
from store.conversations import find_transcript
from store.database import Database
from store.vectors import encode_vector

FORGOTTEN: Final = "(forgotten)"  # stands where a text or a name was
MAX_REVISIONS: Final = 100_000  # of one entry; far more than anybody makes
_WORD: Final = re.compile(r"\w+")
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+|\n+")

Compose = Callable[[Sequence[str], str, Sequence[str]], Wording]
"""Makes the wording of questions, an answer and tags; called only where a phrasing was cut out."""


@dataclass(frozen=True, slots=True)
class ForgottenContexts:
    """Entries by what became of them."""

    withdrawn: tuple[str, ...] = ()  # out of service, their texts gone
    trimmed: tuple[str, ...] = ()  # they lost a source; texts that it alone said are gone
    orphans: frozenset[str] = frozenset()  # conversations that stay, whose entry is gone: to be mined again


@dataclass(slots=True)
class _Tally:
    withdrawn: list[str] = field(default_factory=list)
    trimmed: list[str] = field(default_factory=list)
    orphans: set[str] = field(default_factory=set)


def unnamed(text: str, names: Iterable[str]) -> str:
    """Return *text* with each of *names* in it, as a whole word, replaced.

    >>> unnamed("the answer of c-1, not of c-12", ["c-1"])
    'the answer of (forgotten), not of c-12'
    """
    for name in names:
        if name in text:
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", FORGOTTEN, text)
    return text


class _Said:
    """Which passages stand in the texts of some conversations, whatever their case and punctuation."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._words = "\n".join(_words(text) for text in texts)

    def holds(self, passage: str) -> bool:
        return _words(passage) in self._words


def _words(text: str) -> str:
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def forget_in_contexts(  # noqa: PLR0917  # what a withdrawal needs
    db: Database, tenant_id: str, conversation_ids: Sequence[str], compose: Compose, actor: str, now_s: float
) -> ForgottenContexts:
    """Take *conversation_ids* out of all knowledge; call it while their transcripts can still be read.

    An entry that rests on nothing else is withdrawn. One that a person wrote, or with other sources, keeps each text
    that these say too, and each that the forgotten ones do not say; when its answer goes, it is withdrawn and its
    other sources are to be mined again. What is left of a withdrawn entry is its id, which proxy and audit log know.
    """
    tally = _Tally()
    ids = json.dumps(list(conversation_ids))
    rows = db.rows(
        """
        SELECT context_id AS id FROM context_sources
        WHERE tenant_id = :tenant_id AND conversation_id IN (SELECT value FROM json_each(:ids))
        UNION
        SELECT id FROM ai_contexts
        WHERE tenant_id = :tenant_id AND source_chat_id IN (SELECT value FROM json_each(:ids))
        UNION
        SELECT c.id FROM ai_contexts AS c JOIN context_revisions AS r ON r.context_id = c.id
        WHERE c.tenant_id = :tenant_id AND r.source_chat_id IN (SELECT value FROM json_each(:ids))
        ORDER BY 1
        """,
        {"tenant_id": tenant_id, "ids": ids},
    )
    lost = frozenset(conversation_ids)
    for row in rows:
        context = get_context(db, tenant_id, row["id"])
        sources = _sources(db, context)
        left = [one for one in sources if one not in lost]
        gone = sorted(lost.intersection(sources) | lost.intersection(_representatives(db, context)))
        is_founded = bool(left) or context.provenance == "person"
        if not is_founded or not _trim(db, context, gone, left, compose, actor, now_s):
            _withdraw(db, context, actor, now_s)
            tally.withdrawn.append(context.id)
            tally.orphans.update(left)
        else:
            tally.trimmed.append(context.id)
    _forget_flags(db, tenant_id, ids)
    forget_contradictions(db, tenant_id, ids, tally.withdrawn, tally.trimmed)
    return ForgottenContexts(tuple(tally.withdrawn), tuple(tally.trimmed), frozenset(tally.orphans))


def _sources(db: Database, context: ContextRow) -> list[str]:
    """Return the conversations behind an entry, the one that represents it first."""
    rows = db.rows(
        """
        SELECT conversation_id FROM context_sources WHERE context_id = :id
        ORDER BY role <> 'representative', conversation_id
        """,
        {"id": context.id},
    )
    return [row["conversation_id"] for row in rows]


def _representatives(db: Database, context: ContextRow) -> set[str]:
    rows = db.rows(
        """
        SELECT source_chat_id FROM context_revisions WHERE context_id = :id AND source_chat_id IS NOT NULL
        """,
        {"id": context.id},
    )
    return {row["source_chat_id"] for row in rows} | ({context.source_chat_id} if context.source_chat_id else set())


def _withdraw(db: Database, context: ContextRow, actor: str, now_s: float) -> None:
    """Leave nothing of an entry but its id, out of service."""
    if context.is_served:
        serve(db, context.tenant_id, context.id, is_served=False, actor=actor, reason="context forgotten", now_s=now_s)
    values = {
        "id": context.id,
        "questions_json": json.dumps([FORGOTTEN]),
        "forgotten": FORGOTTEN,
        "embedding": encode_vector(np.zeros_like(context.embedding)),
        "now": iso(now_s),
    }
    db.execute("DELETE FROM context_sources WHERE context_id = :id", values)
    db.execute("DELETE FROM context_flags WHERE context_id = :id", values)
    db.execute("DELETE FROM context_revisions WHERE context_id = :id", values)
    # reviewed_by is empty: no person turned it down, so what others say of the same matter may be learned.
    db.execute(
        """
        UPDATE ai_contexts SET questions_json = :questions_json, answer = :forgotten, tags_json = '[]',
          status = 'retired', pending_revision = NULL, source_chat_id = NULL, n_users = 0, tokens = 0,
          embedding = :embedding, flag_reason = NULL, flag_count = 0, reject_reason = :forgotten, reviewed_by = NULL,
          reviewed_at = NULL, updated_at = :now
        WHERE id = :id
        """,
        values,
    )


def _trim(  # noqa: PLR0917  # what a withdrawal needs, and what is left
    db: Database,
    context: ContextRow,
    gone: Sequence[str],
    left: Sequence[str],
    compose: Compose,
    actor: str,
    now_s: float,
) -> bool:
    """Take *gone* out of an entry that also rests on *left*; return whether a text of it may stay."""
    forgotten, kept = _said(db, context, gone), _said(db, context, left)
    texts: dict[int, tuple[str, ...]] = {}
    revisions = list_revisions(db, context.tenant_id, context.id, limit=MAX_REVISIONS)[0]
    for revision in revisions:
        if revision.source_chat_id is None:  # a person's own words
            texts[revision.revision] = revision.questions
            continue
        is_worded_from_it = revision.source_chat_id in gone
        passages = [sentence for sentence in _SENTENCE.split(revision.answer) if _WORD.search(sentence)]
        if all(_may_stay(passage, is_worded_from_it, forgotten, kept) for passage in passages):
            questions = [q for q in revision.questions if _may_stay(q, is_worded_from_it, forgotten, kept)]
            texts[revision.revision] = tuple(questions)
    standing = {number for number, questions in texts.items() if questions}
    shown = next((n for n in (context.revision, context.pending_revision) if n in standing), None)
    if shown is None:
        return False
    for revision in revisions:
        _rewrite(db, revision, texts.get(revision.revision, ()), gone, left, compose)
    _leave_sources(db, context, gone, left, now_s)
    is_cut = shown != context.revision or texts[shown] != context.questions
    if is_cut:
        take_texts(db, context.id, shown, now_s)
    _set_pending(db, context, shown, standing)
    if context.is_served and is_cut:
        # A wording that nobody approved waits; the one that was served is gone.
        serve(
            db,
            context.tenant_id,
            context.id,
            is_served=shown == context.revision,
            actor=actor,
            reason="context forgotten in part",
            now_s=now_s,
        )
    return True


def _may_stay(passage: str, is_worded_from_it: bool, forgotten: _Said, kept: _Said) -> bool:
    return kept.holds(passage) or not (is_worded_from_it or forgotten.holds(passage))


def _said(db: Database, context: ContextRow, conversation_ids: Iterable[str]) -> _Said:
    transcripts = (find_transcript(db, context.tenant_id, one) for one in conversation_ids)
    return _Said(_text(message) for found in transcripts if found is not None for message in found.messages)


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    return "\n".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


def _rewrite(  # noqa: PLR0917  # one revision and all that it is measured by
    db: Database,
    revision: RevisionRow,
    questions: tuple[str, ...],
    gone: Sequence[str],
    left: Sequence[str],
    compose: Compose,
) -> None:
    """Leave of a revision the phrasings that may stay; without one it goes."""
    key = {"id": revision.context_id, "revision": revision.revision}
    if not questions:
        db.execute("DELETE FROM context_revisions WHERE context_id = :id AND revision = :revision", key)
        return
    note = unnamed(revision.note, gone)
    source = next(iter(left), None) if revision.source_chat_id in gone else revision.source_chat_id
    db.execute(
        """
        UPDATE context_revisions SET note = :note, source_chat_id = :source
        WHERE context_id = :id AND revision = :revision
        """,
        {**key, "note": note, "source": source},
    )
    if questions != revision.questions:
        wording = compose(questions, revision.answer, revision.tags)
        db.execute(
            """
            UPDATE context_revisions SET questions_json = :questions_json, tokens = :tokens, embedding = :embedding,
              embedding_model = :embedding_model WHERE context_id = :id AND revision = :revision
            """,
            {
                **key,
                "questions_json": json.dumps(list(wording.questions), ensure_ascii=False),
                "tokens": wording.tokens,
                "embedding": encode_vector(wording.embedding),
                "embedding_model": wording.embedding_model,
            },
        )


def _leave_sources(db: Database, context: ContextRow, gone: Sequence[str], left: Sequence[str], now_s: float) -> None:
    values = {
        "id": context.id,
        "gone": json.dumps(list(gone)),
        "first": next(iter(left), None),
        "forgotten": FORGOTTEN,
        "now": iso(now_s),
    }
    db.execute(
        """
        DELETE FROM context_sources WHERE context_id = :id AND conversation_id IN (SELECT value FROM json_each(:gone))
        """,
        values,
    )
    db.execute(
        """
        UPDATE context_sources SET role = 'representative' WHERE context_id = :id AND conversation_id = :first
        """,
        values,
    )
    db.execute(
        """
        UPDATE ai_contexts SET updated_at = :now,
          n_users = (SELECT count(DISTINCT user_id) FROM context_sources WHERE context_id = :id),
          source_chat_id = CASE WHEN source_chat_id IN (SELECT value FROM json_each(:gone)) THEN :first
            ELSE source_chat_id END
        WHERE id = :id
        """,
        values,
    )


def _set_pending(db: Database, context: ContextRow, shown: int, standing: set[int]) -> None:
    is_fallback = shown != context.revision
    db.execute(
        """
        UPDATE ai_contexts SET pending_revision = :pending, status = :status WHERE id = :id
        """,
        {
            "id": context.id,
            "pending": context.pending_revision if context.pending_revision in standing - {shown} else None,
            "status": "pending_approval" if is_fallback else context.status,
        },
    )


def _forget_flags(db: Database, tenant_id: str, ids: str) -> None:
    """Take away what was said against entries in forgotten conversations; the doubt itself stays until a review."""
    values = {"tenant_id": tenant_id, "ids": ids, "forgotten": FORGOTTEN}
    db.execute(
        """
        UPDATE ai_contexts SET flag_reason = :forgotten
        WHERE tenant_id = :tenant_id AND EXISTS (
          SELECT 1 FROM context_flags AS f WHERE f.context_id = ai_contexts.id AND f.reason = ai_contexts.flag_reason
            AND f.conversation_id IN (SELECT value FROM json_each(:ids)))
        """,
        values,
    )
    db.execute(
        """
        DELETE FROM context_flags
        WHERE tenant_id = :tenant_id AND conversation_id IN (SELECT value FROM json_each(:ids))
        """,
        values,
    )
