"""The bulk ingest of channels, datasets and their review, jobs."""

import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from learner.authoring import Author
from store.clock import ManualClock
from store.config import Config
from store.database import Database
from tests.learner.api import Wakings, client_of, error_of

BULK = "/api/training/conversations/bulk"
ITEM = {
    "phoneNumber": "+919876543210",
    "messageText": "track my order",
    "intent": "track_order",
    "confidence": 0.95,
    "currentStep": "main_menu",
    "timestamp": 1698345600000,
}
CHAT = {
    "chatId": "chat-1",
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", "agent": "human"}],
    "tags": ["greeting"],
    "resolved": True,
}


def send(client: TestClient, *items: Any) -> Any:
    return client.post(BULK, json={"conversations": list(items)})


def test_the_answer_is_exactly_what_channel_services_expect(client: TestClient) -> None:
    answer = send(client, ITEM)
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "count": 1, "flaggedForReview": 0, "datasetId": "ds-auto-training"}


def test_an_item_becomes_an_example_without_its_phone_number(client: TestClient, db: Database) -> None:
    send(client, ITEM)
    (example,) = client.get("/api/training/datasets/ds-auto-training/examples").json()["data"]
    assert re.fullmatch(r"ex-1698345600000-[0-9a-z]+", example["id"])
    assert (example["type"], example["input"], example["intent"]) == ("nlu", "track my order", "track_order")
    assert example["tags"] == ["confidence:95", "source:bulk"]
    assert re.fullmatch(r"[0-9a-f]{32}", example["user_hash"])
    dump = "\n".join(db.connection.iterdump())
    assert "9876543210" not in dump


def test_unsure_items_are_flagged_and_counted(client: TestClient) -> None:
    answer = send(client, ITEM, {**ITEM, "confidence": 0.69}, {**ITEM, "confidence": 0.7})
    assert (answer.json()["count"], answer.json()["flaggedForReview"]) == (3, 1)
    (flagged,) = client.get("/api/training/datasets/ds-auto-training/examples?tag=needs_review").json()["data"]
    assert flagged["confidence"] == 0.69
    assert "needs_review" in flagged["tags"]


def test_a_sender_that_knows_better_says_itself_what_needs_a_review(client: TestClient) -> None:
    answer = send(client, {**ITEM, "needsReview": True}, {**ITEM, "confidence": 0.2, "needsReview": False})
    assert answer.json()["flaggedForReview"] == 1
    (flagged,) = client.get("/api/training/datasets/ds-auto-training/examples?tag=needs_review").json()["data"]
    assert flagged["confidence"] == 0.95


def test_the_same_delivery_again_is_answered_the_same_and_changes_nothing(client: TestClient) -> None:
    first, second = send(client, ITEM, CHAT), send(client, ITEM, CHAT)
    assert first.json() == second.json()
    assert client.get("/api/training/datasets/ds-auto-training").json()["size"] == 1
    assert len(client.get("/api/conversations").json()["data"]) == 1


def test_whole_conversations_are_accepted_beside_single_messages(client: TestClient) -> None:
    assert send(client, CHAT, ITEM).json()["count"] == 2
    found = client.get("/api/conversations/chat-1").json()
    assert found["messages"] == CHAT["messages"]
    assert (found["tags"], found["is_resolved"]) == (["greeting"], True)


def test_an_empty_delivery_makes_the_dataset(client: TestClient) -> None:
    assert send(client).json()["count"] == 0
    (dataset,) = client.get("/api/training/datasets").json()["data"]
    assert (dataset["id"], dataset["size"]) == ("ds-auto-training", 0)


def test_bad_items_are_reported_by_index_and_field_and_the_others_go_in(client: TestClient) -> None:
    answer = send(
        client, ITEM, {**ITEM, "confidence": "high"}, 7, {**CHAT, "messages": []}, {**ITEM, "messageText": ""}
    )
    assert (answer.status_code, answer.json()["count"]) == (200, 1)
    assert [(error["index"], error["field"]) for error in answer.json()["errors"]] == [
        (1, "confidence"),
        (2, ""),
        (3, "messages"),
        (4, "messageText"),
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"messageText": None}, "messageText"),
        ({"messageText": 7}, "messageText"),
        ({"intent": None}, "intent"),
        ({"intent": ""}, "intent"),
        ({"confidence": None}, "confidence"),
        ({"confidence": True}, "confidence"),
        ({"confidence": 1.01}, "confidence"),
        ({"confidence": -0.1}, "confidence"),
        ({"phoneNumber": 919876543210}, "phoneNumber"),
        ({"currentStep": {}}, "currentStep"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": 1e300}, "timestamp"),
        ({"timestamp": True}, "timestamp"),
    ],
)
def test_a_delivery_of_bad_items_only_is_a_400_that_names_the_field(
    client: TestClient, changes: dict[str, Any], field: str
) -> None:
    answer = send(client, {**ITEM, **changes})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == f"conversations[0].{field}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (*ITEM, "source", "id", "alternatives", "needsReview", *CHAT, "user")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        JSON
        | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6)
        | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=2).map(lambda odd: {**ITEM, **odd})
        | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=2).map(lambda odd: {**CHAT, **odd}),
        max_size=4,
    )
)
def test_whatever_json_comes_is_taken_in_or_named_and_a_repeat_adds_nothing(
    client: TestClient, items: list[Any]
) -> None:
    sent = json.dumps({"conversations": items})
    first, second = (client.post(BULK, content=sent, headers={"content-type": "application/json"}) for _ in range(2))
    assert first.status_code in (200, 400), first.text
    assert (second.status_code, second.json()) == (first.status_code, first.json())
    if first.status_code == 200:
        answer = first.json()
        assert answer["count"] + len(answer.get("errors", [])) == len(items)
        assert all(set(error) == {"index", "field", "message"} for error in answer.get("errors", []))


