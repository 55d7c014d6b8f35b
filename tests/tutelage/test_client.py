"""The client under servers that are dead, slow, flapping or mad: nothing lost, nothing twice, nobody kept waiting."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tutelage.backend import Backend, backend
from tutelage.client import MAX_BUFFERED, ConversationLogger
from tutelage.client_delivery import judge
from tutelage.client_journal import FileJournal, MemoryJournal, orphans

HEAVY = [
    "numpy",
    "msgspec",
    "typer",
    "uvicorn",
    "starlette",
    "litellm",
    "store",
    "learner",
    "proxy",
    "asyncio",
    "urllib.request",
    "rich",
]
ANSWERS = st.dictionaries(
    st.sampled_from(["success", "count", "errors", "error"]),
    st.none() | st.booleans() | st.integers(0, 3) | st.lists(st.none(), max_size=2),
)
LINES = st.binary(min_size=1, max_size=30).map(lambda some: some.hex().encode())


@pytest.fixture
def server() -> Iterator[Backend]:
    with backend() as state:
        yield state


@pytest.fixture
def logger_of(tmp_path: Path) -> Iterator[Callable[..., ConversationLogger]]:
    made: list[ConversationLogger] = []

    def make(url: str, **settings: Any) -> ConversationLogger:
        values = {"spill_directory": tmp_path / "spill", "timeout_s": 2.0, "handle_sigterm": False, **settings}
        made.append(ConversationLogger(url, **values))
        return made[-1]

    yield make
    for logger in made:
        logger.close(0.5)


def eventually(look: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    end = time.monotonic() + timeout_s
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.01)
    assert found
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spilled(tmp_path: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (tmp_path / "spill").glob("*.jsonl"))


def once(server: Backend) -> set[str]:
    """Return the ids that the server has; none may have been stored twice."""
    assert set(server.new.values()) <= {1}
    return set(server.stored)


def test_importing_it_loads_nothing_heavy() -> None:
    script = f"import sys, tutelage.client; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_message_arrives_as_the_ingest_takes_it(
    server: Backend, logger_of: Callable[..., ConversationLogger]
) -> None:
    logger = logger_of(server.url, api_key="tut-1", source="whatsapp", review_below_confidence=0.8)
    named = logger.log(
        "track my order",
        "track_order",
        0.75,
        phone_number="+91987",
        current_step="menu",
        timestamp_ms=5,
        alternatives=[("refund", 0.2)],
    )
    assert logger.flush()
    assert server.stored[named] == {
        "messageText": "track my order",
        "intent": "track_order",
        "confidence": 0.75,
        "timestamp": 5,
        "phoneNumber": "+91987",
        "currentStep": "menu",
        "source": "whatsapp",
        "alternatives": [{"intent": "refund", "confidence": 0.2}],
        "needsReview": True,
        "id": named,
    }
    assert server.keys == {"tut-1"}
    chat = logger.log_conversation("c-1", [{"role": "user", "content": "hi"}], tags=["t"], resolved=True)
    assert logger.flush()
    assert server.stored[chat]["messages"] == [{"role": "user", "content": "hi"}]


def test_ten_messages_go_at_once_and_fewer_after_the_interval(
    server: Backend, logger_of: Callable[..., ConversationLogger]
) -> None:
    patient, quick = logger_of(server.url), logger_of(server.url, interval_s=0.2, spill_directory="")
    patient.log("hello", "greet", 0.9)
    fast = quick.log("hello", "greet", 0.9)
    eventually(lambda: fast in server.stored)
    assert len(server.stored) == 1
    for number in range(9):
        patient.log(f"hello {number}", "greet", 0.9)
    eventually(lambda: len(server.stored) == 11)


def test_settings_come_from_the_environment(
    server: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logger_of: Callable[..., ConversationLogger]
) -> None:
    monkeypatch.setenv("ADMIN_BACKEND_URL", server.url + "/")
    monkeypatch.setenv("ADMIN_BACKEND_API_KEY", "tut-env")
    monkeypatch.setenv("CONFIDENCE_THRESHOLD_FOR_REVIEW", "0.6")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    logger = ConversationLogger(handle_sigterm=False)
    named = logger.log("hello", "greet", 0.65)
    assert logger.close()
    assert (server.keys, server.stored[named]["needsReview"]) == ({"tut-env"}, False)
    assert len(list((tmp_path / "tutelage").iterdir())) == 1
    monkeypatch.setenv("CONVERSATION_LOGGING_ENABLED", "false")
    assert ConversationLogger(handle_sigterm=False).log("hello", "greet", 0.9) == ""
    monkeypatch.setenv("CONFIDENCE_THRESHOLD_FOR_REVIEW", "7")
    with pytest.raises(ValueError, match="0 to 1"):
        ConversationLogger(handle_sigterm=False)


@given(st.tuples(*[st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.text(max_size=2))] * 3))
def test_whatever_is_logged_raises_nothing(values: tuple[Any, Any, Any]) -> None:
    logging.disable(logging.CRITICAL)
    logger = ConversationLogger("http://127.0.0.1:9", spill_directory="", handle_sigterm=False)
    assert isinstance(logger.log(*values, phone_number=values[0], alternatives=values[1]), str)
    assert isinstance(logger.log_conversation(*values[:2], tags=values[2]), str)
    logger.close(0.0)
    logging.disable(logging.NOTSET)


STORMS = {
    "server errors": ["status 500", "status 503", "status 502"],
    "resets": ["cut", "noise"],
    "an answer that is lost after the messages were stored": ["lost", "lost"],
    "answers that say nothing": ["garbage <html>", "garbage {}", 'garbage {"success": true}', "garbage [1]"],
    "an answer that counts wrongly": ['garbage {"success": true, "count": 1}'],
    "asked to wait": ["status 429 0.2"],
    "the wrong address, key or method": ["status 404", "status 401", "status 405", "status 302"],
    "a bad request that is not about the messages": ["status 400"],
    "too large for a proxy in between": ["status 413"],
    "slow": ["slow 1"],
    "answers that never end": ["drip"],
}


@pytest.mark.parametrize("storm", STORMS)
@pytest.mark.parametrize("is_spilling", [True, False])
def test_nothing_is_lost_and_nothing_twice(
    server: Backend, logger_of: Callable[..., ConversationLogger], storm: str, is_spilling: bool
) -> None:
    server.steps.extend(STORMS[storm])
    logger = logger_of(server.url, timeout_s=1.5, **({} if is_spilling else {"spill_directory": ""}))
    ids = {logger.log(f"hello {number}", "greet", 0.9) for number in range(25)}
    assert logger.flush(30.0)
    assert once(server) == ids
    assert (logger.stats.n_delivered, logger.stats.n_refused, logger.stats.n_waiting) == (25, 0, 0)


def test_a_server_that_hangs_keeps_neither_the_caller_nor_the_disk_waiting(
    server: Backend, tmp_path: Path, logger_of: Callable[..., ConversationLogger]
) -> None:
    server.steps.append("drip")
    logger = logger_of(server.url, timeout_s=60.0)
    first = [logger.log(f"hello {number}", "greet", 0.9) for number in range(10)]
    eventually(lambda: server.times)  # from here on one delivery hangs
    later = [logger.log(f"hello {number}", "greet", 0.9) for number in range(2000)]
    assert logger.sync()
    assert (spilled(tmp_path), server.stored) == (2010, {})
    server.released.set()
    assert logger.flush(30.0)
    assert once(server) == {*first, *later}


def test_a_server_that_asks_for_time_gets_it(server: Backend, logger_of: Callable[..., ConversationLogger]) -> None:
    server.steps.append("status 429 1")
    logger = logger_of(server.url)
    logger.log("hello", "greet", 0.9)
    assert logger.flush(20.0)
    assert server.times[1] - server.times[0] >= 1.0


def test_one_message_that_the_server_turns_down_does_not_keep_the_others(
    server: Backend, logger_of: Callable[..., ConversationLogger]
) -> None:
    logger = logger_of(server.url)
    ids = [logger.log(text, "greet", 0.9) for text in ("one", "poison", "two")]
    assert logger.flush()
    logger.log("poison", "greet", 0.9)
    assert logger.flush()
    assert once(server) == {ids[0], ids[2]}
    assert logger.stats.n_refused == 2


def test_while_the_server_is_away_messages_wait_on_disk_for_it(
    tmp_path: Path, logger_of: Callable[..., ConversationLogger]
) -> None:
    port = free_port()
    logger = logger_of(f"http://127.0.0.1:{port}")
    ids = {logger.log(f"hello {number}", "greet", 0.9) for number in range(3000)}
    assert logger.sync()
    assert spilled(tmp_path) == 3000
    assert not logger.flush(0.1)
    with backend(port) as server:
        assert logger.flush(60.0)
        assert once(server) == ids
    logger.close()
    assert list((tmp_path / "spill").iterdir()) == []


def test_files_are_for_their_owner_alone(tmp_path: Path, logger_of: Callable[..., ConversationLogger]) -> None:
    logger = logger_of("http://127.0.0.1:9")
    logger.log("hello", "greet", 0.9, phone_number="+91987")
    assert logger.sync()
    (segment,) = (tmp_path / "spill").iterdir()
    assert (segment.stat().st_mode & 0o777, segment.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_disk_and_memory_are_bounded_and_what_is_beyond_is_refused_and_counted(
    logger_of: Callable[..., ConversationLogger], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.client.MAX_MEMORY_BYTES", 20_000)
    logger = logger_of("http://127.0.0.1:9", max_spill_mb=0.02)
    accepted = [logger.log("x" * 1000, "greet", 0.9) != "" for _ in range(MAX_BUFFERED + 200)]
    assert 0 < logger.stats.n_dropped <= 200
    assert sum(accepted) + logger.stats.n_dropped == len(accepted)
    assert not logger.sync(0.3)


def test_a_disk_that_takes_nothing_is_no_reason_to_lose_anything(
    server: Backend, tmp_path: Path, logger_of: Callable[..., ConversationLogger]
) -> None:
    (tmp_path / "spill").write_text("not a directory")
    logger = logger_of(server.url)
    ids = {logger.log(f"hello {number}", "greet", 0.9) for number in range(5)}
    assert logger.flush()
    assert once(server) == ids


def test_threads_may_log_at_once(server: Backend, logger_of: Callable[..., ConversationLogger]) -> None:
    logger = logger_of(server.url)
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.extend(logger.log("hello", "greet", 0.9) for _ in range(300)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert logger.flush(30.0)
    assert (len(set(ids)), once(server)) == (2400, set(ids))


def test_an_event_loop_goes_on_while_messages_are_logged(
    server: Backend, logger_of: Callable[..., ConversationLogger]
) -> None:
    server.steps.append("slow 1")
    logger = logger_of(server.url)

    async def app() -> int:
        logger.log("hello", "greet", 0.9)
        flushing = asyncio.create_task(asyncio.to_thread(logger.flush))
        n_turns = 0
        while not flushing.done():
            logger.log("hello", "greet", 0.9)
            n_turns += 1
            await asyncio.sleep(0.01)
        assert flushing.result()
        return n_turns

    assert asyncio.run(app()) > 10


def test_after_close_nothing_is_accepted(server: Backend, logger_of: Callable[..., ConversationLogger]) -> None:
    logger = logger_of(server.url)
    with logger:
        logger.log("hello", "greet", 0.9)
    assert len(once(server)) == 1
    assert logger.log("hello", "greet", 0.9) == ""


def run(script: str, url: str, spill: Path, **settings: Any) -> subprocess.Popen[str]:
    """Start a process with a ``logger``; it runs *script*."""
    head = f"""
    import os, signal, sys, threading, time
    from tutelage.client import ConversationLogger
    logger = ConversationLogger({url!r}, spill_directory={str(spill)!r}, timeout_s=2.0)
    def say(*words): print(*words, flush=True)
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        **settings,
    )


