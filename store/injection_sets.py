"""Table ``injection_set_items``: what was in play together, each such set stored once.

The arms of one dimension, drawn one way, are a set; so is one context. A plan has few sets and a response refers to
them by number, so that recording it costs the same whatever was in play. The view ``injections`` shows the rows.
Written by the recorder alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

import msgspec

from store.database import Database
from store.records import InjectionRecord, InjectionSet, ResponseRecord, make_set

MAX_KNOWN: Final = 100_000  # items whose sets a recorder keeps in memory, about 200 bytes each

_INSERT_ITEM: Final = """
INSERT INTO injection_set_items (set_id, kind, item_id, dimension, propensity, share, treated, tokens)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""


def insert_sets(db: Database, sets: Iterable[InjectionSet]) -> None:
    """Write *sets*; one that is there already changes nothing.

    Raises:
        UnavailableError: the database is missing, locked or damaged.
        sqlite3.IntegrityError: an item breaks a rule of the schema.
    """
    db.execute_many(_INSERT_ITEM, [_values(one.set, item) for one in sets for item in one.items])


def _values(number: str, item: InjectionRecord) -> tuple[str | int | float, ...]:
    treated = int(item.treated)  # sqlite3 looks for an adapter for each bool, in vain
    return int(number), item.kind, item.item_id, item.dimension, item.propensity, item.share, treated, item.tokens


class SingleItems:
    """Makes sets of items that come with a record, as contexts do, and remembers which of them are written.

    Forget them when a transaction fails: what was not committed, or is in another file, is not there.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, bool], str] = {}

    def forget(self) -> None:
        self._known.clear()

    def references(self, db: Database, record: ResponseRecord) -> str:
        """Return ``responses.injection_sets_json`` of *record*; sets of its items that are new are written first.

        A list of numbers; one with a similarity beside it is a list of the two.
        """
        if not record.injections:
            return f"[{record.drawn}]"
        others = ",".join(self._references(db, record.injections))
        return f"[{record.drawn},{others}]" if record.drawn else f"[{others}]"

    def _references(self, db: Database, items: Sequence[InjectionRecord]) -> Iterator[str]:
        steered = [item for item in items if item.dimension]  # from an older proxy: patterns came item by item
        for _, group in groupby(steered, key=attrgetter("dimension")):
            together = make_set(tuple(group))
            insert_sets(db, [together])
            yield together.set
        for item in items:
            if not item.dimension:
                number = self._known.get((item.item_id, item.tokens, item.treated)) or self._write(db, item)
                yield number if item.similarity is None else f"[{number},{item.similarity!r}]"

    def _write(self, db: Database, item: InjectionRecord) -> str:
        alone = make_set([msgspec.structs.replace(item, similarity=None)])
        insert_sets(db, [alone])
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[item.item_id, item.tokens, item.treated] = alone.set
        return alone.set
