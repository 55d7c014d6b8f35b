"""Records as columns, in batches, for statistics. Reads ``responses`` and what belongs to them only.

Complete answers of the assistant (outcome ok, agent ai) whose characteristics were read; holdout included. The steps of
a tool loop are no answers: their signals are the answer's, and so is what only they were told (such as the user).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from store.database import Database, Row

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

GroupField = Literal["segment", "data_source", "prompt_template"]

BATCH: Final = 20_000  # responses in memory at once, about 20 MB with all that belongs to them


@dataclass(frozen=True, slots=True)
class Span:
    """Which records: responses with ``after < seq <= until`` and signals with ``seq <= until_signal``."""

    after: int
    until: int
    until_signal: int
    since_at: str = ""  # UTC text; responses before it are left out


@dataclass(frozen=True, slots=True)
class ResponseColumns:
    """n responses in order of arrival."""

    seq: Integers  # (n,)
    created_s: Floats  # (n,) seconds since 1970
    is_holdout: Booleans  # (n,)
    conversations: Sequence[str]
    users: Sequence[str]  # '' when unknown
    question_types: Sequence[str]
    groups: Sequence[str]  # value of the field that was asked for; '' without one
    characteristics: Sequence[str]  # JSON {dimension: [values]}
    terms: Sequence[str]  # separated by spaces


@dataclass(frozen=True, slots=True)
class SignalColumns:
    """m signals; ``response`` points into the responses."""

    seq: Integers  # (m,)
    response: Integers  # (m,) ascending
    weight: Floats  # (m,)
    types: Sequence[str]  # as store.vocabulary.SignalType
    users: Sequence[str]  # '' when unknown


@dataclass(frozen=True, slots=True)
class InjectionColumns:
    """k patterns in play; ``response`` points into the responses, ``item`` into the names."""

    response: Integers  # (k,)
    item: Integers  # (k,)
    share: Floats  # (k,) P(treated) outside the holdout
    treated: Booleans  # (k,)
    items: Sequence[str]  # distinct, sorted


@dataclass(frozen=True, slots=True)
class Batch:
    """Some responses with all signals that they have and all patterns that were in play."""

    responses: ResponseColumns
    signals: SignalColumns
    injections: InjectionColumns


@dataclass(frozen=True, slots=True)
class Revised:
    """Responses whose signals changed after they were counted."""

    now: Batch
    before: SignalColumns  # of the same responses, when they were counted


def read_batches(
    db: Database, tenant_id: str, span: Span, *, group_field: GroupField | None, size: int = BATCH
) -> Iterator[Batch]:
    """Yield the tenant's records of *span* in order of arrival, about *size* responses at a time."""
    after = span.after
    while (last := _end_of_batch(db, tenant_id, after, span.until, size)) is not None:
        batch = _read(db, tenant_id, _IN_SPAN, {**_parameters(span, group_field), "after": after, "until": last})
        if len(batch.responses.seq):
            yield batch
        after = last


def _end_of_batch(db: Database, tenant_id: str, after: int, until: int, size: int) -> int | None:
    found = db.value(
        """
        SELECT max(seq) FROM (
          SELECT seq FROM response_characteristics
          WHERE tenant_id = :tenant_id AND seq > :after AND seq <= :until ORDER BY seq LIMIT :size)
        """,
        {"tenant_id": tenant_id, "after": after, "until": until, "size": size},
    )
    return None if found is None else int(found)


def read_revised(
    db: Database,
    tenant_id: str,
    span: Span,
    *,
    after_signal: int,
    removals: tuple[int, int],
    group_field: GroupField | None,
    size: int = BATCH,
) -> Iterator[Revised]:
    """Yield the responses of *span* that got signals, or lost some, after their signals up to *after_signal* counted.

    Args:
        db: the database.
        tenant_id: whose records.
        span: ``after`` and ``until`` bound the responses; signals up to ``until_signal`` are there now.
        after_signal: signals up to this ``seq`` were there when the responses were counted.
        removals: signals that were taken back in ``first < seq <= last`` of ``removed_signals`` since.
        group_field: what ``groups`` are values of.
        size: responses at a time.
    """
    numbers = {**_parameters(span, group_field), "after_signal": after_signal}
    numbers |= {"after_removal": removals[0], "until_removal": removals[1]}
    changed = db.rows(
        """
        SELECT answer FROM (
          SELECT coalesce(c.answer_seq, r.seq) AS answer
          FROM response_feedback AS f JOIN responses AS r ON r.id = f.response_id
          LEFT JOIN response_characteristics AS c ON c.seq = r.seq
          WHERE f.seq > :after_signal AND f.seq <= :until_signal AND +f.tenant_id = :tenant_id
          UNION
          SELECT coalesce(c.answer_seq, r.seq) FROM removed_signals AS m JOIN responses AS r ON r.id = m.response_id
          LEFT JOIN response_characteristics AS c ON c.seq = r.seq
          WHERE m.seq > :after_removal AND m.seq <= :until_removal AND +m.tenant_id = :tenant_id
            AND m.signal_seq <= :after_signal)
        WHERE answer > :after AND answer <= :until ORDER BY answer
        """,
        {"tenant_id": tenant_id, **numbers},
    )
    seqs = [row[0] for row in changed]
    for start in range(0, len(seqs), size):
        chosen = {**numbers, "seqs": msgspec.json.encode(seqs[start : start + size]).decode()}
        batch = _read(db, tenant_id, _IN_CHOSEN, chosen)
        if len(batch.responses.seq):
            yield Revised(batch, _before(db, tenant_id, batch, chosen))


