"""Records reach the database exactly once, whatever dies in between."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from store.clock import iso
from store.database import Database
from store.errors import UnavailableError
from store.records import InjectionRecord, ResponseRecord, decode_line, encode_record, make_set
from store.segments import SUFFIX, SegmentReader, SegmentWriter, backlog_bytes, ingest_orphans, reader_lock
from tests.conftest import NOW_S


def record(number: int, **changes: object) -> ResponseRecord:
    fields: dict[str, object] = {
        "id": f"resp_{number:06d}",
        "tenant_id": "default",
        "conversation_id": f"conv_{number // 2}",
        "endpoint": "/v1/chat/completions",
        "question_type": "unknown",
        "outcome": "ok",
        "status": 200,
        "latency_ms": 1.5,
        "created_at": iso(NOW_S + number),
        "completed_at": iso(NOW_S + number + 1),
        "injections": (InjectionRecord("pattern", "pat_1", "shape", 0.475, 0.5, True, None, 12),),
    }
    return ResponseRecord(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "segments"


@pytest.fixture
def writer(directory: Path) -> SegmentWriter:
    return SegmentWriter(directory, segment_bytes=16e6, max_backlog_bytes=1e9)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def response_ids(db: Database) -> list[str]:
    return [row["id"] for row in db.rows("SELECT id FROM responses ORDER BY seq")]


def test_a_record_survives_its_line() -> None:
    full = record(1, question="a\u2028\nb", reply_json='{"content":"ü"}', tags_json='["x"]', is_holdout=True)
    line = encode_record(full)
    assert line.count(b"\n") == 1
    assert decode_line(line) == full


def test_a_live_segment_is_read_line_by_line_and_deleted_once_its_writer_is_done(
    db: Database, directory: Path, writer: SegmentWriter
) -> None:
    reader = SegmentReader(directory)
    assert writer.append(encode_record(record(1)))
    assert reader.move(db) == 1
    writer.append(encode_record(record(2)))
    assert reader.move(db) == 1
    assert reader.move(db) == 0
    assert len(names(directory)) == 1
    writer.close()
    assert reader.move(db) == 0
    assert names(directory) == []
    assert response_ids(db) == ["resp_000001", "resp_000002"]


def test_what_lands_is_the_response_its_conversation_and_its_injections(
    db: Database, directory: Path, writer: SegmentWriter
) -> None:
    writer.append(encode_record(record(2, user_id="", tags_json="[]")))
    writer.append(encode_record(record(3, user_id="u", tags_json='["billing"]', is_holdout=True)))
    SegmentReader(directory).move(db)
    conversation = db.row("SELECT * FROM conversations")
    assert conversation is not None
    assert (conversation["id"], conversation["user_id"], conversation["tags_json"]) == ("conv_1", "u", '["billing"]')
    assert (conversation["created_at"], conversation["updated_at"]) == (iso(NOW_S + 2), iso(NOW_S + 4))
    injection = db.row("SELECT * FROM injections WHERE response_id = 'resp_000003'")
    assert injection is not None
    assert tuple(injection) == ("resp_000003", "pattern", "pat_1", "shape", 0.475, 0.5, 1, None, 12)


def test_a_segment_read_again_from_its_start_adds_nothing(db: Database, directory: Path, writer: SegmentWriter) -> None:
    writer.append(encode_record(record(1)))
    SegmentReader(directory).move(db)
    assert SegmentReader(directory).move(db) == 1
    assert response_ids(db) == ["resp_000001"]
    assert db.value("SELECT count(*) FROM injections") == 1


def test_records_of_several_writers_land_in_the_order_in_which_their_replies_were_complete(
    db: Database, directory: Path, writer: SegmentWriter
) -> None:
    other = SegmentWriter(directory, segment_bytes=16e6, max_backlog_bytes=1e9)
    for number in range(10):
        (other if number % 3 else writer).append(encode_record(record(number)))
    assert SegmentReader(directory).move(db) == 10
    assert response_ids(db) == [f"resp_{number:06d}" for number in range(10)]


def test_the_order_holds_over_more_than_is_read_at_once_and_over_several_segments_of_a_writer(
    db: Database, directory: Path
) -> None:
    writers = [SegmentWriter(directory, segment_bytes=size, max_backlog_bytes=1e9) for size in (3e6, 16e6)]
    for number in range(150):
        writers[number % 2].append(encode_record(record(number, question="x" * 100_000)))
    for one in writers:
        one.close()
    assert SegmentReader(directory).move(db) == 150
    assert response_ids(db) == [f"resp_{number:06d}" for number in range(150)]
    assert names(directory) == []


def test_what_waits_of_one_writer_goes_before_what_another_appended_later(
    db: Database, directory: Path, writer: SegmentWriter
) -> None:
    other = SegmentWriter(directory, segment_bytes=16e6, max_backlog_bytes=1e9)
    reader = SegmentReader(directory)
    for number in (0, 2):
        writer.append(encode_record(record(number)))
        other.append(encode_record(record(number + 1)))
        reader.move(db)
    assert response_ids(db) == [f"resp_{number:06d}" for number in range(4)]


def test_a_torn_last_line_waits_for_a_live_writer_and_is_left_out_of_a_dead_ones(
    db: Database, directory: Path, writer: SegmentWriter
) -> None:
    reader = SegmentReader(directory)
    writer.append(encode_record(record(1)) + encode_record(record(2))[:50])
    assert reader.move(db) == 1
    writer.append(encode_record(record(2))[50:])
    assert reader.move(db) == 1
    writer.append(b'{"id": "torn')
    writer.close()
    assert reader.move(db) == 0
    assert names(directory) == []
    assert response_ids(db) == ["resp_000001", "resp_000002"]


def test_a_damaged_line_is_set_aside_and_the_others_land(db: Database, directory: Path, writer: SegmentWriter) -> None:
    for line in (
        encode_record(record(1)),
        b"{not json}\n",
        encode_record(record(2, tenant_id="nobody")),
        encode_record(record(4, prompt_tokens=2**63)),
        encode_record(record(3)),
    ):
        writer.append(line)
    writer.close()
    SegmentReader(directory).move(db)
    assert response_ids(db) == ["resp_000001", "resp_000003"]
    (rejected,) = names(directory)
    assert rejected.endswith(".rejected")
    assert (directory / rejected).stat().st_mode & 0o777 == 0o600  # it holds what users wrote
    assert (directory / rejected).read_bytes().splitlines() == [
        b"{not json}",
        encode_record(record(2, tenant_id="nobody")).rstrip(),
        encode_record(record(4, prompt_tokens=2**63)).rstrip(),
    ]


def test_a_new_segment_begins_beyond_the_size(db: Database, directory: Path) -> None:
    line = encode_record(record(1))
    writer = SegmentWriter(directory, segment_bytes=2 * len(line), max_backlog_bytes=1e9)
    for number in range(5):
        writer.append(encode_record(record(number)))
    assert len(names(directory)) == 3
    assert SegmentReader(directory).move(db) == 5
    assert len(names(directory)) == 1


def test_beyond_the_backlog_records_are_dropped_and_counted_until_there_is_room(db: Database, directory: Path) -> None:
    line = encode_record(record(1))
    writer = SegmentWriter(directory, segment_bytes=1e6, max_backlog_bytes=3 * len(line))
    kept = [writer.append(encode_record(record(number))) for number in range(10)]
    assert writer.n_dropped == kept.count(False) > 0
    assert writer.error is not None
    assert backlog_bytes(directory) <= 5 * len(line)
    SegmentReader(directory).move(db)
    assert writer.append(encode_record(record(11)))
    assert writer.error is None


def test_a_folder_that_cannot_be_written_costs_records_not_requests(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    writer = SegmentWriter(blocked / "segments", segment_bytes=1e6, max_backlog_bytes=1e9)
    assert not writer.append(encode_record(record(1)))
    assert (writer.n_dropped, writer.n_written) == (1, 0)
    assert writer.error is not None


def test_only_one_reader_holds_the_lock(directory: Path) -> None:
    with reader_lock(directory) as first, reader_lock(directory) as second:
        assert (first, second) == (True, False)


def test_segments_stay_when_the_database_was_deleted_under_the_reader(
    db: Database, directory: Path, writer: SegmentWriter
) -> None:
    writer.append(encode_record(record(1)))
    writer.close()
    db.path.unlink()
    SegmentReader(directory).move(db)
    assert len([name for name in names(directory) if name.endswith(SUFFIX)]) == 1


def test_a_locked_database_loses_nothing(db: Database, directory: Path, writer: SegmentWriter) -> None:
    writer.append(encode_record(record(1)))
    writer.close()
    db.connection.execute("PRAGMA busy_timeout = 1")
    reader = SegmentReader(directory)
    other = db.connection.__class__(db.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError):
        reader.move(db)
    other.execute("ROLLBACK")
    other.close()
    assert reader.move(db) == 1
    assert response_ids(db) == ["resp_000001"]


WRITER_PROCESS = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from store.segments import SegmentWriter
    from store.records import encode_record
    from tests.store.test_segments import record
    writer = SegmentWriter(Path(sys.argv[1]), segment_bytes=20_000, max_backlog_bytes=1e9)
    number = 0
    while True:
        writer.append(encode_record(record(number)))
        print(number, flush=True)
        number += 1
    """
)


