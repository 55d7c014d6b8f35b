"""Generations over the admin API: listed by page, reverted in one step."""

from dataclasses import replace

from starlette.testclient import TestClient

from store.alerts import list_alerts, raise_alert
from store.audit import list_audit
from store.clock import iso
from store.database import Database
from store.generations import current_plan
from store.patterns import get_pattern, save_pattern
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


def test_a_step_back_is_told_before_it_is_made_and_asks_again_after_harm(client: TestClient, db: Database) -> None:
    one, other, _ = add_rules(client)
    row = get_pattern(db, DEFAULT_TENANT, one)
    gone = replace(row, state="retired", share=0.0)
    save_pattern(db, row, gone, actor="learner", reason="harm: it fell", now_s=NOW_S, is_harm=True)
    url = "/api/generations/2/revert"

    told = client.get(url).json()
    refused = client.post(url, json={})
    done = client.post(url, json={"force": True})

    assert told["restored"] == [
        {
            "id": one,
            "rule": RULES[0],
            "from_state": "retired",
            "to_state": "trial",
            "removal": {"reason": "harm: it fell", "is_harm": True, "at": iso(NOW_S)},
        }
    ]
    assert (told["harmful"], [row["rule"] for row in told["retired"]], told["kept"]) == ([one], [RULES[2]], [])
    assert (refused.status_code, "harm: it fell" in error_of(refused)["message"]) == (409, True)
    assert done.json()["restored"] == [one]
    assert {p.id for p in current_plan(db, DEFAULT_TENANT).patterns} == {one, other}


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
