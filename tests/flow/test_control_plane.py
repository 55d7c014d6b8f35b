"""The control plane's contract (DESIGN section 5) over HTTP."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.flow.product import Product
from tests.upstream import Upstream

ITEM = {
    "phoneNumber": "+919876543210",
    "messageText": "track my order",
    "intent": "track_order",
    "confidence": 0.95,
    "currentStep": "main_menu",
    "timestamp": 1698345600000,
}


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Product]:
    """A running proxy and learner that the tests of this module share."""
    with Product(tmp_path_factory.mktemp("learning"), shared_upstream.base_url) as product:
        product.start("up")
        yield product


def call(product: Product, method: str, path: str, body: object = None) -> httpx.Response:
    return product.client.request(method, f"{product.learner_url}/api/{path}", json=body)


def ingest(product: Product, *items: object) -> httpx.Response:
    return call(product, "POST", "training/conversations/bulk", {"conversations": list(items)})


def first_list(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the list of a list endpoint's answer."""
    assert answer.status_code == 200, answer.text
    body = answer.json()
    lists = [value for value in body.values() if isinstance(value, list)] if isinstance(body, dict) else [body]
    return list(lists[0])


def test_a_client_that_reads_after_its_last_byte_sees_that_its_body_is_too_large(learning: Product) -> None:
    # Python's urllib asks for the connection to be closed: a close in the middle of its body would be a reset.
    url = f"{learning.learner_url}/api/training/conversations/bulk"
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, b'{"conversations": [' + b" " * 25_000_000 + b"]}", headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 413
    assert json.load(refused.value)["error"]["code"] == "body_too_large"


def test_bulk_ingest_answers_as_channels_expect_and_fills_the_dataset(learning: Product) -> None:
    text = f"track my order {uuid4()}"
    answer = ingest(learning, {**ITEM, "messageText": text})
    assert answer.status_code in (200, 201)
    body = answer.json()
    assert {key: body[key] for key in ("success", "count", "flaggedForReview", "datasetId")} == {
        "success": True,
        "count": 1,
        "flaggedForReview": 0,
        "datasetId": "ds-auto-training",
    }
    (dataset,) = [
        row for row in first_list(call(learning, "GET", "training/datasets")) if row["id"] == body["datasetId"]
    ]
    assert dataset["size"] >= 1
    assert call(learning, "GET", "training/datasets/ds-auto-training").json()["size"] == dataset["size"]
    examples = first_list(call(learning, "GET", "training/datasets/ds-auto-training/examples?limit=1000"))
    (example,) = [row for row in examples if row["input"] == text]
    assert example["id"].startswith("ex-1698345600000-")
    assert (example["type"], example["intent"]) == ("nlu", "track_order")
    assert "confidence:95" in example["tags"]
    assert "needs_review" not in example["tags"]
    assert any(tag.startswith("source:") for tag in example["tags"])


def test_an_uncertain_example_is_flagged_and_a_person_clears_it(learning: Product) -> None:
    text = f"hmm where thing {uuid4()}"
    answer = ingest(learning, {**ITEM, "messageText": text, "confidence": 0.69})
    assert answer.json()["flaggedForReview"] == 1
    path = "training/datasets/ds-auto-training/examples?tag=needs_review&limit=1000"
    (example,) = [row for row in first_list(call(learning, "GET", path)) if row["input"] == text]
    body = {"intent": "find_parcel", "needs_review": False}
    changed = call(learning, "PATCH", f"training/examples/{example['id']}", body)
    assert changed.status_code == 200, changed.text
    assert changed.json()["intent"] == "find_parcel"
    assert "needs_review" not in changed.json()["tags"]
    assert text not in [row["input"] for row in first_list(call(learning, "GET", path))]


def test_the_same_batch_twice_adds_nothing(learning: Product) -> None:
    item = {**ITEM, "messageText": f"again {uuid4()}"}
    ingest(learning, item)
    size = call(learning, "GET", "training/datasets/ds-auto-training").json()["size"]
    assert ingest(learning, item).status_code in (200, 201)
    assert call(learning, "GET", "training/datasets/ds-auto-training").json()["size"] == size