def test_deliveries_that_overlap_and_come_at_once_add_each_item_once(client: TestClient) -> None:
    items = [{**ITEM, "messageText": f"message {number}"} for number in range(60)]
    batches = [items[start : start + 30] for start in (0, 10, 20, 30)] * 3
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda batch: send(client, *batch), batches))
    assert [answer.json()["count"] for answer in answers] == [30] * 12
    assert client.get("/api/training/datasets/ds-auto-training").json()["size"] == 60


def test_a_senders_id_stands_for_its_message_in_every_later_delivery(client: TestClient) -> None:
    send(client, {**ITEM, "id": "m-1"}, {**ITEM, "id": "m-2"})
    assert send(client, {**ITEM, "id": "m-1", "confidence": 0.2}, {**ITEM, "id": "m-3"}).json()["count"] == 2
    assert client.get("/api/training/datasets/ds-auto-training").json()["size"] == 3


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"intent": "x" * 201}, "intent"),
        ({"messageText": "x" * 20_001}, "messageText"),
        ({"id": 7}, "id"),
        ({"needsReview": "yes"}, "needsReview"),
        ({"alternatives": {}}, "alternatives"),
        ({"alternatives": [7]}, "alternatives[0]"),
        ({"alternatives": [{"intent": "a", "confidence": 0.1}, {"intent": ""}]}, "alternatives[1].intent"),
        ({"alternatives": [{"intent": "a", "confidence": 2}]}, "alternatives[0].confidence"),
        ({"timestamp": 10**400}, "timestamp"),
        ({"confidence": 10**400}, "confidence"),
    ],
)
def test_an_error_names_the_field_inside_the_item(client: TestClient, changes: dict[str, Any], field: str) -> None:
    answer = send(client, ITEM, {**ITEM, **changes})
    assert [(error["index"], error["field"]) for error in answer.json()["errors"]] == [(1, field)]


def test_ten_thousand_items_are_one_delivery_and_one_more_is_too_many(client: TestClient) -> None:
    items = [{**ITEM, "timestamp": 1698345600000 + number} for number in range(10_001)]
    assert send(client, *items[:10_000]).json()["count"] == 10_000
    refused = send(client, *items)
    assert (refused.status_code, error_of(refused)["param"]) == (413, "conversations")
    assert client.get("/api/training/datasets/ds-auto-training").json()["size"] == 10_000


def test_a_bad_item_far_into_a_delivery_is_named_by_its_place(client: TestClient) -> None:
    items: list[Any] = [{**ITEM, "timestamp": number} for number in range(1200)]
    items[777] = {**CHAT, "messages": [{"role": "user"}]}
    items[1199] = {}
    answer = send(client, *items).json()
    assert [(error["index"], error["field"]) for error in answer["errors"]] == [
        (777, "messages[0].content"),
        (1199, "messageText"),
    ]
    assert answer["count"] == 1198


def test_examples_are_listed_by_intent_and_words_and_labels_are_counted(client: TestClient) -> None:
    send(client, ITEM, {**ITEM, "messageText": "cancel my order", "intent": "cancel"}, {**ITEM, "confidence": 0.1})
    url = "/api/training/datasets/ds-auto-training"
    assert [one["input"] for one in client.get(f"{url}/examples?q=cancel").json()["data"]] == ["cancel my order"]
    assert [one["intent"] for one in client.get(f"{url}/examples?intent=cancel").json()["data"]] == ["cancel"]
    bad = client.get(f"{url}/examples?q=%3F")
    assert (bad.status_code, error_of(bad)["param"]) == (400, "q")
    intents = client.get(f"{url}/facets").json()["data"]
    assert intents == [
        {"kind": "intent", "value": "cancel", "n_examples": 1},
        {"kind": "intent", "value": "track_order", "n_examples": 2},
    ]
    assert {"kind": "tag", "value": "needs_review", "n_examples": 1} in client.get(f"{url}/facets?kind=tag").json()[
        "data"
    ]
    assert client.get(f"{url}/facets?kind=colour").status_code == 400


