"""Patterns and knowledge of a tenant as readable YAML, for review in git, and back.

What the file leaves out stays as it is: nothing is deleted by an import. What only evidence gives (states other than
a person's, grades, lifts) is written for the reader and not read back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Final, Literal, TypedDict

import msgspec
import yaml

from learner.authoring import Author, approve_context
from store.contexts import ContextRow, get_context, list_contexts
from store.database import Database
from store.errors import ConflictError, InvalidError, NotFoundError
from store.paging import all_rows
from store.pattern_review import set_state
from store.patterns import PatternRow, all_patterns, get_pattern
from store.plan import Conditions
from store.vocabulary import PATTERN_TYPES, ContextStatus, PatternType

WIDTH: Final = 100  # columns; a longer line of text is folded
SERVED: Final[tuple[ContextStatus, ...]] = ("approved", "flagged", "pending_approval")
OURS: Final = ("id", "source")  # fields that mean nothing to another tenant
OVER: Final = ("retired",)  # states of patterns that are left out of a file unless asked for
HEADER: Final = """\
# Patterns and knowledge of tenant {tenant}. Edit, review, and bring it back with: tutelage import FILE
# Read back: type, rule, conditions and a person's state (trial, pinned, disabled) of patterns; questions, answer and
# tags of knowledge. Without an id an item is new. Nothing is deleted by an import.
"""


Done = Literal["added", "changed", "same"]


class _Who(TypedDict):
    actor: str
    now_s: float


@dataclass(slots=True)
class Changes:
    """What an import did, or would do; ``problems`` name the item and the field."""

    added: int = 0
    changed: int = 0
    same: int = 0
    problems: list[str] = field(default_factory=list)


def _text(dumper: Any, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # yaml has no types
    """Writes texts of several lines as blocks."""

    yaml_representers: ClassVar = {**yaml.SafeDumper.yaml_representers, str: _text}


def export(db: Database, tenant_id: str, *, is_all: bool = False, is_for_elsewhere: bool = False) -> str:
    """Return the tenant's patterns and knowledge as one file.

    Args:
        db: the database.
        tenant_id: whose.
        is_all: what is retired or rejected, too.
        is_for_elsewhere: without what only this tenant knows, its ids: where the file goes, all of it is new.
    """
    patterns = [row for row in all_patterns(db, tenant_id) if is_all or row.state not in OVER]
    contexts = [row for row in all_rows(partial(list_contexts, db, tenant_id)) if is_all or row.status in SERVED]
    items = {
        "patterns": [_pattern_item(row) for row in sorted(patterns, key=lambda row: row.id)],
        "knowledge": [_context_item(row) for row in sorted(contexts, key=lambda row: row.id)],
    }
    if is_for_elsewhere:
        items = {
            name: [{key: value for key, value in one.items() if key not in OURS} for one in found]
            for name, found in items.items()
        }
    body: str = yaml.dump(items, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)
    return HEADER.format(tenant=tenant_id) + body


def _pattern_item(row: PatternRow) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": row.id, "type": row.type, "state": row.state, "rule": row.rule}
    conditions = {name: list(values) for name, values in msgspec.structs.asdict(row.conditions).items() if values}
    if conditions:
        shown["conditions"] = conditions
    if row.grade != "none":
        shown["grade"] = row.grade
    if row.lift is not None:
        shown["lift"] = round(row.lift, 4)
    return shown


def _context_item(row: ContextRow) -> dict[str, Any]:
    shown = {
        "id": row.id,
        "status": row.status,
        "questions": list(row.questions),
        "answer": row.answer,
        "tags": list(row.tags),
    }
    return {**shown, "source": row.source_chat_id} if row.source_chat_id else shown


def read_file(text: str) -> Mapping[str, list[Any]]:
    """Return the items of a file, by ``patterns`` and ``knowledge``.

    Raises:
        InvalidError: it is not YAML, or not of this shape.
    """
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise InvalidError("", f"not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(found, Mapping) or not set(found) <= {"patterns", "knowledge"}:
        raise InvalidError("", "must hold patterns and knowledge, and nothing else")
    for name, items in found.items():
        if not isinstance(items, list | None):
            raise InvalidError(str(name), "must be a list")
    return {name: found.get(name) or [] for name in ("patterns", "knowledge")}


class Importer:
    """Brings a tenant's items in, each of them whole or not at all.

    A new pattern begins as its state says when a person may give that, else as a candidate, which a run tries. New
    knowledge, and new words of an entry, wait for a review unless *is_approved*.
    """

    def __init__(
        self, db: Database, tenant_id: str, author: Author, *, is_approved: bool, actor: str, now_s: float
    ) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._author = author
        self._is_approved = is_approved
        self._who: _Who = {"actor": actor, "now_s": now_s}

    def bring_in(self, items: Mapping[str, Sequence[Any]]) -> Changes:
        """Add and change what *items* say, by ``patterns`` and ``knowledge``."""
        changes = Changes()
        for name, take in (("patterns", self._pattern), ("knowledge", self._context)):
            for index, item in enumerate(items[name]):
                try:
                    with self._db.transaction():
                        done = take(_object(item))
                except (InvalidError, NotFoundError, ConflictError) as exc:
                    changes.problems.append(f"{name}[{index}]: {exc}")
                else:
                    setattr(changes, done, getattr(changes, done) + 1)
        return changes

    def _pattern(self, item: Mapping[str, Any]) -> Done:
        rule, conditions, state = _string(item, "rule"), _conditions(item.get("conditions")), item.get("state")
        if "id" not in item:
            self._author.add_pattern(
                self._db,
                self._tenant_id,
                type=_pattern_type(item.get("type")),
                rule=rule,
                conditions=conditions,
                state=state if state in ("trial", "pinned") else "candidate",
                **self._who,
            )
            return "added"
        before = get_pattern(self._db, self._tenant_id, _string(item, "id"))
        if (rule, conditions) != (before.rule, before.conditions):
            self._author.edit_pattern(
                self._db,
                self._tenant_id,
                before.id,
                rule=rule if rule != before.rule else None,
                conditions=conditions if conditions != before.conditions else None,
                **self._who,
            )
        if state != before.state and state in ("trial", "pinned", "disabled"):
            set_state(self._db, self._tenant_id, before.id, state=state, reason="by an imported file", **self._who)
        return "same" if get_pattern(self._db, self._tenant_id, before.id) == before else "changed"

    def _context(self, item: Mapping[str, Any]) -> Done:
        questions, answer, tags = _strings(item, "questions"), _string(item, "answer"), _strings(item, "tags")
        author, db, tenant_id = self._author, self._db, self._tenant_id
        if "id" not in item:
            author.add_context(
                db,
                tenant_id,
                questions=questions,
                answer=answer,
                tags=tags,
                is_approved=self._is_approved,
                **self._who,
            )
            return "added"
        before = get_context(db, tenant_id, _string(item, "id"))
        is_same = (questions, answer, tags) == (list(before.questions), before.answer, list(before.tags))
        if is_same and not (self._is_approved and before.waiting_revision == before.revision):
            return "same"
        if not is_same:
            write = author.edit_context if self._is_approved else author.propose_context
            write(db, tenant_id, before.id, questions=questions, answer=answer, tags=tags, **self._who)
        if self._is_approved and get_context(db, tenant_id, before.id).waiting_revision is not None:
            approve_context(db, tenant_id, before.id, **self._who)
        return "changed"


def _object(item: Any) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise InvalidError("", "must be an object")
    return item


def _pattern_type(value: Any) -> PatternType:
    found: PatternType | None = next((one for one in PATTERN_TYPES if one == value), None)
    if found is None:
        raise InvalidError("type", f"must be one of {', '.join(PATTERN_TYPES)}, not {value!r:.40}")
    return found


def _conditions(value: Any) -> Conditions:
    try:
        return msgspec.convert(value or {}, Conditions)
    except msgspec.ValidationError as exc:
        raise InvalidError("conditions", str(exc)) from exc


def _string(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidError(name, "must be a text that is not empty")
    return value


def _strings(item: Mapping[str, Any], name: str) -> list[str]:
    value = item.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidError(name, "must be a list of texts")
    return value