def test_every_record_that_was_appended_before_kill_9_lands(db: Database, directory: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER_PROCESS, str(directory)], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(500)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout.read().split()]
    process.wait()
    process.stdout.close()
    moved = ingest_orphans(db, directory)
    assert moved >= len(acknowledged)
    assert response_ids(db)[: len(acknowledged)] == [f"resp_{number:06d}" for number in acknowledged]
    assert [name for name in names(directory) if name.endswith(SUFFIX)] == []
    assert ingest_orphans(db, directory) == 0


def test_each_segment_says_what_its_records_refer_to(db: Database, directory: Path) -> None:
    shape, length = (
        make_set([InjectionRecord("pattern", "pat_1", name, 0.475, 0.5, True, None, 12)])
        for name in ("shape", "length")
    )
    drawn = f"{shape.set},{length.set}"
    line = encode_record(record(1, drawn=drawn, injections=()))
    writer = SegmentWriter(directory, segment_bytes=5 * len(line), max_backlog_bytes=1e9)
    for number in range(9):
        writer.append(encode_record(record(number, drawn=drawn, injections=())), (shape, length))
    writer.close()
    first, *others = sorted(directory.iterdir())
    first.unlink()  # it went into a database that is gone

    n_moved = SegmentReader(directory).move(db)

    assert len(others) > 0
    assert db.value("SELECT count(*) FROM injections") == 2 * n_moved > 0
    assert db.value("SELECT count(*) FROM injection_set_items") == 2


def test_a_set_is_told_once_a_segment(directory: Path, writer: SegmentWriter) -> None:
    one = make_set([InjectionRecord("pattern", "pat_1", "shape", 0.475, 0.5, True, None, 12)])
    for number in range(9):
        writer.append(encode_record(record(number, drawn=one.set, injections=())), (one,))

    (segment,) = directory.glob(f"*{SUFFIX}")
    kinds = [type(decode_line(line)).__name__ for line in segment.read_bytes().splitlines()]
    assert kinds == ["InjectionSet", *["ResponseRecord"] * 9]
