"""The command, in-process: what it prints, what it changes, how it ends."""

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from store.alerts import raise_alert
from store.audit import list_audit
from store.clock import iso
from store.contradictions import Claim, open_contradiction
from store.conversations import import_conversations, list_conversations, transcript
from store.database import Database
from store.datasets import list_examples
from store.generations import current_plan
from store.patterns import get_pattern, save_pattern
from store.runs import finish_run, start_run
from store.tenants import ensure_tenant, find_key, get_tenant, list_keys
from store.usage import insert_usage
from tests.conftest import NOW_S
from tests.store.test_pattern_evidence import pattern, record, write
from tests.store.test_usage import use
from tutelage.cli import app
from tutelage.output import narrow_table

Run = Callable[..., Result]


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "tutelage.toml"
    path.write_text(f'[store]\nurl = "sqlite:///{tmp_path / "tutelage.db"}"\n')
    return path


@pytest.fixture
def run(settings_file: Path) -> Run:
    """Run ``tutelage --config FILE ARGUMENTS``; it must end well unless *code* says otherwise."""

    def invoke(*arguments: str | Path, code: int = 0) -> Result:
        result = CliRunner().invoke(app, ["--config", str(settings_file), *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture
def listed(run: Run) -> Callable[..., Any]:
    """Return what a command with ``--json`` prints."""
    return lambda *arguments: json.loads(run(*arguments, "--json").stdout)


def test_a_key_is_shown_once_and_made_with_its_tenant(run: Run, listed: Callable[..., Any], db: Database) -> None:
    key = run("keys", "create", "--tenant", "acme", "--name", "shop", "--scope", "admin").stdout.strip()
    found = find_key(db, key)
    assert found is not None
    assert (found.tenant_id, found.name, found.scope) == ("acme", "shop", "admin")
    assert key not in run("keys", "list").stdout
    (row,) = listed("keys", "list", "--tenant", "acme")
    assert (row["id"], row["revoked_at"]) == (found.id, None)
    run("keys", "revoke", found.id)
    assert find_key(db, key) is None
    assert "no valid key" in run("keys", "revoke", found.id, code=1).stderr
    assert sorted(entry.action for entry in list_audit(db, "acme")[0]) == ["keys.create", "keys.revoke"]


def test_a_key_as_json_holds_the_key(listed: Callable[..., Any]) -> None:
    assert listed("keys", "create")["key"].startswith("tut-")


def test_a_key_of_an_unknown_scope_is_a_usage_error(run: Run) -> None:
    run("keys", "create", "--scope", "root", code=2)


def test_a_key_gets_limits_and_they_are_changed_one_by_one(run: Run, listed: Callable[..., Any], db: Database) -> None:
    made = listed("keys", "create", "--requests-per-minute", "60", "--monthly-budget-usd", "12.5")
    assert (made["requests_per_minute"], made["tokens_per_minute"], made["monthly_budget_usd"]) == (60, None, 12.5)
    changed = run("keys", "limit", made["id"], "--requests-per-minute", "default", "--monthly-tokens", "1000000")
    assert changed.stdout == f"{made['id']}: 12.5 dollars/month, 1000000 tokens/month\n"
    (row,) = listed("keys", "list")
    assert row["requests_per_minute"] is None
    assert row["limits"] == {
        "requests_per_minute": 0,
        "tokens_per_minute": 0,
        "monthly_budget_usd": 12.5,
        "monthly_tokens": 1_000_000,
    }
    assert [entry.action for entry in list_audit(db, "default")[0]] == ["keys.limit", "keys.create"]


def test_a_list_of_keys_shows_the_limits_that_hold_and_this_months_use(
    run: Run, listed: Callable[..., Any], settings_file: Path, db: Database
) -> None:
    with settings_file.open("a") as file:
        file.write("[limits]\ntokens_per_minute = 5000\n")
    used, unused = (listed("keys", "create", "--monthly-tokens", "100")["id"] for _ in range(2))
    insert_usage(db, [use(1, key_id=used, at_s=time.time()), use(2, key_id=used, at_s=time.time())])
    rows = {row["id"]: row for row in listed("keys", "list")}
    assert rows[used]["limits"]["tokens_per_minute"] == 5000
    assert rows[used]["used"] == {
        "month": iso(time.time())[:7],
        "requests": 2,
        "prompt_tokens": 20,
        "completion_tokens": 4,
        "cost_usd": 0.5,
    }
    assert rows[unused]["used"] is None
    shown = run("keys", "list").stdout
    assert "5000 tokens/min, 100 tokens/month" in shown
    assert "2 requests, 24 tokens, 0.5 dollars" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("limit", "key_none", "--monthly-tokens", "1"), "no valid key 'key_none'"),
        (("limit", "key_none"), "name at least one limit"),
        (("create", "--requests-per-minute", "1.5"), "--requests-per-minute must be a number of at least 0"),
        (("create", "--tokens-per-minute", "-1"), "--tokens-per-minute must be a number of at least 0"),
        (("create", "--monthly-budget-usd", "nan"), "--monthly-budget-usd must be a number of at least 0"),
    ],
)
def test_a_limit_that_makes_no_sense_is_named(
    settings_file: Path, arguments: tuple[str, ...], message: str, db: Database
) -> None:
    result = CliRunner().invoke(app, ["--config", str(settings_file), "keys", *arguments])
    assert result.exit_code != 0
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert list_keys(db) == []


