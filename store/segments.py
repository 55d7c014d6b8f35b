"""Append-only files that carry records from the proxy to the database, each record exactly once.

A writer holds an exclusive lock on the segment that it appends to, so whoever can lock a segment knows that its
writer is done or dead, whatever became of process ids. A record is one line and one ``write``: it survives
``kill -9`` of its process (the page cache does), and only the last line of a dead writer can be torn.
"""

import fcntl
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from store.database import Database
from store.files import open_private
from store.injection_sets import SingleItems
from store.records import InjectionSet, ResponseRecord, encode_set
from store.responses import insert_records
from store.segment_lines import READ_BYTES, Line, Segment, in_order
from store.usage import UsageRecord, insert_usage

logger = logging.getLogger(__name__)

SUFFIX = ".segment"
LOCK_NAME = "recorder.lock"
TROUBLE_NAME = "recorder.trouble"  # says, while it is there, why records do not reach the database
SLICE = 64  # records that are decoded at once: so many stay in the processor's cache until they are inserted
BACKLOG_CHECK_BYTES = 1024 * 1024  # the folder is measured again after this much was appended

# What a record holds that no column can: it alone is set aside, or it would keep all others waiting for ever.
UNWRITABLE = (sqlite3.IntegrityError, ValueError, OverflowError)