def test_a_phone_number_is_never_stored_as_it_is(learning: Product) -> None:
    digits = f"{uuid4().int % 10**12:012d}"
    ingest(learning, {**ITEM, "phoneNumber": f"+{digits}", "messageText": f"phone {uuid4()}"})
    time.sleep(0.2)
    stored = b"".join(path.read_bytes() for path in learning.folder.rglob("tutelage.db*") if path.is_file())
    assert digits.encode() not in stored


BAD_ITEMS = {
    "no text": ({"messageText": None}, "messageText"),
    "a text that is a number": ({"messageText": 5}, "messageText"),
    "a confidence above one": ({"confidence": 95}, "confidence"),
    "a timestamp that is a text": ({"timestamp": "yesterday"}, "timestamp"),
}


@pytest.mark.parametrize(("change", "name"), BAD_ITEMS.values(), ids=BAD_ITEMS.keys())
def test_a_bad_item_is_named_with_its_place_and_field(change: dict[str, Any], name: str, learning: Product) -> None:
    answer = ingest(learning, {**ITEM, "messageText": f"fine {uuid4()}"}, {**ITEM, **change})
    assert answer.status_code in (200, 201, 207, 400, 422)
    assert name in answer.text
    assert "1" in answer.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"conversations": 7}', b'{"conversations": [7]}'])
def test_a_body_that_is_no_batch_is_a_400(content: bytes, learning: Product) -> None:
    answer = learning.client.post(
        f"{learning.learner_url}/api/training/conversations/bulk",
        content=content,
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]


def test_a_whole_conversation_comes_in_once_and_is_shown_as_it_was(learning: Product) -> None:
    chat_id = f"chat-{uuid4()}"
    messages = [
        {"role": "user", "content": "Can I pay by invoice?"},
        {"role": "assistant", "content": "Yes, from the second order on.", "agent": "human"},
    ]
    conversation = {"chatId": chat_id, "messages": messages, "tags": ["payment"], "resolved": True}
    for _ in range(2):
        answer = ingest(learning, conversation)
        assert answer.status_code in (200, 201), answer.text
        assert answer.json()["success"] is True
    shown = call(learning, "GET", f"conversations/{chat_id}").json()
    assert [(message["role"], message["content"]) for message in shown["messages"]] == [
        (message["role"], message["content"]) for message in messages
    ]
    assert shown["messages"][1]["agent"] == "human"
    assert len(learning.rows("SELECT id FROM conversations WHERE id = :id", id=chat_id)) == 1


def test_a_proxied_conversation_is_shown_with_what_was_said(learning: Product) -> None:
    name = f"talk-{uuid4()}"
    learning.response_row(learning.chat("Do you ship to Norway?", headers={"x-tutelage-conversation": name}))
    shown = call(learning, "GET", f"conversations/{name}").json()
    assert [message["role"] for message in shown["messages"]] == ["user", "assistant"]
    assert shown["messages"][0]["content"] == "Do you ship to Norway?"
    page = learning.client.get(f"{learning.learner_url}/conversations/{name}")
    assert page.status_code == 200
    assert "Do you ship to Norway?" in page.text