def _before(db: Database, tenant_id: str, batch: Batch, chosen: Mapping[str, Any]) -> SignalColumns:
    """Return the signals that counted: those that are still there, and those that were taken back since."""
    place = {seq: index for index, seq in enumerate(batch.responses.seq.tolist())}
    rows = db.rows(
        """
        SELECT m.signal_seq, part.answer, m.weight, m.signal_type, ''
        FROM (
          SELECT value AS seq, value AS answer FROM json_each(:seqs)
          UNION ALL
          SELECT s.seq, s.answer_seq FROM json_each(:seqs) AS chosen
          CROSS JOIN response_characteristics AS s ON s.tenant_id = :tenant_id AND s.answer_seq = chosen.value
        ) AS part
        CROSS JOIN responses AS r ON r.seq = part.seq
        CROSS JOIN removed_signals AS m ON m.response_id = r.id
        WHERE m.seq > :after_removal AND m.seq <= :until_removal AND m.tenant_id = :tenant_id
          AND m.signal_seq <= :after_signal
        """,
        {"tenant_id": tenant_id, **chosen},
    )
    removed = [(seq, place[response], *rest) for seq, response, *rest in rows if response in place]
    now = batch.signals
    kept = zip(now.seq.tolist(), now.response.tolist(), now.weight.tolist(), now.types, now.users, strict=True)
    both = [*(one for one in kept if one[0] <= chosen["after_signal"]), *removed]
    return _signals(sorted(both, key=lambda one: (one[1], one[0])))


def choose_group_field(
    db: Database, tenant_id: str, *, until: int, since_at: str, sample: int, min_share: float, kept: GroupField | None
) -> GroupField | None:
    """Return the first of segment, data source and prompt template that really varies, or None.

    It varies when at least two of its values hold *min_share* each of the newest *sample* responses since *since_at*.
    The field *kept* stays while half of that is true and none before it varies: what is measured by groups begins
    anew when they change.
    """
    for field in GROUP_FIELDS:
        least = min_share / 2 if field == kept else min_share
        if _n_large_values(db, tenant_id, field, until=until, since_at=since_at, sample=sample, least=least) > 1:
            return field
    return None


GROUP_FIELDS: Final[tuple[GroupField, ...]] = ("segment", "data_source", "prompt_template")


def _n_large_values(
    db: Database, tenant_id: str, field: GroupField, *, until: int, since_at: str, sample: int, least: float
) -> int:
    rows = db.rows(
        """
        SELECT value, count(*) AS n FROM (
          SELECT CASE :field WHEN 'segment' THEN r.segment WHEN 'data_source' THEN r.data_source
            ELSE r.prompt_template END AS value
          FROM (
            SELECT seq FROM response_characteristics
            WHERE tenant_id = :tenant_id AND seq <= :until ORDER BY seq DESC LIMIT :sample
          ) AS c CROSS JOIN responses AS r ON r.seq = c.seq
          WHERE r.created_at >= :since_at)
        GROUP BY value
        """,
        {"tenant_id": tenant_id, "field": field, "until": until, "since_at": since_at, "sample": sample},
    )
    total = sum(row["n"] for row in rows)
    return sum(bool(row["value"]) and row["n"] >= least * total for row in rows)


def settled_until(db: Database, tenant_id: str, *, before_at: str, until: int) -> int:
    """Return up to which ``seq`` every response of the tenant was given before *before_at*, at most *until*."""
    found = db.value(
        "SELECT min(seq) FROM responses WHERE tenant_id = :tenant_id AND created_at >= :before_at",
        {"tenant_id": tenant_id, "before_at": before_at},
    )
    return until if found is None else min(int(found) - 1, until)


