"""The conversations behind a pattern: those that had it, those that did without it by lot, and what it was found in.

Reads ``responses`` and what belongs to them only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import msgspec

from store.database import Database, Row
from store.paging import decode_number, encode_cursor
from store.pattern_blocks import BLOCK, blocks_of
from store.patterns import PatternRow
from store.vocabulary import AVOID

Arm = Literal["treated", "control", "natural"]

ARMS: Final = get_args(Arm)
MAX_BLOCKS: Final = 60  # looked through for one page: 7,680 responses, about 0.06 s
MAX_TURNS: Final = 200  # of a conversation that are looked at, the newest
MAX_QUESTION_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class EvidenceSignal:
    """One reaction to a response that counts in this arm."""

    signal: str
    weight: float
    comment: str | None


@dataclass(frozen=True, slots=True)
class PatternConversation:
    """One conversation of an arm; question, user and time are those of its newest response there."""

    conversation_id: str
    response_id: str
    user_id: str
    question: str
    question_type: str
    outcome: str
    generation: int
    created_at: str
    n_responses: int  # of the conversation in this arm
    satisfaction: float | None  # mean of those with a signal, each clipped to [-1, 1]; None without signals
    signals: tuple[EvidenceSignal, ...]


def pattern_conversations(
    db: Database, pattern: PatternRow, arm: Arm, *, limit: int = 50, cursor: str | None = None
) -> tuple[list[PatternConversation], str | None]:
    """Return conversations behind *pattern*, the newest first, and where the next page begins.

    After a person's edit they are those since then: what came before is about other words.

    A page may hold fewer than *limit* although more follow: what is looked through for one page is bounded.

    Args:
        db: the database.
        pattern: whose.
        arm: ``treated``: its text was in the request; ``control``: it could have been, but the lot left it out (the
            holdout included); ``natural``: it was not in play, the reply was by itself as the pattern asks.
        limit: at least 1.
        cursor: of the page before.
    """
    before = decode_number(cursor) if cursor else None
    reader = _Natural(db, pattern) if arm == "natural" else _Drawn(db, pattern, is_treated=arm == "treated")
    found: list[PatternConversation] = []
    seen: set[str] = set()
    for last_seq, rows in reader.stretches(before):
        for row in rows:
            if row["conversation_id"] in seen:
                continue
            seen.add(row["conversation_id"])
            turns = reader.turns(row["conversation_id"])
            if turns and turns[0]["seq"] > row["seq"]:  # it was on an earlier page
                continue
            found.append(_conversation(db, row, turns or [row]))
            if len(found) == limit:
                return found, encode_cursor(row["seq"])
        before = last_seq
    return found, encode_cursor(before) if before is not None and reader.has_more(before) else None


def _conversation(db: Database, row: Row, turns: list[Row]) -> PatternConversation:
    signals = db.rows(
        """
        SELECT f.response_id, f.signal_type, f.weight, f.comment
        FROM json_each(:ids) AS chosen CROSS JOIN response_feedback AS f ON f.response_id = chosen.value
        ORDER BY f.seq
        """,
        {"ids": msgspec.json.encode([turn["id"] for turn in turns]).decode()},
    )
    sums: dict[str, float] = {}
    for signal in signals:
        sums[signal["response_id"]] = sums.get(signal["response_id"], 0.0) + signal["weight"]
    rated = [max(-1.0, min(1.0, weight)) for weight in sums.values()]
    return PatternConversation(
        conversation_id=row["conversation_id"],
        response_id=row["id"],
        user_id=row["user_id"],
        question=row["question"],
        question_type=row["question_type"],
        outcome=row["outcome"],
        generation=row["generation"],
        created_at=row["created_at"],
        n_responses=len(turns),
        satisfaction=sum(rated) / len(rated) if rated else None,
        signals=tuple(EvidenceSignal(one["signal_type"], one["weight"], one["comment"]) for one in signals),
    )


_SHOWN: Final = f"""
r.seq, r.id, r.conversation_id, r.user_id, substr(r.question, 1, {MAX_QUESTION_CHARS}) AS question, r.question_type,
r.outcome, r.generation, r.created_at
"""
_HAS: Final = """
EXISTS (
  SELECT 1 FROM json_each(r.injection_sets_json) AS s
  CROSS JOIN injection_set_items AS i ON i.set_id = s.value AND i.kind = 'pattern' AND i.item_id = :pattern_id
  WHERE i.treated = :treated) AND r.created_at >= :since_at
