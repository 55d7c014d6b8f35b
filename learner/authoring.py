"""What a person writes and decides: tokens counted, vectors made, the change audited; for API, console and command."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from learner.patterns.rule_checks import harm
from store import blocks, context_proposals, context_review, contexts, pattern_review
from store.audit import record
from store.config import EmbeddingSection
from store.contexts import ContextRow, Wording
from store.database import Database
from store.embedding import LocalEmbedder, load_local_embedder
from store.errors import InvalidError
from store.patterns import PatternRow
from store.plan import Conditions
from store.tokens import TokenCounter, load_token_counter
from store.vocabulary import PatternType
from store.wordings import compose

MAX_QUESTIONS = 20
MAX_TEXT_CHARS = 20_000
MAX_CONDITION_CHARS = 200  # of one value that a field must hold


class Author:
    """Counts and embeds what people write; loads the counter and the embedder when the first needs them."""

    def __init__(self, section: EmbeddingSection) -> None:
        self._section = section
        self._lock = threading.Lock()
        self._tokens: TokenCounter | None = None
        self._embedder: LocalEmbedder | None = None

    @property
    def tokens(self) -> TokenCounter:
        with self._lock:
            self._tokens = self._tokens or load_token_counter()
            return self._tokens

    @property
    def embedder(self) -> LocalEmbedder:
        with self._lock:
            self._embedder = self._embedder or load_local_embedder(self._section)
            return self._embedder

    def add_pattern(
        self,
        db: Database,
        tenant_id: str,
        *,
        type: PatternType,  # noqa: A002 - the column's name
        rule: str,
        conditions: Conditions,
        state: Literal["candidate", "trial", "pinned"],
        actor: str,
        now_s: float,
        is_forced: bool = False,
    ) -> PatternRow:
        """Return a new pattern that a person wrote, in whatever words: only what harms must be forced.

        Raises:
            InvalidError: a field holds what it may not; the error names it.
        """
        _check_pattern(rule, conditions, is_forced=is_forced)
        return pattern_review.add_pattern(
            db,
            tenant_id,
            type=type,
            rule=rule,
            conditions=conditions,
            state=state,
            tokens=self.tokens.count(blocks.pattern_line(rule)),
            actor=actor,
            now_s=now_s,
        )

    def edit_pattern(
        self,
        db: Database,
        tenant_id: str,
        pattern_id: str,
        *,
        rule: str | None,
        conditions: Conditions | None,
        actor: str,
        now_s: float,
        is_forced: bool = False,
    ) -> PatternRow:
        """Return the pattern with another rule or other conditions; what is None stays.

        Raises:
            NotFoundError: the tenant has no such pattern.
            InvalidError: a field holds what it may not; the error names it.
        """
        _check_pattern(rule, conditions, is_forced=is_forced)
        return pattern_review.edit_pattern(
            db,
            tenant_id,
            pattern_id,
            rule=rule,
            conditions=conditions,
            tokens=None if rule is None else self.tokens.count(blocks.pattern_line(rule)),
            actor=actor,
            now_s=now_s,
        )

    def add_context(
        self,
        db: Database,
        tenant_id: str,
        *,
        questions: Sequence[str],
        answer: str,
        tags: Sequence[str],
        is_approved: bool,
        actor: str,
        now_s: float,
    ) -> ContextRow:
        """Return a new knowledge entry that a person wrote: served within a second, or waiting for a reviewer.

        Raises:
            InvalidError: a text is missing or too long; the error names it.
        """
        written = self._texts(questions, answer, tags)
        with db.transaction():
            context = context_proposals.create_context(
                db,
                tenant_id,
                written,
                provenance="person",
                source_chat_id=None,
                is_approved=is_approved,
                actor=actor,
                now_s=now_s,
            )
            _audit(db, context, "contexts.add", {"is_approved": is_approved}, actor=actor, now_s=now_s)
        return context

    def edit_context(
        self,
        db: Database,
        tenant_id: str,
        context_id: str,
        *,
        questions: Sequence[str] | None,
        answer: str | None,
        tags: Sequence[str] | None,
        is_approved: bool = True,
        actor: str,
        now_s: float,
    ) -> ContextRow:
        """Return the entry as a person rewrote it, from the wording that waits if one does; what is None stays.

        Of an approved entry the new wording serves within a second, or waits beside it when not *is_approved*.

        Raises:
            NotFoundError: the tenant has no such entry.
            ConflictError: the entry is rejected or retired.
            InvalidError: a text is missing or too long; the error names it.
        """
        with db.transaction():
            before = contexts.get_context(db, tenant_id, context_id)
            shown = contexts.wording_to_review(db, before)
            questions = shown.questions if questions is None else questions
            answer = shown.answer if answer is None else answer
            tags = shown.tags if tags is None else tags
            if not is_approved:
                return self.propose_context(
                    db,
                    tenant_id,
                    context_id,
                    questions=questions,
                    answer=answer,
                    tags=tags,
                    actor=actor,
                    now_s=now_s,
                )
            written = self._texts(questions, answer, tags)
            context = context_review.edit_context(db, tenant_id, context_id, written, actor=actor, now_s=now_s)
            _audit(db, context, "contexts.edit", {"from_revision": shown.revision}, actor=actor, now_s=now_s)
        return context

    def propose_context(
        self,
        db: Database,
        tenant_id: str,
        context_id: str,
        *,
        questions: Sequence[str],
        answer: str,
        tags: Sequence[str],
        actor: str,
        now_s: float,
    ) -> ContextRow:
        """Return the entry with another wording that waits for a reviewer; what is served goes on being served.

        Raises:
            NotFoundError: the tenant has no such entry.
            ConflictError: the entry is rejected or retired.
            InvalidError: a text is missing or too long; the error names it.
        """
        written = self._texts(questions, answer, tags)
        with db.transaction():
            before = contexts.get_context(db, tenant_id, context_id)
            context = context_proposals.propose_revision(
                db, tenant_id, context_id, written, source_chat_id=before.source_chat_id, actor=actor, now_s=now_s
            )
            _audit(db, context, "contexts.propose", {"from_revision": before.revision}, actor=actor, now_s=now_s)
        return context

    def _texts(self, questions: Sequence[str], answer: str, tags: Sequence[str]) -> Wording:
        """Return the wording of an entry as a person wrote it, blanks at the ends and empty lines left out."""
        phrasings = [cleaned for question in questions if (cleaned := blocks.clean_line(question))]
        if not phrasings:
            raise InvalidError("questions", "must hold at least one text that is not empty")
        if len(phrasings) > MAX_QUESTIONS:
            raise InvalidError("questions", f"must hold at most {MAX_QUESTIONS} phrasings, not {len(phrasings)}")
        if not blocks.clean_text(answer):
            raise InvalidError("answer", "must not be empty")
        if max(len(text) for text in (*phrasings, answer)) > MAX_TEXT_CHARS:
            raise InvalidError("answer", f"no text may have more than {MAX_TEXT_CHARS} characters")
        return compose(
            phrasings,
            answer,
            list(dict.fromkeys(tag.strip() for tag in tags if tag.strip())),
            embedder=self.embedder,
            tokens=self.tokens,
        )


def _check_pattern(rule: str | None, conditions: Conditions | None, *, is_forced: bool) -> None:
    reason = harm(rule) if rule and not is_forced else None
    if reason is not None:
        raise InvalidError("rule", f"{reason}; to keep it as it is, say force")
    for field in Conditions.__struct_fields__ if conditions is not None else ():
        values = getattr(conditions, field)
        if not all(value.strip() and len(value) <= MAX_CONDITION_CHARS for value in values):
            raise InvalidError("conditions", f"{field}: each value must have 1 to {MAX_CONDITION_CHARS} characters")
        if len(set(values)) < len(values):
            raise InvalidError("conditions", f"{field}: a value is given twice")


def approve_context(
    db: Database, tenant_id: str, context_id: str, *, actor: str, now_s: float, revision: int | None = None
) -> ContextRow:
    """Return the entry in service.

    Raises:
        NotFoundError: the tenant has no such entry.
        ConflictError: nothing waits for an approval, or another revision than *revision* does.
    """
    with db.transaction():
        context = context_review.approve_context(db, tenant_id, context_id, actor=actor, now_s=now_s, revision=revision)
        _audit(db, context, "contexts.approve", {"revision": context.revision}, actor=actor, now_s=now_s)
    return context


def reject_context(
    db: Database,
    tenant_id: str,
    context_id: str,
    *,
    reason: str,
    actor: str,
    now_s: float,
    revision: int | None = None,
) -> ContextRow:
    """Return the entry with what waited turned down.

    Raises:
        NotFoundError: the tenant has no such entry.
        ConflictError: nothing waits, or another revision than *revision* does.
    """
    with db.transaction():
        context = context_review.reject_context(
            db, tenant_id, context_id, reason=reason, actor=actor, now_s=now_s, revision=revision
        )
        _audit(db, context, "contexts.reject", {"reason": reason}, actor=actor, now_s=now_s)
    return context


def retire_context(
    db: Database, tenant_id: str, context_id: str, *, reason: str, actor: str, now_s: float
) -> ContextRow:
    """Return the entry out of service for good.

    Raises:
        NotFoundError: the tenant has no such entry.
        ConflictError: it is rejected or retired already.
    """
    with db.transaction():
        context = context_review.retire_context(db, tenant_id, context_id, reason=reason, actor=actor, now_s=now_s)
        _audit(db, context, "contexts.retire", {"reason": reason}, actor=actor, now_s=now_s)
    return context


def flag_context(db: Database, tenant_id: str, context_id: str, *, reason: str, actor: str, now_s: float) -> ContextRow:
    """Return the entry out of service until a person approves it again.

    Raises:
        NotFoundError: the tenant has no such entry.
        ConflictError: it is not approved.
    """
    with db.transaction():
        context = context_review.flag_context(
            db, tenant_id, context_id, reason=reason, actor=actor, now_s=now_s, by_person=True
        )
        _audit(db, context, "contexts.flag", {"reason": reason}, actor=actor, now_s=now_s)
    return context


def _audit(
    db: Database, context: ContextRow, action: str, detail: Mapping[str, Any], *, actor: str, now_s: float
) -> None:
    record(db, context.tenant_id, actor=actor, action=action, object_id=context.id, detail=detail, now_s=now_s)
