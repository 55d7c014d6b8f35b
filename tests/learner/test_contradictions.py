"""Contradictions over the admin API and the console, and decisions on many entries at once."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from learner.authoring import Author
from learner.resolving import waiting_of_run
from learner.reviewing import marked, passage, word_diff
from store.audit import list_audit
from store.contexts import ContextRow, get_context, list_sources
from store.contradictions import Claim, list_contradictions, open_contradiction
from store.conversations import import_conversations
from store.database import Database
from store.errors import NotFoundError
from tests.conftest import NOW_S
from tests.learner.api import error_of

QUESTIONS = ["How do I get a refund?", "Can I have my money back?", "Where do I ask for a refund?"]
OLD = "Refunds take five days."
NEW = "Refunds take ten days."
ALLOWED = "Yes, pets are allowed."


def entry(db: Database, author: Author, *, is_approved: bool = True) -> ContextRow:
    return author.add_context(
        db,
        "default",
        questions=QUESTIONS,
        answer=OLD,
        tags=["refund"],
        is_approved=is_approved,
        actor="test",
        now_s=NOW_S,
    )


def contradict(db: Database, context: ContextRow, chat_id: str = "c1") -> str | None:
    messages = [{"role": "user", "content": QUESTIONS[0]}, {"role": "assistant", "content": NEW}]
    import_conversations(db, "default", [{"chatId": chat_id, "messages": messages, "user": "bob"}], now_s=NOW_S)
    claim = Claim(tuple(QUESTIONS), NEW, ("refund",), chat_id, "human_answer")
    return open_contradiction(db, "default", context.id, context.answer, claim, run_id=None, now_s=NOW_S)


def resolve(client: TestClient, contradiction_id: str | None, resolution: str) -> Any:
    return client.post(f"/api/contradictions/{contradiction_id}/resolve", json={"resolution": resolution})


def test_a_reviewer_sees_both_texts_both_conversations_and_the_passages(
    client: TestClient, db: Database, author: Author
) -> None:
    opened = contradict(db, entry(db, author))
    (listed,) = client.get("/api/contradictions?status=open").json()["data"]
    assert (listed["id"], listed["said_before"], listed["answer"]) == (opened, OLD, NEW)

    shown = client.get(f"/api/contradictions/{opened}").json()

    assert (shown["context"]["answer"], shown["context_conversation"]) == (OLD, None)
    assert [message["content"] for message in shown["conversation"]["messages"]] == [QUESTIONS[0], NEW]
    assert (shown["passage"], shown["context_passage"]) == (1, None)
    assert shown["diff"] == [["same", "Refunds take "], ["removed", "five"], ["added", "ten"], ["same", " days."]]
    page = client.get(f"/contradictions/{opened}").text
    assert "Refunds take <del>five</del><ins>ten</ins> days." in page
    assert f"<mark>{NEW}</mark>" in page
    assert opened is not None
    assert opened in client.get("/contradictions").text


@pytest.mark.parametrize(
    ("resolution", "answer", "status", "is_served"),
    [
        ("keep", OLD, "approved", True),
        ("no_contradiction", OLD, "approved", True),
        ("replace", NEW, "approved", True),
        ("retire_both", OLD, "retired", False),
    ],
)
def test_each_resolution_does_what_it_says_once(
    client: TestClient, db: Database, author: Author, resolution: str, answer: str, status: str, is_served: bool
) -> None:
    context = entry(db, author)
    opened = contradict(db, context)

    done = resolve(client, opened, resolution)

    assert (done.status_code, done.json()["resolution"]) == (200, resolution)
    after = get_context(db, "default", context.id)
    assert (after.answer, after.status, after.is_served) == (answer, status, is_served)
    assert "contradictions.resolve" in [one.action for one in list_audit(db, "default")[0]]
    assert resolve(client, opened, "keep").status_code == 409
    assert contradict(db, context) is None
    assert list_contradictions(db, "default", status="open") == ([], None)


@pytest.mark.parametrize("resolution", ["keep", "no_contradiction"])
def test_an_entry_that_is_kept_turns_down_the_revision_that_says_otherwise(
    client: TestClient, db: Database, author: Author, resolution: str
) -> None:
    context = entry(db, author)
    opened = contradict(db, context)
    author.propose_context(
        db, "default", context.id, questions=QUESTIONS, answer=NEW, tags=[], actor="learner", now_s=NOW_S
    )

    resolve(client, opened, resolution)

    shown = client.get(f"/api/contexts/{context.id}").json()
    assert (shown["answer"], shown["status"], shown["waiting_revision"]) == (OLD, "approved", None)
    assert [one["status"] for one in shown["revisions"]] == ["rejected", "approved"]


def test_what_replaces_rests_on_its_conversation(client: TestClient, db: Database, author: Author) -> None:
    context = entry(db, author, is_approved=False)
    resolve(client, contradict(db, context), "replace")
    ((source),) = list_sources(db, "default", context.id)[0]
    assert (source.conversation_id, source.user_id) == ("c1", "bob")
    assert get_context(db, "default", context.id).is_served


def test_a_contradiction_of_an_entry_that_is_gone_stays_open_when_it_cannot_replace_it(
    client: TestClient, db: Database, author: Author
) -> None:
    context = entry(db, author)
    opened = contradict(db, context)
    client.patch(f"/api/contexts/{context.id}", json={"status": "retired"})
    assert resolve(client, opened, "replace").status_code == 409
    assert len(list_contradictions(db, "default", status="open")[0]) == 1
    assert resolve(client, opened, "keep").status_code == 200


def test_a_contradiction_is_resolved_in_the_console(client: TestClient, db: Database, author: Author) -> None:
    context = entry(db, author)
    opened = contradict(db, context)
    page = client.get(f"/contradictions/{opened}").text
    token = page.split('name="csrf_token" value="')[1].split('"')[0]
    form = {"csrf_token": token, "resolution": "replace", "reason": "new rule"}
    assert client.post(f"/contradictions/{opened}/resolve", data=form).status_code == 303
    assert get_context(db, "default", context.id).answer == NEW
    assert client.post(f"/contradictions/{opened}/resolve", data={"resolution": "keep"}).status_code == 403


def test_many_entries_are_decided_at_once_and_each_says_what_became_of_it(
    client: TestClient, db: Database, author: Author
) -> None:
    waiting, approved = entry(db, author, is_approved=False), entry(db, author)
    body = {"ids": [waiting.id, "ctx_none", approved.id, waiting.id], "action": "approve"}

    results = client.post("/api/contexts/bulk", json=body).json()["results"]

    assert [(one["id"], one["ok"], one["status"]) for one in results] == [
        (waiting.id, True, "approved"),
        ("ctx_none", False, None),
        (approved.id, False, None),
    ]
    assert "approved already" in results[2]["error"]
    assert get_context(db, "default", waiting.id).is_served
    retired = client.post(
        "/api/contexts/bulk", json={"ids": [waiting.id, approved.id], "action": "retire", "reason": "old"}
    ).json()["results"]
    assert [one["status"] for one in retired] == ["retired", "retired"]


@pytest.mark.parametrize(
    ("body", "field"),
    [({"action": "approve"}, "ids"), ({"ids": ["a"], "action": "eat"}, "action"), ({"ids": ["a"] * 2_000}, "action")],
)
def test_a_wrong_bulk_request_names_its_field(client: TestClient, body: dict[str, Any], field: str) -> None:
    answer = client.post("/api/contexts/bulk", json=body)
    assert (answer.status_code, error_of(answer)["param"]) == (400, field)


def test_an_unknown_run_has_nothing_that_waits(db: Database) -> None:
    with pytest.raises(NotFoundError, match="run_none"):
        waiting_of_run(db, "default", "run_none")


@given(before=st.text(max_size=60), after=st.text(max_size=60))
def test_a_diff_holds_both_texts_whole(before: str, after: str) -> None:
    runs = word_diff(before, after)
    assert "".join(text for kind, text in runs if kind != "removed") == after
    assert "".join(text for kind, text in runs if kind == "removed") in before or len(runs) > 1


def test_the_passage_is_the_message_that_says_most_of_the_answer() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "How long do refunds take?"},
        {"role": "assistant", "content": [{"type": "text", "text": "Refunds take ten days, counted from Monday."}]},
        {"role": "assistant", "content": "Have a good day"},
    ]
    assert passage(messages, NEW) == 1
    assert passage(messages, "Violins need strings.") is None


def test_the_message_that_says_the_answer_goes_before_the_question_with_the_same_words() -> None:
    messages = [
        {"role": role, "content": text} for role, text in (("user", "Are pets allowed?"), ("assistant", ALLOWED))
    ]
    assert passage(messages, ALLOWED) == 1
    assert passage([*messages, {"role": "assistant", "content": "Sure, pets are allowed here"}], ALLOWED) == 1


def test_a_passage_is_the_sentences_that_say_the_answer() -> None:
    text = "Thanks for waiting. Refunds take ten days, or $10.50 less. Anything else?"
    assert marked(text, "Ten days for refunds.") == [(True, text)]  # not half of any sentence: the message as a whole
    assert marked(text, "A refund: refunds take ten days, 10.50 less.") == [
        (False, "Thanks for waiting. "),
        (True, "Refunds take ten days, or $10.50 less. "),
        (False, "Anything else?"),
    ]


@given(text=st.text(), answer=st.text())
def test_a_marked_text_is_the_text(text: str, answer: str) -> None:
    assert "".join(run for _, run in marked(text, answer)) == text