def _parameters(span: Span, group_field: GroupField | None) -> dict[str, Any]:
    return {
        "after": span.after,
        "until": span.until,
        "until_signal": span.until_signal,
        "since_at": span.since_at,
        "group_field": group_field or "",
    }


@dataclass(frozen=True, slots=True)
class _Which:
    """Which answers: SQL of what their characteristics are read from, and of the steps that belong to them."""

    answers: str
    steps: str


_IN_SPAN: Final = _Which(
    """
FROM (
  SELECT seq, values_json, terms FROM response_characteristics
  WHERE tenant_id = :tenant_id AND seq > :after AND seq <= :until AND answer_seq IS NULL
) AS c
""",
    """
FROM (
  SELECT seq, answer_seq FROM response_characteristics
  WHERE tenant_id = :tenant_id AND answer_seq > :after AND answer_seq <= :until
) AS s
""",
)
_IN_CHOSEN: Final = _Which(
    """
FROM json_each(:seqs) AS chosen CROSS JOIN response_characteristics AS c ON c.seq = chosen.value
""",
    """
FROM json_each(:seqs) AS chosen
CROSS JOIN response_characteristics AS s ON s.tenant_id = :tenant_id AND s.answer_seq = chosen.value
""",
)
_RESPONSES: Final = """
CROSS JOIN responses AS r ON r.seq = c.seq
WHERE r.tenant_id = :tenant_id AND r.created_at >= :since_at AND r.outcome = 'ok' AND r.agent = 'ai'
ORDER BY c.seq  -- as the index has them: by r.seq, which is the same, all would be sorted
"""
_SIGNALS: Final = """
CROSS JOIN responses AS r ON r.seq = c.seq
CROSS JOIN response_feedback AS f ON f.response_id = r.id
WHERE r.tenant_id = :tenant_id AND r.created_at >= :since_at AND r.outcome = 'ok' AND r.agent = 'ai'
  AND f.seq <= :until_signal
ORDER BY r.seq, f.seq
"""


_STEPS: Final = """
CROSS JOIN responses AS q ON q.seq = s.seq
"""


def _read(db: Database, tenant_id: str, which: _Which, parameters: Mapping[str, Any]) -> Batch:
    named = {"tenant_id": tenant_id, **parameters}
    columns = _columns(
        db.rows(
            f"""
            SELECT r.seq, unixepoch(r.created_at) + substr(r.created_at, 20, 4) AS created_s, r.is_holdout,
              r.conversation_id, r.user_id, r.question_type,
              CASE :group_field WHEN 'segment' THEN r.segment WHEN 'data_source' THEN r.data_source
                WHEN 'prompt_template' THEN r.prompt_template ELSE '' END,
              c.values_json, c.terms, r.injection_sets_json
            {which.answers} {_RESPONSES}
            """,
            named,
        ),
        10,
    )
    place = {seq: index for index, seq in enumerate(columns[0])}
    columns = _with_what_steps_were_told(db, which, named, place, columns)
    seq, created_s, is_holdout, conversations, users, question_types, groups, values, terms, references = columns
    responses = ResponseColumns(
        seq=np.array(seq, np.int64),
        created_s=np.array(created_s, np.float64),
        is_holdout=np.array(is_holdout, np.bool_),
        conversations=conversations,
        users=users,
        question_types=question_types,
        groups=groups,
        characteristics=values,
        terms=terms,
    )
    rows = db.rows(f"SELECT f.seq, r.seq, f.weight, f.signal_type, f.user_id {which.answers} {_SIGNALS}", named)
    of_steps = db.rows(
        f"""
        SELECT f.seq, s.answer_seq, f.weight, f.signal_type, f.user_id
        {which.steps} {_STEPS} CROSS JOIN response_feedback AS f ON f.response_id = q.id
        WHERE f.seq <= :until_signal
        """,
        named,
    )
    # A response that came since the first statement is not in this batch.
    found = [(f_seq, place[r_seq], *rest) for f_seq, r_seq, *rest in chain(rows, of_steps) if r_seq in place]
    signals = _signals(sorted(found, key=itemgetter(1, 0)) if of_steps else found)
    return Batch(responses, signals, _read_injections(db, references))


