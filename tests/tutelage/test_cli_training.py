"""``tutelage datasets``, ``examples`` and ``jobs``: what they print, what they change, how they end."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from store.audit import list_audit
from store.database import Database
from store.datasets import NewExample, add_examples, get_dataset, list_examples
from store.jobs import claim_next, create_job, get_job
from tests.conftest import NOW_S

DATASET = "ds-auto-training"


@pytest.fixture(autouse=True)
def examples(db: Database) -> list[str]:
    texts = (
        ("track my order", "track", 0.95),
        ("refund please", "track", 0.4),
        ("mail ann@example.com", "contact", 0.9),
    )
    new = [NewExample(text, intent, sure, "bulk", None, "", None) for text, intent, sure in texts]
    add_examples(db, "default", DATASET, new, review_below_confidence=0.7, now_s=NOW_S)
    return [row.id for row in list_examples(db, "default", DATASET)[0]]


def test_datasets_are_listed_and_shown_with_their_intents(
    run: Callable[..., Result], listed: Callable[..., Any]
) -> None:
    (row,) = listed("datasets", "list")
    assert (row["id"], row["size"], row["n_needs_review"]) == (DATASET, 3, 1)
    shown = listed("datasets", "show")
    assert [(one["value"], one["n_examples"]) for one in shown["intents"]] == [("track", 2), ("contact", 1)]
    assert "3 examples, 1 to review" in run("datasets", "show", DATASET).stdout
    assert "no dataset 'ds-none'" in run("datasets", "show", "ds-none", code=1).stderr


def test_examples_are_listed_searched_and_corrected(
    run: Callable[..., Result], listed: Callable[..., Any], db: Database
) -> None:
    assert [row["input"] for row in listed("examples", "list", "--tag", "needs_review")] == ["refund please"]
    (found,) = listed("examples", "search", "refund")
    assert (listed("examples", "review")[0]["example"]["id"], found["intent"]) == (found["id"], "track")
    assert run("examples", "correct", found["id"], "refund").stdout == f"{found['id']} is refund, was track\n"
    (row,) = listed("examples", "list", "--intent", "refund")
    assert (row["reviewed_by"], row["former_intent"], row["needs_review"]) == ("command", "track", False)
    assert list_audit(db, "default")[0][0].action == "examples.review"
    assert "no such examples" in run("examples", "list", "--tag", "needs_review").stderr
    assert "no example 'ex-none'" in run("examples", "correct", "ex-none", code=1).stderr


def test_an_example_that_is_right_is_settled_without_an_intent(
    run: Callable[..., Result], listed: Callable[..., Any], examples: list[str]
) -> None:
    run("examples", "correct", examples[1])
    assert listed("examples", "list", "--tag", "needs_review") == []


@pytest.mark.parametrize("kind", ["jsonl", "rasa", "openai", "dpo"])
def test_a_dataset_goes_out_and_into_another(
    run: Callable[..., Result], db: Database, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "data.txt"
    run("datasets", "export", DATASET, "--format", kind, "--out", str(file), "--unreviewed")
    assert "ann@example.com" not in file.read_text()
    assert file.read_text() == run("datasets", "export", "--format", kind, "--unreviewed").stdout
    told = run("datasets", "import", str(file), "--dataset", "ds-copy", "--format", kind).stdout
    n_new = 0 if kind == "dpo" else 3
    assert told == f"ds-copy: {n_new} new, 0 known before, 0 bad\n"
    assert get_dataset(db, "default", "ds-copy").size == n_new


def test_a_raw_export_holds_texts_as_they_are(run: Callable[..., Result]) -> None:
    assert "ann@example.com" in run("datasets", "export", "--raw").stdout


def test_the_ending_says_the_format_and_bad_lines_are_told(run: Callable[..., Result], tmp_path: Path) -> None:
    rasa = tmp_path / "nlu.yml"
    rasa.write_text('version: "3.1"\nnlu:\n- intent: a\n  examples: |\n    - b\n- regex: c\n  examples: |\n    - d\n')
    result = run("datasets", "import", str(rasa))
    assert (result.stdout, result.stderr) == (
        f"{DATASET}: 1 new, 0 known before, 0 bad\n",
        "regex c: a regex is not used here\n",
    )
    lines = tmp_path / "lines.jsonl.gz"
    lines.write_bytes(gzip.compress(b'{"text": "a", "intent": "b"}\n{"text": ""}\n'))
    result = run("datasets", "import", str(lines))
    assert (result.stdout, result.stderr) == (
        f"{DATASET}: 1 new, 0 known before, 1 bad\n",
        "line 2: text: must be a text that is not empty\n",
    )
    lines.write_bytes(b"no gzip")
    assert "cannot be read" in run("datasets", "import", str(lines), code=1).stderr


def test_jobs_are_listed_shown_and_cancelled_before_anybody_began(
    run: Callable[..., Result], listed: Callable[..., Any], db: Database
) -> None:
    job = create_job(db, "default", kind="knowledge", due_s=NOW_S, now_s=NOW_S)
    assert [row["id"] for row in listed("jobs", "list", "--status", "pending")] == [job.id]
    assert listed("jobs", "show", job.id)["kind"] == "knowledge"
    assert "knowledge" in run("jobs", "show", job.id).stdout
    run("jobs", "cancel", job.id)
    cancelled = get_job(db, "default", job.id)
    assert (cancelled.status, cancelled.error) == ("failed", "cancelled by command")
    assert list_audit(db, "default")[0][0].action == "jobs.cancel"
    assert claim_next(db, claimed_by="x", now_s=NOW_S, lease_s=60, max_attempts=3) is None
    assert "only a pending one" in run("jobs", "cancel", job.id, code=1).stderr
