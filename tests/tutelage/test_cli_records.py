"""``tutelage stats``, ``conversations``, ``generations``, ``audit``, and edits: what the console does, for scripts."""

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from store.clock import SystemClock, iso
from store.config import Config
from store.database import Database
from store.feedback import Signal, record_signal
from store.responses import insert_records
from store.tenants import ensure_tenant
from tests.conftest import NOW_S
from tests.store.test_segments import record

REPLY = '{"role":"assistant","content":"Under Billing."}'
ASKED = '[{"role":"user","content":"Where is my invoice?"}]'


@pytest.fixture(autouse=True)
def conversations(db: Database, config: Config) -> None:
    """Six conversations of two users today, a third of them holdout; each user is pleased when treated."""
    ensure_tenant(db, "other", NOW_S)
    now = iso(SystemClock().now_s())
    fields = {"created_at": now, "completed_at": now, "injections": (), "messages_json": ASKED, "reply_json": REPLY}
    for number in range(6):
        held = number % 3 == 0
        made = record(number, conversation_id=f"chat-{number}", user_id=f"u-{number % 2}", is_holdout=held, **fields)
        insert_records(db, [made])
        signal = Signal(made.id, "thumbs_down" if held else "thumbs_up", made.user_id)
        record_signal(db, "default", signal, config.feedback, source="api", now_s=NOW_S)
    insert_records(
        db, [record(9, conversation_id="theirs", tenant_id="other", question="Where is my invoice?", **fields)]
    )


def test_stats_tell_both_arms_and_what_learning_is_worth(
    run: Callable[..., Result], listed: Callable[..., Any]
) -> None:
    told = listed("stats")
    assert (told["treated"]["satisfaction"], told["holdout"]["satisfaction"]) == (1.0, -1.0)
    assert (told["treated"]["n_responses"], told["holdout"]["n_responses"]) == (4, 2)
    assert told["worth"][0] == 2.0
    assert "Learning is worth +2.000" in run("stats").stdout
    assert "cannot be told yet" in run("stats", "--tenant", "other").stdout


def test_conversations_are_listed_found_and_shown(run: Callable[..., Result], listed: Callable[..., Any]) -> None:
    assert {row["id"] for row in listed("conversations", "list")} == {f"chat-{number}" for number in range(6)}
    assert len(listed("conversations", "list", "--limit", "2")) == 2
    assert {row["id"] for row in listed("conversations", "search", "u-1")} == {"chat-1", "chat-3", "chat-5"}
    assert [row["id"] for row in listed("conversations", "search", "resp_000002")] == ["chat-2"]
    shown = run("conversations", "show", "chat-2").stdout
    assert shown == "user: Where is my invoice?\nassistant [resp_000002]: Under Billing.\n"
    assert listed("conversations", "show", "chat-2")["responses"][0]["response_id"] == "resp_000002"
    assert "theirs" in run("conversations", "show", "theirs", code=1).stderr


def test_an_edited_pattern_is_another_one_and_the_log_says_who(
    run: Callable[..., Result], listed: Callable[..., Any]
) -> None:
    added = listed("patterns", "add", "--type", "response_format", "--rule", "Use a list.", "--state", "pinned")
    row = listed("patterns", "edit", added["id"], "--rule", "Use a table.", "--question-type", "price")
    assert (row["rule"], row["conditions"], row["state"]) == ("Use a table.", {"question_type": ["price"]}, "pinned")
    assert listed("patterns", "edit", added["id"], "--anywhere")["conditions"] == {}
    assert "give --rule, conditions or --anywhere" in run("patterns", "edit", added["id"], code=2).stderr
    actions = [(entry["action"], entry["actor"]) for entry in listed("audit")]
    assert actions.count(("patterns.edit", "command")) == 2
    assert listed("generations")[0]["number"] >= 2
    assert "patterns.edit" in run("audit").stdout
    assert "number" in run("generations").stdout


def test_an_entry_is_rewritten_and_taken_out_of_service(run: Callable[..., Result], listed: Callable[..., Any]) -> None:
    asked = ["--question", "Where is my invoice?", "--answer", "Under Billing.", "--approve"]
    added = listed("contexts", "add", *asked)
    row = listed("contexts", "edit", added["id"], "--answer", "Under Invoices.")
    assert (row["answer"], row["questions"], row["is_served"]) == ("Under Invoices.", ["Where is my invoice?"], True)
    assert run("contexts", "flag", added["id"], "--reason", "moved").stdout == f"{added['id']} is flagged\n"
    assert listed("contexts", "show", added["id"])["is_served"] is False
    assert "give --question, --answer or --tag" in run("contexts", "edit", added["id"], code=2).stderr
