"""The bulk ingest of channels, datasets and their review, jobs."""

import dataclasses
import re
from typing import Any

import pytest
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