def _with_what_steps_were_told(
    db: Database,
    which: _Which,
    named: Mapping[str, Any],
    place: Mapping[int, int],
    columns: list[tuple[Any, ...]],
) -> list[tuple[Any, ...]]:
    """Return *columns* with user, question type and group of a turn where its answer's own request left them out."""
    rows = db.rows(
        f"""
        SELECT s.answer_seq, q.user_id,
          iif(q.question_type_confidence IS NULL AND q.question_type <> 'unknown'
            AND (a.question_type_confidence IS NOT NULL OR a.question_type = 'unknown'), q.question_type, ''),
          CASE :group_field WHEN 'segment' THEN q.segment WHEN 'data_source' THEN q.data_source
            WHEN 'prompt_template' THEN q.prompt_template ELSE '' END
        {which.steps} {_STEPS} CROSS JOIN responses AS a ON a.seq = s.answer_seq
        ORDER BY s.seq
        """,
        named,
    )
    if not rows:
        return columns
    changed = {name: list(columns[name]) for name in (_USER, _QUESTION_TYPE, _GROUP)}
    for answer, user, question_type, group in rows:
        index = place.get(answer)
        if index is None:
            continue
        changed[_USER][index] = changed[_USER][index] or user
        changed[_QUESTION_TYPE][index] = question_type or changed[_QUESTION_TYPE][index]
        changed[_GROUP][index] = changed[_GROUP][index] or group
    return [tuple(changed.get(number, column)) for number, column in enumerate(columns)]


_USER: Final = 4  # places of columns, as ``_read`` selects them
_QUESTION_TYPE: Final = 5
_GROUP: Final = 6


def _columns(rows: Sequence[Row], n: int) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True)) if rows else [()] * n


def _signals(rows: Sequence[tuple[Any, ...]]) -> SignalColumns:
    seq, response, weight, types, users = list(zip(*rows, strict=True)) if rows else [()] * 5
    return SignalColumns(
        seq=np.array(seq, np.int64),
        response=np.array(response, np.int64),
        weight=np.array(weight, np.float64),
        types=types,
        users=users,
    )


def _read_injections(db: Database, references: Sequence[str]) -> InjectionColumns:
    """Return the patterns of each response's sets, without making a row in Python of each."""
    response, set_ids = _decode_references(references)
    distinct, which = np.unique(set_ids, return_inverse=True)
    sets = _read_sets(db, distinct)
    count = sets.count[which]
    ends = count.cumsum()
    within = np.arange(ends[-1] if len(ends) else 0) - (ends - count).repeat(count)
    place = sets.start[which].repeat(count) + within
    return InjectionColumns(
        response=response.repeat(count),
        item=sets.item[place],
        share=sets.share[place],
        treated=sets.treated[place],
        items=sets.items,
    )


def _decode_references(references: Sequence[str]) -> tuple[Integers, Integers]:
    """Return which response refers to which set, (k,) each."""
    decoder = msgspec.json.Decoder(list[int | tuple[int, float]])
    decoded = {text: _set_ids(decoder.decode(text)) for text in set(references)}  # few differ
    found = [decoded[text] for text in references]
    counts = np.fromiter(map(len, found), np.int64, len(found))
    return np.arange(len(found)).repeat(counts), np.fromiter(chain.from_iterable(found), np.int64)


def _set_ids(references: list[int | tuple[int, float]]) -> list[int]:
    return [one if isinstance(one, int) else one[0] for one in references]


@dataclass(frozen=True, slots=True)
class _Sets:
    """The patterns of n sets, one set after the other."""

    start: Integers  # (n,)
    count: Integers  # (n,)
    share: Floats
    treated: Booleans
    item: Integers
    items: Sequence[str]


def _read_sets(db: Database, set_ids: Integers) -> _Sets:
    """Return the patterns of *set_ids*, which are sorted."""
    rows = db.rows(
        """
        SELECT i.set_id, i.item_id, i.share, i.treated
        FROM injection_set_items AS i
        WHERE i.set_id IN (SELECT value FROM json_each(:set_ids)) AND i.kind = 'pattern'
        ORDER BY i.set_id, i.item_id
        """,
        {"set_ids": msgspec.json.encode(set_ids.tolist()).decode()},
    )
    found = np.array([row["set_id"] for row in rows], np.int64)
    items = sorted({row["item_id"] for row in rows})
    place = {name: index for index, name in enumerate(items)}
    start = np.searchsorted(found, set_ids)
    return _Sets(
        start=start,
        count=np.searchsorted(found, set_ids, side="right") - start,
        share=np.array([row["share"] for row in rows], np.float64),
        treated=np.array([row["treated"] for row in rows], np.bool_),
        item=np.array([place[row["item_id"]] for row in rows], np.int64),
        items=items,
    )
