"""Loads the contexts of a tenant when somebody asks for them, in threads of its own.

A tenant that nobody asks for costs no memory, and a request of another tenant does not wait. What was loaded is handed
to ``snapshots``, whose thread alone says what is served: it brings it up to date first.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final

from proxy.retrieval import ContextSearch
from store.config import StoreSection
from store.database import open_database
from store.errors import StoreError
from store.snapshot import TenantSnapshot, load_snapshot

N_THREADS: Final = 2  # 100,000 contexts take a second or two; a small tenant's need not wait behind them
RETRY_S: Final = 5.0  # after a load that failed; meanwhile no request waits for another

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedContexts:
    """A tenant's snapshot with its contexts, as it was at one moment."""

    snapshot: TenantSnapshot
    search: ContextSearch
    """Its rows packed; without a graph."""


class ContextLoader:
    """All loads of one process.

    Args:
        section: where the database is.
        embedding_model: contexts of other models are not loaded.
        when_loaded: called in a thread of the loader's; ``take`` has something from then on.
        remote_model: whose vectors are loaded beside; None: there is no such model.
        retry_s: seconds after a load that failed before the next.
    """

    def __init__(
        self,
        section: StoreSection,
        embedding_model: str,
        when_loaded: Callable[[], object],
        retry_s: float = RETRY_S,
        *,
        remote_model: str | None = None,
    ) -> None:
        self._section = section
        self._embedding_model = embedding_model
        self._remote_model = remote_model
        self._when_loaded = when_loaded
        self._retry_s = retry_s
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._lock = threading.Lock()  # of what follows; held for a few look-ups at most
        self._waiting: dict[str, list[Callable[[], object]]] = {}  # for the tenants whose load was asked for
        self._loaded: dict[str, LoadedContexts] = {}
        self._failed_until_s: dict[str, float] = {}  # by the monotonic clock: nothing is tried before
        self._n_forgotten = 0
        self._threads = [
            threading.Thread(target=self._load_until_stopped, name=f"context-loader-{number}", daemon=True)
            for number in range(N_THREADS)
        ]

    def start(self) -> None:
        """Begin to load."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop once the loads under way are done."""
        running = [thread for thread in self._threads if thread.is_alive()]
        for _ in running:
            self._queue.put(None)
        for thread in running:
            thread.join()

    def ask(self, tenant_id: str, when_served: Callable[[], object] | None = None) -> bool:
        """Have a tenant's contexts loaded; return whether they are being loaded now.

        Not when the last load failed a moment ago. *when_served* is called in another thread once they are served, or
        cannot be.
        """
        with self._lock:
            is_new = tenant_id not in self._waiting
            if is_new and time.monotonic() < self._failed_until_s.get(tenant_id, 0.0):
                return False
            waiting = self._waiting.setdefault(tenant_id, [])
            if when_served is not None:
                waiting.append(when_served)
        if is_new:
            self._queue.put(tenant_id)
        return True

    def take(self) -> Mapping[str, LoadedContexts]:
        """Return what was loaded since the last call, by tenant; ``done`` must follow."""
        with self._lock:
            loaded, self._loaded = self._loaded, {}
        return loaded

    def done(self, tenant_ids: Iterable[str]) -> None:
        """Tell those who wait for these tenants' contexts to go on."""
        with self._lock:
            callbacks = [callback for tenant_id in tenant_ids for callback in self._waiting.pop(tenant_id, ())]
        for callback in callbacks:
            callback()

    def forget(self) -> None:
        """Drop what was loaded or is being loaded: it is of a database that is lost."""
        with self._lock:
            self._n_forgotten += 1
        self.done(self.take())

    def load_next(self) -> bool:
        """Load what was asked for first, waiting until something is; return False when it is time to stop."""
        tenant_id = self._queue.get()
        if tenant_id is None:
            return False
        n_forgotten = self._n_forgotten
        try:
            loaded = self._load(tenant_id)
        except StoreError as exc:
            self._fail(tenant_id, str(exc), None)
        except Exception as exc:  # the thread must outlive whatever a damaged database leads to
            self._fail(tenant_id, str(exc), exc)
        else:
            with self._lock:
                is_wanted = n_forgotten == self._n_forgotten
                if is_wanted:
                    self._failed_until_s.pop(tenant_id, None)
                    self._loaded[tenant_id] = loaded
            if is_wanted:
                self._when_loaded()
            else:
                self.done([tenant_id])
        return True

    def load_asked(self) -> None:
        """Load whatever was asked for by now: for whoever runs no threads."""
        while not self._queue.empty():
            self.load_next()

    def _load_until_stopped(self) -> None:
        while self.load_next():
            pass

    def _load(self, tenant_id: str) -> LoadedContexts:
        start_s = time.monotonic()
        with open_database(self._section, create=False) as db:
            db.execute("PRAGMA query_only = ON")
            snapshot = load_snapshot(
                db, tenant_id, embedding_model=self._embedding_model, remote_model=self._remote_model
            )
        contexts = snapshot.contexts
        assert contexts is not None  # a model was named
        search = ContextSearch(contexts).packed_like(None)
        took_ms = (time.monotonic() - start_s) * 1000
        logger.debug("tenant %s: %d contexts were loaded in %.0f ms", tenant_id, len(contexts), took_ms)
        return LoadedContexts(snapshot, search)

    def _fail(self, tenant_id: str, problem: str, unforeseen: Exception | None) -> None:
        """Let those who wait go on without; say so once, not once a try."""
        with self._lock:
            is_known = tenant_id in self._failed_until_s
            self._failed_until_s[tenant_id] = time.monotonic() + self._retry_s
        if not is_known:
            logger.error(
                "tenant %s: its requests go on without contexts, which cannot be loaded: %s",
                tenant_id,
                problem,
                exc_info=unforeseen,
            )
        self.done([tenant_id])
