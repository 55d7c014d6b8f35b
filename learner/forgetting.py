"""Somebody, or one conversation, forgotten on a person's word: for API and command."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from learner.authoring import Author
from store import forgetting
from store.config import Config, segment_directory
from store.contexts import Wording
from store.database import Database
from store.errors import InvalidError, UnavailableError
from store.forgetting import Forgotten, Subject, names_of, scrub
from store.run_lock import run_lock
from store.tenants import get_tenant
from store.wordings import compose

log = logging.getLogger(__name__)


def forget_user(
    db: Database,
    config: Config,
    tenant_id: str,
    author: Author,
    *,
    user: str | None,
    phone: str | None = None,
    actor: str,
    now_s: float,
    is_dry_run: bool = False,
    is_compacted: bool = False,
) -> Forgotten:
    """Return what was forgotten of a person, by the app's name for them, their phone number, or both.

    Raises:
        InvalidError: neither is given.
        ConflictError: a learning run of the tenant did not end within ``[learner] run_wait_s``.
        NotFoundError: there is no such tenant.
        UnavailableError: the database is missing, locked or damaged.
        OSError: a segment cannot be read or written; call again.
    """
    names = names_of(get_tenant(db, tenant_id).secret, user=user, phone=phone)
    if not names:
        raise InvalidError("user", "a user or a phone number must be given")
    subject = Subject(user_ids=names)
    return _forget(db, config, tenant_id, author, subject, actor, now_s, is_dry_run, is_compacted)


def forget_conversation(
    db: Database,
    config: Config,
    tenant_id: str,
    author: Author,
    *,
    conversation_id: str,
    actor: str,
    now_s: float,
    is_dry_run: bool = False,
    is_compacted: bool = False,
) -> Forgotten:
    """Return what was forgotten of one conversation, whoever spoke in it.

    Raises:
        ConflictError: a learning run of the tenant did not end within ``[learner] run_wait_s``.
        NotFoundError: there is no such tenant, or it has no such conversation.
        UnavailableError: the database is missing, locked or damaged.
        OSError: a segment cannot be read or written; call again.
    """
    subject = Subject(conversation_ids=(conversation_id,))
    return _forget(db, config, tenant_id, author, subject, actor, now_s, is_dry_run, is_compacted)


def _forget(  # noqa: PLR0917  # what both have in common
    db: Database,
    config: Config,
    tenant_id: str,
    author: Author,
    subject: Subject,
    actor: str,
    now_s: float,
    is_dry_run: bool,
    is_compacted: bool,
) -> Forgotten:
    def composed(questions: Sequence[str], answer: str, tags: Sequence[str]) -> Wording:
        return compose(questions, answer, tags, embedder=author.embedder, tokens=author.tokens)

    # A run that has read the records may not write what it made of them after they are gone.
    with run_lock(db.path, tenant_id, wait_s=config.learner.run_wait_s):
        forgotten = forgetting.forget(
            db,
            tenant_id,
            subject,
            segment_directory(config),
            composed,
            actor=actor,
            now_s=now_s,
            is_dry_run=is_dry_run,
        )
    return forgotten if is_dry_run else replace(forgotten, is_scrubbed=_scrub(db, is_compacted))


def _scrub(db: Database, is_compacted: bool) -> bool:
    """Return whether no file holds the text any more: somebody who reads at the moment may keep it from being so."""
    try:
        return scrub(db, is_compacted=is_compacted)
    except UnavailableError as exc:
        log.warning("rows are forgotten, but their text may still be in the files of the database: %s", exc)
        return False