def test_learning_is_switched_per_tenant(run: Run, listed: Callable[..., Any], db: Database) -> None:
    ensure_tenant(db, "acme", NOW_S)
    run("tenants", "learning", "off", "--tenant", "acme")
    assert not get_tenant(db, "acme").learning
    assert {row["id"]: row["learning"] for row in listed("tenants", "list")} == {"acme": "off", "default": "on"}
    assert listed("tenants") == listed("tenants", "list")
    run("tenants", "learning", "on", "--tenant", "acme")
    assert get_tenant(db, "acme").learning
    assert "no tenant" in run("tenants", "learning", "on", "--tenant", "nobody", code=1).stderr


def test_a_pattern_is_added_shown_pinned_and_disabled(run: Run, listed: Callable[..., Any], db: Database) -> None:
    rule = "Answer comparisons with a table."
    run("patterns", "add", "--type", "response_format", "--rule", rule, "--question-type", "a", "--question-type", "b")
    (row,) = listed("patterns", "list")
    assert (row["rule"], row["state"], row["conditions_json"]) == (rule, "candidate", '{"question_type":["a","b"]}')
    assert row["conditions"] == {"question_type": ["a", "b"]}
    columns = {"type", "grade", "confidence", "score", "use_count", "signal_count", "tokens", "lift", "lift_low"}
    assert columns < set(row)
    run("patterns", "approve", row["id"])
    run("patterns", "pin", row["id"], "--reason", "we know")
    assert [pattern.rule for pattern in current_plan(db, "default").patterns] == [rule]
    assert "we know" in run("patterns", "show", row["id"]).stdout
    run("patterns", "trial", row["id"])
    run("patterns", "disable", row["id"])
    shown = listed("patterns", "show", row["id"])
    assert [event["to_state"] for event in shown["history"]] == [
        "candidate",
        "candidate",
        "pinned",
        "trial",
        "disabled",
    ]
    assert listed("patterns", "list", "--state", "pinned") == []
    assert rule in run("patterns", "list").stdout


def test_a_condition_that_does_not_fit_the_type_is_refused(run: Run, listed: Callable[..., Any], db: Database) -> None:
    refused = run("patterns", "add", "--type", "query_style", "--rule", "Use joins.", "--segment", "vip", code=1)
    assert "segment means nothing for query_style" in " ".join(refused.stderr.split())
    assert listed("patterns", "list") == []


