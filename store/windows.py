"""A window of records as columns, for statistics. Reads ``responses`` and what belongs to them only.

Complete answers of the assistant (outcome ok, agent ai) that went through the proxy; holdout included.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from store.clock import days_before, parse_iso
from store.database import Database

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ResponseColumns:
    """n responses in order of arrival."""

    seq: Integers  # (n,)
    created_s: Floats  # (n,) seconds since 1970
    is_holdout: Booleans  # (n,)
    ids: Sequence[str]
    conversations: Sequence[str]
    users: Sequence[str]  # '' when unknown
    question_types: Sequence[str]
    characteristics: Sequence[str]  # JSON {dimension: [values]}; '{}' when not read yet
    terms: Sequence[str]  # separated by spaces


@dataclass(frozen=True, slots=True)
class SignalColumns:
    """m signals; ``response`` points into the responses."""

    seq: Integers  # (m,)
    response: Integers  # (m,)
    weight: Floats  # (m,)
    families: Sequence[str]
    users: Sequence[str]


@dataclass(frozen=True, slots=True)
class InjectionColumns:
    """k patterns in play; ``response`` points into the responses."""

    response: Integers  # (k,)
    share: Floats  # (k,) P(treated) outside the holdout
    treated: Booleans  # (k,)
    items: Sequence[str]
    dimensions: Sequence[str]


@dataclass(frozen=True, slots=True)
class Window:
    responses: ResponseColumns
    signals: SignalColumns
    injections: InjectionColumns


def read_window(db: Database, tenant_id: str, *, now_s: float, days: float) -> Window:
    """Return the tenant's records of the last *days* days before *now_s*, and later ones."""
    since = {"tenant_id": tenant_id, "since": days_before(now_s, days)}
    responses = _read_responses(db, since)
    index_of = {int(seq): index for index, seq in enumerate(responses.seq)}
    return Window(responses, _read_signals(db, since, index_of), _read_injections(db, since, index_of))


def _read_responses(db: Database, since: dict[str, str]) -> ResponseColumns:
    rows = db.rows(
        """
        SELECT r.seq, r.id, r.conversation_id, r.user_id, r.question_type, r.is_holdout, r.created_at,
          coalesce(c.values_json, '{}') AS values_json, coalesce(c.terms, '') AS terms
        FROM responses AS r LEFT JOIN response_characteristics AS c ON c.seq = r.seq
        WHERE r.tenant_id = :tenant_id AND r.created_at >= :since AND r.outcome = 'ok' AND r.agent = 'ai'
        ORDER BY r.seq
        """,
        since,
    )
    return ResponseColumns(
        seq=np.array([row["seq"] for row in rows], np.int64),
        created_s=np.array([parse_iso(row["created_at"]) for row in rows], np.float64),
        is_holdout=np.array([row["is_holdout"] for row in rows], np.bool_),
        ids=[row["id"] for row in rows],
        conversations=[row["conversation_id"] for row in rows],
        users=[row["user_id"] for row in rows],
        question_types=[row["question_type"] for row in rows],
        characteristics=[row["values_json"] for row in rows],
        terms=[row["terms"] for row in rows],
    )


def _read_signals(db: Database, since: dict[str, str], index_of: dict[int, int]) -> SignalColumns:
    rows = [
        row
        for row in db.rows(
            """
            SELECT r.seq, f.seq AS signal_seq, f.weight, f.family, f.user_id
            FROM responses AS r JOIN response_feedback AS f ON f.response_id = r.id
            WHERE r.tenant_id = :tenant_id AND r.created_at >= :since AND r.outcome = 'ok' AND r.agent = 'ai'
            ORDER BY r.seq, f.seq
            """,
            since,
        )
        if row["seq"] in index_of  # a response may have arrived since the first statement
    ]
    return SignalColumns(
        seq=np.array([row["signal_seq"] for row in rows], np.int64),
        response=np.array([index_of[row["seq"]] for row in rows], np.int64),
        weight=np.array([row["weight"] for row in rows], np.float64),
        families=[row["family"] for row in rows],
        users=[row["user_id"] for row in rows],
    )


def _read_injections(db: Database, since: dict[str, str], index_of: dict[int, int]) -> InjectionColumns:
    """Return the patterns of each response's sets, without making a row in Python of each."""
    response, set_ids = _read_references(db, since, index_of)
    distinct, which = np.unique(set_ids, return_inverse=True)
    sets = _read_sets(db, distinct)
    count = sets.count[which]
    ends = count.cumsum()
    within = np.arange(ends[-1] if len(ends) else 0) - (ends - count).repeat(count)
    place = sets.start[which].repeat(count) + within
    return InjectionColumns(
        response=response.repeat(count),
        share=sets.share[place],
        treated=sets.treated[place],
        items=sets.items[place].tolist(),
        dimensions=sets.dimensions[place].tolist(),
    )


@dataclass(frozen=True, slots=True)
class _Sets:
    """The patterns of n sets, one set after the other."""

    start: Integers  # (n,)
    count: Integers  # (n,)
    share: Floats
    treated: Booleans
    items: NDArray[np.object_]
    dimensions: NDArray[np.object_]


def _read_sets(db: Database, set_ids: Integers) -> _Sets:
    """Return the patterns of *set_ids*, which are sorted."""
    rows = db.rows(
        """
        SELECT i.set_id, i.item_id, i.dimension, i.share, i.treated
        FROM injection_set_items AS i
        WHERE i.set_id IN (SELECT value FROM json_each(:set_ids)) AND i.kind = 'pattern'
        ORDER BY i.set_id, i.item_id
        """,
        {"set_ids": msgspec.json.encode(set_ids.tolist()).decode()},
    )
    found = np.array([row["set_id"] for row in rows], np.int64)
    start = np.searchsorted(found, set_ids)
    return _Sets(
        start=start,
        count=np.searchsorted(found, set_ids, side="right") - start,
        share=np.array([row["share"] for row in rows], np.float64),
        treated=np.array([row["treated"] for row in rows], np.bool_),
        items=np.array([row["item_id"] for row in rows], np.object_),
        dimensions=np.array([row["dimension"] for row in rows], np.object_),
    )


def _read_references(db: Database, since: dict[str, str], index_of: dict[int, int]) -> tuple[Integers, Integers]:
    """Return which response refers to which set, (k,) each."""
    rows = db.rows(
        """
        SELECT r.seq, r.injection_sets_json FROM responses AS r
        WHERE r.tenant_id = :tenant_id AND r.created_at >= :since AND r.outcome = 'ok' AND r.agent = 'ai'
        ORDER BY r.seq
        """,
        since,
    )
    decoder = msgspec.json.Decoder(list[int | tuple[int, float]])
    set_ids: list[int] = []
    counts: list[int] = []
    rows = [row for row in rows if row["seq"] in index_of]
    for row in rows:
        references = decoder.decode(row["injection_sets_json"])
        counts.append(len(references))
        set_ids += [reference if isinstance(reference, int) else reference[0] for reference in references]
    index = np.array([index_of[row["seq"]] for row in rows], np.int64)
    return index.repeat(np.array(counts, np.int64)), np.array(set_ids, np.int64)
