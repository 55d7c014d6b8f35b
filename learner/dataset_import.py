"""A file of training data into a dataset, for API and command: good items go in, bad ones are named by place."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from learner.dataset_formats import MAX_WARNINGS, Format, Read, read_line, read_rasa
from store.audit import record
from store.config import TrainingSection
from store.conversations import import_conversations
from store.database import Database
from store.datasets import NewExample, add_examples, ensure_dataset
from store.errors import InvalidError
from store.preferences import PreferencePair, add_pairs

BATCH: Final = 500  # items a transaction: others write in between
MAX_ID_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an item, and where it stands."""

    where: str
    message: str


@dataclass(slots=True)
class Imported:
    """What came of a file; ``n_known`` were there before. Of problems and warnings the first are listed."""

    dataset_id: str
    n_new: int = 0
    n_known: int = 0
    n_bad: int = 0
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def read_content(kind: Format, content: str) -> Iterator[Read]:
    """Yield what stands in a file.

    Raises:
        InvalidError: it is not of this format at all.
    """
    return read_rasa(content) if kind == "rasa" else read_lines(kind, content.split("\n"))


def read_lines(kind: Format, lines: Iterable[str]) -> Iterator[Read]:
    """Yield what stands in a file of JSON lines; empty ones are nothing."""
    return (read_line(kind, number, line) for number, line in enumerate(lines, start=1) if line.strip())


def import_dataset(
    db: Database,
    tenant_id: str,
    dataset_id: str,
    items: Iterator[Read],
    training: TrainingSection,
    *,
    actor: str,
    now_s: float,
    max_items: int | None = None,
) -> Imported:
    """Put *items* into the dataset, which is made when missing. The same file again adds nothing.

    Raises:
        InvalidError: the dataset's id is none; there are more items than *max_items*, of which some may be stored; or
            the file is not of its format.
        UnavailableError: the database is missing, locked or damaged.
    """
    if not dataset_id.strip() or len(dataset_id) > MAX_ID_CHARS:
        raise InvalidError("dataset", f"must be a name of 1 to {MAX_ID_CHARS} characters")
    imported = Imported(dataset_id)

    def store(good: list[NewExample | PreferencePair | Mapping[str, Any]]) -> int:
        examples = [item for item in good if isinstance(item, NewExample)]
        pairs = [item for item in good if isinstance(item, PreferencePair)]
        whole = [item for item in good if isinstance(item, Mapping)]
        n_new = add_examples(
            db,
            tenant_id,
            dataset_id,
            examples,
            review_below_confidence=training.review_below_confidence,
            audit_share=training.audit_share,
            now_s=now_s,
        )
        n_new += add_pairs(db, tenant_id, dataset_id, pairs, now_s=now_s)
        conversations = import_conversations(db, tenant_id, whole, now_s=now_s)
        for problem in conversations.problems:
            _note(imported, Read("a conversation", None, f"{problem.field}: {problem.message}"))
        imported.n_bad += len(conversations.problems)
        imported.n_known -= len(conversations.problems)
        return n_new + conversations.n_new + conversations.n_changed

    ensure_dataset(db, tenant_id, dataset_id, now_s)
    _store_all(db, items, imported, store, max_items)
    detail = {"new": imported.n_new, "known": imported.n_known, "bad": imported.n_bad}
    record(db, tenant_id, actor=actor, action="datasets.import", object_id=dataset_id, detail=detail, now_s=now_s)
    return imported


def _store_all(
    db: Database,
    items: Iterator[Read],
    imported: Imported,
    store: Callable[[list[NewExample | PreferencePair | Mapping[str, Any]]], int],
    max_items: int | None,
) -> None:
    n_items = 0
    while batch := list(islice(items, BATCH)):
        n_items += len(batch)
        if max_items is not None and n_items > max_items:
            raise InvalidError("content", f"holds more than {max_items} items; send it in parts, or use the command")
        good = [one.item for one in batch if one.item is not None]
        for one in batch:
            if one.item is None:
                _note(imported, one)
                imported.n_bad += not one.is_warning
        with db.transaction():
            n_new = store(good)
        imported.n_new += n_new
        imported.n_known += len(good) - n_new


def _note(imported: Imported, one: Read) -> None:
    notes = imported.warnings if one.is_warning else imported.problems
    if len(notes) < MAX_WARNINGS:
        notes.append(Problem(one.where, one.problem))