def test_what_a_process_logged_is_delivered_when_it_ends(server: Backend, tmp_path: Path) -> None:
    process = run("say(logger.log('hello', 'greet', 0.9))", server.url, tmp_path / "spill")
    named = process.communicate(timeout=30)[0].strip()
    assert (once(server), process.returncode) == ({named}, 0)


def test_sigterm_lets_messages_be_delivered_and_still_ends_the_process(server: Backend, tmp_path: Path) -> None:
    script = "say(logger.log('hello', 'greet', 0.9)); time.sleep(60)"
    process = run(script, server.url, tmp_path / "spill")
    assert process.stdout is not None
    named = process.stdout.readline().strip()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
    assert once(server) == {named}
    process.stdout.close()


def test_a_handler_of_sigterm_that_the_app_had_stays(server: Backend, tmp_path: Path) -> None:
    script = """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    other = ConversationLogger(sys.argv[-1] if False else "http://127.0.0.1:9", spill_directory="")
    say("ready"); time.sleep(60)
    """
    process = run(script, server.url, tmp_path / "spill")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 7
    process.stdout.close()


def test_ending_does_not_wait_for_a_dead_server(tmp_path: Path) -> None:
    script = (
        "say(logger.log('hello', 'greet', 0.9)); end = time.monotonic(); logger.close(); say(time.monotonic() - end)"
    )
    process = run(script, f"http://127.0.0.1:{free_port()}", tmp_path / "spill")
    lines = process.communicate(timeout=30)[0].split()
    assert process.returncode == 0
    assert spilled(tmp_path) == 1
    assert float(lines[1]) < 5.0  # the time that messages get at an exit: it gave up before