class SegmentWriter:
    """Appends records to segments of its own. Never raises: what cannot be written is counted and logged."""

    def __init__(self, directory: Path, *, segment_bytes: float, max_backlog_bytes: float) -> None:
        self.n_written = 0
        self.n_dropped = 0
        self.error: str | None = None
        """What keeps records from being written just now; None when all is well."""
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._max_backlog_bytes = max_backlog_bytes
        self._fd: int | None = None
        self._size = 0
        self._mark = secrets.token_hex(4)  # tells this writer's segments from those of others
        self._sets: set[str] = set()  # that the segment holds: each segment can be read without the others
        self._backlog = 0
        self._check_bytes = min(BACKLOG_CHECK_BYTES, max_backlog_bytes / 16)
        self._unmeasured = self._check_bytes  # measure before the first append

    def append(self, line: bytes, sets: Sequence[InjectionSet] = ()) -> bool:
        """Append one record's *line*; return whether it is safe.

        Args:
            line: an encoded record.
            sets: what its ``drawn`` refers to; what the segment does not hold yet goes before it.
        """
        self._unmeasured += len(line)
        try:
            if self._unmeasured >= self._check_bytes or self._backlog > self._max_backlog_bytes:
                self._measure()
            if self._backlog > self._max_backlog_bytes:
                self._abandon()  # so that a reader may take it and delete it: it is part of the backlog
                self._drop(f"{self._backlog} bytes wait in {self._directory}; no more are taken")
                return False
            if self._fd is None or self._size + len(line) > self._segment_bytes:
                self._fd = self._begin_segment()
            new = [one for one in sets if one.set not in self._sets]
            if new:
                line = b"".join(map(encode_set, new)) + line
            self._write(self._fd, line)
            self._sets.update([one.set for one in new])
        except OSError as exc:
            self._drop(f"cannot write to {self._directory}: {exc}")
            self._abandon()
            return False
        self.n_written += 1
        self.error = None
        return True

    def _write(self, fd: int, line: bytes) -> None:
        n_written = os.write(fd, line)
        self._size += n_written
        if n_written != len(line):  # the disk is full: the torn line ends this segment
            raise OSError(f"{n_written} of {len(line)} bytes written")

    def _measure(self) -> None:
        self._unmeasured = 0
        self._backlog = backlog_bytes(self._directory)

    def _drop(self, reason: str) -> None:
        self.n_dropped += 1
        if self.error is None:  # once, not once a request
            logger.error("records are dropped: %s", reason)
        self.error = reason

    def _begin_segment(self) -> int:
        self._abandon()
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{time.time_ns():020d}-{os.getpid()}-{self._mark}{SUFFIX}"
        # Under another name until it is locked: a reader would take an unlocked segment for a dead writer's.
        hidden = path.with_suffix(".new")
        fd = open_private(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            hidden.rename(path)
        except OSError:
            os.close(fd)
            raise
        self._size = 0
        self._sets.clear()
        return fd

    def _abandon(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def close(self) -> None:
        """Give the last segment up; a reader may now take and delete it."""
        self._abandon()


def backlog_bytes(directory: Path) -> int:
    """Return the size of all segments in *directory* that wait, in bytes; 0 when there is no such folder."""
    total = 0
    for path in _segments(directory):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # taken in the meantime
            continue
    return total


def _segments(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{SUFFIX}"))


@contextmanager
def reader_lock(directory: Path) -> Iterator[bool]:
    """Hold the right to move segments, if nobody else has it; the value says whether."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK_NAME).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def note_trouble(directory: Path, reason: str | None) -> None:
    """Leave a note for whoever tells the proxy's health; None takes it away. A disk that is full gets none."""
    path = directory / TROUBLE_NAME
    try:
        if reason is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(reason, encoding="utf-8")
    except OSError:
        logger.exception("%s cannot be written", path)


def read_trouble(directory: Path) -> str | None:
    """Return why records do not reach the database, None while they do."""
    try:
        return (directory / TROUBLE_NAME).read_text(encoding="utf-8") or "unknown"
    except FileNotFoundError:
        return None
    except OSError as exc:
        return str(exc)


class SegmentReader:
    """Moves complete lines of all segments into the database, in order of time, and deletes finished segments.

    Only the holder of ``reader_lock`` may use one. It remembers how far it came in each live segment; after a
    restart it begins again, and records that are there already change nothing.
    """

    def __init__(self, directory: Path, observe: Callable[[Sequence[ResponseRecord]], None] | None = None) -> None:
        """Take the folder, and who is told of records once they are in the database (after a crash some again)."""
        self._directory = directory
        self._observe = observe
        self._offsets: dict[str, int] = {}
        self._items = SingleItems()

    def forget_progress(self) -> None:
        """Begin all segments that are still there again: what was committed went into a database that is gone."""
        self._offsets.clear()
        self._items.forget()

    def move(self, db: Database) -> int:
        """Move what is there now; return how many records were read.

        Raises:
            UnavailableError: the database is missing, locked or damaged; nothing is lost, call again.
            OSError: a segment cannot be read or deleted; nothing is lost, call again.
        """
        found = [Segment.found(path, self._offsets.get(path.name, 0)) for path in _segments(self._directory)]
        segments = [segment for segment in found if segment is not None]
        lines = in_order(segments)
        n_records = 0
        while first := list(islice(lines, SLICE)):
            n_records += self._move_batch(db, first, lines)
        is_current = any(segment.is_finished for segment in segments) and db.is_current()
        for segment in segments:
            if segment.is_finished and is_current:
                self._delete(segment)
        names = {segment.path.name for segment in segments}
        self._offsets = {name: offset for name, offset in self._offsets.items() if name in names}
        return n_records

    def _delete(self, segment: Segment) -> None:
        if segment.rest:
            logger.warning("%s: its writer died within a line; %d bytes left out", segment.path, len(segment.rest))
        segment.path.unlink()

    def _move_batch(self, db: Database, first: list[Line], others: Iterator[Line]) -> int:
        """Move *first* and some of *others* in one transaction; return how many records."""
        taken: list[Line] = []
        some, size = first, 0
        try:
            with db.transaction():
                while some:
                    taken += some
                    size += sum([len(line.raw) for line in some])
                    self._insert(db, some)
                    some = list(islice(others, SLICE)) if size < READ_BYTES else []
            refused = {}
        except UNWRITABLE:
            self._items.forget()  # what earlier slices put in is taken back too
            refused = self._move_one_by_one(db, taken)
        records: list[ResponseRecord] = []
        for number, line in enumerate(taken):
            reason = line.content if isinstance(line.content, ValueError) else refused.get(number)
            if reason is not None:
                self._reject(line.segment.path, line.raw, reason)
            elif isinstance(line.content, ResponseRecord):
                records.append(line.content)
        self._offsets.update({line.segment.path.name: line.end for line in taken})
        if self._observe is not None and records:
            self._observe(records)
        return len(records)

    def _move_one_by_one(self, db: Database, lines: list[Line]) -> dict[int, Exception]:
        """Move each of *lines* by itself; return why some were refused, by their place."""
        refused: dict[int, Exception] = {}
        for number, line in enumerate(lines):
            try:
                self._insert(db, [line])
            except UNWRITABLE as exc:
                refused[number] = exc
        return refused

    def _insert(self, db: Database, lines: Sequence[Line]) -> None:
        contents = [line.content for line in lines]
        insert_records(
            db,
            [one for one in contents if isinstance(one, ResponseRecord)],
            sets=[one for one in contents if isinstance(one, InjectionSet)],
            items=self._items,
        )
        insert_usage(db, [one for one in contents if isinstance(one, UsageRecord)])

    def _reject(self, path: Path, line: bytes, reason: Exception) -> None:
        rejected = path.with_suffix(".rejected")
        logger.error("%s: a damaged record is set aside in %s: %s", path, rejected.name, reason)
        with open(rejected, "ab", opener=open_private) as file:
            file.write(line + b"\n")


def ingest_orphans(db: Database, directory: Path) -> int:
    """Move what a proxy left that was killed; return how many records. Nothing when a recorder is at work.

    Raises:
        UnavailableError: the database is missing, locked or damaged; nothing is lost.
        OSError: the folder cannot be read or written; nothing is lost.
    """
    if not _segments(directory):
        return 0
    with reader_lock(directory) as is_held:
        return SegmentReader(directory).move(db) if is_held else 0
