"""What segments hold, read side by side: each writer's lines in their order, all of them by when replies were complete.

Several workers write at the same time, and one conversation's turns come to all of them. Read one segment after the
other, a turn would land before the one that it follows, and ``responses.seq`` would tell transcripts backwards.
"""

import fcntl
import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Final

from store.records import InjectionSet, ResponseRecord, decode_line
from store.usage import UsageRecord, decode_usage, is_usage

READ_BYTES: Final = 4 * 1024 * 1024  # of one segment at a time

Moment = tuple[str, str]  # when a reply was complete, and when its request came


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a segment, decoded; a ValueError where that failed."""

    segment: "Segment"
    raw: bytes
    end: int  # bytes from the segment's beginning to behind the line
    content: InjectionSet | ResponseRecord | UsageRecord | ValueError


@dataclass(slots=True)
class Segment:
    """One segment as it was when it was found; what is appended later is left for the next time."""

    path: Path
    offset: int  # where reading begins
    size: int
    is_finished: bool  # its writer is done or dead: what it holds is all there will ever be
    rest: bytes = field(default=b"", init=False)
    """What stood behind the last complete line, once all lines were read."""

    @classmethod
    def found(cls, path: Path, offset: int) -> "Segment | None":
        """Return the segment at *path*; None when it is gone.

        Raises:
            OSError: it cannot be opened.
        """
        try:
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    is_finished = False
                else:
                    is_finished = True
                return cls(path, offset, os.fstat(file.fileno()).st_size, is_finished)  # the size after the lock
        except FileNotFoundError:
            return None

    @property
    def writer(self) -> str:
        """Who appends or appended to it; a writer's segments are in order of their names."""
        return self.path.stem.partition("-")[2]

    def lines(self) -> Iterator[Line]:
        """Yield its lines, decoded."""
        for raw, end in self._raw_lines():
            yield Line(self, raw, end, _decoded(raw))

    def _raw_lines(self) -> Iterator[tuple[bytes, int]]:
        offset = self.offset
        while offset < self.size:
            chunk = self._chunk(offset)
            end = chunk.rfind(b"\n") + 1
            if not end:
                self.rest = chunk
                return
            for raw in chunk[: end - 1].split(b"\n"):
                offset += len(raw) + 1
                yield raw, offset

    def _chunk(self, offset: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(offset)
            chunk = file.read(min(READ_BYTES, self.size - offset))
            if len(chunk) == READ_BYTES and b"\n" not in chunk:  # one line larger than a chunk
                chunk += file.readline()
        return chunk


def in_order(segments: Sequence[Segment]) -> Iterator[Line]:
    """Yield the lines of all *segments*, which are in order of their names.

    A line stands where its moment is, but never before an earlier one of its writer: a clock may be set back.

    Raises:
        OSError: a segment cannot be read.
    """
    writers: dict[str, list[Segment]] = {}
    for segment in segments:
        writers.setdefault(segment.writer, []).append(segment)
    if len(writers) == 1:
        return _lines_of(segments)
    merged = heapq.merge(*(_moments(_lines_of(each)) for each in writers.values()), key=itemgetter(0))
    return (line for _, line in merged)


def _lines_of(segments: Iterable[Segment]) -> Iterator[Line]:
    """Yield the lines of one writer's *segments*, of which one chunk at a time is in memory."""
    return chain.from_iterable(segment.lines() for segment in segments)


def _moments(lines: Iterable[Line]) -> Iterator[tuple[Moment, Line]]:
    """Yield *lines* with their moments. What is no record of a response goes with the record before it."""
    moment = ("", "")
    for line in lines:
        if isinstance(line.content, ResponseRecord):
            moment = max(moment, (line.content.completed_at, line.content.created_at))
        yield moment, line


def _decoded(raw: bytes) -> InjectionSet | ResponseRecord | UsageRecord | ValueError:
    try:
        return decode_usage(raw) if is_usage(raw) else decode_line(raw)
    except ValueError as exc:
        return exc
