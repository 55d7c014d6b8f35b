"""Nothing is left of whoever is forgotten, and nothing of anybody else is touched."""

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.alerts import list_alerts, raise_alert
from store.audit import list_audit, record
from store.clock import iso
from store.config import FeedbackSection, StoreSection, load_config
from store.context_proposals import create_context, propose_revision
from store.context_review import approve_context, flag_context
from store.contexts import Source, Wording, get_context, list_flags, list_revisions, list_sources
from store.conversations import import_conversations, list_conversations, transcript
from store.database import Database, open_database
from store.datasets import NewExample, add_examples, list_examples
from store.errors import InvalidError, NotFoundError
from store.feedback import Signal, record_signal
from store.forgetting import Forgotten, Subject, forget, names_of, scrub
from store.generations import current_number
from store.learner_states import LearnerState, load_learner_state, save_learner_state
from store.mining import changed_conversations, get_marks, mark_conversation
from store.pseudonyms import hash_phone, hash_user
from store.records import ResponseRecord, encode_record
from store.responses import insert_records
from store.runs import finish_run, get_run, start_run
from store.segments import SegmentReader, SegmentWriter, reader_lock
from store.snapshot import load_snapshot
from store.tenants import ensure_default_tenant, ensure_tenant, get_tenant
from store.vocabulary import SignalType
from tests.conftest import NOW_S

TENANT = "default"


def composed(questions: Sequence[str], answer: str, tags: Sequence[str]) -> Wording:
    vector = np.zeros(256, np.float32)
    vector[len(questions)] = 1
    return Wording(tuple(questions), answer, tuple(tags), len(answer), vector, "local")


def reply(db: Database, number: int, user: str, text: str, **fields: Any) -> ResponseRecord:
    """Record one turn in which *user* and the assistant both say *text*."""
    values: dict[str, Any] = {
        "id": f"resp_{number}",
        "tenant_id": TENANT,
        "conversation_id": f"talk-{number}",
        "upstream_id": f"up_{number}",
        "endpoint": "/v1/chat/completions",
        "question": text,
        "question_type": "unknown",
        "user_id": user,
        "outcome": "ok",
        "status": 200,
        "latency_ms": 1.0,
        "messages_json": msgspec.json.encode([{"role": "user", "content": text}]).decode(),
        "reply_json": msgspec.json.encode({"role": "assistant", "content": f"You said {text}"}).decode(),
        "created_at": iso(NOW_S - 100),
        "completed_at": iso(NOW_S - 100),
    }
    made = ResponseRecord(**(values | fields))
    insert_records(db, [made])
    return made


def say(db: Database, response: str, user: str, signal: SignalType, correction: str | None = None) -> None:
    feedback: FeedbackSection = load_config().feedback
    record_signal(
        db,
        TENANT,
        Signal(response, signal, user=user, correction=correction, id=f"sig-{user}-{response}-{signal}"),
        feedback,
        source="api",
        now_s=NOW_S,
    )


def entry(db: Database, questions: Sequence[str], answer: str, sources: Sequence[tuple[str, str]]) -> str:
    """Return the id of an approved entry worded from the first of *sources*, (conversation, user) each."""
    found = [Source(one, user, "support" if number else "representative") for number, (one, user) in enumerate(sources)]
    made = create_context(
        db,
        TENANT,
        composed(questions, answer, ["topic"]),
        provenance="human_answer",
        source_chat_id=sources[0][0],
        sources=found,
        actor="learner",
        now_s=NOW_S,
        note=f"worded from {sources[0][0]}",
    )
    approve_context(db, TENANT, made.id, actor="ann", now_s=NOW_S)
    for conversation_id, _ in sources:
        mark_conversation(
            db, TENANT, conversation_id, changed_at=iso(NOW_S), decision="created", context_id=made.id, now_s=NOW_S
        )
    return made.id


def gone(db: Database, *users: str, conversations: Sequence[str] = (), is_dry_run: bool = False) -> Forgotten:
    return forget(
        db,
        TENANT,
        Subject(users, tuple(conversations)),
        db.path.with_name("segments"),
        composed,
        actor="command",
        now_s=NOW_S + 10,
        is_dry_run=is_dry_run,
    )


def tables(db: Database) -> list[str]:
    rows = db.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name")
    return [row["name"] for row in rows]


