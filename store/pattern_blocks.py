"""Table ``pattern_blocks``: in which stretches of the records a pattern was in play. Written by the recorder alone.

A response refers to sets by number, so no index leads from a pattern to its responses. This table says where to look:
a row for each pattern, arm and block of 128 responses, some 30 bytes each, whatever the sets were. A block may be
named in vain (its responses were forgotten); one that is not named has none.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from store.database import Database

BLOCK: Final = 128  # responses; read whole to find those of one pattern, in about 1 ms


class PatternBlocks:
    """Notes where patterns were in play, and remembers what of the newest block is written.

    Forget it when a transaction fails: what was not committed is not there.
    """

    def __init__(self) -> None:
        self._block = -1
        self._known: set[str] = set()

    def forget(self) -> None:
        self._block = -1
        self._known.clear()

    def note(self, db: Database, drawn: Iterable[str], *, after: int, until: int) -> None:
        """Write that the sets *drawn* are in the responses with ``after < seq <= until``.

        Each of *drawn* is numbers of sets, separated by commas; the sets must be written already.
        """
        if until <= after:
            return
        first, last = (after + 1) // BLOCK, until // BLOCK
        sets = {number for one in drawn for number in one.split(",")}
        new = sets - self._known if first == last == self._block else sets
        if new:
            db.execute(
                """
                INSERT INTO pattern_blocks (pattern_id, treated, block)
                SELECT DISTINCT i.item_id, i.treated, b.value
                FROM json_each(:sets) AS s
                CROSS JOIN injection_set_items AS i ON i.set_id = s.value AND i.kind = 'pattern'
                CROSS JOIN json_each(:blocks) AS b
                WHERE true
                ON CONFLICT DO NOTHING
                """,
                {
                    "sets": f"[{','.join(sorted(new))}]",
                    "blocks": msgspec.json.encode(list(range(first, last + 1))).decode(),
                },
            )
        if self._block != last:
            self._block, self._known = last, set()
        self._known |= sets


def blocks_of(db: Database, pattern_id: str, *, is_treated: bool, before: int | None, limit: int) -> list[int]:
    """Return at most *limit* blocks in which the pattern was in play in this arm, the newest first.

    *before*: only those that hold a response with a smaller ``seq``.
    """
    rows = db.rows(
        """
        SELECT block FROM pattern_blocks
        WHERE pattern_id = :pattern_id AND treated = :treated AND (:before IS NULL OR block <= :before)
        ORDER BY block DESC LIMIT :limit
        """,
        {
            "pattern_id": pattern_id,
            "treated": int(is_treated),
            "before": None if before is None else (before - 1) // BLOCK,
            "limit": limit,
        },
    )
    return [row[0] for row in rows]
