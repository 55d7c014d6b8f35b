"""The bulk ingest, as channel services send it: classified messages and whole conversations, for API and command."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from learner.item_fields import confidence_of, flag_of, label_of, required_label, text_of, timestamp_ms
from store.config import TrainingSection
from store.conversations import ImportProblem, import_conversations
from store.database import Database
from store.datasets import NewExample, add_examples, needs_review
from store.errors import InvalidError
from store.pseudonyms import hash_phone
from store.tenants import get_tenant

MAX_ALTERNATIVES: Final = 1000
DEFAULT_SOURCE: Final = "bulk"
STEP: Final = 500  # items a transaction: 50 ms in which nobody else writes


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


def store_in_steps(
    db: Database, tenant_id: str, items: Sequence[Any], training: TrainingSection, *, now_s: float
) -> Ingested:
    """Store many items some hundred at a time, each time committed: whoever else writes has its turn in between.

    A step that fails leaves those before it stored; the same items again add only what is missing.
    """
    done = Ingested(0, 0, 0, 0, ())
    for start in range(0, len(items), STEP):
        one = store_items(db, tenant_id, items[start : start + STEP], training, now_s=now_s)
        done = Ingested(
            n_new=done.n_new + one.n_new,
            n_changed=done.n_changed + one.n_changed,
            n_known=done.n_known + one.n_known,
            n_flagged=done.n_flagged + one.n_flagged,
            problems=(*done.problems, *(replace(problem, index=start + problem.index) for problem in one.problems)),
        )
    return done


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
    message_text = text_of(item, "messageText")
    phone_number = label_of(item, "phoneNumber")
    intent = required_label(item, "intent")
    runner_up, runner_up_confidence = _runner_up(item.get("alternatives"), intent)
    return NewExample(
        input=message_text,
        intent=intent,
        confidence=confidence_of(item.get("confidence"), "confidence"),
        source=label_of(item, "source") or DEFAULT_SOURCE,
        current_step=label_of(item, "currentStep"),
        id=label_of(item, "id"),
        needs_review=flag_of(item, "needsReview"),
        runner_up=runner_up,
        runner_up_confidence=runner_up_confidence,
        user_hash=hash_phone(secret, phone_number) if phone_number else "",
        occurred_ms=timestamp_ms(item.get("timestamp"), "timestamp"),
    )


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
            name = required_label(one, "intent")
        except InvalidError as exc:
            raise InvalidError(f"{where}.intent", "must be a text that is not empty") from exc
        others.append((confidence_of(one.get("confidence"), f"{where}.confidence"), name))
    best = max((one for one in others if one[1] != intent), default=None)
    return (None, None) if best is None else (best[1], best[0])