def test_the_review_queue_says_why_and_puts_narrow_and_unlike_ones_first(client: TestClient) -> None:
    rival = [{"intent": "track_order", "confidence": 0.1}, {"intent": "refund", "confidence": 0.5}]
    send(
        client,
        {**ITEM, "messageText": "where is my parcel", "confidence": 0.55, "alternatives": rival},
        {**ITEM, "messageText": "where is my parcel", "confidence": 0.56, "alternatives": rival},
        {**ITEM, "messageText": "delete my account please", "confidence": 0.6},
        {**ITEM, "messageText": "hello there", "confidence": 0.99},
    )
    answer = client.get("/api/training/datasets/ds-auto-training/review").json()
    assert [(one["input"], one["reason"]) for one in answer["data"]] == [
        ("where is my parcel", "unsure"),
        ("delete my account please", "unsure"),
        ("where is my parcel", "unsure"),
    ]
    assert answer["data"][0]["why"] == "55% sure, 5% ahead of refund"
    first = answer["data"][0]["id"]
    client.patch(f"/api/training/examples/{first}", json={"intent": "refund"})
    assert first not in [
        one["id"] for one in client.get("/api/training/datasets/ds-auto-training/review").json()["data"]
    ]


def test_sure_ones_that_the_lot_drew_are_in_the_queue_and_their_reviews_are_counted(
    config: Config, db: Database, clock: ManualClock, author: Author
) -> None:
    training = dataclasses.replace(config.training, audit_share=1.0)
    with client_of(dataclasses.replace(config, training=training), clock, author) as client:
        send(client, *[{**ITEM, "messageText": f"text {n}", "confidence": 0.4 + n / 20} for n in range(12)])
        url = "/api/training/datasets/ds-auto-training/review?limit=5"
        queue = client.get(url).json()["data"]
        assert [one["reason"] for one in queue] == ["unsure"] * 4 + ["audit"]
        client.patch(f"/api/training/examples/{queue[-1]['id']}", json={"needs_review": False})
        wrong = client.get(url).json()["data"][-1]
        client.patch(f"/api/training/examples/{wrong['id']}", json={"intent": "another"})
        assert client.get(url).json()["audit"] == {"n_waiting": 4, "n_reviewed": 2, "n_right": 1}


@pytest.mark.parametrize("body", ['{"conversations": {}}', "{}", '{"conversations": null}'])
def test_a_delivery_without_a_list_is_a_400(client: TestClient, body: str) -> None:
    answer = client.post(BULK, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "conversations")


@pytest.mark.parametrize("body", [b"{", b"[]", b"7", b"\xff", b'{"a": "\\ud800"}', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_a_400(client: TestClient, body: bytes) -> None:
    answer = client.post(BULK, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert error_of(answer)["type"] == "invalid_request_error"


def test_a_body_of_another_type_is_a_415(client: TestClient) -> None:
    assert client.post(BULK, data={"conversations": "[]"}).status_code == 415


def test_limits_of_size_and_number_are_a_413(config: Config, db: Database, clock: ManualClock, author: Author) -> None:
    learner = dataclasses.replace(config.learner, max_items=2, max_body_mb=0.01)
    with client_of(dataclasses.replace(config, learner=learner), clock, author) as client:
        assert send(client, ITEM, ITEM, ITEM).status_code == 413
        large = send(client, {**ITEM, "messageText": "x" * 11_000})
        assert (large.status_code, error_of(large)["code"]) == (413, "body_too_large")
        chunked = client.post(
            BULK, content=(b" " * 1000 for _ in range(11)), headers={"content-type": "application/json"}
        )
        assert chunked.status_code == 413
        assert client.get("/api/training/datasets").json()["data"] == []


def test_a_person_corrects_an_example(client: TestClient) -> None:
    send(client, {**ITEM, "confidence": 0.4})
    (example,) = client.get("/api/training/datasets/ds-auto-training/examples").json()["data"]
    url = f"/api/training/examples/{example['id']}"
    corrected = client.patch(url, json={"intent": "refund"}).json()
    assert (corrected["intent"], corrected["needs_review"]) == ("refund", False)
    assert corrected["reviewed_at"] == "2026-11-21T12:00:00.000Z"
    assert client.patch(url, json={"needs_review": True}).json()["needs_review"] is True
    assert client.get(url).json()["tags"] == ["confidence:40", "source:bulk", "needs_review"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "intent"),
        ({"intent": 7}, "intent"),
        ({"intent": ""}, "intent"),
        ({"needs_review": "no"}, "needs_review"),
        ({"x": 1}, "x"),
    ],
)
def test_a_bad_correction_names_its_field(client: TestClient, body: dict[str, Any], param: str) -> None:
    send(client, ITEM)
    (example,) = client.get("/api/training/datasets/ds-auto-training/examples").json()["data"]
    answer = client.patch(f"/api/training/examples/{example['id']}", json=body)
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)