def test_a_pattern_shows_what_is_behind_it(run: Run, listed: Callable[..., Any], db: Database) -> None:
    ensure_tenant(db, "default", now_s=NOW_S)
    row = pattern(db)
    write(db, record(1, "with", "treated"), record(2, "without", "control"))

    shown = run("patterns", "show", row.id).stdout
    assert "none yet: it was seen in the records" in shown
    assert shown.index("With it") < shown.index("question 1") < shown.index("Without it, by lot")
    assert "question 1" not in run("patterns", "show", row.id, "--arm", "control").stdout
    assert "With it" not in run("patterns", "show", row.id, "--conversations", "0").stdout
    behind = listed("patterns", "show", row.id)["conversations"]
    assert {arm: [one["conversation_id"] for one in found] for arm, found in behind.items()} == {
        "treated": ["with"],
        "control": ["without"],
        "natural": [],
    }


def test_patterns_are_listed_by_grade_and_in_another_order(run: Run, listed: Callable[..., Any]) -> None:
    for rule in ("Be brief.", "Be loud."):
        run("patterns", "add", "--type", "query_style", "--rule", rule, "--question-type", rule[3:-1])
    assert [row["rule"] for row in listed("patterns", "list", "--sort", "changed", "--limit", "1")] == ["Be loud."]
    assert [row["rule"] for row in listed("patterns", "list", "--question-type", "brief")] == ["Be brief."]
    assert listed("patterns", "list", "--grade", "proven") == []


@pytest.mark.parametrize(
    ("command", "condition", "nothing", "none_such"),
    [
        ("patterns", ("--grade", "proven"), "no patterns yet", "no such pattern"),
        ("contexts", ("--status", "rejected"), "no entries yet", "no such entry"),
        ("jobs", ("--status", "failed"), "no jobs yet", "no such job"),
    ],
)
def test_a_list_in_which_nothing_was_found_does_not_say_that_there_is_nothing(
    run: Run, command: str, condition: tuple[str, str], nothing: str, none_such: str
) -> None:
    assert nothing in run(command, "list").stderr
    assert none_such in run(command, "list", *condition).stderr


def test_an_earlier_generation_is_served_again(run: Run, listed: Callable[..., Any], db: Database) -> None:
    for rule in ("Be brief.", "Be loud."):
        run("patterns", "add", "--type", "query_style", "--rule", rule, "--state", "trial")

    assert run("patterns", "revert", "1", "--reason", "too loud").stdout == (
        "generation 3 serves what generation 1 served: 0 patterns restored, 1 retired\n"
    )
    assert [pattern.rule for pattern in current_plan(db, "default").patterns] == ["Be brief."]
    assert {row["rule"]: row["state"] for row in listed("patterns", "list")}["Be loud."] == "retired"
    assert run("patterns", "revert", "1").stdout == "what generation 1 served is served already\n"


def test_a_step_back_that_brings_back_what_harmed_says_so_and_asks(
    run: Run, settings_file: Path, listed: Callable[..., Any], db: Database
) -> None:
    run("patterns", "add", "--type", "query_style", "--rule", "Be brief.", "--state", "trial")
    (shown,) = listed("patterns", "list")
    row = get_pattern(db, "default", shown["id"])
    gone = replace(row, state="retired", share=0.0)
    save_pattern(db, row, gone, actor="learner", reason="harm: it fell", now_s=NOW_S, is_harm=True)
    line = f"restored: {row.id} 'Be brief.', retired -> trial; taken out {iso(NOW_S)}: harm: it fell\n"
    command = ["--config", str(settings_file), "patterns", "revert", "1"]

    assert run("patterns", "revert", "1", "--dry-run").stdout == line
    refused = CliRunner().invoke(app, command, input="n\n")
    assert (refused.exit_code, refused.stdout.startswith(line)) == (1, True)
    assert get_pattern(db, "default", row.id).state == "retired"
    assert "1 patterns restored" in CliRunner().invoke(app, command, input="y\n").stdout
    assert run("patterns", "revert", "1", "--dry-run").stdout == "nothing would change\n"
    now = get_pattern(db, "default", row.id)
    save_pattern(db, now, gone, actor="learner", reason="harm: again", now_s=NOW_S, is_harm=True)
    assert run("patterns", "revert", "1", "--force").stdout.startswith("generation 3 serves what generation 1 served")


