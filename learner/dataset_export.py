"""A dataset as a file, piece by piece, for API and command; without personal data unless somebody asks for it.

A file that leaves is out of reach of ``tutelage forget``. So texts go out with personal data replaced, as they go to
models, and of people only the keyed hash; a raw export is asked for, and the audit log says who did.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from learner.dataset_formats import Format, dpo_line, jsonl_line, openai_line, rasa_example, rasa_head, rasa_intent
from learner.knowledge.privacy import Placeholders, remove_personal_data
from store.audit import record
from store.conversations import Message
from store.database import Database
from store.datasets import ExampleRow, get_dataset, list_examples, list_facets
from store.paging import all_rows
from store.preferences import PreferencePair, recorded_pairs, stored_pairs

MEDIA_TYPES: dict[Format, tuple[str, str]] = {  # and how a file's name ends
    "jsonl": ("application/x-ndjson", "jsonl"),
    "rasa": ("application/yaml", "yml"),
    "openai": ("application/x-ndjson", "openai.jsonl"),
    "dpo": ("application/x-ndjson", "dpo.jsonl"),
}


def begin_export(
    db: Database, tenant_id: str, dataset_id: str, kind: Format, *, is_raw: bool, actor: str, now_s: float
) -> None:
    """Write down who takes what out; call it before the first piece.

    Raises:
        NotFoundError: the tenant has no such dataset.
    """
    get_dataset(db, tenant_id, dataset_id)
    detail = {"format": kind, "raw": is_raw}
    record(db, tenant_id, actor=actor, action="datasets.export", object_id=dataset_id, detail=detail, now_s=now_s)


def export(
    db: Database, tenant_id: str, dataset_id: str, kind: Format, *, is_raw: bool, with_unreviewed: bool = False
) -> Iterator[str]:
    """Yield the file in pieces.

    Args:
        db: the database; read page by page, so that nobody who writes has to wait.
        tenant_id: whose dataset.
        dataset_id: which one.
        kind: of the file. ``dpo`` holds the preference pairs of the dataset, and those that the tenant's votes and
            corrections make.
        is_raw: texts as they are.
        with_unreviewed: in ``rasa`` and ``openai`` also examples that wait for a review; ``jsonl`` says of each
            whether it does.
    """
    if kind == "dpo":
        yield from _pairs(db, tenant_id, dataset_id, is_raw)
        return
    clean: Callable[[ExampleRow], ExampleRow] = (lambda row: row) if is_raw else _clean
    if kind == "jsonl":
        for row in _examples(db, tenant_id, dataset_id):
            yield jsonl_line(clean(row), is_raw=is_raw) + "\n"
    elif kind == "openai":
        for row in _examples(db, tenant_id, dataset_id):
            if with_unreviewed or not row.needs_review:
                yield openai_line(clean(row)) + "\n"
    else:
        yield rasa_head()
        for intent in _intents(db, tenant_id, dataset_id):
            is_first = True
            for row in _examples(db, tenant_id, dataset_id, intent=intent):
                if with_unreviewed or not row.needs_review:
                    yield (rasa_intent(intent) if is_first else "") + rasa_example(clean(row).input)
                    is_first = False


def _clean(row: ExampleRow) -> ExampleRow:
    return replace(row, input=remove_personal_data(row.input))


def _examples(db: Database, tenant_id: str, dataset_id: str, *, intent: str | None = None) -> Iterator[ExampleRow]:
    return all_rows(partial(list_examples, db, tenant_id, dataset_id, intent=intent))


def _intents(db: Database, tenant_id: str, dataset_id: str) -> Iterator[str]:
    return (facet.value for facet in all_rows(partial(list_facets, db, tenant_id, dataset_id, kind="intent")))


def _pairs(db: Database, tenant_id: str, dataset_id: str, is_raw: bool) -> Iterator[str]:
    seen: set[str] = set()
    for source in (stored_pairs(db, tenant_id, dataset_id), recorded_pairs(db, tenant_id)):
        for pair in source:
            shown = pair if is_raw else _clean_pair(pair)
            if shown.fingerprint not in seen:
                seen.add(shown.fingerprint)
                yield dpo_line(shown) + "\n"


def _clean_pair(pair: PreferencePair) -> PreferencePair:
    placeholders = Placeholders()  # the same person is the same placeholder in question and answers
    return PreferencePair(
        tuple(_clean_message(message, placeholders) for message in pair.messages),
        remove_personal_data(pair.preferred, placeholders=placeholders),
        remove_personal_data(pair.non_preferred, placeholders=placeholders),
    )


def _clean_message(message: Message, placeholders: Placeholders) -> Message:
    return {
        name: value if name in ("role", "tool_call_id") else _clean_value(value, placeholders)
        for name, value in message.items()
        if name != "name"
    }


def _clean_value(value: Any, placeholders: Placeholders) -> Any:
    if isinstance(value, str):
        return remove_personal_data(value, placeholders=placeholders)
    if isinstance(value, list):
        return [_clean_value(one, placeholders) for one in value]
    if isinstance(value, dict):
        return {name: one if name in ("type", "id") else _clean_value(one, placeholders) for name, one in value.items()}
    return value
