"""Tables ``response_feedback`` and ``feedback_receipts``.

Written by the proxy (signals of users) and by the learner (signals found in the traffic).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from store.clock import iso
from store.config import FeedbackSection
from store.daily_sums import add_traffic_signals
from store.database import Database, Row
from store.errors import NotFoundError
from store.ids import new_id
from store.responses import ResponseRow, find_response
from store.vocabulary import SignalType, signal_family

Source = Literal["api", "traffic"]


@dataclass(frozen=True, slots=True)
class Signal:
    """One piece of feedback as it was given, already validated."""

    response_id: str  # our id of the response, or the one in its body
    signal: SignalType
    user: str = ""
    id: str | None = None  # client-chosen; None: one is made
    value: float | None = None
    comment: str | None = None
    correction: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class SignalAnswer(msgspec.Struct, frozen=True):
    """What a client gets back for a signal."""

    id: str
    response_id: str  # as the client named it
    signal: str
    weight: float


def record_signal(
    db: Database,
    tenant_id: str,
    signal: Signal,
    settings: FeedbackSection,
    *,
    source: Source,
    now_s: float,
    own_id: str | None = None,
) -> SignalAnswer:
    """Write *signal* and return its answer; durable once the surrounding transaction commits.

    *own_id* is our id of the response, when the caller knows it better than the records do: the newest response with
    an id that an upstream used twice may not have a record yet.

    A later signal of the same user, response and family replaces the earlier one, but what was found in the traffic
    never replaces what a user said. An id that was acknowledged before changes nothing and answers the same.

    Raises:
        NotFoundError: the tenant has no such response.
        UnavailableError: the database is missing, locked or damaged; nothing was written.
    """
    with db.transaction():
        if signal.id is not None and (answer := _receipt(db, tenant_id, signal.id)) is not None:
            return answer
        response = find_response(db, tenant_id, own_id or signal.response_id)
        if response is None:
            raise NotFoundError(f"no response {signal.response_id!r}")
        earlier = _earlier(db, response, signal)
        if earlier is not None and source == "traffic" and earlier["source"] == "api":
            return SignalAnswer(earlier["id"], signal.response_id, earlier["signal_type"], earlier["weight"])
        answer = SignalAnswer(
            signal.id or new_id("sig", now_s), signal.response_id, signal.signal, _weight(signal, response, settings)
        )
        if earlier is not None:
            # Deleted, not updated: the new row gets a new seq, so that a reader with a cursor sees the change.
            db.execute("DELETE FROM response_feedback WHERE seq = :seq", {"seq": earlier["seq"]})
        after = _newest(db) if source == "traffic" else None
        _insert(db, response, signal, answer, source=source, now_s=now_s)
        if after is None:
            _insert_receipt(db, tenant_id, answer, now_s)
        else:
            add_traffic_signals(db, after=after)
    return answer


def record_traffic_signals(
    db: Database, tenant_id: str, signals: Iterable[tuple[Signal, float]], settings: FeedbackSection
) -> None:
    """Write signals that were found in the traffic, each with when it was given, in seconds since 1970.

    They name responses by our own ids. A response that has a signal of the user and family keeps it: what was found
    never replaces what somebody said.

    Raises:
        UnavailableError: the database is missing, locked or damaged; nothing was written.
    """
    with db.transaction():
        after = _newest(db)
        db.execute_many(
            f"{_INSERT} ON CONFLICT DO NOTHING",
            [
                _values(tenant_id, one.response_id, one, str(one.id), settings.weights[one.signal], "traffic", now_s)
                for one, now_s in signals
            ],
        )
        add_traffic_signals(db, after=after)


def withdraw_signal(db: Database, tenant_id: str, signal_id: str) -> None:
    """Take a signal back.

    Raises:
        NotFoundError: the tenant has no such signal, or a later one replaced it.
        UnavailableError: the database is missing, locked or damaged; nothing was written.
    """
    with db.transaction():
        n_deleted = db.execute(
            "DELETE FROM response_feedback WHERE tenant_id = :tenant_id AND id = :id",
            {"tenant_id": tenant_id, "id": signal_id},
        )
    if not n_deleted:
        raise NotFoundError(f"no signal {signal_id!r}")


def _receipt(db: Database, tenant_id: str, signal_id: str) -> SignalAnswer | None:
    text = db.value(
        "SELECT answer_json FROM feedback_receipts WHERE tenant_id = :tenant_id AND id = :id",
        {"tenant_id": tenant_id, "id": signal_id},
    )
    return msgspec.json.decode(text, type=SignalAnswer) if text else None


def _earlier(db: Database, response: ResponseRow, signal: Signal) -> Row | None:
    return db.row(
        """
        SELECT seq, id, signal_type, weight, source FROM response_feedback
        WHERE response_id = :response_id AND user_id = :user_id AND family = :family
        """,
        {"response_id": response.id, "user_id": signal.user, "family": signal_family(signal.signal)},
    )


def _weight(signal: Signal, response: ResponseRow, settings: FeedbackSection) -> float:
    """Return the configured weight; reading long counts only on a short answer (DESIGN, section 4)."""
    weight = settings.weights[signal.signal]
    if signal.signal != "dwell_time":
        return weight
    is_long_read = signal.value is not None and signal.value > settings.dwell_threshold_s
    is_short_answer = _answer_chars(response) <= settings.dwell_short_answer_chars
    return weight if is_long_read and is_short_answer else 0.0


def _answer_chars(response: ResponseRow) -> int:
    reply = msgspec.json.decode(response.reply_json) if response.reply_json else {}
    content = reply.get("content") if isinstance(reply, dict) else None
    return len(content) if isinstance(content, str) else 0


_INSERT: Final = """
INSERT INTO response_feedback (id, tenant_id, response_id, user_id, signal_type, family, weight, value, comment,
  correction, metadata_json, source, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def _newest(db: Database) -> int:
    """Return the ``seq`` after which the next signals come, of whatever tenant."""
    return int(db.value("SELECT coalesce(max(seq), 0) FROM response_feedback"))


def _insert(
    db: Database, response: ResponseRow, signal: Signal, answer: SignalAnswer, *, source: Source, now_s: float
) -> None:
    values = _values(response.tenant_id, response.id, signal, answer.id, answer.weight, source, now_s)
    db.execute_many(_INSERT, [values])


def _values(  # noqa: PLR0917  # the row's own parts
    tenant_id: str, response_id: str, signal: Signal, signal_id: str, weight: float, source: Source, now_s: float
) -> tuple[Any, ...]:
    return (
        signal_id,
        tenant_id,
        response_id,
        signal.user,
        signal.signal,
        signal_family(signal.signal),
        weight,
        signal.value,
        signal.comment,
        signal.correction,
        msgspec.json.encode(signal.metadata).decode() if signal.metadata else "{}",
        source,
        iso(now_s),
    )


def _insert_receipt(db: Database, tenant_id: str, answer: SignalAnswer, now_s: float) -> None:
    db.execute(
        """
        INSERT INTO feedback_receipts (tenant_id, id, answer_json, created_at)
        VALUES (:tenant_id, :id, :answer_json, :created_at)
        """,
        {
            "tenant_id": tenant_id,
            "id": answer.id,
            "answer_json": msgspec.json.encode(answer).decode(),
            "created_at": iso(now_s),
        },
    )
