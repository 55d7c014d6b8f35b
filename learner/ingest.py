"""The bulk ingest, as channel services send it: classified messages and whole conversations, for API and command."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from store.clock import parse_iso
from store.config import TrainingSection
from store.conversations import ImportProblem, import_conversations
from store.database import Database
from store.datasets import MAX_LABEL_CHARS, NewExample, add_examples, needs_review
from store.errors import InvalidError
from store.pseudonyms import hash_phone
from store.tenants import get_tenant

MAX_TIMESTAMP_MS: Final = 253_402_300_799_999  # the last millisecond of the year 9999
MAX_TEXT_CHARS: Final = 20_000
MAX_ALTERNATIVES: Final = 1000
DEFAULT_SOURCE: Final = "bulk"


@dataclass(frozen=True, slots=True)
class Ingested:
    """What came of some items; ``n_known`` were there before, ``n_flagged`` examples need a review."""

    n_new: int
    n_changed: int
    n_known: int
    n_flagged: int
    problems: tuple[ImportProblem, ...]

    @property
    def n_accepted(self) -> int:
        """Return how many items are in the database now."""
        return self.n_new + self.n_changed + self.n_known


def store_items(
    db: Database, tenant_id: str, items: Sequence[Any], training: TrainingSection, *, now_s: float
) -> Ingested:
    """Store classified messages as examples and conversations as they are; bad items are reported by index."""
    secret = get_tenant(db, tenant_id).secret
    examples: list[NewExample] = []
    whole: list[tuple[int, Mapping[str, Any]]] = []
    problems: list[ImportProblem] = []
    for index, item in enumerate(items):
        try:
            read = read_item(item, secret)
        except InvalidError as exc:
            problems.append(ImportProblem(index, exc.field, str(exc)))
        else:
            examples += [read] if isinstance(read, NewExample) else []
            whole += [] if isinstance(read, NewExample) else [(index, read)]
    threshold = training.review_below_confidence
    with db.transaction():
        n_new = (
            add_examples(
                db,
                tenant_id,
                training.dataset_id,
                examples,
                review_below_confidence=threshold,
                audit_share=training.audit_share,
                now_s=now_s,
            )
            if examples
            else 0
        )
        imported = import_conversations(db, tenant_id, [item for _, item in whole], now_s=now_s)
    problems += [ImportProblem(whole[one.index][0], one.field, one.message) for one in imported.problems]
    return Ingested(
        n_new=n_new + imported.n_new,
        n_changed=imported.n_changed,
        n_known=len(examples) - n_new + imported.n_known,
        n_flagged=sum(needs_review(example, threshold) for example in examples),
        problems=tuple(sorted(problems, key=lambda problem: problem.index)),
    )


def read_item(item: Any, secret: bytes) -> NewExample | Mapping[str, Any]:
    """Return a classified message as an example, or a whole conversation as it is.

    Args:
        item: ``{"phoneNumber", "messageText", "intent", "confidence", "currentStep", "timestamp"}`` (milliseconds
            since 1970, or ISO 8601 text), or ``{"chatId", "messages", ...}``, which store.conversations reads. A
            message may also hold ``source``, an ``id`` that the sender made (the same id again is the same message,
            whatever else it says), ``alternatives``: ``[{"intent", "confidence"}]``, what else it might have been, and
            ``needsReview``, where the sender knows better than the configured confidence.
        secret: the tenant's; keys the hash that stands for the phone number.

    Raises:
        InvalidError: a field is missing or holds what it may not; the error names it.
    """
    if not isinstance(item, Mapping):
        raise InvalidError("", "an item must be an object")
    if "messages" in item or "chatId" in item:
        return item
    phone_number = _optional_text(item, "phoneNumber")
    intent = _required_text(item, "intent", MAX_LABEL_CHARS)
    runner_up, runner_up_confidence = _runner_up(item.get("alternatives"), intent)
    return NewExample(
        input=_required_text(item, "messageText", MAX_TEXT_CHARS),
        intent=intent,
        confidence=_confidence(item.get("confidence"), "confidence"),
        source=_optional_text(item, "source") or DEFAULT_SOURCE,
        current_step=_optional_text(item, "currentStep"),
        id=_optional_text(item, "id"),
        needs_review=_optional_flag(item, "needsReview"),
        runner_up=runner_up,
        runner_up_confidence=runner_up_confidence,
        user_hash=hash_phone(secret, phone_number) if phone_number else "",
        occurred_ms=_timestamp_ms(item.get("timestamp")),
    )


def _required_text(item: Mapping[str, Any], field: str, max_chars: int) -> str:
    value = item.get(field)
    if not isinstance(value, str) or not value.strip():
        raise InvalidError(field, "must be a text that is not empty")
    return _writable(value, field, max_chars)


def _optional_text(item: Mapping[str, Any], field: str) -> str | None:
    value = item.get(field)
    if value is not None and not isinstance(value, str):
        raise InvalidError(field, "must be a text")
    return value if value is None else _writable(value, field, MAX_LABEL_CHARS)


def _optional_flag(item: Mapping[str, Any], field: str) -> bool | None:
    value = item.get(field)
    if value is not None and not isinstance(value, bool):
        raise InvalidError(field, "must be true, false or null")
    return value


def _writable(value: str, field: str, max_chars: int) -> str:
    """Return *value*, which the database can hold."""
    if len(value) > max_chars:
        raise InvalidError(field, f"must have at most {max_chars} characters, not {len(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise InvalidError(field, "holds half of a surrogate pair, which is no text") from exc
    return value


def _confidence(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InvalidError(field, "must be a number from 0 to 1")
    return float(value)


def _runner_up(alternatives: Any, intent: str) -> tuple[str | None, float | None]:
    """Return the most likely of the other intents and its confidence; (None, None) when there is none."""
    if alternatives is None:
        return None, None
    if not isinstance(alternatives, list) or len(alternatives) > MAX_ALTERNATIVES:
        raise InvalidError("alternatives", f"must be a list of at most {MAX_ALTERNATIVES}")
    others = []
    for index, one in enumerate(alternatives):
        where = f"alternatives[{index}]"
        if not isinstance(one, Mapping):
            raise InvalidError(where, 'must be {"intent", "confidence"}')
        try:
            name = _required_text(one, "intent", MAX_LABEL_CHARS)
        except InvalidError as exc:
            raise InvalidError(f"{where}.intent", "must be a text that is not empty") from exc
        others.append((_confidence(one.get("confidence"), f"{where}.confidence"), name))
    best = max((one for one in others if one[1] != intent), default=None)
    return (None, None) if best is None else (best[1], best[0])


def _timestamp_ms(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = parse_iso(value) * 1000
        except (ValueError, OverflowError) as exc:
            raise InvalidError("timestamp", "must be milliseconds since 1970, or ISO 8601") from exc
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= MAX_TIMESTAMP_MS:  # not a number is in no range either
        raise InvalidError("timestamp", "must be milliseconds since 1970")
    return int(value)
