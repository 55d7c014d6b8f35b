"""The writer: a process of its own that moves segments into the database, away from the request path's core.

It lives as long as its parent holds its standard input open, then moves what is left and exits. Only one recorder at
a time works in a folder; others wait for its lock. It never makes a database: one that was deleted is waited for.
"""

import contextlib
import gc
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import msgspec

from proxy.request_log import Observer, RequestLog
from store.clock import SystemClock
from store.config import Config, LogSection, StoreSection, TelemetrySection, segment_directory
from store.database import Database, open_database
from store.errors import UnavailableError
from store.logs import configure_logging
from store.records import ResponseRecord
from store.segments import SegmentReader, note_trouble, reader_lock
from store.tenants import ensure_default_tenant

logger = logging.getLogger("proxy.recorder")  # not __name__, which is __main__ here

BUSY_TIMEOUT_MS = 1000  # a recorder tries again for ever: sooner a word to /healthz than the whole busy_timeout_ms
RETRY_S = 0.5  # between tries to reach a database that is away
BUSY_RECORDS = 50  # in one move: then the next one waits longer, for a transaction costs much and a record little
MAX_PAUSES = 4  # times poll_ms, between two moves
NICENESS = 5  # a request that comes in the middle of a move goes first, where both have one core
GC_OBJECTS = 50_000  # made and not freed before garbage is looked for: records come and go without a cycle
LAST_TRIES = 4  # at the end, before segments are left to the next recorder


class RecorderSettings(msgspec.Struct, frozen=True):
    """What the process is told on its command line, as JSON."""

    url: str
    busy_timeout_ms: int
    directory: str
    poll_ms: float
    log: LogSection
    telemetry: TelemetrySection


class RecorderHandle:
    """The recorder as its parent sees it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self, timeout_s: float) -> bool:
        """Let it move what is there and exit; return whether it did in time (else it goes on by itself)."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


def start_recorder(config: Config) -> RecorderHandle:
    """Start the recorder process; it ends by itself when this process does, however that comes about.

    Raises:
        OSError: the process cannot be started.
    """
    settings = RecorderSettings(
        url=config.store.url,
        busy_timeout_ms=min(config.store.busy_timeout_ms, BUSY_TIMEOUT_MS),
        directory=str(segment_directory(config)),
        poll_ms=config.recording.poll_ms,
        log=config.log,
        telemetry=config.telemetry,
    )
    module = "proxy.observed_recorder" if config.telemetry.otlp_endpoint else "proxy.recorder"
    # -P: a folder called proxy or store where the user happens to stand must not be imported instead.
    command = [sys.executable, "-P", "-m", module, msgspec.json.encode(settings).decode()]
    # Ctrl-C in a terminal reaches the whole process group; the recorder must outlive the proxy that drains.
    return RecorderHandle(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))  # noqa: S603


class Recorder:
    """Moves segments until it is told to stop.

    Args:
        section: the database.
        directory: the segments.
        observe: told of records once they are in the database.
    """

    def __init__(
        self,
        section: StoreSection,
        directory: Path,
        observe: Callable[[Sequence[ResponseRecord]], None] | None = None,
    ) -> None:
        self._section = section
        self._directory = directory
        self._reader = SegmentReader(directory, observe)
        self._db: Database | None = None
        self._trouble: str | None = ""  # not known yet: the note of an earlier recorder may lie there

    def move(self) -> int | None:
        """Move what is there; return how many records, or None when the database cannot take them now."""
        try:
            if self._db is not None and not self._db.is_current():
                self._close()
            if self._db is None:
                self._db = open_database(self._section, create=False)
                ensure_default_tenant(self._db, SystemClock().now_s())
                self._reader.forget_progress()
            n_records = self._reader.move(self._db)
        except UnavailableError as exc:
            self._wait(str(exc), None)
            return None
        except Exception as exc:  # the loop must outlive whatever a damaged database or a full disk leads to
            self._wait(str(exc), exc)
            return None
        self._note(None)
        return n_records

    def _wait(self, trouble: str, unforeseen: Exception | None) -> None:
        """Leave the records where they are; say so once, not once a try."""
        if trouble != self._trouble:
            logger.error("records wait until the database takes them: %s", trouble, exc_info=unforeseen)
        self._note(trouble)
        self._close()

    def _note(self, reason: str | None) -> None:
        """Leave word of a change for the worse or the better."""
        if reason == self._trouble:
            return
        if reason is None and self._trouble:
            logger.info("the database takes records again")
        note_trouble(self._directory, reason)
        self._trouble = reason

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


class _Stop:
    """Says when to stop: the parent closed our standard input (or died), or SIGTERM came."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_end, b"x")

    def wait(self, timeout_s: float) -> bool:
        """Return whether it is time to stop; wait at most *timeout_s* for it."""
        readable, _, _ = select.select([sys.stdin.fileno(), self._read_end], [], [], timeout_s)
        if self._read_end in readable:
            return True
        return bool(readable) and not os.read(sys.stdin.fileno(), 4096)


def run(settings: RecorderSettings, observers: Sequence[Observer] = ()) -> None:
    """Move segments until the parent goes or SIGTERM comes, then move the rest; *observers* are told what moved."""
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop.on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    directory = Path(settings.directory)
    if settings.log.requests:
        observers = (*observers, RequestLog(with_text=settings.log.messages))

    def observe(records: Sequence[ResponseRecord]) -> None:
        for observer in observers:
            observer.note(records)

    section = StoreSection(settings.url, settings.busy_timeout_ms)
    recorder = Recorder(section, directory, observe if observers else None)
    while True:
        with reader_lock(directory) as is_held:
            if is_held:
                _move_until_stopped(recorder, stop, settings.poll_ms / 1000)
                return
        if stop.wait(RETRY_S):  # another recorder works here and will move what our parent left
            return


def _move_until_stopped(recorder: Recorder, stop: _Stop, poll_s: float) -> None:
    pause_s = poll_s
    while not stop.wait(pause_s):
        pause_s = next_pause_s(recorder.move(), pause_s, poll_s)
    for _ in range(LAST_TRIES):
        n_records = recorder.move()
        if n_records == 0:
            return
        if n_records is None:
            select.select([], [], [], RETRY_S)


def next_pause_s(n_records: int | None, pause_s: float, poll_s: float) -> float:
    """Return how long to wait after a move of *n_records*, which came after *pause_s*.

    >>> [next_pause_s(n, 0.02, 0.02) for n in (None, 1, 50, 0)], next_pause_s(0, 0.08, 0.02)
    ([0.5, 0.02, 0.08, 0.04], 0.08)
    """
    if n_records is None:
        return RETRY_S
    if n_records >= BUSY_RECORDS:
        return poll_s * MAX_PAUSES
    # A process that wakes with nothing to do still costs a fraction of a millisecond: the longer nothing came, the
    # rarer it looks.
    return poll_s if n_records else min(pause_s * 2, poll_s * MAX_PAUSES)


def begin(argument: str) -> RecorderSettings:
    """Return what *argument* says, with the process set up for it."""
    settings = msgspec.json.decode(argument, type=RecorderSettings)
    configure_logging(settings.log)
    gc.set_threshold(GC_OBJECTS)
    os.nice(NICENESS)
    return settings


def main() -> None:
    run(begin(sys.argv[1]))


if __name__ == "__main__":
    main()
