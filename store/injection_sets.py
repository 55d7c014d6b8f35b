"""Tables ``injection_sets`` and ``injection_set_items``: what was in play together, each such set stored once.

The arms of one dimension, drawn one way, are a set; so is one context. A plan has few sets and a response refers to
them by number, so that recording it costs the same whatever was in play. The view ``injections`` shows the rows.
Written by the recorder alone.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import msgspec

from store.database import Database
from store.records import InjectionRecord, ResponseRecord, decode_items, encode_items

MAX_KNOWN: Final = 50_000  # sets whose numbers a recorder keeps in memory, about 300 bytes each

_INSERT_ITEM: Final = """
INSERT INTO injection_set_items (set_id, kind, item_id, dimension, propensity, share, treated, tokens)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""


class InjectionSets:
    """Gives each set its number. Keeps those of one database in memory; forget them when a transaction fails."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes], int] = {}

    def forget(self) -> None:
        """Ask the database again: numbers that were not committed, or are another file's, mean nothing."""
        self._known.clear()

    def references(self, db: Database, record: ResponseRecord) -> str:
        """Return ``responses.injection_sets_json`` of *record*; sets that are new are written first.

        A list of numbers; one with a similarity beside it is a list of the two.
        """
        known, tenant_id = self._known, record.tenant_id
        found = []
        for drawn in record.drawn:
            encoded = bytes(drawn)
            number = known.get((tenant_id, encoded))
            found.append(str(self._number(db, tenant_id, encoded) if number is None else number))
        for encoded, similarity in _sets(record.injections):
            number = known.get((tenant_id, encoded))
            number = self._number(db, tenant_id, encoded) if number is None else number
            found.append(str(number) if similarity is None else f"[{number},{similarity!r}]")
        return f"[{','.join(found)}]"

    def _number(self, db: Database, tenant_id: str, encoded: bytes) -> int:
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        where = {"tenant_id": tenant_id, "digest": hashlib.blake2b(encoded, digest_size=16).hexdigest()}
        is_new = db.execute(
            "INSERT INTO injection_sets (tenant_id, digest) VALUES (:tenant_id, :digest) ON CONFLICT DO NOTHING", where
        )
        number = int(db.value("SELECT id FROM injection_sets WHERE tenant_id = :tenant_id AND digest = :digest", where))
        if is_new:
            items = decode_items(encoded)
            db.execute_many(
                _INSERT_ITEM,
                [
                    (number, i.kind, i.item_id, i.dimension, i.propensity, i.share, int(i.treated), i.tokens)
                    for i in items
                ],
            )
        self._known[tenant_id, encoded] = number
        return number


def _sets(items: Sequence[InjectionRecord]) -> Iterator[tuple[bytes, float | None]]:
    """Yield the sets that single *items* make, each with its similarity: one by one, or a dimension together."""
    for (dimension, has_similarity), group in groupby(items, key=lambda i: (i.dimension, i.similarity is not None)):
        if dimension and not has_similarity:
            yield bytes(encode_items(tuple(group))), None
        else:
            for item in group:
                yield bytes(encode_items((msgspec.structs.replace(item, similarity=None),))), item.similarity