def dump(db: Database) -> list[str]:
    """Return every row of every table as text."""
    return [f"{table}: {tuple(row)!r}" for table in tables(db) for row in db.rows(f"SELECT * FROM {table}")]


def holding(db: Database, text: str) -> list[str]:
    return [row for row in dump(db) if text in row]


def bytes_with(folder: Path, text: str) -> list[str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.name for path in files if text.encode() in path.read_bytes()]


def test_a_user_leaves_with_records_signals_and_examples(db: Database) -> None:
    reply(db, 1, "ann", "canary of ann")
    reply(db, 2, "bob", "words of bob")
    say(db, "resp_1", "bob", "thumbs_up")
    say(db, "resp_2", "ann", "correction", "canary of ann again")
    say(db, "resp_2", "bob", "copy")
    record(db, TENANT, actor="key", action="x", object_id="ann", detail={"of": ["ann", "bob"]}, now_s=NOW_S)
    save_learner_state(db, TENANT, LearnerState(1, b"sums", {}), now_s=NOW_S)

    report = gone(db, "ann")

    assert report.conversations == ("talk-1",)
    assert {table: n for table, n in report.rows.items() if n} == {
        "conversations": 1,
        "responses": 1,
        "response_feedback": 2,
        "feedback_receipts": 2,
    }
    assert (holding(db, "'ann'"), holding(db, '"ann"'), holding(db, "canary"), holding(db, "sig-ann")) == (
        [],
        [],
        [],
        [],
    )
    assert [row.id for row in list_conversations(db, TENANT)[0]] == ["talk-2"]
    assert [row["id"] for row in db.rows("SELECT id FROM response_feedback")] == ["sig-bob-resp_2-copy"]
    state = load_learner_state(db, TENANT)
    assert state is not None
    assert state.state == b""
    assert db.rows("SELECT * FROM removed_signals") == []


def test_it_is_written_down_under_a_hash_that_only_who_knows_the_name_can_check(db: Database) -> None:
    reply(db, 1, "ann", "hello")

    gone(db, "ann")

    (written,) = list_audit(db, TENANT)[0]
    assert (written.action, written.object_id) == ("users.forget", hash_user(get_tenant(db, TENANT).secret, "ann"))


def test_a_phone_number_names_the_person_that_a_channel_knew_by_it(db: Database) -> None:
    secret = get_tenant(db, TENANT).secret
    theirs = NewExample("canary", "refund", 0.9, "bulk", None, hash_phone(secret, "+491701234567"), None)
    others = NewExample("other", "refund", 0.9, "bulk", None, hash_phone(secret, "+491709999999"), None)
    add_examples(db, TENANT, "ds", [theirs, others], review_below_confidence=0.5, now_s=NOW_S)
    talk = {"chatId": "c", "messages": [{"role": "user", "content": "canary"}], "phoneNumber": "+49 170 1234567"}
    import_conversations(db, TENANT, [talk], now_s=NOW_S)

    report = gone(db, *names_of(secret, user=None, phone="+49 (170) 123-4567"))

    assert (report.rows["examples"], report.rows["conversations"]) == (1, 1)
    assert [row.input for row in list_examples(db, TENANT, "ds")[0]] == ["other"]


def test_what_others_said_in_a_shared_conversation_stays(db: Database) -> None:
    reply(db, 1, "ann", "canary of ann", conversation_id="both")
    reply(db, 2, "bob", "words of bob", conversation_id="both")

    report = gone(db, "ann")

    assert (report.conversations, report.shared_conversations) == ((), ("both",))
    left = transcript(db, TENANT, "both")
    assert (left.user_id, [message["content"] for message in left.messages]) == (
        "",
        ["words of bob", "You said words of bob"],
    )
    assert holding(db, "canary") == []


def test_an_entry_that_rested_on_them_alone_is_withdrawn_from_service(db: Database) -> None:
    reply(db, 1, "ann", "canary")
    alone = entry(db, ["canary?"], "Say canary.", [("talk-1", "ann")])
    served = load_snapshot(db, TENANT, embedding_model="local")
    assert served.generation == current_number(db, TENANT)

    report = gone(db, "ann")

    assert (report.withdrawn_contexts, report.generation) == ((alone,), served.generation + 1)
    left = get_context(db, TENANT, alone)
    assert (left.status, left.is_served, left.answer, left.questions) == (
        "retired",
        False,
        "(forgotten)",
        ("(forgotten)",),
    )
    assert (list_revisions(db, TENANT, alone)[0], list_sources(db, TENANT, alone)[0]) == ([], [])
    assert not left.embedding.any()
    assert holding(db, "canary") == []


