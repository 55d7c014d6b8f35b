"""Who may use the learner's port, and that one tenant never sees another's."""

import dataclasses
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from learner.authoring import Author
from store.clock import ManualClock
from store.config import Config, TenancySection
from store.database import Database
from store.tenants import create_key, ensure_tenant, revoke_key
from store.vocabulary import Scope
from tests.conftest import NOW_S
from tests.learner.api import client_of, error_of


@pytest.fixture
def keyed(config: Config, db: Database, clock: ManualClock, author: Author) -> Iterator[TestClient]:
    with client_of(dataclasses.replace(config, tenancy=TenancySection(mode="keys")), clock, author) as client:
        yield client


def key(db: Database, tenant_id: str = "acme", scope: Scope = "admin") -> dict[str, str]:
    ensure_tenant(db, tenant_id, NOW_S)
    return {"x-api-key": create_key(db, tenant_id, name="test", scope=scope, now_s=NOW_S)[1]}


def test_open_mode_needs_no_key(client: TestClient) -> None:
    assert client.get("/api/patterns").status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8485", "localhost:8485", "[::1]:8485", "LOCALHOST"])
def test_open_mode_answers_to_loopback_names(client: TestClient, host: str) -> None:
    assert client.get("/api/patterns", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": ""},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:3000"},
    ],
)
def test_open_mode_refuses_browsers_of_other_sites(client: TestClient, headers: dict[str, str]) -> None:
    for answer in (
        client.get("/api/patterns", headers=headers),
        client.post("/api/training/jobs", json={"kind": "patterns"}, headers=headers),
        client.get("/api/runs", headers=headers),
    ):
        assert answer.status_code == 403
        assert error_of(answer)["type"] == "permission_error"
    assert client.get("/", headers=headers).status_code == 403


def test_open_mode_lets_its_own_pages_in(client: TestClient) -> None:
    assert client.get("/api/patterns", headers={"origin": "http://127.0.0.1:8485"}).status_code == 200


def test_a_key_is_needed_in_keys_mode(keyed: TestClient) -> None:
    for headers in ({}, {"x-api-key": "tut-made-up"}, {"x-api-key": ""}, {"authorization": "Bearer tut-x"}):
        answer = keyed.get("/api/patterns", headers=headers)
        assert (answer.status_code, error_of(answer)["type"]) == (401, "authentication_error")


@pytest.mark.parametrize("scope", ["app", "feedback"])
def test_a_key_of_another_scope_is_refused(keyed: TestClient, db: Database, scope: Scope) -> None:
    assert keyed.get("/api/patterns", headers=key(db, scope=scope)).status_code == 403


def test_a_revoked_key_is_refused_at_once(keyed: TestClient, db: Database) -> None:
    ensure_tenant(db, "acme", NOW_S)
    row, text = create_key(db, "acme", name="test", scope="admin", now_s=NOW_S)
    assert keyed.get("/api/patterns", headers={"x-api-key": text}).status_code == 200
    revoke_key(db, row.id, NOW_S)
    assert keyed.get("/api/patterns", headers={"x-api-key": text}).status_code == 401


def test_a_stranger_gets_no_body_read(keyed: TestClient) -> None:
    answer = keyed.post("/api/patterns", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 401


def test_a_key_sees_only_its_tenants(keyed: TestClient, db: Database) -> None:
    acme, other = key(db, "acme"), key(db, "other")
    chat = {"chatId": "secret-chat", "messages": [{"role": "user", "content": "secret"}]}
    item = {"messageText": "secret", "intent": "x", "confidence": 0.1}
    keyed.post("/api/training/conversations/bulk", json={"conversations": [chat, item]}, headers=acme)
    pattern = keyed.post("/api/patterns", json={"type": "query_style", "rule": "secret"}, headers=acme).json()
    context = keyed.post("/api/contexts", json={"questions": ["secret"], "answer": "secret"}, headers=acme).json()
    job = keyed.post("/api/training/jobs", json={"kind": "patterns"}, headers=acme).json()
    example = keyed.get("/api/training/datasets/ds-auto-training/examples", headers=acme).json()["data"][0]
    for path in (
        "/api/conversations/secret-chat",
        f"/api/patterns/{pattern['id']}",
        f"/api/contexts/{context['id']}",
        f"/api/training/jobs/{job['id']}",
        f"/api/training/examples/{example['id']}",
        "/api/training/datasets/ds-auto-training",
    ):
        assert keyed.get(path, headers=acme).status_code == 200, path
        assert keyed.get(path, headers=other).status_code == 404, path
    for path in (
        "conversations",
        "patterns",
        "contexts",
        "training/jobs",
        "training/datasets",
        "runs",
        "alerts",
        "audit",
    ):
        assert keyed.get(f"/api/{path}", headers=other).json()["data"] == [], path
    assert keyed.patch(f"/api/patterns/{pattern['id']}", json={"state": "pinned"}, headers=other).status_code == 404
    assert keyed.post(f"/api/contexts/{context['id']}/approve", headers=other).status_code == 404
    assert "secret" not in keyed.get("/api/stats", headers=other).text


def test_changes_carry_the_id_of_their_key(keyed: TestClient, db: Database) -> None:
    headers = key(db)
    keyed.post("/api/patterns", json={"type": "query_style", "rule": "Be brief."}, headers=headers)
    (entry,) = keyed.get("/api/audit", headers=headers).json()["data"]
    assert entry["actor"].startswith("key_")
    assert entry["action"] == "patterns.add"


@pytest.mark.parametrize("path", ["/api/patterns", "/api/runs", "/api/contexts", "/api/alerts", "/api/conversations"])
@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=1e3"])
def test_a_bad_page_size_is_a_400(client: TestClient, path: str, query: str) -> None:
    answer = client.get(f"{path}?{query}")
    assert (answer.status_code, error_of(answer)["param"]) == (400, "limit")


@pytest.mark.parametrize("path", ["contexts", "patterns", "runs", "alerts", "conversations", "training/jobs", "audit"])
def test_a_made_up_cursor_is_a_400(client: TestClient, path: str) -> None:
    answer = client.get(f"/api/{path}?cursor=made-up")
    assert (answer.status_code, error_of(answer)["param"]) == (400, "cursor")


def test_unknown_paths_and_methods_have_the_same_error_shape(client: TestClient) -> None:
    assert (client.get("/api/nothing").status_code, client.put("/api/patterns").status_code) == (404, 405)
    assert error_of(client.get("/api/nothing"))["code"] == "not_found"
    assert error_of(client.put("/api/patterns"))["code"] == "method_not_allowed"


def test_health_is_open_and_metrics_count(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    client.post("/api/training/jobs", json={"kind": "patterns"})
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'tutelage_jobs{kind="patterns",status="pending"} 1.0' in metrics.text


def test_statistics_of_an_empty_tenant_are_empty_not_broken(client: TestClient) -> None:
    found = client.get("/api/stats?days=7").json()
    assert (found["lift"], found["satisfaction_by_day"], found["days"]) == (None, [], 7)
    assert client.get("/api/stats?days=0").status_code == 400
