"""What keys used reaches the database exactly once, adds up by month, and does not grow for ever."""

from pathlib import Path

import pytest

from store.clock import iso, parse_iso
from store.database import Database
from store.records import encode_record
from store.segments import SegmentReader, SegmentWriter
from store.usage import (
    KEPT_DAYS,
    MonthUse,
    UsageRecord,
    Uses,
    decode_usage,
    encode_usage,
    insert_usage,
    is_usage,
    month_uses,
    newest_uses,
    usage_id,
)
from tests.conftest import NOW_S
from tests.store.test_segments import record, response_ids


def use(number: int, *, process: str = "use_1", at_s: float = NOW_S, **changes: object) -> UsageRecord:
    fields: dict[str, object] = {
        "id": usage_id(process, number),
        "key_id": "key_1",
        "tenant_id": "default",
        "upstream": "openai",
        "model": "gpt-5",
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "cached_tokens": 4,
        "is_estimated": False,
        "cost_usd": 0.25,
        "created_at": iso(at_s),
    }
    return UsageRecord(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def writer(tmp_path: Path) -> SegmentWriter:
    return SegmentWriter(tmp_path / "segments", segment_bytes=16e6, max_backlog_bytes=1e9)


def test_a_use_survives_its_line_and_is_told_from_a_response() -> None:
    full = use(1, model="mödel\n", is_estimated=True)
    line = encode_usage(full)

    assert line.count(b"\n") == 1
    assert decode_usage(line) == full
    assert (is_usage(line), is_usage(encode_record(record(1)))) == (True, False)


def test_a_line_that_is_no_use_is_an_error() -> None:
    with pytest.raises(ValueError, match="missing required field"):
        decode_usage(b'{"kind":"usage","id":"use_1-1"}')


def test_uses_and_responses_of_one_segment_land_once_however_often_it_is_read(
    db: Database, tmp_path: Path, writer: SegmentWriter
) -> None:
    for line in (encode_usage(use(1)), encode_record(record(1)), encode_usage(use(2, key_id="key_2"))):
        writer.append(line)

    assert [SegmentReader(tmp_path / "segments").move(db) for _ in range(2)] == [1, 1]

    assert response_ids(db) == ["resp_000001"]
    one = MonthUse(requests=1, prompt_tokens=10, completion_tokens=2, cost_usd=0.25)
    assert month_uses(db, "2026-11") == {"key_1": one, "key_2": one}


def test_a_use_that_breaks_a_rule_is_set_aside_and_the_others_land(
    db: Database, tmp_path: Path, writer: SegmentWriter
) -> None:
    for line in (encode_usage(use(1)), encode_usage(use(2, tenant_id="nobody")), encode_usage(use(3))):
        writer.append(line)
    writer.close()

    SegmentReader(tmp_path / "segments").move(db)

    assert month_uses(db, "2026-11")["key_1"].requests == 2
    (rejected,) = (tmp_path / "segments").glob("*.rejected")
    assert rejected.read_bytes() == encode_usage(use(2, tenant_id="nobody"))


def test_months_are_utc_and_the_newest_is_read_at_once(db: Database) -> None:
    new_year_s = parse_iso("2027-01-01T00:00:00Z")
    insert_usage(db, [use(1, at_s=new_year_s - 0.001), use(2, at_s=new_year_s), use(3, at_s=new_year_s + 9)])

    assert month_uses(db, "2026-12") == {"key_1": MonthUse(1, 10, 2, 0.25)}
    assert newest_uses(db, "use_1") == Uses("2027-01", {"key_1": MonthUse(2, 20, 4, 0.5)}, 3)


def test_a_process_hears_how_many_of_its_own_uses_are_counted(db: Database) -> None:
    assert newest_uses(db, "use_1") == Uses()

    insert_usage(db, [use(1), use(2), use(9, process="use_2"), use(12, process="use_10")])

    assert [newest_uses(db, process).n_landed for process in ("use_1", "use_2", "use_10", "use_3")] == [2, 9, 12, 0]


def test_what_a_request_waits_for_reads_no_more_than_a_months_keys(db: Database) -> None:
    plan = db.rows(
        """
        EXPLAIN QUERY PLAN SELECT key_id FROM key_months WHERE month = (SELECT max(month) FROM key_months)
        """
    )
    assert [row["detail"].split()[0] for row in plan if "SCAN" in row["detail"]] == []


def test_old_uses_go_little_by_little_and_their_months_stay(db: Database) -> None:
    insert_usage(db, [use(number) for number in range(10)])
    later_s = NOW_S + (KEPT_DAYS + 1) * 86400

    insert_usage(db, [use(10, at_s=later_s)])
    assert db.value("SELECT count(*) FROM key_usage") == 9
    insert_usage(db, [use(number, at_s=later_s) for number in range(11, 15)])

    assert db.value("SELECT count(*) FROM key_usage WHERE created_at < :at", {"at": iso(later_s)}) == 0
    assert month_uses(db, "2026-11")["key_1"].requests == 10
    assert month_uses(db, "2027-02")["key_1"].requests == 5