def test_a_frozen_run_is_shown_as_one(run: Run, db: Database) -> None:
    ensure_tenant(db, "default", NOW_S)
    run_id = start_run(db, "default", "patterns", NOW_S, NOW_S)
    finish_run(db, "default", run_id, finished_s=NOW_S, cursor={}, summary={}, is_frozen=True)

    header, line = run("runs").stdout.splitlines()[:2]
    assert "frozen" in header
    assert "yes" in line


def test_an_alert_is_listed_until_it_is_acknowledged(run: Run, listed: Callable[..., Any], db: Database) -> None:
    first, second = (
        raise_alert(db, "default", kind="crash", message=message, detail={}, run_id=None, now_s=NOW_S + number)
        for number, message in enumerate(("it fell", "it fell again"))
    )

    assert run("alerts", "acknowledge", first).stdout == f"{first} is acknowledged\n"

    assert [row["id"] for row in listed("alerts", "list")] == [second, first]
    assert [row["id"] for row in listed("alerts", "list", "--open")] == [second]
    assert "it fell again" in run("alerts", "list").stdout
    assert [entry.action for entry in list_audit(db, "default")[0]] == ["alerts.acknowledge"]


def test_a_list_on_a_narrow_terminal_keeps_ids_whole_and_lines_within_its_width() -> None:
    columns = ("id", "state", "rule", "lift (95%)")
    rows = [
        [f"pat_{'x' * 25}", "active", "Keep the answer short: a few sentences at most. " * 3, "+0.21 (+0.06 to +0.37)"]
    ]
    lines = narrow_table(columns, rows, prose=("rule",), width=80)
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith(f"pat_{'x' * 25}  active  +0.21")
    assert " ".join(line.strip() for line in lines[2:]) == rows[0][2].strip()