def test_an_entry_that_others_say_too_stays_and_loses_the_phrasing_that_only_they_used(db: Database) -> None:
    answer = "Press Refund. It takes five days."
    reply(db, 1, "ann", f"How do I, canary, get it? {answer}")
    reply(db, 2, "bob", f"Where is my money? {answer}")
    shared = entry(
        db, ["How do I, canary, get it?", "Where is my money?"], answer, [("talk-1", "ann"), ("talk-2", "bob")]
    )

    report = gone(db, "ann")

    left = get_context(db, TENANT, shared)
    assert (report.trimmed_contexts, report.withdrawn_contexts) == ((shared,), ())
    assert (left.questions, left.answer, left.is_served, left.n_users) == (("Where is my money?",), answer, True, 1)
    assert left.source_chat_id == "talk-2"
    assert left.changed_generation == report.generation
    assert [(s.conversation_id, s.role) for s in list_sources(db, TENANT, shared)[0]] == [("talk-2", "representative")]
    assert (holding(db, "canary"), holding(db, "talk-1")) == ([], [])


def test_an_entry_whose_answer_only_they_gave_goes_and_its_other_sources_are_mined_again(db: Database) -> None:
    reply(db, 1, "ann", "Press canary.")
    reply(db, 2, "bob", "Press the button.")
    worded = entry(db, ["How?"], "Press canary.", [("talk-1", "ann"), ("talk-2", "bob")])

    report = gone(db, "ann")

    assert report.withdrawn_contexts == (worded,)
    assert get_marks(db, TENANT, ["talk-2"]) == {}
    assert [one.id for one in changed_conversations(db, TENANT, since=iso(NOW_S + 10))] == ["talk-2"]


def test_the_wording_that_waits_goes_and_the_approved_one_is_served_on(db: Database) -> None:
    reply(db, 1, "ann", "Press canary.")
    reply(db, 2, "bob", "Where? Press the button.")
    kept = entry(db, ["Where?"], "Press the button.", [("talk-2", "bob")])
    propose_revision(
        db,
        TENANT,
        kept,
        composed(["Where?"], "Press canary.", []),
        source_chat_id="talk-1",
        sources=[Source("talk-1", "ann")],
        actor="learner",
        now_s=NOW_S,
    )

    report = gone(db, "ann")

    left = get_context(db, TENANT, kept)
    assert (report.trimmed_contexts, report.generation) == ((kept,), None)
    assert (left.answer, left.is_served, left.pending_revision) == ("Press the button.", True, None)
    assert holding(db, "canary") == []


def test_what_a_person_wrote_stays_whoever_said_it_after_them(db: Database) -> None:
    reply(db, 1, "ann", "Cards work.")
    written = create_context(
        db,
        TENANT,
        composed(["Cards?"], "Cards work.", []),
        provenance="person",
        source_chat_id=None,
        sources=[Source("talk-1", "ann")],
        actor="key",
        now_s=NOW_S,
        is_approved=True,
    )

    report = gone(db, "ann")

    left = get_context(db, TENANT, written.id)
    assert (report.withdrawn_contexts, left.answer, left.is_served, left.n_users) == ((), "Cards work.", True, 0)


def test_a_correction_is_forgotten_where_it_was_quoted_but_the_doubt_stays(db: Database) -> None:
    reply(db, 2, "bob", "Within 30 days.")
    say(db, "resp_2", "ann", "correction", "canary")
    reply(db, 3, "eve", "Within 30 days.")
    doubted = entry(db, ["When?"], "Within 30 days.", [("talk-3", "eve")])
    reason = "a user corrected it: canary"
    flag_context(db, TENANT, doubted, reason=reason, actor="learner", now_s=NOW_S, conversation_id="talk-2")
    raise_alert(
        db,
        TENANT,
        kind="context_flagged",
        message=f"context {doubted} was corrected",
        detail={"context_id": doubted, "conversation_id": "talk-2", "reason": reason},
        run_id=None,
        now_s=NOW_S,
    )

    gone(db, "ann")

    left = get_context(db, TENANT, doubted)
    assert (left.status, left.flag_count, left.flag_reason) == ("flagged", 1, "(forgotten)")
    assert (list_flags(db, TENANT, doubted), list_alerts(db, TENANT)[0], holding(db, "canary")) == ([], [], [])


