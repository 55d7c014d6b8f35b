"""What the API tells of a pattern and of what is behind it."""

from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from store.database import Database
from store.patterns import PatternRow, save_pattern
from store.plan import CellShare
from tests.conftest import NOW_S
from tests.learner.api import error_of
from tests.store.test_pattern_evidence import pattern, record, write


@pytest.fixture
def row(db: Database) -> PatternRow:
    """A pattern that is active, with three conversations that had it and one that did without."""
    before = pattern(db)
    after = replace(
        before,
        state="active",
        grade="proven",
        lift=0.1,
        lift_low=0.02,
        lift_high=0.18,
        share=0.4,
        cells=(CellShare("refund", "", 0.85),),
        guardrails={"rating": -0.02},
    )
    save_pattern(db, before, after, actor="learner", reason="it helps", now_s=NOW_S, detail={"lift": 0.1})
    write(db, *(record(number, f"with-{number}", "treated") for number in range(3)), record(3, "without", "control"))
    return after


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["conversation_id"] for one in answer.json()["data"]]


def test_a_pattern_is_explained_in_words(client: TestClient, row: PatternRow) -> None:
    body = client.get(f"/api/patterns/{row.id}").json()
    assert body["explained"]["grade"].startswith("proven: ")
    assert body["explained"]["lift"] == "+0.100, 95 % interval +0.020 to +0.180: it raises satisfaction"
    assert body["explained"]["shares"] == [
        "85 % of question type refund",
        "40 % of all other conversations that match",
    ]
    assert body["explained"]["guardrails"] == ["replies that people rate: 2.0 in 100 fewer (worse)"]
    assert body["group_field"] == ""
    assert [(one["to_state"], one["reason"], one["detail"]) for one in body["history"]] == [
        ("candidate", "found", {}),
        ("active", "it helps", {"lift": 0.1}),
    ]


def test_patterns_are_found_by_words_of_their_rule_and_by_id(client: TestClient, row: PatternRow) -> None:
    for text in ("BE bri", row.id):
        found = client.get("/api/patterns", params={"text": text}).json()["data"]
        assert [one["id"] for one in found] == [row.id], text
    assert client.get("/api/patterns?text=never").json()["data"] == []


def test_the_conversations_behind_a_pattern_come_page_by_page(client: TestClient, row: PatternRow) -> None:
    url = f"/api/patterns/{row.id}/conversations"
    assert ids(client.get(url)) == ["with-2", "with-1", "with-0"]
    assert ids(client.get(url, params={"arm": "control"})) == ["without"]
    first = client.get(url, params={"arm": "treated", "limit": 2})
    rest = client.get(url, params={"arm": "treated", "limit": 2, "cursor": first.json()["next_cursor"]})
    assert ids(first) + ids(rest) == ["with-2", "with-1", "with-0"]
    assert rest.json()["next_cursor"] is None


@pytest.mark.parametrize(("field", "value"), [("arm", "both"), ("limit", "0"), ("limit", "201"), ("cursor", "x")])
def test_a_bad_question_names_its_field(client: TestClient, row: PatternRow, field: str, value: str) -> None:
    answer = client.get(f"/api/patterns/{row.id}/conversations", params={field: value})
    assert (answer.status_code, error_of(answer)["param"]) == (400, field)


def test_an_unknown_pattern_has_no_conversations(client: TestClient) -> None:
    assert client.get("/api/patterns/pat-x/conversations").status_code == 404


def test_patterns_are_listed_by_grade_and_question_type(client: TestClient, row: PatternRow) -> None:
    for query, expected in (
        ({"grade": "proven", "sort": "lift"}, [row.id]),
        ({"grade": "provisional"}, []),
        ({"question_type": "refund"}, []),
    ):
        assert [one["id"] for one in client.get("/api/patterns", params=query).json()["data"]] == expected
    assert error_of(client.get("/api/patterns?sort=luck"))["param"] == "sort"
    assert error_of(client.get("/api/patterns?grade=good"))["param"] == "grade"