def test_a_job_is_queued_and_the_scheduler_woken(
    config: Config, db: Database, clock: ManualClock, author: Author
) -> None:
    wakings = Wakings()
    with client_of(config, clock, author, wakings) as client:
        answer = client.post("/api/training/jobs", json={"kind": "patterns"})
        assert (answer.status_code, answer.json()["status"]) == (201, "pending")
        assert wakings.number == 1
        assert client.get(f"/api/training/jobs/{answer.json()['id']}").json() == answer.json()
        assert client.get("/api/training/jobs?kind=patterns&status=pending").json()["data"] == [answer.json()]
        assert client.get("/api/training/jobs?kind=knowledge").json()["data"] == []


def test_a_job_is_cancelled_before_anybody_began_it_and_once(client: TestClient) -> None:
    job = client.post("/api/training/jobs", json={"kind": "patterns"}).json()
    url = f"/api/training/jobs/{job['id']}/cancel"
    cancelled = client.post(url, json={}).json()
    assert (cancelled["status"], cancelled["error"]) == ("failed", "cancelled by console")
    again = client.post(url, json={})
    assert (again.status_code, error_of(again)["code"]) == (409, "conflict")
    assert client.post("/api/training/jobs/job_none/cancel", json={}).status_code == 404


FIRST = "2026-11-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("given", "start", "end"),
    [
        (
            {"from": "2026-11-01T02:00:00+02:00", "to": "2026-11-02"},
            "2026-11-01T00:00:00.000Z",
            "2026-11-02T00:00:00.000Z",
        ),
        ({"from": "2026-11-01T00:00:00Z"}, "2026-11-01T00:00:00.000Z", None),
        ({"to": "2026-11-01T00:00:00Z"}, None, "2026-11-01T00:00:00.000Z"),
    ],
)
def test_a_job_has_the_range_that_it_was_given(
    client: TestClient, given: dict[str, str], start: str | None, end: str | None
) -> None:
    answer = client.post("/api/training/jobs", json={"kind": "knowledge", "range": given})
    assert answer.status_code == 201, answer.text
    assert (answer.json()["range_start_at"], answer.json()["range_end_at"]) == (start, end)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"kind": "knowledge", "range": "yesterday"}, "range"),
        ({"kind": "knowledge", "range": {}}, "range"),
        ({"kind": "knowledge", "range": {"since": "2026-11-01"}}, "range"),
        ({"kind": "knowledge", "range": {"from": "soon"}}, "range.from"),
        ({"kind": "knowledge", "range": {"from": 7}}, "range.from"),
        ({"kind": "knowledge", "range": {"to": None}}, "range.to"),
        ({"kind": "knowledge", "range": {"from": "2026-11-02", "to": "2026-11-01"}}, "range.to"),
        ({"kind": "patterns", "range": {"from": "2026-11-01"}}, "range"),
    ],
)
def test_a_range_that_is_none_is_a_400(client: TestClient, body: dict[str, Any], param: str) -> None:
    answer = client.post("/api/training/jobs", json=body)
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)


def test_training_the_classifier_is_a_job_on_a_dataset_that_must_be_there(client: TestClient) -> None:
    missing = client.post("/api/training/jobs", json={"kind": "nlu-train", "datasetId": "ds-auto-training"})
    assert (missing.status_code, error_of(missing)["code"]) == (404, "not_found")
    send(client, ITEM)
    job = client.post("/api/training/jobs", json={"kind": "nlu-train"})
    assert job.status_code == 201
    assert (job.json()["kind"], job.json()["dataset_id"]) == ("nlu-train", "ds-auto-training")


def test_without_a_trained_model_there_is_none_to_list_show_or_go_back_from(client: TestClient) -> None:
    assert client.get("/api/training/models").json() == {"data": [], "next_cursor": None}
    assert client.get("/api/training/models/1").status_code == 404
    assert client.get("/api/training/models/one").status_code == 400
    assert client.post("/api/training/models/rollback").status_code == 409


@pytest.mark.parametrize("body", [{}, {"kind": "dance"}, {"kind": 7}, {"kind": "patterns", "from": "2026"}])
def test_a_job_of_an_unknown_shape_is_a_400(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post("/api/training/jobs", json=body).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/api/training/jobs/job_1",
        "/api/training/datasets/ds-1",
        "/api/training/datasets/ds-1/examples",
        "/api/training/examples/ex-1",
    ],
)
def test_what_is_not_there_is_a_404(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")
