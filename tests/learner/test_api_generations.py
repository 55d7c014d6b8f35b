"""Generations over the admin API: listed by page, reverted in one step."""

from starlette.testclient import TestClient

from store.alerts import list_alerts, raise_alert
from store.audit import list_audit
from store.database import Database
from store.generations import current_plan
from store.vocabulary import DEFAULT_TENANT
from tests.conftest import NOW_S
from tests.learner.api import error_of

RULES = ("Be brief.", "Use tables.", "Be kind.")


def add_rules(client: TestClient) -> list[str]:
    return [
        client.post(
            "/api/patterns", json={"type": "response_format", "rule": rule, "conditions": {}, "state": "trial"}
        ).json()["id"]
        for rule in RULES
    ]


def test_generations_are_listed_by_page_the_newest_first(client: TestClient) -> None:
    add_rules(client)

    first = client.get("/api/generations", params={"limit": 2}).json()
    rest = client.get("/api/generations", params={"limit": 2, "cursor": first["next_cursor"]}).json()

    assert [row["number"] for row in first["data"] + rest["data"]] == [3, 2, 1]
    assert rest["next_cursor"] is None
    assert first["data"][0]["has_plan"] is True


def test_a_generation_is_served_again(client: TestClient, db: Database) -> None:
    one, *others = add_rules(client)

    answer = client.post("/api/generations/1/revert", json={"reason": "worse"})

    assert answer.status_code == 200
    assert answer.json() == {"generation": 4, "restored": [], "retired": sorted(others), "kept": []}
    assert [pattern.id for pattern in current_plan(db, DEFAULT_TENANT).patterns] == [one]
    (entry,) = [row for row in list_audit(db, DEFAULT_TENANT)[0] if row.action == "generations.revert"]
    assert entry.detail["reason"] == "worse"


def test_an_unknown_generation_is_not_found(client: TestClient) -> None:
    for number in ("7", "x", "0", "9" * 30, "-1"):
        answer = client.post(f"/api/generations/{number}/revert", json={})

        assert answer.status_code == 404
        assert "no generation" in error_of(answer)["message"]


def test_a_wrong_field_is_refused(client: TestClient) -> None:
    add_rules(client)

    assert client.post("/api/generations/1/revert", json={"why": "?"}).status_code == 400


def test_an_alert_is_acknowledged(client: TestClient, db: Database) -> None:
    alert_id = raise_alert(db, DEFAULT_TENANT, kind="crash", message="fell", detail={}, run_id=None, now_s=NOW_S)

    assert client.post(f"/api/alerts/{alert_id}/acknowledge", json={}).status_code == 200
    assert list_alerts(db, DEFAULT_TENANT, is_open=True)[0] == []
