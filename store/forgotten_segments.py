"""Records of segments that a person wants forgotten: made blank where they stand, while others append and read.

A live segment is read again from its beginning by the next recorder, so a record that is only deleted from the
database would come back. Bytes are overwritten in place: nothing moves, and writers only ever append.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from store.records import InjectionSet, ResponseRecord, encode_set
from store.segment_lines import Segment
from store.segments import SUFFIX

REJECTED: Final = ".rejected"  # records that no column could hold, line by line
_BLANK: Final = encode_set(InjectionSet("0", ()))[:-1]  # a line that says nothing; shorter than any record


def blank_records(directory: Path, is_meant: Callable[[ResponseRecord], bool]) -> list[str]:
    """Overwrite the records in *directory* for which *is_meant* is true; return the ids of these responses.

    Raises:
        OSError: a segment cannot be read or written; call again.
    """
    blanked: list[str] = []
    for path in sorted([*directory.glob(f"*{SUFFIX}"), *directory.glob(f"*{REJECTED}")]):
        segment = Segment.found(path, 0)
        if segment is None:
            continue
        meant = [
            (line.end - 1 - len(line.raw), len(line.raw), line.content.id)
            for line in segment.lines()
            if isinstance(line.content, ResponseRecord) and is_meant(line.content)
        ]
        if meant:
            _overwrite(path, [(start, size) for start, size, _ in meant])
            blanked += [response_id for _, _, response_id in meant]
    return blanked


def _overwrite(path: Path, places: list[tuple[int, int]]) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # its records are in the database by now
        return
    try:
        for start, size in places:
            os.pwrite(fd, _BLANK.ljust(size), start)
        os.fsync(fd)
    finally:
        os.close(fd)
