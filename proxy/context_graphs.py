"""Keeps a graph for each tenant with many contexts: read from disk, or built, in a thread of its own.

Until a graph is there, requests compare with all entries; when too much has changed since it was made, another is
built. What is built is kept in a file beside the database, so that a restart and the other workers need not build.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.context_graph import BuildStoppedError, ContextGraph, GraphError
from proxy.retrieval import ContextSearch, Cover, CoverSlot, lay, live_keys
from store.files import open_private
from store.served_contexts import ServedContexts

MAX_CHANGED: Final = 4096  # entries beside the graph or gone from it; comparing with these takes 50 us
RETRY_S: Final = 2.0  # between looks for the graph that another process builds
FAILED_S: Final = 600.0  # before a build that failed is tried again: it may have cost its half minute before it did
STOP_S: Final = 5.0  # for the build to hear that it should stop; the thread does not keep the process alive
NICENESS: Final = 10  # of the thread: a build takes half a minute of a core, a request must not wait for it

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Tenant:
    name: str
    """Of its file."""
    secret: bytes
    contexts: ServedContexts
    slot: CoverSlot
    graph: ContextGraph | None = None
    """The newest known."""
    file_id: tuple[int, int] | None = None
    """Of the file that was read last."""
    rest_until_s: float = 0.0
    """By the monotonic clock: nothing is tried before, for the last try failed."""

    @property
    def is_covered(self) -> bool:
        """Whether what is served has a graph that fits."""
        return self.slot.cover is not None and self.slot.cover.n_changed(self.contexts) <= MAX_CHANGED


class ContextGraphs:
    """All tenants' graphs.

    Args:
        directory: for their files; made when the first one is written.
        exact_up_to: entries of a tenant up to which it needs no graph.
    """

    def __init__(self, directory: Path, exact_up_to: int) -> None:
        self._directory = directory
        self._exact_up_to = exact_up_to
        self._tenants: dict[str, _Tenant] = {}
        self._names: frozenset[str] | None = None  # of the files in use; None: not known yet
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work_until_stopped, name="context-graphs", daemon=True)

    def start(self) -> None:
        """Begin to look after graphs; before, every search compares with all entries."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, in the middle of a build if need be."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def search(self, tenant_id: str, secret: bytes, contexts: ServedContexts) -> ContextSearch:
        """Return what *contexts*, the newest of the tenant, are found with; its cover may come later."""
        if len(contexts) <= self._exact_up_to:
            self._tenants.pop(tenant_id, None)
            return ContextSearch(contexts)
        tenant = self._tenants.get(tenant_id)
        if tenant is None or tenant.secret != secret:
            tenant = _Tenant(_name(tenant_id, secret), secret, contexts, CoverSlot(contexts.rows))
            self._tenants[tenant_id] = tenant
        elif tenant.slot.rows is not contexts.rows:  # loaded anew: rows have other numbers
            tenant.slot = CoverSlot(contexts.rows)
        tenant.contexts = contexts
        self._wake.set()
        return ContextSearch(contexts, tenant.slot)

    def retain(self, loaded: Collection[str], unloaded: Mapping[str, bytes]) -> None:
        """Forget all tenants but those in *loaded*, and all files but theirs and those of tenants in *unloaded*.

        *unloaded*: secrets of the tenants whose contexts are not in memory. They may need their graphs again.
        """
        for tenant_id in self._tenants.keys() - set(loaded):
            del self._tenants[tenant_id]
        of_loaded = [tenant.name for tenant in self._tenants.values()]
        names = frozenset([*of_loaded, *(_name(tenant_id, secret) for tenant_id, secret in unloaded.items())])
        if names != self._names:
            self._names = names
            self._wake.set()

    def _work_until_stopped(self) -> None:
        if sys.platform == "linux":  # elsewhere a thread has no priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        is_waiting = False
        while not self._stopping.is_set():
            self._wake.wait(RETRY_S if is_waiting else None)
            self._wake.clear()
            looked_after = [self._was_looked_after(tenant_id) for tenant_id in tuple(self._tenants)]
            is_waiting = not all(looked_after)
            self._sweep()

    def _was_looked_after(self, tenant_id: str) -> bool:
        """Return whether the tenant needs nothing more for now."""
        tenant = self._tenants.get(tenant_id)
        if tenant is None or tenant.is_covered:
            return True
        if time.monotonic() < tenant.rest_until_s:
            return False
        try:
            return self._cover(tenant_id, tenant)
        except BuildStoppedError:
            return True
        except Exception:  # the thread must outlive whatever a full disk or a broken package leads to
            logger.exception("tenant %s: there is no graph over its contexts, so all are compared", tenant_id)
            tenant.rest_until_s = time.monotonic() + FAILED_S
            return False

    def _cover(self, tenant_id: str, tenant: _Tenant) -> bool:
        """Lay a graph over the tenant's contexts; return False when another process is about to build it."""
        self._read(tenant_id, tenant)
        if tenant.is_covered:
            return True
        with self._right_to_build() as is_ours:
            if not is_ours:
                return False
            self._read(tenant_id, tenant)  # whoever had the right may have built it
            if not tenant.is_covered:
                self._build(tenant_id, tenant)
        return True

    def _read(self, tenant_id: str, tenant: _Tenant) -> None:
        """Take over the file's graph, if it is a new one, and lay the newest graph known."""
        path = self._path(tenant)
        try:
            status = path.stat()
            if tenant.file_id != (status.st_ino, status.st_mtime_ns):
                tenant.file_id = (status.st_ino, status.st_mtime_ns)
                tenant.graph = ContextGraph.decode(path.read_bytes(), tenant.secret)
        except FileNotFoundError:
            tenant.file_id = None
        except (GraphError, OSError) as exc:
            logger.warning("tenant %s: the graph in %s cannot be used: %s", tenant_id, path, exc)
        if tenant.graph is not None:
            self._lay(tenant, tenant.graph)

    def _lay(self, tenant: _Tenant, graph: ContextGraph) -> None:
        slot, contexts = tenant.slot, tenant.contexts
        if slot.rows is contexts.rows:  # else the other thread is about to replace both
            cover: Cover = lay(graph, contexts, tenant.secret)
            slot.cover = cover

    def _build(self, tenant_id: str, tenant: _Tenant) -> None:
        start_s, contexts = time.monotonic(), tenant.contexts
        live = contexts.live_rows
        keys = live_keys(contexts, live, tenant.secret)
        tenant.graph = ContextGraph.build(contexts.vectors, live, keys, self._stopping.is_set)
        self._lay(tenant, tenant.graph)
        built_s = time.monotonic() - start_s
        logger.info("tenant %s: a graph over %d contexts was built in %.1f s", tenant_id, len(live), built_s)
        try:
            self._write(tenant, tenant.graph)
        except OSError as exc:
            logger.warning("tenant %s: its graph is not kept, the next start builds it again: %s", tenant_id, exc)

    def _write(self, tenant: _Tenant, graph: ContextGraph) -> None:
        path = self._path(tenant)
        unfinished = path.with_suffix(".tmp")  # one name: whoever builds has the right to
        unfinished.unlink(missing_ok=True)
        with open(unfinished, "xb", opener=open_private) as file:
            file.writelines(graph.encode(tenant.secret))
        status = unfinished.stat()
        tenant.file_id = (status.st_ino, status.st_mtime_ns)
        unfinished.replace(path)

    def _path(self, tenant: _Tenant) -> Path:
        return self._directory / f"{tenant.name}.graph"

    @contextlib.contextmanager
    def _right_to_build(self) -> Iterator[bool]:
        """Hold the installation's right to build one graph; the value says whether nobody else has it."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._directory / "build.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def _sweep(self) -> None:
        """Delete the files of tenants that have no need of a graph any more."""
        names = self._names
        if names is None:
            return
        try:
            for path in self._directory.glob("*.graph"):
                if path.stem not in names:
                    path.unlink(missing_ok=True)
        except OSError as exc:
            logger.warning("%s cannot be tidied up: %s", self._directory, exc)


def _name(tenant_id: str, secret: bytes) -> str:
    """Return the name of a tenant's file; holds nothing that a tenant's id may not hold."""
    return hashlib.blake2b(tenant_id.encode("utf-8", "surrogatepass"), digest_size=16, key=secret[:64]).hexdigest()
