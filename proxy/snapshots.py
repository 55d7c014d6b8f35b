"""Keeps every tenant's snapshot and the keys fresh, from a thread of its own.

A request reads plain attributes; the thread swaps whole values. While the database is away there are no snapshots
(requests pass unmodified), but the keys last known stay valid: a lost file must not lock anybody out.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from proxy.authentication import Keys
from proxy.context_graphs import ContextGraphs
from proxy.retrieval import ContextSearch
from proxy.selection import PlanIndex
from store.config import Config, context_graph_directory
from store.database import Database, open_database
from store.errors import UnavailableError
from store.responses import OpeningFacts, find_history, find_reply, opening_facts
from store.snapshot import TenantSnapshot, TenantVersion, list_versions, load_snapshot
from store.tenants import live_keys
from store.usage import Uses, newest_uses

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ServedTenant:
    """One tenant's snapshot, ready for selection."""

    snapshot: TenantSnapshot
    index: PlanIndex
    search: ContextSearch


class Snapshots:
    """All tenants' snapshots.

    Args:
        config: the whole settings.
        embedding_model: contexts of other models are not served.
        process: whose uses of keys are told apart from others', see ``store.usage.usage_id``.
    """

    def __init__(self, config: Config, embedding_model: str, process: str = "") -> None:
        self._config = config
        self._process = process
        self._uses = Uses()
        self._embedding_model = embedding_model
        self.history = HistoryReader(config)
        self._graphs = ContextGraphs(context_graph_directory(config), config.contexts.exact_up_to)
        self._tenants: dict[str, ServedTenant] = {}
        self._keys: Keys | None = None
        self._problem: str | None = "the database was not read yet"
        self._db: Database | None = None
        self._data_version: int | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll_until_stopped, name="snapshots", daemon=True)

    def start(self) -> None:
        """Load everything once, then keep it fresh; a database that is away is no error."""
        self.refresh()
        self._thread.start()
        self._graphs.start()

    def stop(self) -> None:
        """Stop the thread and close the connection."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._graphs.stop()
        self._close()
        self.history.close()

    def tenant(self, tenant_id: str) -> ServedTenant | None:
        """Return what is served to the tenant now, or None while nothing is known of it."""
        return self._tenants.get(tenant_id)

    def keys(self) -> Keys | None:
        """Return the valid keys as last known; None until the database was read once."""
        return self._keys

    def uses(self) -> Uses:
        """Return what keys used in the newest month, as last known."""
        return self._uses

    @property
    def problem(self) -> str | None:
        """What keeps snapshots from being read; None when all is well."""
        return self._problem

    def generations(self) -> Mapping[str, int]:
        """Return the generation served to each tenant."""
        return {tenant_id: tenant.snapshot.generation for tenant_id, tenant in self._tenants.items()}

    def _poll_until_stopped(self) -> None:
        while not self._stopping.wait(self._config.proxy.snapshot_poll_s):
            self.refresh()

    def refresh(self) -> None:
        """Look for what changed, once."""
        self.history.look_again()
        try:
            self._refresh()
        except UnavailableError as exc:
            self._lose(str(exc), None)
        except Exception as exc:  # the thread must outlive whatever a damaged database leads to
            self._lose(str(exc), exc)

    def _lose(self, problem: str, unforeseen: Exception | None) -> None:
        """Serve nothing that was learned until it can be read again; say so once, not once a poll."""
        self._close()
        self._tenants = {}
        if problem != self._problem:
            logger.error("requests pass unmodified until snapshots can be read: %s", problem, exc_info=unforeseen)
        self._problem = problem

    def _refresh(self) -> None:
        if self._db is not None and not self._db.is_current():
            raise UnavailableError(f"{self._db.path} was deleted or replaced")
        if self._db is None:
            self._db = open_database(self._config.store, create=False)
            self._db.execute("PRAGMA query_only = ON")
            self._data_version = None
        self.history.open()
        data_version = self._db.value("PRAGMA data_version")  # changes with every commit of somebody else
        if data_version == self._data_version:
            return
        versions = list_versions(self._db)
        self._keys = live_keys(self._db, self._config.limits)
        self._uses = newest_uses(self._db, self._process)
        self._tenants = {version.tenant_id: self._fresh(self._db, version) for version in versions}
        self._graphs.retain(self._tenants.keys())
        self._data_version = data_version
        if self._problem is not None:
            logger.info("snapshots of %d tenants are read", len(versions))
        self._problem = None

    def _fresh(self, db: Database, version: TenantVersion) -> ServedTenant:
        known = self._tenants.get(version.tenant_id)
        previous = known.snapshot if known else None
        if known and previous and (previous.learning, previous.generation) == (version.learning, version.generation):
            return known
        snapshot = load_snapshot(db, version.tenant_id, embedding_model=self._embedding_model, previous=previous)
        search = self._graphs.search(snapshot.tenant_id, snapshot.secret, snapshot.contexts)
        return ServedTenant(snapshot, PlanIndex(snapshot.plan, self._config.patterns), search)

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


class HistoryReader:
    """Looks conversations up in the database, on the event loop's thread; None whenever that cannot be done."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._db: Database | None = None
        self._is_due = False

    def find_history(self, tenant_id: str, history_hashes: Sequence[str]) -> tuple[OpeningFacts, int] | None:
        db = self._current()
        if db is None:
            return None
        try:
            return find_history(db, tenant_id, history_hashes)
        except UnavailableError:
            self._give_up()
            return None

    def find_reply(self, tenant_id: str, upstream_id: str) -> OpeningFacts | None:
        db = self._current()
        if db is None:
            return None
        try:
            return find_reply(db, tenant_id, upstream_id)
        except UnavailableError:
            self._give_up()
            return None

    def find_conversation(self, tenant_id: str, conversation_id: str) -> OpeningFacts | None:
        db = self._current()
        if db is None:
            return None
        try:
            return opening_facts(db, tenant_id, conversation_id)
        except UnavailableError:
            self._give_up()
            return None

    def look_again(self) -> None:
        """Have the next look-up see whether the file is still the one that was opened: too dear for every request."""
        self._is_due = True

    def open(self) -> None:
        """Connect when possible; call it away from the event loop, for it may wait for a lock."""
        if self._db is None:
            db = open_database(self._config.store, create=False)
            db.execute("PRAGMA query_only = ON")
            # A reader of a WAL file waits for nobody but a recovery; a request must not wait even for that.
            db.execute("PRAGMA busy_timeout = 20")
            self._db = db

    def close(self) -> None:
        self._give_up()

    def _current(self) -> Database | None:
        if self._is_due and self._db is not None:
            self._is_due = False
            if not self._db.is_current():
                self._give_up()
        return self._db

    def _give_up(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
