"""How much of the traffic a pattern was in over time, and what people said, from a bounded sample of the records.

Reads ``responses`` and what belongs to them only, in some of the blocks that ``pattern_blocks`` names: evenly spread
over the time in which the pattern was in play, so that a page costs the same whatever the store holds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from store.database import Database, Row
from store.pattern_blocks import BLOCK
from store.patterns import PatternRow

MAX_STRETCHES: Final = 40  # blocks that are read: 5,120 responses, about 0.04 s


@dataclass(frozen=True, slots=True)
class Stretch:
    """128 responses of the records or fewer, the tenant's own; shares of them in [0, 1]."""

    day: str  # UTC, of the first
    n_responses: int
    treated: float  # had it
    control: float  # could have had it, and the lot or the holdout left it out


@dataclass(frozen=True, slots=True)
class ArmSignals:
    """What people said of the replies of one arm in the sample; *by_type*: replies with this kind of signal."""

    n_responses: int
    n_rated: int  # with any signal
    satisfaction: float | None  # mean over all of them, each clipped to [-1, 1]; None without any
    by_type: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Exposure:
    """A sample of the records in which the pattern was in play, in order of time."""

    stretches: tuple[Stretch, ...]
    treated: ArmSignals
    control: ArmSignals


def pattern_exposure(db: Database, pattern: PatternRow) -> Exposure:
    """Return where *pattern* was in play, and what came of it with and without it."""
    blocks = db.rows(
        """
        SELECT block FROM (
          SELECT block, row_number() OVER (ORDER BY block) AS number, count(*) OVER () AS n
          FROM (SELECT DISTINCT block FROM pattern_blocks WHERE pattern_id = :pattern_id)
        ) WHERE n <= :most OR number * :most / n > (number - 1) * :most / n
        ORDER BY block
        """,
        {"pattern_id": pattern.id, "most": MAX_STRETCHES},
    )
    stretches = []
    arms: dict[int, list[str]] = {0: [], 1: []}
    for block in blocks:
        rows = _responses(db, pattern, block[0])
        if not rows:
            continue
        for row in rows:
            if row["arm"] is not None and row["outcome"] == "ok":
                arms[row["arm"]].append(row["id"])
        counted = Counter(row["arm"] for row in rows)
        stretches.append(Stretch(rows[0]["created_at"][:10], len(rows), counted[1] / len(rows), counted[0] / len(rows)))
    return Exposure(tuple(stretches), _signals(db, arms[1]), _signals(db, arms[0]))


def _responses(db: Database, pattern: PatternRow, block: int) -> list[Row]:
    """Return the tenant's responses of *block*; ``arm`` is 1 with the pattern, 0 in control, else NULL."""
    return db.rows(
        """
        SELECT r.id, r.created_at, r.outcome, (
          SELECT i.treated FROM json_each(r.injection_sets_json) AS s
          CROSS JOIN injection_set_items AS i ON i.set_id = s.value AND i.kind = 'pattern' AND i.item_id = :pattern_id
        ) AS arm
        FROM responses AS r WHERE r.seq >= :low AND r.seq < :high AND +r.tenant_id = :tenant_id ORDER BY r.seq
        """,
        {
            "pattern_id": pattern.id,
            "tenant_id": pattern.tenant_id,
            "low": block * BLOCK,
            "high": (block + 1) * BLOCK,
        },
    )


def _signals(db: Database, response_ids: Sequence[str]) -> ArmSignals:
    rows = db.rows(
        """
        SELECT f.response_id, f.signal_type, sum(f.weight) AS weight
        FROM json_each(:ids) AS chosen CROSS JOIN response_feedback AS f ON f.response_id = chosen.value
        GROUP BY f.response_id, f.signal_type
        """,
        {"ids": msgspec.json.encode(response_ids).decode()},
    )
    sums: Counter[str] = Counter()
    for row in rows:
        sums[row["response_id"]] += row["weight"]
    total = sum(max(-1.0, min(1.0, weight)) for weight in sums.values())
    return ArmSignals(
        n_responses=len(response_ids),
        n_rated=len(sums),
        satisfaction=total / len(response_ids) if response_ids else None,
        by_type=Counter(row["signal_type"] for row in rows),
    )