def test_runs_no_longer_tell_what_they_learned_from_them(db: Database) -> None:
    reply(db, 1, "ann", "canary")
    alone = entry(db, ["canary?"], "Say canary.", [("talk-1", "ann")])
    run = start_run(db, TENANT, "knowledge", NOW_S, NOW_S)
    summary = {"changes": [f"learned {alone}: canary?", "learned ctx_other: what?"], "notes": [], "counts": {"n": 1}}
    finish_run(db, TENANT, run, finished_s=NOW_S, cursor={}, summary=summary)

    gone(db, "ann")

    assert get_run(db, TENANT, run).summary == {
        "changes": ["learned ctx_other: what?"],
        "notes": [],
        "counts": {"n": 1},
    }


def test_one_conversation_is_forgotten_with_the_entry_that_rested_on_it(db: Database) -> None:
    reply(db, 1, "ann", "canary")
    reply(db, 2, "ann", "other words")
    alone = entry(db, ["canary?"], "Say canary.", [("talk-1", "ann")])

    report = gone(db, conversations=["talk-1"])

    assert (report.conversations, report.withdrawn_contexts) == (("talk-1",), (alone,))
    assert [row.id for row in list_conversations(db, TENANT)[0]] == ["talk-2"]
    assert holding(db, "canary") == []


def test_a_dry_run_tells_the_same_and_changes_nothing(db: Database) -> None:
    reply(db, 1, "ann", "canary")
    entry(db, ["canary?"], "Say canary.", [("talk-1", "ann")])
    before = dump(db)

    told = gone(db, "ann", is_dry_run=True)

    assert dump(db) == before
    done = gone(db, "ann")
    assert (told.is_dry_run, told.rows, told.withdrawn_contexts) == (True, done.rows, done.withdrawn_contexts)


def test_nobody_is_no_user(db: Database) -> None:
    reply(db, 1, "", "words of somebody unknown")
    with pytest.raises(InvalidError):
        gone(db, "")
    with pytest.raises(NotFoundError):
        gone(db, conversations=["none"])
    assert len(list_conversations(db, TENANT)[0]) == 1


def test_another_tenants_user_of_the_same_name_stays(db: Database) -> None:
    ensure_tenant(db, "other", NOW_S)
    reply(db, 1, "ann", "canary")
    reply(db, 2, "ann", "words of the other", tenant_id="other")

    gone(db, "ann")

    assert [row.id for row in list_conversations(db, "other")[0]] == ["talk-2"]


def test_records_that_still_wait_in_a_live_segment_do_not_come_back(db: Database) -> None:
    folder = db.path.with_name("segments")
    writer = SegmentWriter(folder, segment_bytes=1e9, max_backlog_bytes=1e9)
    spare = reply(db, 8, "ann", "canary in flight")
    for number, user in ((1, "ann"), (2, "bob"), (3, "ann")):
        text = f"canary of {user}"
        one = msgspec.structs.replace(spare, id=f"resp_{number}", user_id=user, question=text, conversation_id=user)
        assert writer.append(encode_record(one))
    with reader_lock(folder) as is_held:
        assert is_held
        SegmentReader(folder).move(db)

        report = gone(db, "ann")

        assert report.segment_records == 2
        assert bytes_with(folder, "canary of ann") == []
        later = msgspec.structs.replace(spare, id="resp_9", conversation_id="new", created_at=iso(NOW_S + 60))
        assert writer.append(encode_record(later))
        SegmentReader(folder).move(db)  # a recorder that was started anew: it begins every live segment again
    writer.close()

    assert sorted(row["id"] for row in db.rows("SELECT id FROM responses")) == ["resp_2", "resp_9"]
    assert list(folder.glob("*.rejected")) == []


def test_a_record_that_was_set_aside_is_made_blank_too(db: Database) -> None:
    folder = db.path.with_name("segments")
    folder.mkdir()
    line = encode_record(reply(db, 1, "ann", "canary"))
    aside = folder / "0-1-a.rejected"
    aside.write_bytes(line + b"neither record nor set\n" + line)

    gone(db, "ann")

    assert (b"canary" in aside.read_bytes(), b"neither record nor set\n" in aside.read_bytes()) == (False, True)


