"""Reads what new replies were like, each once, and keeps it: a run does not read old texts again."""

from collections.abc import Sequence
from typing import Final

import msgspec

from learner.patterns.characteristics import VERSION, Values, characterise
from learner.patterns.hints import HintFinder
from learner.patterns.people import is_part_of_a_name, names_in_turn
from learner.patterns.reply_text import Reply, reply_of
from learner.patterns.terminology import NOT_READ, Ordinary, terms_in
from learner.patterns.tool_loops import OpenSteps, Step, ends, with_earlier
from store.characteristics import (
    Characteristics,
    UnreadReply,
    before_first,
    first_of_newest,
    last_read,
    recent_calls,
    save_characteristics,
    unread_replies,
)
from store.clock import DAY_S, parse_iso
from store.database import Database
from store.tokens import TokenCounter

PAGE: Final = 1000  # replies in memory, and in one short transaction
# Part of the time after which records are settled within which a turn must go on: what was taken in for good as a
# response never becomes a step, so that sums that are made anew come out the same.
TURN_PART: Final = 0.5


def read_replies(
    db: Database,
    tenant_id: str,
    tokens: TokenCounter,
    *,
    until: int,
    since_at: str,
    settle_days: float,
    max_term_replies: int,
) -> int:
    """Read the tenant's replies that nobody has read yet, up to ``seq`` *until*; return how many.

    Its own words are looked for in the *max_term_replies* newest: it takes as long as all the rest, and a word that is
    to be learned is in many of them. Doing it again changes nothing: it is no part of what a run publishes.
    """
    n_read = 0
    after = max(last_read(db, tenant_id, VERSION), before_first(db, tenant_id, since_at=since_at))
    is_long = until - after > max_term_replies
    terms_from = first_of_newest(db, tenant_id, until=until, n=max_term_replies) if is_long else 0
    reader = _Reader(db, tenant_id, Ordinary(tokens), settle_days * DAY_S * TURN_PART, terms_from)
    while True:
        page = unread_replies(db, tenant_id, after=after, until=until, since_at=since_at, limit=PAGE)
        save_characteristics(db, tenant_id, VERSION, reader.read(page), ends(reader.take_steps()))
        n_read += len(page)
        if len(page) < PAGE:
            return n_read
        after = page[-1].seq


class _Reader:
    """Reads one page of replies after the other, and knows the turns that go on."""

    def __init__(self, db: Database, tenant_id: str, ordinary: Ordinary, turn_s: float, terms_from: int) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._ordinary = ordinary
        self._turn_s = turn_s
        self._terms_from = terms_from
        self._finder = HintFinder()
        self._open = OpenSteps()
        self._steps: list[tuple[int, int]] = []

    def take_steps(self) -> list[tuple[int, int]]:
        """Return which reply went on from which since the last call, as (step, next) by ``seq``."""
        steps, self._steps = self._steps, []
        return steps

    def read(self, page: Sequence[UnreadReply]) -> list[Characteristics]:
        replies = [_reply(unread) for unread in page]
        hints = self._finder.find([reply.text for reply in replies])
        return [
            Characteristics(
                unread.seq,
                self._values(unread, reply, held),
                self._terms(unread, reply) if unread.seq >= self._terms_from else NOT_READ,
            )
            for unread, reply, held in zip(page, replies, hints, strict=True)
        ]

    def _values(self, unread: UnreadReply, reply: Reply, hints: frozenset[str]) -> str:
        values: Values = characterise(reply, hints)
        if reply.answered or reply.asked:
            values = self._in_turn(unread, reply, values)
        return msgspec.json.encode(values).decode()

    def _terms(self, unread: UnreadReply, reply: Reply) -> str:
        terms = terms_in(self._ordinary.read(reply.text), unread.question)
        if terms:
            # A name in a question that holds none of the terms is none of them; most hold none.
            question = unread.question.casefold()
            asked = unread.question if any(term.casefold() in question for term in terms) else ""
            names = names_in_turn(unread.messages_json, asked, reply.text)
            terms = tuple(term for term in terms if not is_part_of_a_name(term, names))
        return " ".join(terms)

    def _in_turn(self, unread: UnreadReply, reply: Reply, values: Values) -> Values:
        created_s = parse_iso(unread.created_at)
        step = self._step_before(unread, reply)
        if step is not None and created_s - step.created_s <= self._turn_s:
            values = with_earlier(values, step)
            self._steps.append((step.seq, unread.seq))
        if reply.asked:
            self._open.put(unread.conversation_id, reply.asked, Step(unread.seq, created_s, values))
        return values

    def _step_before(self, unread: UnreadReply, reply: Reply) -> Step | None:
        """Return the reply whose calls were answered: one read lately, or by an earlier run."""
        if not reply.answered:
            return None
        step = self._open.find(unread.conversation_id, reply.answered)
        if step is not None:
            return step
        for row in recent_calls(self._db, self._tenant_id, unread.conversation_id, before=unread.seq, version=VERSION):
            called = reply_of(row.reply_json, "", format="", length_band="", offers_tools=True).asked
            if not set(called).isdisjoint(reply.answered):
                values = msgspec.json.decode(row.values_json, type=dict[str, tuple[str, ...]])
                return Step(row.seq, parse_iso(row.created_at), values)
        return None


def _reply(unread: UnreadReply) -> Reply:
    return reply_of(
        unread.reply_json,
        unread.messages_json,
        format=unread.response_format,
        length_band=unread.length_band,
        offers_tools=bool(unread.tool_set),
    )