ENDLESS = """
while True:
    ids = [logger.log('hello', 'greet', 0.9) for _ in range(7)]
    if logger.sync():
        say(*ids)
"""


def test_a_kill_loses_nothing_that_was_synced_and_doubles_nothing(tmp_path: Path) -> None:
    port = free_port()
    acknowledged: set[str] = set()
    with backend(port) as server:
        # The first without a server, the others under one that fails now and then; each is killed in the middle.
        for round_ in range(4):
            url = f"http://127.0.0.1:{port if round_ else free_port()}"
            server.steps.extend(["lost", "status 500", "cut", "ok"] * 3)
            process = run(ENDLESS, url, tmp_path / "spill")
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(8)]
            process.kill()
            rest = process.stdout.read()
            process.wait()
            process.stdout.close()
            whole = ("".join(lines) + rest).rpartition("\n")[0]
            acknowledged.update(whole.split())
        server.steps.clear()
        heir = ConversationLogger(server.url, spill_directory=tmp_path / "spill", handle_sigterm=False)
        heir.log("the heir", "greet", 0.9)
        assert heir.flush()
        eventually(lambda: spilled(tmp_path) == 0)
        assert acknowledged <= once(server)
        heir.close()
    assert len(acknowledged) >= 4 * 8 * 7


def test_processes_share_a_directory_and_each_message_is_sent_once(server: Backend, tmp_path: Path) -> None:
    script = "say(*[logger.log('hello', 'greet', 0.9) for _ in range(500)])"
    processes = [run(script, server.url, tmp_path / "spill") for _ in range(4)]
    ids = [named for process in processes for named in process.communicate(timeout=60)[0].split()]
    assert (len(set(ids)), once(server)) == (2000, set(ids))
    assert sum(map(len, server.deliveries)) == 2000
    assert spilled(tmp_path) == 0


