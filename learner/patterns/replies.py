"""Reads what new replies were like, each once, and keeps it: a run does not read old texts again."""

from typing import Final

import msgspec

from learner.patterns.characteristics import VERSION, characterise
from learner.patterns.reply_text import reply_of
from learner.patterns.terminology import Ordinary, terms_in
from store.characteristics import (
    Characteristics,
    UnreadReply,
    before_first,
    last_read,
    save_characteristics,
    unread_replies,
)
from store.database import Database
from store.tokens import TokenCounter

PAGE: Final = 1000  # replies in memory, and in one short transaction


def read_replies(db: Database, tenant_id: str, tokens: TokenCounter, *, until: int, since_at: str) -> int:
    """Read the tenant's replies that nobody has read yet, up to ``seq`` *until*; return how many.

    Doing it again changes nothing: it is no part of what a run publishes.
    """
    n_read = 0
    ordinary = Ordinary(tokens)
    after = max(last_read(db, tenant_id, VERSION), before_first(db, tenant_id, since_at=since_at))
    while True:
        page = unread_replies(db, tenant_id, after=after, until=until, since_at=since_at, limit=PAGE)
        save_characteristics(db, tenant_id, VERSION, [_read(reply, ordinary) for reply in page])
        n_read += len(page)
        if len(page) < PAGE:
            return n_read
        after = page[-1].seq


def _read(unread: UnreadReply, ordinary: Ordinary) -> Characteristics:
    reply = reply_of(
        unread.reply_json,
        unread.messages_json,
        format=unread.response_format,
        length_band=unread.length_band,
        offers_tools=bool(unread.tool_set),
    )
    words = ordinary.read(reply.text)
    values = msgspec.json.encode(characterise(reply, words.hints)).decode()
    return Characteristics(unread.seq, values, " ".join(terms_in(words, unread.question)))