"""


class _Drawn:
    """Responses in which the pattern was in play."""

    def __init__(self, db: Database, pattern: PatternRow, *, is_treated: bool) -> None:
        self._db = db
        self._pattern = pattern
        self._is_treated = is_treated
        self._named = {"tenant_id": pattern.tenant_id, "pattern_id": pattern.id, "treated": int(is_treated)}
        self._named["since_at"] = pattern.reworded_at or ""

    def stretches(self, before: int | None) -> Iterator[tuple[int, list[Row]]]:
        """Yield stretches of responses before *before*, the newest first, each with the first ``seq`` of it."""
        for block in self._blocks(before, MAX_BLOCKS):
            low = block * BLOCK
            high = low + BLOCK if before is None else min(low + BLOCK, before)
            rows = self._db.rows(
                f"""
                SELECT {_SHOWN} FROM responses AS r
                WHERE r.seq >= :low AND r.seq < :high AND +r.tenant_id = :tenant_id AND {_HAS}
                ORDER BY r.seq DESC
                """,
                {**self._named, "low": low, "high": high},
            )
            yield low, rows

    def turns(self, conversation_id: str) -> list[Row]:
        """Return the conversation's responses in which it was in play, the newest first."""
        return self._db.rows(
            f"""
            SELECT r.seq, r.id FROM (
              SELECT seq, id, injection_sets_json, created_at FROM responses
              WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id ORDER BY seq DESC LIMIT {MAX_TURNS}
            ) AS r WHERE {_HAS} ORDER BY r.seq DESC
            """,
            {**self._named, "conversation_id": conversation_id},
        )

    def has_more(self, before: int) -> bool:
        return bool(self._blocks(before, 1))

    def _blocks(self, before: int | None, limit: int) -> list[int]:
        return blocks_of(self._db, self._pattern.id, is_treated=self._is_treated, before=before, limit=limit)


_NATURAL: Final = """
r.outcome = 'ok' AND r.agent = 'ai'
AND json_type(c.values_json, :path) IS NOT NULL
AND EXISTS (SELECT 1 FROM json_each(c.values_json, :path) AS v WHERE v.value = :value) = :is_wanted
AND (:question_types = '[]' OR r.question_type IN (SELECT value FROM json_each(:question_types)))
AND (:data_sources = '[]' OR r.data_source IN (SELECT value FROM json_each(:data_sources)))
AND (:prompt_templates = '[]' OR r.prompt_template IN (SELECT value FROM json_each(:prompt_templates)))
AND (:segments = '[]' OR r.segment IN (SELECT value FROM json_each(:segments)))
AND NOT EXISTS (
  SELECT 1 FROM json_each(r.injection_sets_json) AS s
  CROSS JOIN injection_set_items AS i ON i.set_id = s.value AND i.kind = 'pattern' AND i.item_id = :pattern_id)
"""


class _Natural:
    """Responses that had by themselves what the pattern asks for."""

    def __init__(self, db: Database, pattern: PatternRow) -> None:
        conditions = pattern.conditions
        self._db = db
        self._named: dict[str, Any] = {
            "tenant_id": pattern.tenant_id,
            "pattern_id": pattern.id,
            "path": f'$."{pattern.dimension}"',
            "value": pattern.value.removeprefix(AVOID),
            "is_wanted": int(not pattern.value.startswith(AVOID)),
            "question_types": _list(conditions.question_type),
            "data_sources": _list(conditions.data_source),
            "prompt_templates": _list(conditions.prompt_template),
            "segments": _list(conditions.segment),
        }
        self._is_known = bool(pattern.value) and '"' not in pattern.dimension

    def stretches(self, before: int | None) -> Iterator[tuple[int, list[Row]]]:
        """Yield the newest responses before *before*, with the first ``seq`` that was looked at."""
        low = self._low(before, MAX_BLOCKS * BLOCK) if self._is_known else None
        if low is None:
            return
        rows = self._db.rows(
            f"""
            SELECT {_SHOWN}
            FROM response_characteristics AS c CROSS JOIN responses AS r ON r.seq = c.seq
            WHERE c.tenant_id = :tenant_id AND c.seq >= :low AND (:before IS NULL OR c.seq < :before)
              AND r.tenant_id = :tenant_id AND {_NATURAL}
            ORDER BY c.seq DESC LIMIT :at_most
            """,
            {**self._named, "low": low, "before": before, "at_most": MAX_BLOCKS * BLOCK},
        )
        yield low, rows

    def turns(self, conversation_id: str) -> list[Row]:
        """Return the conversation's responses that had it by themselves, the newest first."""
        return self._db.rows(
            f"""
            SELECT r.seq, r.id FROM (
              SELECT * FROM responses
              WHERE tenant_id = :tenant_id AND conversation_id = :conversation_id ORDER BY seq DESC LIMIT {MAX_TURNS}
            ) AS r CROSS JOIN response_characteristics AS c ON c.seq = r.seq
            WHERE {_NATURAL} ORDER BY r.seq DESC
            """,
            {**self._named, "conversation_id": conversation_id},
        )

    def has_more(self, before: int) -> bool:
        return self._low(before, 1) is not None

    def _low(self, before: int | None, n: int) -> int | None:
        low: int | None = self._db.value(
            """
            SELECT min(seq) FROM (
              SELECT seq FROM response_characteristics
              WHERE tenant_id = :tenant_id AND (:before IS NULL OR seq < :before) ORDER BY seq DESC LIMIT :n)
            """,
            {**self._named, "before": before, "n": n},
        )
        return low


def _list(values: tuple[str, ...]) -> str:
    return msgspec.json.encode(values).decode()
