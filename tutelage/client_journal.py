"""Messages on their way to the server, in files that outlive the process or in memory. Standard library alone.

A spill directory holds segments, ``*.jsonl``, one message a line. Whoever writes a segment holds a lock (flock) on it,
which the kernel lets go of when the process dies, however it dies; then any other process that uses the directory may
lock it and send what it holds. A segment gets its name once it is locked, so none is taken from its writer.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

try:
    import fcntl
except ImportError:  # Windows: nothing is spilled there
    fcntl = None  # type: ignore[assignment]

SEGMENT_BYTES = (
    1_000_000  # after which a new segment begins; what was sent of an unfinished one is sent again after a kill
)
SIZE_CHECK_S = 1.0  # between looks at how much all processes have in the directory
STALE_S = 3600.0  # after which a segment that never got its name is taken for one of a process that died


class Journal(Protocol):
    """Lines in order: one thread appends, another takes from the front; whoever calls holds a lock around each call."""

    n_appended: int
    n_taken: int

    def append(self, lines: Sequence[bytes]) -> None:
        """Take in *lines*, all or none.

        Raises:
            OSError: none, because there is no room, or the disk does not take them.
        """
        ...

    def front(self, max_lines: int, max_bytes: int) -> list[bytes]:
        """Return the first lines, which stay."""
        ...

    def take(self, lines: Sequence[bytes]) -> None:
        """Let go of the first lines, which are *lines*."""
        ...

    def close(self) -> None:
        """Let go of all files; those with lines in them stay for the next process."""
        ...


class FullError(OSError):
    """There is no room left."""


class MemoryJournal:
    """Lines in memory, at most *max_bytes*."""

    def __init__(self, max_bytes: int) -> None:
        self.n_appended = 0
        self.n_taken = 0
        self._lines: deque[bytes] = deque()
        self._max_bytes = max_bytes
        self._size_bytes = 0

    def append(self, lines: Sequence[bytes]) -> None:
        size = sum(map(len, lines))
        if self._size_bytes + size > self._max_bytes:
            raise FullError(f"more than {self._max_bytes} bytes wait in memory")
        self._lines.extend(lines)
        self._size_bytes += size
        self.n_appended += len(lines)

    def front(self, max_lines: int, max_bytes: int) -> list[bytes]:
        found: list[bytes] = []
        size = 0
        for line in self._lines:
            size += len(line) + 1
            if len(found) == max_lines or (found and size > max_bytes):
                break
            found.append(line)
        return found

    def take(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            self._lines.popleft()
            self._size_bytes -= len(line)
        self.n_taken += len(lines)

    def close(self) -> None:
        self._lines.clear()


@dataclass(slots=True)
class Segment:
    """One locked file, read up to *n_read* of *size* bytes."""

    path: Path
    descriptor: int
    size: int = 0
    n_read: int = 0


class FileJournal:
    """Lines in segments of a directory that several processes may share, at most *max_bytes* of all together."""

    def __init__(self, directory: Path, max_bytes: int, segments: Sequence[Segment] = ()) -> None:
        self.n_appended = 0
        self.n_taken = 0
        self._directory = directory
        self._max_bytes = max_bytes
        self._segments = deque(segments)
        self._all_bytes = 0
        self._looked_at = -SIZE_CHECK_S

    def append(self, lines: Sequence[bytes]) -> None:
        data = b"".join(line + b"\n" for line in lines)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_room(len(data))
        if not self._segments or self._segments[-1].size >= SEGMENT_BYTES:
            self._segments.append(new_segment(self._directory))
        last = self._segments[-1]
        try:
            written = 0
            while written < len(data):
                written += os.write(last.descriptor, data[written:])
            os.fsync(last.descriptor)
        except OSError:
            os.ftruncate(last.descriptor, last.size)  # no half line stays between whole ones
            raise
        last.size += len(data)
        self._all_bytes += len(data)
        self.n_appended += len(lines)

    def _check_room(self, size: int) -> None:
        now = time.monotonic()
        if now - self._looked_at > SIZE_CHECK_S:
            self._looked_at = now
            self._all_bytes = sum(entry.stat().st_size for entry in os.scandir(self._directory) if _is_there(entry))
        if self._all_bytes + size > self._max_bytes:
            raise FullError(f"{self._directory} holds its {self._max_bytes} bytes")

    def front(self, max_lines: int, max_bytes: int) -> list[bytes]:
        if not self._segments:
            return []
        first = self._segments[0]
        data = os.pread(first.descriptor, min(max_bytes, first.size - first.n_read), first.n_read)
        return data[: data.rfind(b"\n") + 1].split(b"\n")[:-1][:max_lines]

    def take(self, lines: Sequence[bytes]) -> None:
        first = self._segments[0]
        first.n_read += sum(len(line) + 1 for line in lines)
        self.n_taken += len(lines)
        if first.n_read < first.size:
            return
        if len(self._segments) > 1:
            self._segments.popleft()
            _remove(first)
        else:
            os.ftruncate(first.descriptor, 0)
            first.size = first.n_read = 0

    def close(self) -> None:
        while self._segments:
            segment = self._segments.popleft()
            if segment.n_read == segment.size:
                _remove(segment)
            else:
                os.close(segment.descriptor)

    def abandon(self) -> None:
        """Let go of the descriptors alone, in a forked process: the files are its parent's."""
        while self._segments:
            os.close(self._segments.popleft().descriptor)


def can_spill() -> bool:
    """Return whether this system has the locks that a spill directory needs."""
    return fcntl is not None


def new_segment(directory: Path) -> Segment:
    """Return a new empty segment, locked.

    Raises:
        OSError: the directory cannot be written to.
    """
    name = os.urandom(8).hex()
    unnamed, path = directory / f"{name}.new", directory / f"{name}.jsonl"
    descriptor = os.open(unnamed, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(path)
        _sync_directory(directory)
    except OSError:
        os.close(descriptor)
        unnamed.unlink(missing_ok=True)
        raise
    return Segment(path, descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # or the name may be gone after a power cut
    finally:
        os.close(descriptor)


def orphans(directory: Path, max_bytes: int) -> Iterator[FileJournal]:
    """Yield what processes left behind that are no more, one segment at a time, locked; close each.

    Raises:
        OSError: the directory cannot be read.
    """
    if fcntl is None or not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if path.suffix == ".new":
            _remove_stale(path)
        elif path.suffix == ".jsonl":
            segment = _adopted(path)
            if segment is not None:
                yield FileJournal(directory, max_bytes, [segment])


def _adopted(path: Path) -> Segment | None:
    """Return the segment, locked; None when somebody has it, or had it and is done with it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    status = os.fstat(descriptor)
    if not status.st_nlink:  # whoever had it before removed it between our open and our lock
        os.close(descriptor)
        return None
    return Segment(path, descriptor, _whole_lines(descriptor, status.st_size))


def _whole_lines(descriptor: int, size: int) -> int:
    """Return where the last whole line ends: a kill in the middle of a write leaves half a line."""
    end = size
    while end > 0:
        start = max(0, end - 65_536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _remove(segment: Segment) -> None:
    # The name goes first, then the lock: whoever opened the file before finds it without a name.
    segment.path.unlink(missing_ok=True)
    os.close(segment.descriptor)


def _remove_stale(path: Path) -> None:
    try:
        if time.time() - path.stat().st_mtime > STALE_S:
            path.unlink(missing_ok=True)
    except FileNotFoundError:  # it got its name meanwhile
        return


def _is_there(entry: os.DirEntry[str]) -> bool:
    try:
        entry.stat()
    except FileNotFoundError:
        return False
    return True
