"""Training data as files of other tools, out and in again; personal data stays unless somebody asks for it."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from learner.dataset_formats import SYSTEM, Format, Read, rasa_example, rasa_head, rasa_intent, read_rasa
from learner.dataset_import import Imported, import_dataset, read_content
from store.audit import list_audit
from store.config import Config
from store.database import Database
from store.datasets import NewExample, add_examples, list_examples, review_example
from store.errors import InvalidError
from store.feedback import Signal, record_signal
from store.preferences import PreferencePair, recorded_pairs
from store.responses import insert_records
from tests.conftest import NOW_S
from tests.learner.api import error_of
from tests.store.test_conversations import record

DATASET = "ds-auto-training"
URL = f"/api/training/datasets/{DATASET}"
RASA = """
version: "3.1"
nlu:
- intent: greet
  examples: |
    - hey
    - hello there, [Ann](name)
    - good [morning]{"entity": "time", "value": "am"} [you][{"entity": "a"}, {"entity": "b"}]
- intent: faq/ask_name
  examples:
  - text: |
      - what is your name?
    metadata:
      sentiment: neutral
  - who are you
- synonym: credit
  examples: |
    - credit card account
- regex: account_number
  examples: |
    - \\d{10,12}
- lookup: banks
  examples: |
    - JPMC
- intent: broken
  examples: |
    - fine
    not an example
