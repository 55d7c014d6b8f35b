"""Tables ``key_usage`` and ``key_months``: what keys with limits used. Written by the recorder alone.

A use travels like a response's record: one line of a segment file, in the database exactly once. A trigger adds it to
its key's month, so that whoever checks a budget reads one row a key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from store.clock import days_before, parse_iso
from store.database import Database

KEPT_DAYS: Final = 92  # of single uses, so that a segment read again adds nothing; months stay for ever
_PRUNED_PER_USE: Final = 2  # older uses deleted for each new one: what is too old shrinks, and no batch waits long


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="usage"):
    """What one request of a key used; a row of ``key_usage``."""

    id: str  # see ``usage_id``
    key_id: str
    tenant_id: str
    upstream: str
    model: str  # as the app asked for it
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int  # of the prompt's, read from the provider's cache
    is_estimated: bool  # the upstream did not report its usage
    cost_usd: float  # 0 when the model's price is not known
    created_at: str


@dataclass(frozen=True, slots=True)
class MonthUse:
    """What a key used in one month (UTC)."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Uses:
    """The newest month with any use, as of one moment."""

    month: str = ""  # such as 2026-11; "" before the first use
    by_key: Mapping[str, MonthUse] = field(default_factory=dict)
    n_landed: int = 0  # of the asking process, its uses up to this number are in it


_TAG: Final = b'{"kind":"usage",'


def usage_id(process: str, number: int) -> str:
    """Return the id of a *process*'s use; they sort by *number*, and arrive in that order.

    >>> usage_id("use_0", 7)
    'use_0-000000000007'
    """
    return f"{process}-{number:012d}"


def encode_usage(record: UsageRecord) -> bytes:
    """Return *record* as one line, its line feed included.

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate; see ``store.records.storable``.
    """
    return msgspec.json.encode(record) + b"\n"


def is_usage(line: bytes) -> bool:
    """Return whether *line* of a segment is a use, not a response's record."""
    return line.startswith(_TAG)


def decode_usage(line: bytes) -> UsageRecord:
    """Return the use in *line*.

    Raises:
        ValueError: *line* is not an encoded use.
    """
    return msgspec.json.decode(line, type=UsageRecord)


def insert_usage(db: Database, records: Sequence[UsageRecord]) -> None:
    """Write *records* in one transaction; one that is there already changes nothing, its month neither.

    Raises:
        UnavailableError: the database is missing, locked or damaged; nothing was written.
        sqlite3.IntegrityError: a record breaks a rule of the schema; nothing was written.
    """
    if not records:
        return
    with db.transaction():
        db.execute_many(
            """
            INSERT INTO key_usage (id, key_id, tenant_id, upstream, model, prompt_tokens, completion_tokens,
              cached_tokens, is_estimated, cost_usd, created_at)
            VALUES (:id, :key_id, :tenant_id, :upstream, :model, :prompt_tokens, :completion_tokens, :cached_tokens,
              :is_estimated, :cost_usd, :created_at)
            ON CONFLICT DO NOTHING
            """,
            [msgspec.structs.asdict(record) for record in records],
        )
        newest_s = max(parse_iso(record.created_at) for record in records)
        db.execute(
            """
            DELETE FROM key_usage WHERE id IN (
              SELECT id FROM key_usage WHERE created_at < :cutoff ORDER BY created_at LIMIT :n
            )
            """,
            {"cutoff": days_before(newest_s, KEPT_DAYS), "n": len(records) * _PRUNED_PER_USE},
        )


def newest_uses(db: Database, process: str) -> Uses:
    """Return what each key used in the newest month, and how many uses of *process* are counted in all."""
    # One statement: the number and the sums must be of the same moment.
    rows = db.rows(
        """
        SELECT month, key_id, requests, prompt_tokens, completion_tokens, cost_usd,
          (SELECT id FROM key_usage WHERE id > :process || '-' AND id < :process || '.' ORDER BY id DESC LIMIT 1)
            AS landed
        FROM key_months WHERE month = (SELECT max(month) FROM key_months)
        """,
        {"process": process},
    )
    if not rows:
        return Uses()
    landed: str | None = rows[0]["landed"]
    return Uses(
        month=rows[0]["month"],
        by_key={row["key_id"]: MonthUse(*tuple(row)[2:6]) for row in rows},
        n_landed=int(landed.rpartition("-")[2]) if landed else 0,
    )


def month_uses(db: Database, month: str) -> dict[str, MonthUse]:
    """Return ``{key id: use}`` of a *month* such as ``2026-11``; keys that used nothing are left out."""
    rows = db.rows(
        """
        SELECT key_id, requests, prompt_tokens, completion_tokens, cost_usd FROM key_months WHERE month = :month
        """,
        {"month": month},
    )
    return {row["key_id"]: MonthUse(*tuple(row)[1:]) for row in rows}
