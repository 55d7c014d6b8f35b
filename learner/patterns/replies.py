"""Reads what new replies were like, each once, and keeps it: a run does not read old texts again."""

from collections.abc import Sequence
from typing import Final

import msgspec

from learner.patterns.characteristics import VERSION, characterise
from learner.patterns.hints import HintFinder
from learner.patterns.reply_text import Reply, reply_of
from learner.patterns.terminology import NOT_READ, Ordinary, terms_in
from store.characteristics import (
    Characteristics,
    UnreadReply,
    before_first,
    first_of_newest,
    last_read,
    save_characteristics,
    unread_replies,
)
from store.database import Database
from store.tokens import TokenCounter

PAGE: Final = 1000  # replies in memory, and in one short transaction


def read_replies(
    db: Database, tenant_id: str, tokens: TokenCounter, *, until: int, since_at: str, max_term_replies: int
) -> int:
    """Read the tenant's replies that nobody has read yet, up to ``seq`` *until*; return how many.

    Its own words are looked for in the *max_term_replies* newest: it takes as long as all the rest, and a word that is
    to be learned is in many of them. Doing it again changes nothing: it is no part of what a run publishes.
    """
    n_read = 0
    finder, ordinary = HintFinder(), Ordinary(tokens)
    after = max(last_read(db, tenant_id, VERSION), before_first(db, tenant_id, since_at=since_at))
    is_long = until - after > max_term_replies
    terms_from = first_of_newest(db, tenant_id, until=until, n=max_term_replies) if is_long else 0
    while True:
        page = unread_replies(db, tenant_id, after=after, until=until, since_at=since_at, limit=PAGE)
        save_characteristics(db, tenant_id, VERSION, _read(page, finder, ordinary, terms_from))
        n_read += len(page)
        if len(page) < PAGE:
            return n_read
        after = page[-1].seq


def _read(
    page: Sequence[UnreadReply], finder: HintFinder, ordinary: Ordinary, terms_from: int
) -> list[Characteristics]:
    replies = [_reply(unread) for unread in page]
    hints = finder.find([reply.text for reply in replies])
    return [
        Characteristics(unread.seq, _values(reply, held), _terms(reply, unread, ordinary, terms_from))
        for unread, reply, held in zip(page, replies, hints, strict=True)
    ]


def _reply(unread: UnreadReply) -> Reply:
    return reply_of(
        unread.reply_json,
        unread.messages_json,
        format=unread.response_format,
        length_band=unread.length_band,
        offers_tools=bool(unread.tool_set),
    )


def _values(reply: Reply, hints: frozenset[str]) -> str:
    return msgspec.json.encode(characterise(reply, hints)).decode()


def _terms(reply: Reply, unread: UnreadReply, ordinary: Ordinary, terms_from: int) -> str:
    if unread.seq < terms_from:
        return NOT_READ
    return " ".join(terms_in(ordinary.read(reply.text), unread.question))
