"""Tables ``injection_sets`` and ``injection_set_items``: what was in play together, each such set stored once.

The arms of one dimension, drawn one way, are a set; so is one context. A plan has few sets and a response refers to
them by number, so that recording it costs the same whatever was in play. The view ``injections`` shows the rows.
Written by the recorder alone.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

import msgspec

from store.database import Database
from store.records import InjectionRecord, ResponseRecord, decode_items, encode_items

MAX_KNOWN: Final = 50_000  # sets of a tenant whose numbers a recorder keeps in memory, about 300 bytes each
MAX_TENANTS: Final = 100  # whose sets it keeps

_Key = bytes | tuple[str, int, bool]

_INSERT_ITEM: Final = """
INSERT INTO injection_set_items (set_id, kind, item_id, dimension, propensity, share, treated, tokens)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


class InjectionSets:
    """Gives each set its number. Keeps those of one database in memory; forget them when a transaction fails."""

    def __init__(self) -> None:
        self._known: dict[str, dict[_Key, str]] = {}
        """Each tenant's numbers, by what is cheapest to look up: that is done a dozen times a response."""

    def forget(self) -> None:
        """Ask the database again: numbers that were not committed, or are another file's, mean nothing."""
        self._known.clear()

    def references(self, db: Database, record: ResponseRecord) -> str:
        """Return ``responses.injection_sets_json`` of *record*; sets that are new are written first.

        A list of numbers; one with a similarity beside it is a list of the two.
        """
        tenant_id = record.tenant_id
        known = self._known_of(tenant_id)
        numbers: list[str | None] = list(map(known.get, map(bytes, record.drawn)))
        if None in numbers:
            numbers = [known.get(key) or self._number(db, tenant_id, key, key) for key in map(bytes, record.drawn)]
        if record.injections:
            numbers += self._others(db, tenant_id, record.injections)
        return f"[{','.join(numbers)}]"  # type: ignore[arg-type]  # no None is left

    def _known_of(self, tenant_id: str) -> dict[_Key, str]:
        known = self._known.get(tenant_id)
        if known is None:
            if len(self._known) >= MAX_TENANTS:
                self._known.clear()
            known = self._known[tenant_id] = {}
        elif len(known) >= MAX_KNOWN:
            known.clear()
        return known

    def _others(self, db: Database, tenant_id: str, items: Sequence[InjectionRecord]) -> Iterator[str]:
        """Yield the references of items that come one by one: contexts, or all there was with an older proxy."""
        known = self._known[tenant_id]
        steered = [item for item in items if item.dimension]
        for _, group in groupby(steered, key=attrgetter("dimension")):
            encoded = bytes(encode_items(tuple(group)))
            yield known.get(encoded) or self._number(db, tenant_id, encoded, encoded)
        for item in items:
            if item.dimension:
                continue
            key = (item.item_id, item.tokens, item.treated)
            number = known.get(key) or self._number(db, tenant_id, _alone(item), key)
            yield number if item.similarity is None else f"[{number},{item.similarity!r}]"

    def _number(self, db: Database, tenant_id: str, encoded: bytes, key: _Key) -> str:
        where = {"tenant_id": tenant_id, "digest": hashlib.blake2b(encoded, digest_size=16).hexdigest()}
        is_new = db.execute(
            "INSERT INTO injection_sets (tenant_id, digest) VALUES (:tenant_id, :digest) ON CONFLICT DO NOTHING", where
        )
        number = db.value("SELECT id FROM injection_sets WHERE tenant_id = :tenant_id AND digest = :digest", where)
        if is_new:
            db.execute_many(_INSERT_ITEM, [_item_values(number, item) for item in decode_items(encoded)])
        found = self._known[tenant_id][key] = str(number)
        return found


def _alone(item: InjectionRecord) -> bytes:
    return bytes(encode_items([msgspec.structs.replace(item, similarity=None)]))


def _item_values(number: int, item: InjectionRecord) -> tuple[str | int | float, ...]:
    treated = int(item.treated)  # sqlite3 looks for an adapter for each bool, in vain
    return number, item.kind, item.item_id, item.dimension, item.propensity, item.share, treated, item.tokens
