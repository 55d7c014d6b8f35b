"""The conversations behind a pattern: each once, the newest first, those of its arm and no others."""

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.characteristics import Characteristics, save_characteristics
from store.clock import iso
from store.config import Config
from store.database import Database, open_database
from store.feedback import Signal, record_signal
from store.injection_sets import SingleItems
from store.migrations import PATTERN_BLOCKS
from store.pattern_blocks import BLOCK, blocks_of
from store.pattern_evidence import Arm, EvidenceSignal, PatternConversation, pattern_conversations
from store.patterns import PatternRow, insert_pattern, new_pattern
from store.plan import Conditions
from store.records import InjectionRecord, ResponseRecord, make_set
from store.responses import insert_records
from store.tenants import ensure_default_tenant, ensure_tenant
from store.vocabulary import AVOID
from tests.conftest import NOW_S

ARM_SETS = {
    arm: make_set([InjectionRecord("pattern", "pat-a", "length", 0.5, 0.5, arm == "treated", None, 10)])
    for arm in ("treated", "control")
}


def pattern(db: Database, **changes: object) -> PatternRow:
    fields: dict[str, object] = {
        "type": "response_format",
        "dimension": "length",
        "value": "short",
        "rule": "Be brief.",
        "conditions": Conditions(),
        "tokens": 4,
        "origin": "learned",
        "now_s": NOW_S,
    }
    row = new_pattern("pat-a", "default", **(fields | changes))  # type: ignore[arg-type]
    insert_pattern(db, row, actor="learner", reason="found", now_s=NOW_S)
    return row


def record(number: int, chat: str, arm: str = "", **changes: object) -> ResponseRecord:
    fields: dict[str, object] = {
        "id": f"resp-{number}",
        "tenant_id": "default",
        "conversation_id": chat,
        "endpoint": "/v1/chat/completions",
        "user_id": "anna",
        "question": f"question {number}",
        "question_type": "refund",
        "outcome": "ok",
        "status": 200,
        "latency_ms": 1.0,
        "created_at": iso(NOW_S + number),
        "completed_at": iso(NOW_S + number + 1),
        "drawn": ARM_SETS[arm].set if arm else "",
    }
    return ResponseRecord(**(fields | changes))  # type: ignore[arg-type]


def write(db: Database, *records: ResponseRecord, items: SingleItems | None = None) -> None:
    insert_records(db, records, sets=ARM_SETS.values(), items=items)


def every_page(db: Database, row: PatternRow, arm: Arm, limit: int) -> list[PatternConversation]:
    found, cursor = pattern_conversations(db, row, arm, limit=limit)
    while cursor is not None:
        page, cursor = pattern_conversations(db, row, arm, limit=limit, cursor=cursor)
        found += page
    return found


def test_after_an_edit_the_conversations_are_those_that_had_the_new_words(db: Database) -> None:
    row = replace(pattern(db), value="", reworded_at=iso(NOW_S + 2))
    write(db, record(1, "old", "treated"), record(2, "new", "treated"), record(3, "both", "control"))
    write(db, record(0, "both", "control"))

    assert [one.conversation_id for one in pattern_conversations(db, row, "treated")[0]] == ["new"]
    assert [(one.conversation_id, one.n_responses) for one in pattern_conversations(db, row, "control")[0]] == [
        ("both", 1)
    ]
    assert pattern_conversations(db, row, "natural")[0] == []


def test_each_arm_shows_its_conversations_with_their_signals(db: Database, config: Config) -> None:
    row = pattern(db)
    write(db, record(1, "with", "treated"), record(2, "without", "control"), record(3, "neither"))
    write(db, record(4, "with", "treated"))
    for response, signal in (("resp-1", "thumbs_up"), ("resp-1", "copy"), ("resp-4", "thumbs_down")):
        vote = Signal(response_id=response, signal=signal, user="anna", comment="so")  # type: ignore[arg-type]
        record_signal(db, "default", vote, config.feedback, source="api", now_s=NOW_S)

    treated, end = pattern_conversations(db, row, "treated")

    assert treated == [
        PatternConversation(
            conversation_id="with",
            response_id="resp-4",
            user_id="anna",
            question="question 4",
            question_type="refund",
            outcome="ok",
            generation=0,
            created_at=iso(NOW_S + 4),
            n_responses=2,
            satisfaction=0.0,
            signals=(
                EvidenceSignal("thumbs_up", 1.0, "so"),
                EvidenceSignal("copy", 0.3, "so"),
                EvidenceSignal("thumbs_down", -1.0, "so"),
            ),
        )
    ]
    assert end is None
    (control,) = pattern_conversations(db, row, "control")[0]
    assert (control.conversation_id, control.satisfaction, control.signals) == ("without", None, ())


def test_a_find_shows_what_it_was_found_in(db: Database) -> None:
    row = pattern(db, conditions=Conditions(question_type=("refund",)))
    write(db, record(1, "brief"), record(2, "long"), record(3, "had it", "treated"))
    write(db, record(4, "other type", question_type="price"), record(5, "failed", outcome="error"))
    read = [(1, "short"), (2, "long"), (3, "short"), (4, "short"), (5, "short")]
    values = [Characteristics(seq, f'{{"length":["{value}"]}}', "") for seq, value in read]
    save_characteristics(db, "default", 1, values)

    natural, end = pattern_conversations(db, row, "natural")

    assert [one.conversation_id for one in natural] == ["brief"]
    assert end is None


