"""Open WebUI's feedback export as signals, and as conversations where the proxy did not see the answer.

Open WebUI does not keep the id of an upstream's reply. So a rated answer is found by what it says and when.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from learner.ingest import store_items
from store.clock import iso
from store.config import Config
from store.database import Database
from store.errors import InvalidError
from store.feedback import Signal, record_signal
from store.responses import find_answer

BEFORE_S: Final = 600  # an answer's time is when Open WebUI began to wait for it; clocks may differ
AFTER_S: Final = 3600  # a long answer is complete that much later at most
MAX_COMMENT_CHARS: Final = 16_000

# What Open WebUI writes into an answer around a model's reasoning and its tools' results.
_DETAILS: Final = re.compile(r"<details type=.*?</details>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rating:
    """One person's thumb on one answer; ``messages`` are the conversation up to that answer, oldest first."""

    id: str
    user: str
    is_up: bool
    comment: str | None
    chat_id: str
    messages: tuple[Mapping[str, str], ...]
    answered_s: float
    rated_s: float

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"] if self.messages else ""

    @property
    def question(self) -> str:
        return next((one["content"] for one in reversed(self.messages) if one["role"] == "user"), "")


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an export."""

    n_signals: int  # on answers that the proxy gave
    n_conversations: int  # new or changed: of answers that it did not give
    n_known: int  # conversations that were there before
    problems: tuple[tuple[int, str], ...]  # place in the export from 0, what is wrong


def import_ratings(db: Database, tenant_id: str, items: Sequence[Any], config: Config, *, now_s: float) -> Imported:
    """Store each rating of an export, in one transaction. The same export again changes nothing."""
    problems: list[tuple[int, str]] = []
    unseen: list[tuple[int, Rating]] = []
    n_signals = 0
    with db.transaction():
        for index, item in enumerate(items):
            try:
                rating = read_rating(item)
            except InvalidError as exc:
                problems.append((index, str(exc)))
                continue
            response_id = find_answer(
                db,
                tenant_id,
                rating.answer,
                rating.question,
                since=iso(rating.answered_s - BEFORE_S),
                until=iso(rating.answered_s + AFTER_S),
            )
            if response_id is None:
                unseen.append((index, rating))
                continue
            record_signal(
                db, tenant_id, _signal(rating, response_id), config.feedback, source="api", now_s=rating.rated_s
            )
            n_signals += 1
        chats = [_conversation(rating) for _, rating in unseen]
        stored = store_items(db, tenant_id, chats, config.training, now_s=now_s)
    problems += [(unseen[one.index][0], f"{one.field}: {one.message}") for one in stored.problems]
    return Imported(n_signals, stored.n_new + stored.n_changed, stored.n_known, tuple(sorted(problems)))


def read_rating(item: Any) -> Rating:
    """Return one record of the export.

    Raises:
        InvalidError: it is not a thumb on an answer, or does not say which; the error names the field.
    """
    record = _object(item, "")
    data, meta = _object(record.get("data"), "data"), _object(record.get("meta"), "meta")
    value = data.get("rating")
    if str(value) not in ("1", "-1"):
        raise InvalidError("data.rating", f"must be 1 or -1, not {value!r:.40}")
    message_id = _text(meta.get("message_id"), "meta.message_id")
    messages = _messages(_object(record.get("snapshot"), "snapshot"))
    if message_id not in messages:
        raise InvalidError("meta.message_id", "is not a message of the snapshot")
    rated_s = _seconds(record.get("updated_at"), "updated_at")
    answered = messages[message_id].get("timestamp")
    return Rating(
        id=_text(record.get("id"), "id"),
        user=str(record.get("user_id") or ""),
        is_up=str(value) == "1",
        comment=_comment(data),
        chat_id=_text(meta.get("chat_id"), "meta.chat_id"),
        messages=_branch(messages, message_id),
        answered_s=rated_s if answered is None else _seconds(answered, "snapshot timestamp"),
        rated_s=rated_s,
    )


def _branch(messages: Mapping[str, Mapping[str, Any]], last_id: str) -> tuple[Mapping[str, str], ...]:
    """Return the messages that led to *last_id*: a chat with answers that were made again is a tree."""
    branch: list[Mapping[str, str]] = []
    seen: set[str] = set()
    at: Any = last_id
    while isinstance(at, str) and at in messages and at not in seen:
        seen.add(at)
        message = messages[at]
        role, content = message.get("role"), message.get("content")
        if role in ("user", "assistant", "system") and isinstance(content, str):
            branch.append({"role": role, "content": _DETAILS.sub("", content).strip()})
        at = message.get("parentId")
    return tuple(reversed(branch))


def _messages(snapshot: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the snapshot's messages by id; versions of Open WebUI nest them differently deep."""
    chat = snapshot.get("chat")
    inner = chat.get("chat") if isinstance(chat, Mapping) else None
    for holder in (inner, chat, snapshot):
        history = holder.get("history") if isinstance(holder, Mapping) else None
        messages = history.get("messages") if isinstance(history, Mapping) else None
        if isinstance(messages, Mapping):
            messages = [{"id": key, **value} for key, value in messages.items() if isinstance(value, Mapping)]
        if isinstance(messages, list) and messages:
            return {str(one.get("id")): one for one in messages if isinstance(one, Mapping)}
    raise InvalidError("snapshot", "holds no messages")


def _signal(rating: Rating, response_id: str) -> Signal:
    return Signal(
        response_id=response_id,
        signal="thumbs_up" if rating.is_up else "thumbs_down",
        user=rating.user,
        # Somebody who changes a rating keeps its id: the later one is another signal, and replaces the earlier one.
        id=f"open-webui-{rating.id}-{rating.rated_s:.0f}",
        comment=rating.comment,
        metadata={"source": "open-webui"},
    )


def _conversation(rating: Rating) -> Mapping[str, Any]:
    return {
        "chatId": f"open-webui-{rating.chat_id}",
        "messages": [dict(message) for message in rating.messages],
        "tags": ["open-webui"],
        "resolved": rating.is_up,
        "user": rating.user,
    }


def _comment(data: Mapping[str, Any]) -> str | None:
    said = [data.get(name) for name in ("reason", "comment")]
    words = ": ".join(text.strip() for text in said if isinstance(text, str) and text.strip())
    return words[:MAX_COMMENT_CHARS] or None


def _object(value: Any, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidError(field, "must be an object")
    return value


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidError(field, "must be a text that is not empty")
    return value


def _seconds(value: Any, field: str) -> float:
    """Return a time in seconds since 1970; some of Open WebUI's are in milliseconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e14:
        raise InvalidError(field, f"must be a time since 1970, not {value!r:.40}")
    return value / 1000 if value > 1e11 else float(value)