def test_a_pattern_is_added_shown_edited_and_disabled(learning: Product) -> None:
    body = {"type": "query_style", "rule": "Prefer joins.", "conditions": {"question_type": "data_query"}}
    created = call(learning, "POST", "patterns", body)
    assert created.status_code in (200, 201), created.text
    pattern = created.json()
    assert pattern["state"] == "candidate"
    path = f"patterns/{pattern['id']}"
    assert call(learning, "GET", path).json()["rule"] == "Prefer joins."
    assert call(learning, "PATCH", path, {"rule": "Prefer simple joins."}).json()["rule"] == "Prefer simple joins."
    for state in ("pinned", "disabled"):
        changed = call(learning, "PATCH", path, {"state": state})
        assert changed.status_code == 200, changed.text
        assert changed.json()["state"] == state
    assert pattern["id"] in [row["id"] for row in first_list(call(learning, "GET", "patterns?limit=1000"))]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "patterns", {"type": "mood", "rule": "x"}, 400),
        ("POST", "patterns", {"type": "query_style"}, 400),
        ("POST", "patterns", {"type": "query_style", "rule": "x", "conditions": {"colour": "red"}}, 400),
        ("POST", "contexts", {"questions": [], "answer": "x"}, 400),
        ("POST", "contexts", {"questions": ["a"], "answer": 7}, 400),
        ("GET", "contexts?status=lost", None, 400),
        ("GET", "patterns?limit=-1", None, 400),
        ("GET", "patterns/nobody", None, 404),
        ("GET", "contexts/nobody", None, 404),
        ("POST", "contexts/nobody/approve", None, 404),
        ("GET", "conversations/nobody", None, 404),
        ("PATCH", "training/examples/nobody", {"intent": "x"}, 404),
        ("GET", "training/datasets/nobody", None, 404),
        ("GET", "training/jobs/nobody", None, 404),
        ("POST", "training/jobs", {"kind": "magic"}, 400),
    ],
)
def test_what_is_wrong_or_missing_is_said_in_one_shape(
    method: str, path: str, body: object, status: int, learning: Product
) -> None:
    answer = call(learning, method, path, body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


def test_an_entry_is_reviewed_over_http(learning: Product) -> None:
    ids = [
        call(
            learning, "POST", "contexts", {"questions": [f"What is {name}?"], "answer": f"{name}.", "tags": []}
        ).json()["id"]
        for name in ("alpha", "beta")
    ]
    assert call(learning, "POST", f"contexts/{ids[0]}/approve").json()["status"] == "approved"
    assert call(learning, "POST", f"contexts/{ids[1]}/reject", {"reason": "wrong"}).json()["status"] == "rejected"
    listed = {row["id"]: row["status"] for row in first_list(call(learning, "GET", "contexts?limit=1000"))}
    assert [listed[name] for name in ids] == ["approved", "rejected"]
    shown = call(learning, "GET", f"contexts/{ids[0]}").json()
    assert shown["answer"] == "alpha."
    assert shown["revisions"]


def test_a_job_is_taken_up_by_the_running_learner(learning: Product) -> None:
    created = call(learning, "POST", "training/jobs", {"kind": "patterns"})
    assert created.status_code in (200, 201, 202), created.text
    path = f"training/jobs/{created.json()['id']}"
    deadline = time.monotonic() + 30
    while call(learning, "GET", path).json()["status"] in ("pending", "processing") and time.monotonic() < deadline:
        time.sleep(0.2)
    assert call(learning, "GET", path).json()["status"] == "completed"
    assert first_list(call(learning, "GET", "runs"))


@pytest.mark.parametrize("page", ["", "contexts", "patterns", "runs", "datasets"])
def test_every_page_of_the_console_opens(page: str, learning: Product) -> None:
    answer = learning.client.get(f"{learning.learner_url}/{page}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text.lstrip().lower().startswith("<!doctype html")


def test_lists_page_without_loss(learning: Product) -> None:
    names = {
        call(learning, "POST", "patterns", {"type": "query_style", "rule": f"Rule {n}."}).json()["id"] for n in range(7)
    }
    found: list[str] = []
    cursor = ""
    for _ in range(50):
        body = call(learning, "GET", f"patterns?limit=3{cursor}").json()
        found += [row["id"] for row in next(value for value in body.values() if isinstance(value, list))]
        following = body.get("next_cursor") or body.get("cursor")
        cursor = f"&cursor={following}" if following else ""
        if not cursor:
            break
    assert len(found) == len(set(found))
    assert names <= set(found)