def test_what_is_to_be_avoided_was_found_in_replies_without_it(db: Database) -> None:
    row = pattern(db, value=f"{AVOID}long")
    write(db, record(1, "brief"), record(2, "long"), record(3, "of no length"))
    read = [Characteristics(1, '{"length":["short"]}', ""), Characteristics(2, '{"length":["long"]}', "")]
    save_characteristics(db, "default", 1, [*read, Characteristics(3, "{}", "")])

    assert [one.conversation_id for one in every_page(db, row, "natural", 5)] == ["brief"]


def test_what_a_person_wrote_was_found_in_nothing(db: Database) -> None:
    row = pattern(db, value="", origin="person")
    write(db, record(1, "brief"))
    save_characteristics(db, "default", 1, [Characteristics(1, '{"length":[""]}', "")])

    assert pattern_conversations(db, row, "natural") == ([], None)


def test_another_tenants_conversations_are_not_shown(db: Database) -> None:
    ensure_tenant(db, "other", now_s=NOW_S)
    row = pattern(db)
    write(db, record(1, "theirs", "treated", tenant_id="other"), record(2, "ours", "treated"))

    assert [one.conversation_id for one in every_page(db, row, "treated", 1)] == ["ours"]


@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 3 * BLOCK),
    n_chats=st.integers(1, 40),
    limit=st.integers(1, 30),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_hold_each_conversation_once_by_its_newest_response(
    config: Config, tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, n_chats: int, limit: int
) -> None:
    lot = random.Random(seed)
    chosen = [(f"chat-{lot.randrange(n_chats)}", lot.choice(("treated", "control", ""))) for _ in range(n)]
    path = tmp_path_factory.mktemp("pages") / "tutelage.db"
    with open_database(replace(config.store, url=f"sqlite:///{path}")) as db:
        ensure_default_tenant(db, now_s=NOW_S)
        row = pattern(db)
        items = SingleItems()
        records = [record(number, chat, arm) for number, (chat, arm) in enumerate(chosen)]
        for start in range(0, n, 100):
            write(db, *records[start : start + 100], items=items)
        for arm in ("treated", "control"):
            newest = {chat: number for number, (chat, one) in enumerate(chosen) if one == arm}
            expected = [f"resp-{number}" for number in sorted(newest.values(), reverse=True)]
            assert [one.response_id for one in every_page(db, row, arm, limit)] == expected


def test_a_recorder_notes_a_set_again_in_the_next_block(db: Database) -> None:
    row, items = pattern(db), SingleItems()
    for number in range(2 * BLOCK):
        write(db, record(number, f"chat-{number}", "treated"), items=items)

    assert blocks_of(db, row.id, is_treated=True, before=None, limit=10) == [2, 1, 0]
    assert blocks_of(db, row.id, is_treated=False, before=None, limit=10) == []


def test_what_a_failed_transaction_noted_is_noted_again(db: Database) -> None:
    row, items = pattern(db), SingleItems()
    with pytest.raises(Exception, match="CHECK constraint"):
        write(db, record(1, "chat", "treated"), record(2, "chat", "treated", outcome="nonsense"), items=items)
    assert blocks_of(db, row.id, is_treated=True, before=None, limit=10) == []

    write(db, record(1, "chat", "treated"), items=items)

    assert blocks_of(db, row.id, is_treated=True, before=None, limit=10) == [0]


def test_records_of_an_older_database_are_found(db: Database) -> None:
    row = pattern(db)
    write(db, record(1, "with", "treated"), record(2, "without", "control"))
    before = [tuple(one) for one in db.rows("SELECT * FROM pattern_blocks")]
    db.execute("DROP TABLE pattern_blocks")

    for statement in PATTERN_BLOCKS.split(";\n\n"):
        db.execute(statement)

    assert [tuple(one) for one in db.rows("SELECT * FROM pattern_blocks")] == before
    assert [one.conversation_id for one in every_page(db, row, "treated", 5)] == ["with"]


def test_only_the_blocks_that_hold_the_pattern_are_read(db: Database) -> None:
    plan = db.rows(
        """
        EXPLAIN QUERY PLAN SELECT r.seq FROM responses AS r
        WHERE r.seq >= 0 AND r.seq < 128 AND +r.tenant_id = 'default' AND EXISTS (
          SELECT 1 FROM json_each(r.injection_sets_json) AS s
          CROSS JOIN injection_set_items AS i ON i.set_id = s.value AND i.kind = 'pattern' AND i.item_id = 'pat-a'
          WHERE i.treated = 1)
        """
    )
    steps = " / ".join(row["detail"] for row in plan)
    assert "SEARCH r USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in steps
    assert "SEARCH i USING PRIMARY KEY (set_id=? AND kind=? AND item_id=?)" in steps
