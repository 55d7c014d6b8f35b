"""All that an operator must see of a pattern, wherever they look: API, command and console."""

import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from store.config import Config
from store.database import Database
from store.feedback import Signal, record_signal
from store.patterns import PatternRow, save_pattern
from store.plan import Conditions
from store.runs import start_run
from tests.conftest import NOW_S
from tests.store.test_pattern_evidence import pattern, record, write
from tutelage.cli import app

Look = Callable[[PatternRow], str]

FACTS = {
    "rule": "Write one tidy CTE.",
    "type": "query_style",
    "conditions": Conditions(question_type=("refund",), segment=("vip",)),
    "grade": "proven",
    "signals": 1234,
    "users": 567,
    "tokens": 17,
}
HISTORY: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("trial", "trial begins: a random share", {}),
    ("active", "helps: lift +0.124", {"lift": 0.1234, "lift_low": 0.0411, "lift_high": 0.2011, "signal_count": 987}),
    ("warmdown", "confidence fell to 0.41", {"confidence": 0.41}),
    ("active", "confidence rose to 0.91: warm-down cancelled", {"confidence": 0.91}),
)


@pytest.fixture
def row(db: Database, config: Config) -> PatternRow:
    """A pattern with a life, one conversation in each arm, and a vote on the first."""
    now = pattern(
        db,
        type=FACTS["type"],
        rule=FACTS["rule"],
        conditions=FACTS["conditions"],
        tokens=FACTS["tokens"],
        dimension="query",
        value="cte",
    )
    run_id = start_run(db, "default", "patterns", NOW_S, NOW_S)
    for state, reason, detail in HISTORY:
        after = replace(now, state=state)  # type: ignore[arg-type]
        save_pattern(db, now, after, actor="learner", reason=reason, now_s=NOW_S, run_id=run_id, detail=detail)
        now = after
    after = replace(
        now,
        grade="proven",
        lift=0.1234,
        lift_low=0.0411,
        lift_high=0.2011,
        signal_count=1234,
        user_count=567,
    )
    save_pattern(db, now, after, actor="learner", reason="", now_s=NOW_S)
    write(db, record(1, "talk-with", "treated"), record(2, "talk-without", "control"))
    vote = Signal(response_id="resp-1", signal="thumbs_up", user="anna")
    record_signal(db, "default", vote, config.feedback, source="api", now_s=NOW_S)
    return after


@pytest.fixture
def by_command(tmp_path: Path) -> Look:
    path = tmp_path / "tutelage.toml"
    path.write_text(f'[store]\nurl = "sqlite:///{tmp_path / "tutelage.db"}"\n')

    def look(row: PatternRow) -> str:
        return CliRunner().invoke(app, ["--config", str(path), "patterns", "show", row.id]).stdout

    return look


@pytest.fixture
def by_console(client: TestClient) -> Look:
    def look(row: PatternRow) -> str:
        pages = [client.get(f"/patterns/{row.id}?arm={arm}").text for arm in ("treated", "control")]
        return unescape(re.sub(r"<[^>]*>", " ", " ".join(pages).replace("</div><div", " ")))

    return look


@pytest.fixture(params=["by_command", "by_console"])
def seen(request: pytest.FixtureRequest, row: PatternRow) -> str:
    look: Look = request.getfixturevalue(request.param)
    return " ".join(look(row).replace("_", " ").split())


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("rule", ["Write one tidy CTE."]),
        ("type", ["query style", "steers query", "asks for cte"]),
        ("conditions", ["question type", "refund", "segment", "vip"]),
        ("grade", ["proven: randomised traffic shows that it helps"]),
        ("lift with its interval", ["+0.123, 95 % interval +0.041 to +0.201: it raises satisfaction"]),
        ("signals", ["Signals 1,234|1,234 rated replies"]),
        ("users", ["567 users"]),
        ("tokens", ["17 tokens|tokens 17"]),
        ("every change of state with its reason", [reason for _, reason, _ in HISTORY]),
        (
            "the figures of a change",
            ["lift +0.12 (+0.04 to +0.20), 987 signals"],
        ),
        ("who changed it", ["learner", "run 1m"]),
        ("conversations with it", ["question 1", "thumbs up", "+1.00"]),
        ("conversations without it", ["question 2"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_operator_sees(seen: str, field: str, words: list[str]) -> None:
    assert [word for word in words if not any(one in seen for one in word.split("|"))] == [], field


def test_a_program_sees_the_same_over_the_api(client: TestClient, row: PatternRow) -> None:
    body = client.get(f"/api/patterns/{row.id}").json()
    arms = {
        arm: client.get(f"/api/patterns/{row.id}/conversations", params={"arm": arm}).json()["data"]
        for arm in ("treated", "control")
    }

    assert (body["rule"], body["type"], body["grade"]) == ("Write one tidy CTE.", "query_style", "proven")
    assert body["conditions"] == {"question_type": ["refund"], "segment": ["vip"]}
    assert (body["lift"], body["lift_low"], body["lift_high"]) == (0.1234, 0.0411, 0.2011)
    assert (body["signal_count"], body["user_count"], body["tokens"]) == (1234, 567, 17)
    assert [(one["to_state"], one["reason"], one["detail"]) for one in body["history"][1:]] == list(HISTORY)
    assert [one["from_state"] for one in body["history"]] == [None, "candidate", "trial", "active", "warmdown"]
    (run_id,) = {one["run_id"] for one in body["history"][1:]}
    assert ({one["actor"] for one in body["history"]}, run_id[:4]) == ({"learner"}, "run_")
    assert {arm: [one["conversation_id"] for one in found] for arm, found in arms.items()} == {
        "treated": ["talk-with"],
        "control": ["talk-without"],
    }
    assert arms["treated"][0]["signals"] == [{"signal": "thumbs_up", "weight": 1.0, "comment": None}]