def test_every_pattern_is_listed_however_many(
    listed: Callable[..., Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.paging.PAGE", 2)
    for number in range(5):
        run("patterns", "add", "--type", "query_style", "--rule", f"rule {number}")
    assert sorted(row["rule"] for row in listed("patterns", "list")) == [f"rule {number}" for number in range(5)]


def test_knowledge_is_added_approved_and_retired(run: Run, listed: Callable[..., Any]) -> None:
    run(
        "contexts",
        "add",
        "--question",
        "How do I pay?",
        "--question",
        "Payment?",
        "--answer",
        "By card.",
        "--tag",
        "pay",
    )
    (row,) = listed("contexts", "list")
    assert (row["status"], row["questions"], row["tags"]) == (
        "pending_approval",
        ["How do I pay?", "Payment?"],
        ["pay"],
    )
    assert row["questions_json"] == '["How do I pay?","Payment?"]'
    assert "is approved" in run("contexts", "approve", row["id"]).stdout
    assert "approved already" in run("contexts", "approve", row["id"], code=1).stderr
    run("contexts", "retire", row["id"])
    assert [found["status"] for found in listed("contexts", "list", "--status", "retired")] == ["retired"]


def test_knowledge_may_be_added_approved(listed: Callable[..., Any]) -> None:
    assert listed("contexts", "add", "--question", "Q?", "--answer", "A.", "--approve")["is_served"] is True


def test_knowledge_is_rejected_with_a_reason(run: Run, listed: Callable[..., Any]) -> None:
    added = listed("contexts", "add", "--question", "Q?", "--answer", "A.")
    run("contexts", "reject", added["id"], "--reason", "wrong price")
    assert listed("contexts", "show", added["id"])["reject_reason"] == "wrong price"


def test_a_contradiction_is_listed_and_resolved(run: Run, db: Database, listed: Callable[..., Any]) -> None:
    added = listed("contexts", "add", "--question", "How do I pay?", "--answer", "By card.", "--approve")
    messages = [{"role": "user", "content": "How do I pay?"}, {"role": "assistant", "content": "In cash only."}]
    import_conversations(db, "default", [{"chatId": "c1", "messages": messages}], now_s=NOW_S)
    claim = Claim(("How do I pay?",), "In cash only.", (), "c1", "human_answer")
    opened = open_contradiction(db, "default", added["id"], "By card.", claim, run_id=None, now_s=NOW_S)
    assert opened is not None
    assert [row["id"] for row in listed("contexts", "contradictions")] == [opened]
    assert "In cash only." in run("contexts", "show", added["id"]).stdout
    assert "resolved: replace" in run("contexts", "resolve", opened, "replace").stdout
    assert listed("contexts", "show", added["id"])["answer"] == "In cash only."
    assert listed("contexts", "contradictions") == []
    assert [row["resolution"] for row in listed("contexts", "contradictions", "--all")] == ["replace"]


def test_all_that_a_run_proposed_is_approved_at_once(run: Run, db: Database, listed: Callable[..., Any]) -> None:
    added = [listed("contexts", "add", "--question", f"Q{n}?", "--answer", "A.")["id"] for n in range(3)]
    run_id = start_run(db, "default", "knowledge", NOW_S, NOW_S)
    db.execute(
        "UPDATE context_revisions SET run_id = :run WHERE context_id <> :other", {"run": run_id, "other": added[2]}
    )
    run("contexts", "approve", "--all-from-run", run_id)
    assert {row["id"]: row["status"] for row in listed("contexts", "list")} == {
        added[0]: "approved",
        added[1]: "approved",
        added[2]: "pending_approval",
    }
    assert "nothing that run" in run("contexts", "approve", "--all-from-run", run_id, code=1).stderr
    assert run("contexts", "approve", code=2).stderr


def test_an_entry_shows_its_source_conversation(run: Run, db: Database, listed: Callable[..., Any]) -> None:
    messages = [
        {"role": "user", "content": "How do I pay?"},
        {"role": "assistant", "content": "By card.", "agent": "human"},
    ]
    import_conversations(db, "default", [{"chatId": "chat-7", "messages": messages}], now_s=NOW_S)
    added = listed("contexts", "add", "--question", "How do I pay?", "--answer", "By card.")
    db.execute("UPDATE ai_contexts SET source_chat_id = 'chat-7'")
    db.execute("UPDATE context_revisions SET source_chat_id = 'chat-7'")
    shown = run("contexts", "show", added["id"]).stdout
    assert "Source conversation: chat-7" in shown
    assert "assistant (a person): By card." in shown
    assert listed("contexts", "show", added["id"])["source"]["messages"] == messages


@pytest.mark.parametrize(
    "arguments",
    [
        ("patterns", "show", "pat_1"),
        ("patterns", "pin", "pat_1"),
        ("patterns", "list", "--tenant", "nobody"),
        ("patterns", "add", "--type", "query_style", "--rule", " "),
        ("patterns", "revert", "7"),
        ("alerts", "acknowledge", "alert_1"),
        ("contexts", "show", "ctx_1"),
        ("contexts", "approve", "ctx_1"),
        ("contexts", "add", "--question", " ", "--answer", "A."),
        ("runs", "--tenant", "nobody"),
        ("learn", "--tenant", "nobody"),
        ("learn", "--kind", "nlu"),
        ("learn", "--now", "yesterday"),
    ],
)
def test_what_is_refused_is_one_line_on_stderr(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments, code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [("patterns", "list", "--state", "loud"), ("learn", "--kind", "dance"), ("dance",), ("import", "no-such-file")],
)
def test_a_wrong_use_ends_with_code_2(run: Run, arguments: tuple[str, ...]) -> None:
    run(*arguments, code=2)


def test_a_wrong_setting_is_named(run: Run, settings_file: Path) -> None:
    settings_file.write_text("[proxy]\nprot = 1\n")
    assert "proxy.prot" in run("runs", code=1).stderr


def test_the_settings_file_may_come_from_the_environment(settings_file: Path) -> None:
    result = CliRunner().invoke(app, ["tenants", "list", "--json"], env={"TUTELAGE_CONFIG": str(settings_file)})
    assert [row["id"] for row in json.loads(result.stdout)] == ["default"]
    assert (settings_file.parent / "tutelage.db").exists()


def line(chat_id: str) -> str:
    return json.dumps({"chatId": chat_id, "messages": [{"role": "user", "content": f"Hello {chat_id}"}]})


def test_a_file_is_imported_once(run: Run, tmp_path: Path, db: Database, listed: Callable[..., Any]) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text(f"{line('a')}\n\n{line('b')}")
    assert listed("import", file) == {"new": 2, "changed": 0, "known": 0, "bad": 0}
    assert listed("import", file) == {"new": 0, "changed": 0, "known": 2, "bad": 0}
    assert transcript(db, "default", "b").messages == ({"role": "user", "content": "Hello b"},)
    assert "2 known" in run("import", file).stdout


def test_bad_lines_are_reported_by_number_and_the_others_go_in(run: Run, tmp_path: Path, db: Database) -> None:
    file = tmp_path / "chats.jsonl"
    lines = [line("a"), "{", '{"chatId": ""}', '"x"', line("b"), '{"chatId": "c", "messages": [{"role": "cat"}]}']
    file.write_text("\n".join(lines))
    result = run("import", file)
    assert [text.split(":")[0] for text in result.stderr.splitlines()] == ["line 2", "line 3", "line 4", "line 6"]
    assert "messages[0].role" in result.stderr
    assert {row.id for row in list_conversations(db, "default")[0]} == {"a", "b"}


def test_messages_that_channels_classified_become_examples(
    run: Run, tmp_path: Path, db: Database, listed: Callable[..., Any]
) -> None:
    sure = {"phoneNumber": "+919876543210", "messageText": "track my order", "intent": "track", "confidence": 0.95}
    unsure = {"messageText": "hm", "intent": "track", "confidence": 0.4, "timestamp": 1698345600000}
    file = tmp_path / "channel.jsonl"
    file.write_text("\n".join([json.dumps(sure), line("a"), json.dumps(unsure), '{"messageText": "no intent"}']))
    assert listed("import", file) == {"new": 3, "changed": 0, "known": 0, "bad": 1}
    rows = list_examples(db, "default", "ds-auto-training")[0]
    assert {row.input: row.needs_review for row in rows} == {"track my order": False, "hm": True}
    assert listed("import", file) == {"new": 0, "changed": 0, "known": 3, "bad": 1}
    assert "line 4: intent: must be a text that is not empty" in run("import", file).stderr


def test_a_file_of_bad_lines_only_fails(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_bytes(b"\xff\xfe\n" * 30)
    assert "and 10 more bad lines" in run("import", file, code=1).stderr


def test_a_compressed_file_is_read_as_far_as_it_goes(tmp_path: Path, db: Database, listed: Callable[..., Any]) -> None:
    whole = gzip.compress("".join(f"{line(str(number))}\n" for number in range(300)).encode())
    file = tmp_path / "chats.jsonl.gz"
    file.write_bytes(whole)
    assert listed("import", file)["new"] == 300
    file.write_bytes(whole[:-9])
    assert listed("import", file)["new"] == 0


def test_an_import_goes_to_the_tenant_named(run: Run, tmp_path: Path, db: Database) -> None:
    ensure_tenant(db, "acme", NOW_S)
    file = tmp_path / "chats.jsonl"
    file.write_text(line("a"))
    run("import", file, "--tenant", "acme")
    assert [row.id for row in list_conversations(db, "acme")[0]] == ["a"]
    assert list_conversations(db, "default")[0] == []


def test_a_run_says_what_it_did_and_is_listed(run: Run, listed: Callable[..., Any]) -> None:
    printed = run("learn", "--kind", "patterns", "--now", "2027-01-01T00:00:00Z").stdout
    assert printed.startswith("patterns: ")
    (row,) = listed("runs", "--kind", "patterns")
    assert (row["kind"], row["status"], row["run_at"]) == ("patterns", "completed", "2027-01-01T00:00:00.000Z")
    assert "patterns" in run("runs").stdout
    assert len(listed("runs", "--limit", "1")) == 1


def test_help_starts_without_what_serving_needs() -> None:
    script = "import sys, tutelage.cli; print({'litellm', 'uvicorn', 'starlette', 'tokenizers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
