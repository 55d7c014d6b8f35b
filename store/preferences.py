"""Table ``preference_pairs``, and pairs of a better and a worse answer that votes and corrections make.

The table holds pairs that were imported, and is written by the learner and the command; the others are read from the
records each time, so that a vote that was taken back leaves nothing behind.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from store.clock import iso
from store.conversations import Message
from store.database import Database, Row
from store.datasets import ensure_dataset

PAGE: Final = 200  # pairs or rated responses in memory at once


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """What was asked, in OpenAI's message shape, and two answers."""

    messages: tuple[Message, ...]
    preferred: str
    non_preferred: str

    @property
    def fingerprint(self) -> str:
        """Return 32 hex digits of all that it holds."""
        return hashlib.blake2b(msgspec.json.encode(self), digest_size=16).hexdigest()


def add_pairs(db: Database, tenant_id: str, dataset_id: str, pairs: Sequence[PreferencePair], *, now_s: float) -> int:
    """Put *pairs* into the dataset, which is made when missing, and return how many were not there before."""
    ensure_dataset(db, tenant_id, dataset_id, now_s)
    with db.transaction():
        return sum(
            db.execute(
                """
                INSERT INTO preference_pairs (tenant_id, dataset_id, messages_json, preferred, non_preferred,
                  fingerprint, created_at)
                VALUES (:tenant_id, :dataset_id, :messages_json, :preferred, :non_preferred, :fingerprint, :created_at)
                ON CONFLICT (tenant_id, dataset_id, fingerprint) DO NOTHING
                """,
                {
                    "tenant_id": tenant_id,
                    "dataset_id": dataset_id,
                    "messages_json": msgspec.json.encode(pair.messages).decode(),
                    "preferred": pair.preferred,
                    "non_preferred": pair.non_preferred,
                    "fingerprint": pair.fingerprint,
                    "created_at": iso(now_s),
                },
            )
            for pair in pairs
        )


def stored_pairs(db: Database, tenant_id: str, dataset_id: str) -> Iterator[PreferencePair]:
    """Yield the dataset's imported pairs in the order they came."""
    after = 0
    while rows := db.rows(
        """
        SELECT * FROM preference_pairs
        WHERE tenant_id = :tenant_id AND dataset_id = :dataset_id AND seq > :after ORDER BY seq LIMIT :limit
        """,
        {"tenant_id": tenant_id, "dataset_id": dataset_id, "after": after, "limit": PAGE},
    ):
        for row in rows:
            messages = tuple(msgspec.json.decode(row["messages_json"], type=list[Message]))
            yield PreferencePair(messages, row["preferred"], row["non_preferred"])
        after = rows[-1]["seq"]


def recorded_pairs(db: Database, tenant_id: str) -> Iterator[PreferencePair]:
    """Yield the pairs that the tenant's signals make, in the order of the worse answers.

    A correction that came through the API (somebody wrote what the answer should have been) is better than the answer.
    Of two answers to the very same messages, one that users liked is better than one that they did not.
    """
    after = 0
    while rows := _worse(db, tenant_id, after):
        for row in rows:
            yield from _pairs(db, tenant_id, row)
        after = rows[-1]["seq"]


def _worse(db: Database, tenant_id: str, after: int) -> list[Row]:
    """Return the next responses that somebody corrected, or disliked and had made again."""
    return db.rows(
        """
        SELECT r.seq, r.conversation_id, r.messages_json, r.reply_json, r.request_hash,
          (SELECT f.correction FROM response_feedback AS f
           WHERE f.response_id = r.id AND f.source = 'api' AND f.correction <> '' ORDER BY f.seq DESC LIMIT 1)
            AS correction,
          (SELECT o.reply_json FROM responses AS o
           WHERE o.tenant_id = r.tenant_id AND o.conversation_id = r.conversation_id AND o.seq <> r.seq
             AND o.request_hash = r.request_hash AND o.request_hash <> '' AND o.outcome = 'ok'
             AND (SELECT sum(f.weight) FROM response_feedback AS f WHERE f.response_id = o.id) > 0
             AND (SELECT sum(f.weight) FROM response_feedback AS f WHERE f.response_id = r.id) < 0
           ORDER BY o.seq DESC LIMIT 1) AS better_json
        FROM responses AS r
        WHERE r.seq IN (
            SELECT w.seq FROM response_feedback AS f JOIN responses AS w ON w.id = f.response_id
            WHERE f.tenant_id = :tenant_id AND f.weight < 0 AND w.tenant_id = :tenant_id AND w.seq > :after
              AND w.outcome = 'ok' AND w.reply_json IS NOT NULL
            ORDER BY w.seq LIMIT :limit)
        ORDER BY r.seq
        """,
        {"tenant_id": tenant_id, "after": after, "limit": PAGE},
    )


def _pairs(db: Database, tenant_id: str, row: Row) -> Iterator[PreferencePair]:
    worse = _content(row["reply_json"])
    answers = [row["correction"] or "", _content(row["better_json"])]
    better = [answer for answer in dict.fromkeys(answers) if answer and answer != worse]
    if not worse or not better:
        return
    messages = _asked(db, tenant_id, row)
    for answer in better if messages else []:
        yield PreferencePair(messages, answer, worse)


def _asked(db: Database, tenant_id: str, row: Row) -> tuple[Message, ...]:
    """Return all messages that the response answered: those of the turns before it, and its own."""
    earlier = db.rows(
        """
        SELECT messages_json, reply_json, request_hash FROM responses
        WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id AND seq < :seq AND outcome = 'ok'
        ORDER BY seq
        """,
        {"tenant_id": tenant_id, "conversation_id": row["conversation_id"], "seq": row["seq"]},
    )
    messages: list[Message] = []
    for one, later in zip(earlier, [*earlier, row][1:], strict=True):
        if one["request_hash"] and one["request_hash"] == later["request_hash"]:
            continue  # it was made again
        messages += [*_decoded(one["messages_json"]), *_decoded(f"[{one['reply_json'] or ''}]")]
    return (*messages, *_decoded(row["messages_json"]))


def _decoded(text: str) -> list[Message]:
    """Return messages as an app sent them; none where a number or a nesting is beyond what can be read."""
    try:
        return msgspec.json.decode(text, type=list[Message])
    except (msgspec.DecodeError, RecursionError):
        return []


def _content(reply_json: str | None) -> str:
    """Return the text of a reply; "" for one without, such as a call of tools."""
    found: list[dict[str, Any]] = _decoded(f"[{reply_json}]") if reply_json else []
    content = found[0].get("content") if found else None
    return content if isinstance(content, str) else ""
