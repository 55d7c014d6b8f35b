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
from store.pattern_blocks import PatternBlocks
from store.records import InjectionRecord, InjectionSet, ResponseRecord, make_set

MAX_KNOWN: Final = 100_000  # items whose sets a recorder keeps in memory, about 200 bytes each

_Key = tuple[str, float, float, bool, int]

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
        self._known: dict[_Key, str] = {}
        self._drawn: set[str] = set()  # by the records since the last note
        self._blocks = PatternBlocks()

    def forget(self) -> None:
        self._known.clear()
        self._drawn.clear()
        self._blocks.forget()

    def note(self, db: Database, *, after: int, until: int) -> None:
        """Write where the patterns of the last records were in play: in responses with ``after < seq <= until``."""
        self._blocks.note(db, self._drawn, after=after, until=until)
        self._drawn.clear()

    def references(self, db: Database, record: ResponseRecord) -> str:
        """Return ``responses.injection_sets_json`` of *record*; sets of its items that are new are written first.

        A list of numbers; one with a similarity beside it is a list of the two.
        """
        known, found = self._known, [record.drawn] if record.drawn else []
        items = record.injections
        if items and "pattern" in (items[0].kind, items[-1].kind):  # from an older proxy: they came item by item
            found += self._patterns(db, [item for item in items if item.kind == "pattern"])
            items = tuple(item for item in items if item.kind != "pattern")
        if found:
            self._drawn.update(found)
        for item in items:
            key = (item.item_id, item.propensity, item.share, item.treated, item.tokens)
            number = known.get(key) or self._write(db, item, key)
            found.append(number if item.similarity is None else f"[{number},{item.similarity}]")
        return f"[{','.join(found)}]"

    def _patterns(self, db: Database, items: Sequence[InjectionRecord]) -> Iterator[str]:
        for _, group in groupby(items, key=attrgetter("dimension")):
            together = make_set(tuple(group))
            insert_sets(db, [together])
            yield together.set

    def _write(self, db: Database, item: InjectionRecord, key: _Key) -> str:
        alone = make_set([msgspec.structs.replace(item, similarity=None)])
        insert_sets(db, [alone])
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[key] = alone.set
        return alone.set
