"""``tutelage models``: what was trained, how good it is, one step back."""

import json
from collections.abc import Callable

from typer.testing import Result

from store.audit import list_audit
from store.database import Database
from tests.store.test_labelled_texts import put

Run = Callable[..., Result]
TEXTS = {
    "parcel": ("where is my parcel", "parcel is late", "track the parcel", "no parcel", "lost parcel", "a parcel"),
    "refund": ("a refund please", "refund me", "i want a refund", "refund my card", "no refund yet", "refund now"),
}


def test_a_training_by_hand_is_listed_shown_and_taken_back(run: Run, db: Database) -> None:
    assert "the built-in question types serve" in run("models", "list").output
    assert "ds-auto-training" in run("learn", "--kind", "nlu", code=1).stderr
    for intent, texts in TEXTS.items():
        for text in texts:
            put(db, text, intent=intent)
    assert "version 1 is published" in run("learn", "--kind", "nlu").stdout
    (listed,) = json.loads(run("models", "list", "--json").stdout)
    assert (listed["version"], listed["is_serving"], listed["n_intents"], listed["n_examples"]) == (1, True, 2, 12)
    shown = json.loads(run("models", "show", "1").stdout)
    assert sorted(shown["report"]["by_intent"]) == ["parcel", "refund"]
    assert "no model of version 2" in run("models", "show", "2", code=1).stderr
    assert "the built-in types serve" in run("models", "rollback").stdout
    assert "nothing to go back from" in run("models", "rollback", code=1).stderr
    assert [entry.action for entry in list_audit(db, "default")[0]] == ["nlu.rollback"]
