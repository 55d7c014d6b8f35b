"""Personal data planted wherever a conversation can hold it reaches no model and no row that learning writes."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from learner.models import Models
from store.clock import iso
from store.context_review import approve_context
from store.conversations import import_conversations
from tests.conftest import NOW_S
from tests.learner.knowledge.conftest import TENANT, Learning
from tests.learner.knowledge.test_models_in_runs import ANSWERS, connect, created, is_prescreen, verdicts
from tests.learner.model_server import Reply, Request, tool_reply

__all__ = ["connect"]  # a fixture

# litellm warns about its own types at its first call.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("thread_loop")]

PLANTED = (
    "ann.lee@example.com", "7946 0958", "4111 1111 1111 1111", "0532 0130 00", "71 North San Pedro", "hunter2",
    "sk-proj-abcdefghijklmnop", "203.0.113.77", "078-05-1120", "C01X00T47", "12345678Z", "Ann", "Lee", "Zoltan",
    "Kowalski", "user_4711x", "PRIVATE KEY", "eyJhbGci",
)  # fmt: skip
DATA = (
    "My name is Ann Lee (user_4711x), mail ann.lee@example.com, call +44 20 7946 0958, card 4111 1111 1111 1111, IBAN "
    "DE89 3704 0044 0532 0130 00, I live at 71 North San Pedro Street, my password is hunter2!, key "
    "sk-proj-abcdefghijklmnop1234, from 203.0.113.77, SSN 078-05-1120, passport number C01X00T47, DNI 12345678Z, "
    "-----BEGIN PRIVATE KEY----- MIIabc -----END PRIVATE KEY----- and "
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl."
)
WRITTEN = ("ai_contexts", "context_revisions", "context_flags", "alerts", "learning_runs", "mined_conversations")


def planted_in(text: str) -> list[str]:
    return [datum for datum in PLANTED if datum in text]


def rows_of(learning: Learning, *tables: str) -> str:
    return "\n".join(repr(tuple(row)) for table in tables for row in learning.db.rows(f"SELECT * FROM {table}"))


def conversation(chat_id: str, question: str, answer: str, **fields: Any) -> dict[str, Any]:
    """Return a conversation that holds the data in every place that it has, and an answer that may be learned."""
    found = {"customer_name": "Zoltan Kowalski", "note": DATA, "ip": "203.0.113.77"}
    return {
        "chatId": chat_id,
        "user": "user_4711x",
        "messages": [
            {"role": "user", "content": DATA, "name": "Zoltan Kowalski"},
            {"role": "assistant", "content": f"Hi Ann, I wrote to ann.lee@example.com. {DATA}"},
            {"role": "user", "content": [{"type": "text", "text": f"Zoltan here. {DATA} {question}"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"arguments": DATA}}]},
            {"role": "tool", "tool_call_id": "1", "content": json.dumps(found)},
            {"role": "assistant", "content": f"Dear Zoltan Kowalski, {answer}", "agent": "human"},
            {"role": "user", "content": "Great, thanks! Regards, Ann Lee"},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer, "agent": "human"},
            {"role": "user", "content": "Thank you, that answers it!"},
        ],
        "resolved": True,
        **fields,
    }


@pytest.mark.parametrize("is_with_model", [True, False])
def test_planted_data_reaches_no_model_and_no_row(
    learning: Learning, connect: Callable[..., Models], is_with_model: bool
) -> None:
    sent: list[str] = []

    def script(request: Request) -> Reply:
        sent.append(json.dumps(request, ensure_ascii=False))
        if is_prescreen(request):
            return verdicts(request)
        if len(request["messages"]) == 2:  # a model that makes personal data up is told so
            return created(request, answer=f"Write to ann.lee@example.com. {next(iter(ANSWERS.values()))}")
        return created(request)

    talks = [conversation(f"chat-{n}", *item, tags=["app", f"t{n}"]) for n, item in enumerate(ANSWERS.items())]
    import_conversations(learning.db, TENANT, talks, now_s=NOW_S)

    learning.run(models=connect(script) if is_with_model else None)

    assert len(learning.entries()) == 3
    assert len(sent) == (7 if is_with_model else 0)
    # What a model said is sent back to it with what is wrong.
    assert [planted_in(text) for text in sent if "personal data in the answer" not in text] == [[]] * (
        4 if is_with_model else 0
    )
    assert planted_in(rows_of(learning, *WRITTEN)) == []


def test_personal_tags_are_not_learned(learning: Learning) -> None:
    question, answer = next(iter(ANSWERS.items()))
    talk = conversation("c", question, answer, tags=["ann.lee@example.com", "app"])
    import_conversations(learning.db, TENANT, [talk], now_s=NOW_S)

    learning.run()

    assert planted_in(rows_of(learning, *WRITTEN)) == []


def test_a_correction_is_quoted_without_the_data_in_it(learning: Learning) -> None:
    question, answer = next(iter(ANSWERS.items()))
    learning.chat("taught", question, answer, "Thank you!", human=True)
    learning.run()
    (made,) = learning.entries()
    approve_context(learning.db, TENANT, made.id, actor="ann", now_s=NOW_S)
    response = learning.response(
        "corrected",
        question,
        answer,
        context_ids=[made.id],
        user_id="user_4711x",
        messages_json=msgspec.json.encode([{"role": "user", "content": DATA, "name": "Zoltan Kowalski"}]).decode(),
    )
    learning.signal(response, "correction", correction=f"Wrong, says Zoltan Kowalski. {DATA}")

    learning.run(now_s=NOW_S + 2000)

    assert learning.entries()[0].status == "flagged"
    assert "a user corrected it: Wrong, says [NAME]." in rows_of(learning, "context_flags")
    assert planted_in(rows_of(learning, *WRITTEN)) == []


def test_a_skip_of_the_model_is_noted_without_the_data_in_it(
    learning: Learning, connect: Callable[..., Models]
) -> None:
    def script(request: Request) -> Reply:
        reason = json.dumps({"reason": "only about ann.lee@example.com"})
        return verdicts(request) if is_prescreen(request) else tool_reply("skip", reason)

    talk = conversation("c", *next(iter(ANSWERS.items())))
    import_conversations(learning.db, TENANT, [talk], now_s=NOW_S)

    learning.run(models=connect(script), now_s=NOW_S + 1000)

    assert learning.db.value("SELECT decision FROM mined_conversations WHERE mined_at >= :at", {"at": iso(NOW_S)}) == (
        "skipped"
    )
    assert planted_in(rows_of(learning, *WRITTEN)) == []
