"""Training data in, a classifier out, and the proxy uses it: over HTTP, with the processes as they run."""

import sqlite3
from typing import Any

import pytest

from tests.flow.conftest import NewProduct
from tests.flow.product import Product, eventually

PARCEL = (
    "where is my parcel",
    "my parcel did not arrive",
    "track my package please",
    "when will the package be delivered",
    "the courier lost my parcel",
    "has my order been shipped",
    "delivery is late again",
    "package tracking number",
)
REFUND = (
    "i want my money back",
    "refund me now",
    "how do i get a refund",
    "please return the money to my card",
    "refund for the broken kettle",
    "the refund has not been paid",
    "money back guarantee",
    "reimburse me for this",
)
LOYALTY = (
    "how many points do i have",
    "redeem my loyalty points",
    "points are missing from my account",
    "do my points expire",
    "spend points on a flight",
    "loyalty card number",
    "bonus points for friends",
    "transfer points to my wife",
)
WRONG = "points are missing from my account"


def items(intent: str, texts: tuple[str, ...], confidence: float = 0.95) -> list[dict[str, Any]]:
    return [{"messageText": text, "intent": intent, "confidence": confidence} for text in texts]


def api(product: Product, method: str, path: str, body: object = None) -> Any:
    answer = product.client.request(method, f"{product.learner_url}/api/training/{path}", json=body)
    answer.raise_for_status()
    return answer.json()


def train(product: Product) -> dict[str, Any]:
    """Train by a job and return the newest model."""
    job = api(product, "POST", "jobs", {"kind": "nlu-train", "datasetId": "ds-auto-training"})

    def ended() -> dict[str, Any] | None:
        now: dict[str, Any] = api(product, "GET", f"jobs/{job['id']}")
        return now if now["status"] in ("completed", "failed") else None

    done = eventually(ended, timeout_s=30)
    assert done is not None
    assert done["status"] == "completed", done["error"]
    models: list[dict[str, Any]] = api(product, "GET", "models")["data"]
    return models[0]


def question_type(product: Product, question: str) -> tuple[str, float]:
    """Return what the proxy makes of a question that no header says the type of."""
    row = product.response_row(product.chat(question))
    return row["question_type"], row["question_type_confidence"]


def eventually_typed(product: Product, question: str, expected: str) -> None:
    eventually(lambda: question_type(product, question)[0] == expected)


@pytest.fixture
def product(new_product: NewProduct) -> Product:
    made = new_product(settings={"learner": {"poll_s": 0.05}})
    made.start("up")
    return made


def test_the_trained_classifier_tells_types_and_a_reviewed_label_changes_its_answer(product: Product) -> None:
    assert question_type(product, WRONG)[0] not in ("parcel", "refund", "loyalty")
    wrong = tuple(text for text in LOYALTY if "points" in text)
    api(
        product,
        "POST",
        "conversations/bulk",
        {"conversations": [*items("parcel", PARCEL), *items("refund", REFUND), *items("refund", wrong)]},
    )

    first = train(product)
    assert (first["version"], first["is_serving"], first["n_intents"]) == (1, True, 2)
    assert first["report"]["n_held_out"] >= 2
    eventually_typed(product, PARCEL[0], "parcel")
    eventually_typed(product, WRONG, "refund")

    for example in api(product, "GET", "datasets/ds-auto-training/examples?limit=100")["data"]:
        if "points" in example["input"]:
            api(product, "PATCH", f"examples/{example['id']}", {"intent": "loyalty"})
    second = train(product)
    assert (second["version"], second["is_serving"], second["n_intents"]) == (2, True, 3)
    assert second["report"]["serving"]["version"] == 1
    eventually_typed(product, WRONG, "loyalty")
    eventually_typed(product, PARCEL[0], "parcel")

    same = train(product)
    assert same["version"] == 2  # nothing changed, nothing was trained

    product.command("models", "rollback")
    eventually_typed(product, WRONG, "refund")
    assert api(product, "POST", "models/rollback", {}) == {"withdrawn": 1, "serving": None}
    eventually(lambda: question_type(product, WRONG)[0] not in ("parcel", "refund", "loyalty"))


def test_what_is_unlike_all_examples_is_unknown_and_not_guessed(product: Product) -> None:
    api(product, "POST", "conversations/bulk", {"conversations": [*items("parcel", PARCEL), *items("refund", REFUND)]})
    train(product)
    eventually_typed(product, REFUND[0], "refund")
    kind, confidence = question_type(product, "zxqv brrk wumpf")
    assert (kind, confidence < 0.5) == ("unknown", True)


def test_examples_that_wait_for_a_review_are_not_trained_on(product: Product) -> None:
    body = [*items("parcel", PARCEL), *items("refund", REFUND), *items("loyalty", LOYALTY, confidence=0.5)]
    api(product, "POST", "conversations/bulk", {"conversations": body})
    model = train(product)
    assert (model["n_intents"], model["n_examples"]) == (2, 16)


def test_a_damaged_classifier_fails_open_to_the_built_in_types_and_health_says_so(product: Product) -> None:
    api(product, "POST", "conversations/bulk", {"conversations": [*items("parcel", PARCEL), *items("refund", REFUND)]})
    train(product)
    eventually_typed(product, PARCEL[0], "parcel")
    product.running[0].stop()
    with sqlite3.connect(product.database_path) as connection:
        connection.execute("UPDATE nlu_models SET model = x'00112233'")
    product.start("up")
    answer = product.chat(PARCEL[0])
    assert answer.status_code == 200
    eventually(lambda: question_type(product, PARCEL[0])[0] != "parcel")
    assert "version 1 cannot be used" in eventually(lambda: product.health().json()["degraded"].get("classifier"))
