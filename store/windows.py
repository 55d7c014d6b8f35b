"""A window of records as columns, for statistics. Reads ``responses`` and what belongs to them only.

Complete answers of the assistant (outcome ok, agent ai) that went through the proxy; holdout included.
"""

from array import array
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
    """k patterns in play; ``response`` points into the responses, ``item`` and ``dimension`` into the names."""

    response: Integers  # (k,)
    item: Integers  # (k,)
    dimension: Integers  # (k,)
    share: Floats  # (k,) P(treated) outside the holdout
    treated: Booleans  # (k,)
    items: Sequence[str]  # distinct, sorted
    dimensions: Sequence[str]  # distinct, sorted


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
    rows = db.each(
        """
        SELECT r.seq, r.id, r.conversation_id, r.user_id, r.question_type, r.is_holdout, r.created_at,
          coalesce(c.values_json, '{}') AS values_json, coalesce(c.terms, '') AS terms
        FROM responses AS r LEFT JOIN response_characteristics AS c ON c.seq = r.seq
        WHERE r.tenant_id = :tenant_id AND r.created_at >= :since AND r.outcome = 'ok' AND r.agent = 'ai'
        ORDER BY r.seq
        """,
        since,
    )
    seqs, created_s, is_holdout = array("q"), array("d"), array("b")
    texts: dict[str, str] = {}  # each text once: users, types and characteristics come again and again
    ids: list[str] = []
    conversations: list[str] = []
    users: list[str] = []
    question_types: list[str] = []
    characteristics: list[str] = []
    terms: list[str] = []
    for seq, response_id, conversation_id, user_id, question_type, holdout, created_at, values_json, term in rows:
        seqs.append(seq)
        created_s.append(parse_iso(created_at))
        is_holdout.append(holdout)
        ids.append(response_id)
        conversations.append(texts.setdefault(conversation_id, conversation_id))
        users.append(texts.setdefault(user_id, user_id))
        question_types.append(texts.setdefault(question_type, question_type))
        characteristics.append(texts.setdefault(values_json, values_json))
        terms.append(texts.setdefault(term, term))
    return ResponseColumns(
        seq=np.array(seqs, np.int64),
        created_s=np.array(created_s, np.float64),
        is_holdout=np.array(is_holdout, np.bool_),
        ids=ids,
        conversations=conversations,
        users=users,
        question_types=question_types,
        characteristics=characteristics,
        terms=terms,
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
        item=sets.item[place],
        dimension=sets.dimension[place],
        share=sets.share[place],
        treated=sets.treated[place],
        items=sets.items,
        dimensions=sets.dimensions,
    )


@dataclass(frozen=True, slots=True)
class _Sets:
    """The patterns of n sets, one set after the other."""

    start: Integers  # (n,)
    count: Integers  # (n,)
    share: Floats
    treated: Booleans
    item: Integers
    dimension: Integers
    items: Sequence[str]
    dimensions: Sequence[str]


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
    items, item = _codes([row["item_id"] for row in rows])
    dimensions, dimension = _codes([row["dimension"] for row in rows])
    start = np.searchsorted(found, set_ids)
    return _Sets(
        start=start,
        count=np.searchsorted(found, set_ids, side="right") - start,
        share=np.array([row["share"] for row in rows], np.float64),
        treated=np.array([row["treated"] for row in rows], np.bool_),
        item=item,
        dimension=dimension,
        items=items,
        dimensions=dimensions,
    )


def _codes(names: Sequence[str]) -> tuple[list[str], Integers]:
    distinct = sorted(set(names))
    place = {name: index for index, name in enumerate(distinct)}
    return distinct, np.array([place[name] for name in names], np.int64)


def _read_references(db: Database, since: dict[str, str], index_of: dict[int, int]) -> tuple[Integers, Integers]:
    """Return which response refers to which set, (k,) each."""
    rows = db.each(
        """
        SELECT r.seq, r.injection_sets_json FROM responses AS r
        WHERE r.tenant_id = :tenant_id AND r.created_at >= :since AND r.outcome = 'ok' AND r.agent = 'ai'
        ORDER BY r.seq
        """,
        since,
    )
    decoder = msgspec.json.Decoder(list[int | tuple[int, float]])
    # Arrays of the standard library: a million responses have ten million references, and a list holds each as object.
    index, counts, set_ids = array("q"), array("q"), array("q")
    for seq, references_json in rows:
        place = index_of.get(seq)
        if place is None:  # it arrived since the first statement
            continue
        references = decoder.decode(references_json)
        index.append(place)
        counts.append(len(references))
        set_ids.extend([reference if isinstance(reference, int) else reference[0] for reference in references])
    return np.array(index, np.int64).repeat(np.array(counts, np.int64)), np.array(set_ids, np.int64)
