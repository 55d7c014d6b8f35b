"""The recorder moves everything, waits for a database that is away, and ends with its parent."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.recorder import RecorderHandle, start_recorder
from store.config import Config, LogSection, segment_directory
from store.database import Database, open_database
from store.records import encode_record
from store.segments import SUFFIX, SegmentWriter, read_trouble
from store.tenants import ensure_default_tenant
from tests.conftest import NOW_S
from tests.store.test_segments import record

WAIT_S = 20.0


def eventually(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def writer(config: Config) -> Iterator[SegmentWriter]:
    made = SegmentWriter(segment_directory(config), segment_bytes=16e6, max_backlog_bytes=1e9)
    yield made
    made.close()


@pytest.fixture
def recorder(config: Config, db: Database) -> Iterator[RecorderHandle]:
    started = start_recorder(config)
    yield started
    assert started.stop(WAIT_S)


def n_responses(db: Database) -> int:
    return int(db.value("SELECT count(*) FROM responses"))


def waiting(config: Config) -> list[Path]:
    return list(segment_directory(config).glob(f"*{SUFFIX}"))


def test_records_of_a_live_segment_land_within_moments(
    config: Config, db: Database, writer: SegmentWriter, recorder: RecorderHandle
) -> None:
    for number in range(3):
        writer.append(encode_record(record(number)))
        eventually(lambda number=number: n_responses(db) == number + 1)  # type: ignore[misc]
    assert recorder.is_alive


def test_at_its_end_it_moves_the_rest_and_deletes_the_segments(
    config: Config, db: Database, writer: SegmentWriter, recorder: RecorderHandle
) -> None:
    for number in range(2000):
        writer.append(encode_record(record(number)))
    writer.close()
    assert recorder.stop(WAIT_S)
    assert n_responses(db) == 2000
    assert waiting(config) == []


def test_sigterm_moves_the_rest_too(
    config: Config, db: Database, writer: SegmentWriter, recorder: RecorderHandle
) -> None:
    writer.append(encode_record(record(1)))
    eventually(lambda: n_responses(db) == 1)
    writer.append(encode_record(record(2)))
    writer.close()
    os.kill(recorder.pid, signal.SIGTERM)
    eventually(lambda: not recorder.is_alive)
    assert n_responses(db) == 2


def test_a_database_that_went_away_is_waited_for_not_made_anew(
    config: Config, db: Database, writer: SegmentWriter, recorder: RecorderHandle
) -> None:
    writer.append(encode_record(record(1)))
    eventually(lambda: n_responses(db) == 1)
    for path in db.path.parent.glob("tutelage.db*"):
        if path.is_file():
            path.unlink()
    writer.append(encode_record(record(2)))
    eventually(lambda: read_trouble(segment_directory(config)) is not None)
    assert not db.path.exists()
    with open_database(config.store) as anew:
        ensure_default_tenant(anew, NOW_S)
        # What is still in the segments comes back with what waited.
        eventually(lambda: n_responses(anew) == 2)
    eventually(lambda: read_trouble(segment_directory(config)) is None)


def test_it_logs_as_the_proxy_does(config: Config, db: Database, capfd: pytest.CaptureFixture[str]) -> None:
    db.path.unlink()
    started = start_recorder(
        dataclasses.replace(config, log=LogSection("INFO", "json", requests=False, messages=False))
    )
    eventually(lambda: read_trouble(segment_directory(config)) is not None)
    started.stop(5.0)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert {(line["level"], line["logger"]) for line in lines} == {("ERROR", "proxy.recorder")}


def test_a_second_recorder_waits_for_the_first(
    config: Config, db: Database, writer: SegmentWriter, recorder: RecorderHandle
) -> None:
    writer.append(encode_record(record(1)))
    eventually(lambda: n_responses(db) == 1)
    second = start_recorder(config)
    os.kill(recorder.pid, signal.SIGKILL)
    writer.append(encode_record(record(2)))
    eventually(lambda: n_responses(db) == 2)
    assert second.stop(WAIT_S)


PARENT = textwrap.dedent(
    """
    import sys
    from proxy.recorder import start_recorder
    from store.config import load_config, segment_directory
    from store.records import encode_record
    from store.segments import SegmentWriter
    from tests.store.test_segments import record
    config = load_config(None, {"store": {"url": sys.argv[1]}})
    recorder = start_recorder(config)
    writer = SegmentWriter(segment_directory(config), segment_bytes=30_000, max_backlog_bytes=1e9)
    number = 0
    while True:
        writer.append(encode_record(record(number)))
        print(number, recorder.pid, flush=True)
        number += 1
    """
)


def test_after_kill_9_of_its_parent_everything_lands_and_it_ends(config: Config, db: Database) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, config.store.url], stdout=subprocess.PIPE, cwd=Path.cwd())
    assert parent.stdout is not None
    lines = [parent.stdout.readline().split() for _ in range(1500)]
    os.kill(parent.pid, signal.SIGKILL)
    lines += [line.split() for line in parent.stdout.read().splitlines()]
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not waiting(config))
    assert n_responses(db) >= len(lines)
    recorder_pid = int(lines[0][1])
    eventually(lambda: not is_running(recorder_pid))


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
