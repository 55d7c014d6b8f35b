"""Users and conversations forgotten over the admin API."""

from starlette.testclient import TestClient

from store.audit import list_audit
from store.conversations import list_conversations
from store.database import Database
from tests.learner.api import error_of
from tests.store.test_forgetting import TENANT, entry, holding, reply


def test_a_user_is_forgotten_and_the_answer_says_what_went(client: TestClient, db: Database) -> None:
    reply(db, 1, "ann@corp/7", "canary")
    alone = entry(db, ["canary?"], "Say canary.", [("talk-1", "ann@corp/7")])

    told = client.delete("/api/users/ann@corp/7?dry_run=true").json()
    assert (told["is_dry_run"], told["rows"]["responses"]) == (True, 1)
    assert len(list_conversations(db, TENANT)[0]) == 1

    answer = client.delete("/api/users/ann@corp/7")
    assert answer.status_code == 200
    assert (answer.json()["rows"]["responses"], answer.json()["withdrawn_contexts"]) == (1, [alone])
    assert (holding(db, "canary"), holding(db, "ann@corp")) == ([], [])
    assert [row.action for row in list_audit(db, TENANT)[0]] == ["users.forget"]
    assert client.get(f"/api/contexts/{alone}").json()["status"] == "retired"
    page = client.get(f"/contexts/{alone}")
    assert (page.status_code, "(forgotten)" in page.text, "canary" in page.text) == (200, True, False)


def test_a_conversation_is_forgotten_once(client: TestClient, db: Database) -> None:
    reply(db, 1, "ann", "canary")
    reply(db, 2, "ann", "other words")

    assert client.delete("/api/conversations/talk-1").json()["conversations"] == ["talk-1"]

    assert [row.id for row in list_conversations(db, TENANT)[0]] == ["talk-2"]
    again = client.delete("/api/conversations/talk-1")
    assert (again.status_code, error_of(again)["message"]) == (404, "no conversation 'talk-1'")


def test_a_user_without_records_is_no_error(client: TestClient) -> None:
    answer = client.delete("/api/users/nobody")
    assert (answer.status_code, set(answer.json()["rows"].values())) == (200, {0})


def test_a_page_of_another_site_can_forget_nobody(client: TestClient, db: Database) -> None:
    reply(db, 1, "ann", "words")
    assert client.delete("/api/users/ann", headers={"origin": "https://evil.example"}).status_code == 403
    assert len(list_conversations(db, TENANT)[0]) == 1