def test_no_file_holds_what_was_forgotten(db: Database, tmp_path: Path) -> None:
    for number in range(40):
        reply(db, number, "ann" if number % 2 else "bob", f"canary {number % 2} " * 200)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert bytes_with(tmp_path, "canary 1") == ["tutelage.db"]

    gone(db, "ann")
    assert scrub(db, is_compacted=False)

    assert bytes_with(tmp_path, "canary 1") == []
    assert bytes_with(tmp_path, "canary 0") == ["tutelage.db"]


def test_the_file_written_anew_holds_nothing_that_was_deleted_before_it_was_overwritten(
    db: Database, tmp_path: Path
) -> None:
    db.execute("PRAGMA secure_delete = OFF")  # as in a database of an earlier release
    for number in range(40):
        reply(db, number, "ann", "canary " * 200)
    gone(db, "ann")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert bytes_with(tmp_path, "canary") == ["tutelage.db"]

    assert scrub(db, is_compacted=True)

    assert bytes_with(tmp_path, "canary") == []


USERS = ("user-ann", "user-bob", "user-eve")
TURNS = st.lists(st.tuples(st.sampled_from(USERS), st.integers(0, 4)), min_size=1, max_size=10)
VOTES = st.lists(st.tuples(st.sampled_from(USERS), st.integers(0, 9), st.booleans()), max_size=10)
ENTRIES = st.lists(
    st.tuples(st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True), st.booleans()), max_size=5
)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "tutelage.db"
    with open_database(load_config(None, {"store": {"url": f"sqlite:///{path}"}}).store) as made:
        ensure_default_tenant(made, NOW_S)
        made.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@settings(max_examples=60)
@given(turns=TURNS, votes=VOTES, entries=ENTRIES)
def test_after_forgetting_no_table_holds_a_user_or_their_words_and_others_rows_are_untouched(
    empty_database: Path,
    turns: list[tuple[str, int]],
    votes: list[tuple[str, int, bool]],
    entries: list[tuple[list[int], bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copy(empty_database, folder))
        section: StoreSection = load_config(None, {"store": {"url": f"sqlite:///{path}"}}).store
        with open_database(section) as db:
            fill(db, turns, votes, entries)
            before = of_others(db)

            gone(db, "user-ann")

            assert (holding(db, "user-ann"), holding(db, "canary-user-ann")) == ([], [])
            assert of_others(db) == before
            assert db.rows("PRAGMA foreign_key_check") == []
            assert scrub(db, is_compacted=False)
            assert bytes_with(Path(folder), "canary-user-ann") == []
            with pytest.raises(sqlite3.IntegrityError):  # the keys are still watched
                db.execute("INSERT INTO learner_states VALUES ('none', 1, x'', '{}', '', '{}', '')")


def fill(
    db: Database,
    turns: list[tuple[str, int]],
    votes: list[tuple[str, int, bool]],
    entries: list[tuple[list[int], bool]],
) -> None:
    owners: dict[int, str] = {}
    for number, (user, talk) in enumerate(turns):
        owners.setdefault(talk, user)
        reply(db, number, user, f"canary-{user}-{number} says so.", conversation_id=f"talk-{talk}")
    for user, number, is_correction in votes:
        if number < len(turns):
            text = f"canary-{user} knows better"
            say(
                db, f"resp_{number}", user, "correction" if is_correction else "thumbs_up", text * is_correction or None
            )
    for talks, is_proposed in entries:
        sources = [(f"talk-{talk}", owners[talk]) for talk in talks if talk in owners]
        if sources:
            said = [message["content"] for one, _ in sources for message in transcript(db, TENANT, one).messages]
            made = entry(db, said[:3], said[0], sources)
            if is_proposed:
                propose_revision(
                    db,
                    TENANT,
                    made,
                    composed(said[-1:], said[-1], []),
                    source_chat_id=sources[-1][0],
                    actor="learner",
                    now_s=NOW_S,
                    note=json.dumps(sources[-1][0]),
                )


def of_others(db: Database) -> list[Any]:
    """Return the responses of others, and their signals on them, as they are."""
    responses = db.rows("SELECT * FROM responses WHERE user_id <> 'user-ann' ORDER BY id")
    signals = db.rows(
        """
        SELECT f.* FROM response_feedback AS f JOIN responses AS r ON r.id = f.response_id
        WHERE f.user_id <> 'user-ann' AND r.user_id <> 'user-ann' ORDER BY f.id
        """
    )
    return [tuple(row) for row in (*responses, *signals)]
