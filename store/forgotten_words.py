"""Words that only forgotten texts had, taken out of the classifiers that were trained on them.

A classifier knows words and pairs of neighbours as they were written; names are among them. Its other numbers are sums
over many examples. It goes on serving without these words, and the next training makes one of what is left.
"""

from collections.abc import Collection, Iterable
from typing import Final

from store.database import Database
from store.datasets import list_examples
from store.errors import DamagedModelError, InvalidError
from store.intent_classifier import decode_classifier, name_of
from store.word_evidence import features_of

LOOKED_AT: Final = 20  # examples with the same words, in any order; without these neighbours in them a pair goes


def forget_words(db: Database, tenant_id: str, texts: Iterable[str]) -> int:
    """Take the words of *texts* out of the tenant's classifiers, but for those that their datasets still have.

    Call it when the examples of *texts* are gone, in the same transaction. A version that cannot be read, and so never
    serves, is emptied. Returns how many versions changed.
    """
    datasets = db.rows(
        "SELECT DISTINCT dataset_id FROM nlu_models WHERE tenant_id = :tenant_id", {"tenant_id": tenant_id}
    )
    said = {feature for text in texts for feature in features_of(text)} if datasets else set[str]()
    return sum(_forget_words(db, tenant_id, row["dataset_id"], said) for row in datasets)


def _forget_words(db: Database, tenant_id: str, dataset_id: str, said: Collection[str]) -> int:
    rows = db.rows(
        "SELECT version, model, assessed FROM nlu_models WHERE tenant_id = :tenant_id AND dataset_id = :dataset_id",
        {"tenant_id": tenant_id, "dataset_id": dataset_id},
    )
    is_theirs: dict[str, bool] = {}  # of each word that was looked up
    n_changed = 0
    for row in rows:
        changed = {}
        for name in ("model", "assessed"):
            known = _known(row[name], said)
            for feature in known or ():
                if feature not in is_theirs:
                    is_theirs[feature] = not _is_still_said(db, tenant_id, dataset_id, feature)
            changed[name] = b"" if known is None else _without(row[name], {one for one in known if is_theirs[one]})
        if any(blob != row[name] for name, blob in changed.items()):
            values = {"tenant_id": tenant_id, "version": row["version"], **changed}
            n_changed += db.execute(
                """
                UPDATE nlu_models SET model = :model, assessed = :assessed
                WHERE tenant_id = :tenant_id AND version = :version
                """,
                values,
            )
    return n_changed


def _known(blob: bytes, said: Collection[str]) -> frozenset[str] | None:
    """Return which of the words *said* a classifier knows, not from its intents' names; None when it is unreadable."""
    try:
        classifier = decode_classifier(blob)
    except DamagedModelError:
        return None
    return classifier.vocabulary.intersection(said).difference(
        feature for intent in classifier.intents for feature in features_of(name_of(intent))
    )


def _without(blob: bytes, words: Collection[str]) -> bytes:
    return decode_classifier(blob).without(words).encode() if words else blob


def _is_still_said(db: Database, tenant_id: str, dataset_id: str, feature: str) -> bool:
    try:
        found, _ = list_examples(db, tenant_id, dataset_id, search=feature, limit=LOOKED_AT)
    except InvalidError:  # punctuation
        return True
    return any(feature in features_of(example.input) for example in found)
