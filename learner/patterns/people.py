"""Names of people in a tenant's records: they become no term and stand in no rule, and no model is told them."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from learner.knowledge.privacy import addressed_names, declared_names
from store.database import Database
from store.responses import names_a_user
from store.turns import recent_turns

LOOKED_AT: Final = 5000  # newest turns of a tenant, about 0.2 s


def names_in_turn(messages_json: str, question: str, answer: str) -> frozenset[str]:
    """Return the names that a turn declares: by a message's ``name``, by an introduction, by whom the answer greets."""
    fields = _named(messages_json) if '"name"' in messages_json else []
    return frozenset([*fields, *declared_names(question), *addressed_names(answer)])


def declared_people(db: Database, tenant_id: str) -> frozenset[str]:
    """Return the names that the tenant's newest turns declare."""
    found: set[str] = set()
    for turn in recent_turns(db, tenant_id, limit=LOOKED_AT):
        found |= names_in_turn(turn.messages_json, turn.question, turn.answer)
    return frozenset(found)


def is_somebody(db: Database, tenant_id: str, word: str, people: Iterable[str]) -> bool:
    """Return whether *word* is a user of the tenant, or a name, or a part of a name, of *people*; any case."""
    return is_part_of_a_name(word, people) or names_a_user(db, tenant_id, word)


def is_part_of_a_name(word: str, names: Iterable[str]) -> bool:
    """Return whether *word* is one of *names* or of their parts, whatever its case.

    >>> is_part_of_a_name("kowalski", ["Petra Kowalski"]), is_part_of_a_name("table", ["Petra Kowalski"])
    (True, False)
    """
    small = word.casefold()
    return any(small == part for name in names for part in (name.casefold(), *name.casefold().split()))


def _named(messages_json: str) -> list[str]:
    try:
        messages = msgspec.json.decode(messages_json)
    except (msgspec.DecodeError, RecursionError):  # kept as an app sent it, however deep
        return []
    return [name for one in (messages if isinstance(messages, list) else []) if (name := _name(one))]


def _name(message: Any) -> str:
    if not isinstance(message, dict) or message.get("role") != "user":
        return ""
    name = message.get("name")
    return name if isinstance(name, str) else ""