- intent: empty
"""


def bring(db: Database, config: Config, kind: Format, content: str, dataset: str = DATASET) -> Imported:
    items = read_content(kind, content)
    return import_dataset(db, "default", dataset, items, config.training, actor="test", now_s=NOW_S)


def take(client: TestClient, kind: str, dataset: str = DATASET, **options: str) -> str:
    answer = client.get(f"/api/training/datasets/{dataset}/export", params={"format": kind, **options})
    assert answer.status_code == 200, answer.text
    return answer.text


def facts(db: Database, dataset: str) -> list[tuple[Any, ...]]:
    rows = list_examples(db, "default", dataset, limit=1000)[0]
    return [
        (
            row.input, row.intent, row.confidence, row.tags, row.needs_review, row.current_step, row.user_hash,
            row.conversation_id, row.occurred_at, row.runner_up, round(row.margin, 9), row.former_intent,
            row.reviewed_by, row.reviewed_at, row.fingerprint,
        )
        for row in rows
    ]  # fmt: skip


def fill(db: Database) -> None:
    examples = [
        NewExample("track my\norder", "track", 0.95, "whatsapp", "menu", "a" * 32, 1698345600000),
        NewExample("refund?", "refund", 0.4, "bulk", None, "", None, runner_up="track", runner_up_confidence=0.3),
        NewExample("hello", "greet", 1.0, "proxy", None, "", 5, conversation_id="c-1", tags=("traffic",)),
    ]
    add_examples(db, "default", DATASET, examples, review_below_confidence=0.7, now_s=NOW_S)
    first = list_examples(db, "default", DATASET)[0][0]
    review_example(db, "default", first.id, intent="track_order", actor="ann", now_s=NOW_S)


def test_json_lines_bring_back_everything_and_the_same_file_again_adds_nothing(
    client: TestClient, db: Database, config: Config
) -> None:
    fill(db)
    whole = take(client, "jsonl", raw="true")
    again = bring(db, config, "jsonl", whole)
    assert (again.n_new, again.n_known, again.n_bad) == (0, 3, 0)
    copied = bring(db, config, "jsonl", whole, "ds-copy")
    assert (copied.n_new, copied.n_bad) == (3, 0)
    assert facts(db, "ds-copy") == facts(db, DATASET)


def test_rasa_s_own_format_is_read_and_what_means_nothing_here_is_named(db: Database, config: Config) -> None:
    imported = bring(db, config, "rasa", RASA)
    found = [(row.intent, row.input) for row in list_examples(db, "default", DATASET)[0]]
    assert found == [
        ("greet", "hey"),
        ("greet", "hello there, Ann"),
        ("greet", "good morning you"),
        ("faq/ask_name", "what is your name?"),
        ("faq/ask_name", "who are you"),
        ("broken", "fine"),
    ]
    assert [warning.where for warning in imported.warnings] == [
        "synonym credit",
        "regex account_number",
        "lookup banks",
    ]
    assert [(problem.where, problem.message) for problem in imported.problems] == [
        ("broken, example 2", 'examples: an example must begin with "- "'),
        ("nlu, item 7", "examples must be a list"),
    ]
    assert imported.n_bad == 2


def test_a_rasa_file_goes_out_and_comes_in_again(client: TestClient, db: Database, config: Config) -> None:
    fill(db)
    text = take(client, "rasa")
    assert yaml.safe_load(text) == {
        "version": "3.1",
        "nlu": [
            {"intent": "greet", "examples": "- hello\n"},
            {"intent": "track_order", "examples": "- track my\\norder\n"},
        ],
    }
    assert bring(db, config, "rasa", text, "ds-copy").n_new == 2
    assert [row.input for row in list_examples(db, "default", "ds-copy")[0]] == ["hello", "track my\norder"]
    assert "refund" in take(client, "rasa", unreviewed="true")


@given(st.lists(st.tuples(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=60)), min_size=1, max_size=5))
def test_whatever_was_written_is_a_rasa_file_that_reads_back(examples: list[tuple[str, str]]) -> None:
    text = rasa_head() + "".join(rasa_intent(intent) + rasa_example(said) for intent, said in examples)
    read = list(read_rasa(text))
    assert len(read) == len(examples)
    for one, (intent, said) in zip(read, examples, strict=True):
        printable = "".join(letter if letter.isprintable() or letter in "\n\r\t\f\b" else " " for letter in said)
        is_plain = not set("[]\\\n\r\t\f\b") & set(said) and intent.isprintable() and said.strip("- ") == said
        match one.item:
            case NewExample() as example if is_plain:
                assert (example.input, example.intent) == (printable.strip(), intent)
            case NewExample():
                assert "\x00" not in example.input
            case _:
                assert not is_plain or not printable.strip() or not intent.strip(), one


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda some: some.decode("latin-1")))
def test_whatever_is_no_rasa_file_is_refused_or_named(content: str) -> None:
    try:
        read = list(read_rasa(content))
    except InvalidError:
        return
    assert all(isinstance(one, Read) for one in read)


def test_fine_tuning_lines_name_intents_and_come_back_as_examples_other_chats_as_conversations(
    client: TestClient, db: Database, config: Config
) -> None:
    fill(db)
    text = take(client, "openai")
    assert [json.loads(line) for line in text.splitlines()][1] == {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "greet"},
        ]
    }
    chat = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    imported = bring(db, config, "openai", f"{text}{json.dumps(chat)}\n{{}}\nnot json\n", "ds-copy")
    assert (imported.n_new, imported.n_bad) == (3, 2)
    assert [problem.where for problem in imported.problems] == ["line 4", "line 5"]
    assert len(list_examples(db, "default", "ds-copy")[0]) == 2
    (conversation,) = client.get("/api/conversations").json()["data"]
    assert client.get(f"/api/conversations/{conversation['id']}").json()["messages"] == chat["messages"]
    assert bring(db, config, "openai", f"{text}{json.dumps(chat)}\n", "ds-copy").n_new == 0


def said(db: Database, number: int, question: str, reply: str, **facts_: Any) -> None:
    insert_records(db, [record(number, [{"role": "user", "content": question}], reply, **facts_)])


def rate(db: Database, config: Config, number: int, signal: Any, **values: Any) -> None:
    vote = Signal(response_id=f"resp-{number}", signal=signal, user="ann", **values)
    record_signal(db, "default", vote, config.feedback, source="api", now_s=NOW_S)


def test_corrections_and_votes_make_pairs_in_openais_format_and_a_vote_taken_back_none(
    client: TestClient, db: Database, config: Config
) -> None:
    fill(db)
    said(db, 1, "Hi", "Hello")
    said(db, 2, "Return a kettle?", "60 days.")
    rate(db, config, 2, "correction", correction="30 days.")
    said(db, 3, "And a lamp?", "Never.", request_hash="same")
    said(db, 4, "And a lamp?", "30 days too.", request_hash="same")
    rate(db, config, 3, "thumbs_down")
    rate(db, config, 4, "thumbs_up")
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    first, second = (json.loads(line) for line in take(client, "dpo").splitlines())
    assert first == {
        "input": {
            "messages": [*history, {"role": "user", "content": "Return a kettle?"}],
            "tools": [],
            "parallel_tool_calls": True,
        },
        "preferred_output": [{"role": "assistant", "content": "30 days."}],
        "non_preferred_output": [{"role": "assistant", "content": "60 days."}],
    }
    assert [second[name][0]["content"] for name in ("preferred_output", "non_preferred_output")] == [
        "30 days too.",
        "Never.",
    ]
    assert second["input"]["messages"][-1]["content"] == "And a lamp?"
    rate(db, config, 4, "thumbs_down")
    assert len(list(recorded_pairs(db, "default"))) == 1


def test_pairs_come_back_once(client: TestClient, db: Database, config: Config) -> None:
    fill(db)
    said(db, 1, "Return a kettle?", "60 days.")
    rate(db, config, 1, "correction", correction="30 days.")
    text = take(client, "dpo")
    assert bring(db, config, "dpo", text + '{"input": {}}\n').n_new == 1
    assert bring(db, config, "dpo", text).n_known == 1
    assert take(client, "dpo") == text


def test_personal_data_stays_unless_it_is_asked_for_and_the_audit_says_who_took_what(
    client: TestClient, db: Database
) -> None:
    example = NewExample(
        "Mail ann@example.com or +44 20 7946 0958", "contact", 1.0, "bulk", None, "b" * 32, 5, conversation_id="c-ann"
    )
    add_examples(db, "default", DATASET, [example], review_below_confidence=0.7, now_s=NOW_S)
    for kind in ("jsonl", "rasa", "openai"):
        text = take(client, kind)
        assert "[EMAIL]" in text or "[EMAIL] " in text
        assert not any(secret in text for secret in ("ann@example.com", "7946", "c-ann"))
    assert "ann@example.com" in take(client, "jsonl", raw="true")
    exports = [entry for entry in list_audit(db, "default")[0] if entry.action == "datasets.export"]
    assert {(entry.detail["format"], entry.detail["raw"]) for entry in exports} == {
        ("jsonl", False),
        ("rasa", False),
        ("openai", False),
        ("jsonl", True),
    }


def test_a_pair_goes_out_without_personal_data_the_same_placeholder_in_question_and_answers(
    client: TestClient, db: Database, config: Config
) -> None:
    fill(db)
    pair = {
        "input": {"messages": [{"role": "user", "name": "Ann", "content": "I am ann@example.com"}]},
        "preferred_output": [{"role": "assistant", "content": "Hello ann@example.com"}],
        "non_preferred_output": [{"role": "assistant", "content": "Hello bob@example.com"}],
    }
    bring(db, config, "dpo", json.dumps(pair))
    (shown,) = map(json.loads, take(client, "dpo").splitlines())
    assert shown["input"]["messages"] == [{"role": "user", "content": "I am [EMAIL]"}]
    assert shown["preferred_output"][0]["content"] == "Hello [EMAIL]"
    assert shown["non_preferred_output"][0]["content"] == "Hello [EMAIL 2]"


def test_files_go_in_over_http_and_bad_ones_are_named(client: TestClient, db: Database) -> None:
    answer = client.post(f"{URL}/import", json={"format": "rasa", "content": RASA}).json()
    assert (answer["n_new"], answer["n_bad"], answer["dataset_id"]) == (6, 2, DATASET)
    for content, param in (("no: list", "content"), ("[" * 10_000, "content"), ("", "content")):
        refused = client.post(f"{URL}/import", json={"format": "rasa", "content": content})
        assert (refused.status_code, error_of(refused)["param"]) == (400, param)
    unknown = client.post(f"{URL}/import", json={"format": "csv", "content": "x"})
    assert error_of(unknown)["param"] == "format"
    many = "\n".join(['{"text": "a", "intent": "b"}'] * 10_001)
    assert client.post(f"{URL}/import", json={"format": "jsonl", "content": many}).status_code == 400


@pytest.mark.parametrize(
    ("query", "param"), [("format=csv", "format"), ("raw=yes", "raw"), ("unreviewed=1", "unreviewed")]
)
def test_a_bad_export_names_its_field(client: TestClient, db: Database, query: str, param: str) -> None:
    fill(db)
    answer = client.get(f"{URL}/export?{query}")
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)


def test_what_is_not_there_cannot_be_exported(client: TestClient) -> None:
    assert client.get(f"{URL}/export").status_code == 404


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["text", "intent", "confidence", "tags", "needs_review", "occurred_at", "reviewed_at",
                         "fingerprint", "margin", "runner_up", "user_hash", "messages", "input", "preferred_output"]),
        st.none() | st.text(max_size=5) | st.floats() | st.booleans() | st.lists(st.text(max_size=3), max_size=2),
    )
)  # fmt: skip
def test_whatever_a_line_holds_it_is_taken_or_named(db: Database, config: Config, item: dict[str, Any]) -> None:
    for kind in ("jsonl", "openai", "dpo"):
        line = json.dumps({"text": "a", "intent": "b", **item})
        imported = bring(db, config, kind, line)
        assert imported.n_new + imported.n_known + imported.n_bad == 1


def test_a_pair_is_what_it_holds() -> None:
    pair = PreferencePair(({"role": "user", "content": "a"},), "b", "c")
    assert pair.fingerprint == PreferencePair(({"role": "user", "content": "a"},), "b", "c").fingerprint
    assert pair.fingerprint != PreferencePair(pair.messages, "c", "b").fingerprint
