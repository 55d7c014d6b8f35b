"""A graph (HNSW) over many vectors, and its form on disk.

The graph finds rows, it does not judge them: whoever asks compares the question with the rows' own vectors. So a
graph that is out of date or lossy (it holds int8) can miss an entry, but never serve a wrong or a retired one.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from store.vectors import DIMENSIONS

if TYPE_CHECKING:
    from usearch.index import Index

# Of 100,000 entries: .993 of the three best ones above the threshold found at 0.33 ms, 30 CPU seconds to build. With
# usearch's defaults (128, 64) .963. float16 finds as many, takes a third longer and half the memory more.
SCALAR: Final = "i8"
CONNECTIVITY: Final = 16  # links of a node
EXPANSION_BUILD: Final = 320  # nodes looked at for the links of a new one
EXPANSION_SEARCH: Final = 256  # nodes looked at for a question; also the most that can be asked for
BUILD_ROWS: Final = 250  # added at a time: a fraction of a second, after which a stop is heard

MAGIC: Final = b"tutgraph"
VERSION: Final = 1  # of the file's form and of what the keys are
HEAD: Final = struct.Struct("<8sQQ")  # magic, version, number of keys
CHECKSUM_BYTES: Final = 32

Keys = NDArray[np.uint64]


class GraphError(Exception):
    """A file holds no graph that can be used: damaged, of another version or of another tenant."""


class BuildStoppedError(Exception):
    """The process stops before the graph is built."""


class ContextGraph:
    """An immutable graph; its nodes are numbered in the order of *keys*."""

    def __init__(self, index: "Index", keys: Keys) -> None:
        self.keys = keys
        """(n,), what each node stands for (``row_keys``)."""
        self._index = index

    @classmethod
    def build(cls, vectors: NDArray[np.float32], rows: NDArray[np.int64], keys: Keys, stop: Callable[[], bool]) -> Self:
        """Return a graph over *rows* of *vectors* (n, 256), the keys of which are *keys*, by one thread.

        The interpreter is free while it works: usearch gives it up.

        Raises:
            BuildStoppedError: *stop* said so.
        """
        index = _new_index()
        for start in range(0, len(rows), BUILD_ROWS):
            if stop():
                raise BuildStoppedError
            some = rows[start : start + BUILD_ROWS]
            index.add(np.arange(start, start + len(some), dtype=np.uint64), vectors[some], threads=1)
        return cls(index, keys)

    def nearest(self, question: NDArray[np.float32], count: int) -> NDArray[np.uint64]:
        """Return about the *count* nodes nearest to *question* (256,), at most ``EXPANSION_SEARCH``."""
        found: Any = self._index.search(question, min(count, EXPANSION_SEARCH), threads=1)
        nodes: NDArray[np.uint64] = found.keys
        return nodes

    def encode(self, secret: bytes) -> list[bytes]:
        """Return the graph as a file's content, piece by piece, sealed with the tenant's *secret*."""
        pieces = [HEAD.pack(MAGIC, VERSION, len(self.keys)), self.keys.tobytes(), self._index.save() or b""]
        return [*pieces, _seal(pieces, secret)]

    @classmethod
    def decode(cls, content: bytes, secret: bytes) -> Self:
        """Return the graph in a file's *content*.

        Raises:
            GraphError: it is not what ``encode`` made with this *secret*. usearch itself would follow damaged links
                out of its memory.
        """
        body = memoryview(content)[:-CHECKSUM_BYTES]
        if len(body) < HEAD.size or _seal([body], secret) != content[-CHECKSUM_BYTES:]:
            raise GraphError("it is damaged or of another database")
        magic, version, n_keys = HEAD.unpack_from(body)
        if (magic, version) != (MAGIC, VERSION):
            raise GraphError("it is of another version")
        keys = np.frombuffer(body, np.uint64, n_keys, HEAD.size).copy()
        index = _new_index()
        try:
            index.load(body[HEAD.size + keys.nbytes :])
        except (RuntimeError, ValueError) as exc:  # of another version of usearch
            raise GraphError(str(exc)) from exc
        if len(index) != n_keys:
            raise GraphError(f"it has {len(index)} nodes for {n_keys} keys")
        return cls(index, keys)


def _new_index() -> "Index":
    # Not at the top: 100 ms and 15 MB at every start, for the few tenants with so much knowledge. Only the thread
    # that builds comes here.
    from usearch.index import Index  # noqa: PLC0415

    return Index(
        ndim=DIMENSIONS,
        metric="ip",
        dtype=SCALAR,
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_BUILD,
        expansion_search=EXPANSION_SEARCH,
    )


def row_keys(ids: list[str], vectors: NDArray[np.float32], secret: bytes) -> Keys:
    """Return (n,), 64 bits that stand for each id with its vector: a reworded entry has another key."""
    found = np.empty(len(ids), np.uint64)
    for row, context_id in enumerate(ids):
        name = context_id.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(vectors[row].tobytes() + name, digest_size=8, key=secret[:64]).digest()
        found[row] = int.from_bytes(digest, "little")
    return found


def _seal(pieces: Iterable[bytes | memoryview], secret: bytes) -> bytes:
    seal = hashlib.blake2b(digest_size=CHECKSUM_BYTES, key=secret[:64])
    for piece in pieces:
        seal.update(piece)
    return seal.digest()