def test_a_fork_logs_for_itself_and_sends_nothing_of_its_parent_again(server: Backend, tmp_path: Path) -> None:
    script = """
    before = [logger.log('parent', 'greet', 0.9) for _ in range(200)]
    child = os.fork()
    after = [logger.log('parent' if child else 'child', 'greet', 0.9) for _ in range(200)]
    logger.close()
    if child:
        os.waitpid(child, 0)  # two that print at once would write into each other's lines
        say(*before)
    say(*after)
    os._exit(0)
    """
    ids = run(script, server.url, tmp_path / "spill").communicate(timeout=60)[0].split()
    assert (len(set(ids)), once(server)) == (600, set(ids))
    assert sum(map(len, server.deliveries)) == 600


def test_a_fork_does_not_keep_its_dead_parents_files(server: Backend, tmp_path: Path) -> None:
    script = f"""
    logger._backend = ConversationLogger("http://127.0.0.1:{free_port()}")._backend
    say(logger.log('parent', 'greet', 0.9))
    logger.sync()
    if os.fork():
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
    """
    process = run(script, server.url, tmp_path / "spill", start_new_session=True)
    assert process.stdout is not None
    try:
        named = process.stdout.readline().strip()
        process.wait(30)
        with ConversationLogger(server.url, spill_directory=tmp_path / "spill", handle_sigterm=False) as heir:
            heir.log("the heir", "greet", 0.9)
            eventually(lambda: named in server.stored)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_half_a_line_that_a_kill_left_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "left.jsonl").write_bytes(b'{"id":"a"}\n{"id":"b"}\n{"id":"c')
    (journal,) = orphans(tmp_path, 1000)
    assert journal.front(10, 1000) == [b'{"id":"a"}', b'{"id":"b"}']
    journal.close()


def test_a_locked_segment_is_nobody_elses(tmp_path: Path) -> None:
    mine = FileJournal(tmp_path, 1000)
    mine.append([b"1"])
    assert list(orphans(tmp_path, 1000)) == []
    mine.close()
    (adopted,) = orphans(tmp_path, 1000)
    assert list(orphans(tmp_path, 1000)) == []
    adopted.take(adopted.front(10, 1000))
    adopted.close()
    assert list(tmp_path.iterdir()) == []


@given(st.lists(LINES | st.integers(1, 5), max_size=40))
def test_a_journal_gives_back_what_it_took_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[bytes | int]
) -> None:
    for journal in (MemoryJournal(10_000), FileJournal(tmp_path_factory.mktemp("spill"), 10_000)):
        sent: list[bytes] = []
        for step in steps:
            if isinstance(step, bytes):
                journal.append([step, step + b"-again"])
            else:
                lines = journal.front(step, 100)
                journal.take(lines) if lines else None
                sent += lines
        while lines := journal.front(10, 100):
            journal.take(lines)
            sent += lines
        assert sent == [line for step in steps if isinstance(step, bytes) for line in (step, step + b"-again")]
        journal.close()


@given(
    st.integers(100, 599),
    st.none() | st.text(max_size=5),
    st.binary(max_size=50) | ANSWERS.map(lambda value: json.dumps(value).encode()),
)
def test_only_an_answer_that_accounts_for_every_message_lets_go_of_them(
    status: int, retry_after: str | None, body: bytes
) -> None:
    verdict = judge(status, retry_after, body, 3, 0.0)
    if verdict.outcome == "taken":
        answer = json.loads(body)
        assert status == 200
        assert answer["count"] + len(answer.get("errors", [])) == 3
    assert verdict.outcome != "too_much" or status == 413
