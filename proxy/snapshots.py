"""Keeps every tenant's snapshot and the keys fresh, from a thread of its own.

A request reads plain attributes; the thread swaps whole values. Contexts are there for the tenants whose requests came
lately: ``context_loader`` reads them when the first one asks, and this thread lets them go again. While the database is
away there are no snapshots (requests pass unmodified), but the keys last known stay valid: a lost file must not lock
anybody out. Nor is anything recorded then of a tenant whose learning was off.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from proxy.authentication import Keys
from proxy.context_graphs import ContextGraphs
from proxy.context_loader import ContextLoader, LoadedContexts
from proxy.memory import give_back
from proxy.retrieval import ContextSearch
from proxy.selection import PlanIndex
from store.config import Config, context_graph_directory
from store.database import Database, open_database
from store.errors import UnavailableError
from store.refit_table import RefitTable
from store.responses import OpeningFacts, find_history, find_reply, opening_facts
from store.served_contexts import ServedContexts
from store.snapshot import TenantSnapshot, TenantVersion, list_versions, load_snapshot
from store.tenants import live_keys
from store.usage import Uses, newest_uses
from store.vocabulary import DEFAULT_TENANT

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

MOST: Final = 0.9  # of a tenant's entries that have a remote vector before questions are compared by them


@dataclass(slots=True)
class ContextUse:
    """When a tenant's contexts were used. Requests set a mark, the snapshots' thread takes note of the time."""

    last_s: float
    is_marked: bool = False

    def idle_s(self, now_s: float) -> float:
        """Return the seconds since the last use, as far as these looks can tell."""
        if self.is_marked:
            self.is_marked, self.last_s = False, now_s
        return now_s - self.last_s


@dataclass(frozen=True, slots=True)
class RemoteSearch:
    """What a tenant's contexts are found with when a question's vector of another model than the local one is known."""

    search: ContextSearch
    unmade: frozenset[str]
    """Ids of entries that have no such vector yet; they are found by their local ones."""
    threshold: float
    """As that of the tenant, of this model's vectors."""


@dataclass(frozen=True, slots=True)
class RefitSearch:
    """What a tenant's contexts are found with by its own vectors, and what makes those of questions."""

    found_with: RemoteSearch
    table: RefitTable


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: it changes as a whole
class ServedTenant:
    """One tenant's snapshot, ready for selection."""

    snapshot: TenantSnapshot
    index: PlanIndex
    search: ContextSearch | None
    """None: the contexts are not loaded."""
    use: ContextUse
    threshold: float
    """Cosine of local vectors under which nothing is injected: the tenant's own, or the configured one."""
    remote: RemoteSearch | None = None
    """None: there is no remote model, or too few entries have its vectors yet."""
    refit: RefitSearch | None = None
    """None: the tenant has no vectors of its own, too few entries have theirs yet, or their threshold is not known."""


class Snapshots:
    """All tenants' snapshots.

    Args:
        config: the whole settings.
        embedding_model: contexts of other models are not served.
        remote_model: whose vectors are searched too, see ``store.remote_embedding``; None: there is none.
        process: whose uses of keys are told apart from others', see ``store.usage.usage_id``.
        monotonic_s: by which contexts that nobody uses are let go.
    """

    def __init__(
        self,
        config: Config,
        embedding_model: str,
        process: str = "",
        remote_model: str | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._monotonic_s = monotonic_s
        self._process = process
        self._uses = Uses()
        self._embedding_model = embedding_model
        self._remote_model = remote_model
        self.history = HistoryReader(config)
        self._graphs = ContextGraphs(context_graph_directory(config), config.contexts.exact_up_to)
        self._tenants: dict[str, ServedTenant] = {}
        self._keys: Keys | None = None
        self._unlearned: frozenset[str] = frozenset()  # tenants
        self._problem: str | None = "the database was not read yet"
        self._db: Database | None = None
        self._data_version: int | None = None
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self.loader = ContextLoader(config.store, embedding_model, self._wake.set, remote_model=remote_model)
        self._thread = threading.Thread(target=self._poll_until_stopped, name="snapshots", daemon=True)

    def start(self) -> None:
        """Load everything but contexts once, then keep it fresh; a database that is away is no error."""
        self.refresh()
        self._thread.start()
        self._graphs.start()
        self.loader.start()

    def stop(self) -> None:
        """Stop the threads and close their connections; ``history`` belongs to the event loop's thread."""
        self.loader.stop()
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._graphs.stop()
        self._close()

    def tenant(self, tenant_id: str) -> ServedTenant | None:
        """Return what is served to the tenant now, or None while nothing is known of it."""
        return self._tenants.get(tenant_id)

    def lacks_contexts(self, tenant_id: str) -> bool:
        """Return whether a request of the tenant may want contexts, or a classifier, that are not loaded."""
        tenant = self._tenants.get(tenant_id)
        return (
            tenant is not None
            and tenant.search is None
            and tenant.snapshot.learning
            and (self._config.contexts.enabled or not tenant.snapshot.is_classifier_loaded)
        )

    def learns(self, tenant_id: str) -> bool:
        """Return whether the tenant's requests are learned from, as last known: off stays off without a database."""
        return tenant_id not in self._unlearned

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

    @property
    def classifier_problem(self) -> str | None:
        """What keeps trained classifiers from being used, tenant by tenant; None when all is well."""
        problems = {tenant_id: one.snapshot.classifier_problem for tenant_id, one in self._tenants.items()}
        return "; ".join(f"tenant {name}: {problem}" for name, problem in problems.items() if problem) or None

    def generations(self) -> Mapping[str, int]:
        """Return the generation served to each tenant."""
        return {tenant_id: tenant.snapshot.generation for tenant_id, tenant in self._tenants.items()}

    def _poll_until_stopped(self) -> None:
        while True:
            self._wake.wait(self._config.proxy.snapshot_poll_s)
            if self._stopping.is_set():
                return
            self._wake.clear()
            self.refresh()

    def refresh(self) -> None:
        """Look for what changed and what was loaded, once."""
        self.history.look_again()
        loaded = self.loader.take()
        try:
            self._refresh(loaded)
        except UnavailableError as exc:
            self._lose(str(exc), None)
        except Exception as exc:  # the thread must outlive whatever a damaged database leads to
            self._lose(str(exc), exc)
        finally:
            self.loader.done(loaded)

    def _lose(self, problem: str, unforeseen: Exception | None) -> None:
        """Serve nothing that was learned until it can be read again; say so once, not once a poll."""
        self._close()
        self._tenants = {}
        self.loader.forget()
        if problem != self._problem:
            logger.error("requests pass unmodified until snapshots can be read: %s", problem, exc_info=unforeseen)
        self._problem = problem

    def _refresh(self, loaded: Mapping[str, LoadedContexts]) -> None:
        if self._db is not None and not self._db.is_current():
            raise UnavailableError(f"{self._db.path} was deleted or replaced")
        if self._db is None:
            self._db = open_database(self._config.store, create=False)
            self._db.execute("PRAGMA query_only = ON")
            self._data_version = None
        self.history.open()
        data_version = self._db.value("PRAGMA data_version")  # changes with every commit of somebody else
        if data_version != self._data_version or loaded:
            self._read(self._db, loaded)
            self._data_version = data_version
        self._let_go()
        self._load_ahead()
        if self._problem is not None:
            logger.info("snapshots of %d tenants are read", len(self._tenants))
        self._problem = None

    def _read(self, db: Database, loaded: Mapping[str, LoadedContexts]) -> None:
        versions = list_versions(db)
        self._unlearned = frozenset(one.tenant_id for one in versions if not one.learning)
        self._keys = live_keys(db, self._config.limits)
        self._uses = newest_uses(db, self._process)
        self._serve({one.tenant_id: self._fresh(db, one, loaded.get(one.tenant_id)) for one in versions})

    def _serve(self, tenants: dict[str, ServedTenant]) -> None:
        if tenants == self._tenants:
            return
        self._tenants = tenants
        self._graphs.retain(
            [tenant_id for tenant_id, tenant in tenants.items() if tenant.search is not None],
            {tenant_id: tenant.snapshot.secret for tenant_id, tenant in tenants.items() if tenant.search is None},
        )

    def _fresh(self, db: Database, version: TenantVersion, loaded: LoadedContexts | None) -> ServedTenant:
        """Return what is served of the tenant now, with its contexts if they are or were *loaded*."""
        known = self._tenants.get(version.tenant_id)
        previous, search = (known.snapshot, known.search) if known else (None, None)
        if loaded is not None and search is None:
            previous, search = loaded.snapshot, loaded.search
        elif known and _version_of(known.snapshot) == version:
            return known
        model = self._embedding_model if search is not None else None
        snapshot = load_snapshot(
            db, version.tenant_id, embedding_model=model, remote_model=self._remote_model, previous=previous
        )
        if snapshot.classifier_problem and not (known and known.snapshot.classifier_problem):
            logger.error(
                "tenant %s: the built-in question types serve, for the trained classifier of %s",
                version.tenant_id,
                snapshot.classifier_problem,
            )
        remote, refit = None, None
        if snapshot.contexts is not None:
            found_with = self._graphs.search(snapshot.tenant_id, snapshot.secret, snapshot.contexts)
            search = found_with.packed_like(search)
            remote = self._remote_search(snapshot, known.remote if known else None)
            refit = _refit_search(snapshot, known.refit if known else None)
        use = known.use if known and known.search is not None else ContextUse(self._monotonic_s())
        threshold = snapshot.thresholds.get(self._embedding_model, self._config.contexts.similarity_threshold)
        index = PlanIndex(snapshot.plan, self._config.patterns)
        return ServedTenant(snapshot, index, search, use, threshold, remote, refit)

    def _remote_search(self, snapshot: TenantSnapshot, known: RemoteSearch | None) -> RemoteSearch | None:
        """Return the search over the remote vectors once most entries have them; *known* is the one before."""
        threshold = snapshot.thresholds.get(self._remote_model or "", self._config.embedding.similarity_threshold)
        return _search_beside(snapshot, snapshot.remote_contexts, threshold, known)

    def _let_go(self) -> None:
        """Drop the contexts that nobody used for long. The one tenant of open mode is sure to be asked for again."""
        unload_after_s = self._config.contexts.unload_after_s
        if not unload_after_s or self._config.tenancy.mode == "open":
            return
        now_s = self._monotonic_s()
        idle = {
            tenant_id: _without_contexts(tenant)
            for tenant_id, tenant in self._tenants.items()
            if tenant.search is not None and tenant.use.idle_s(now_s) >= unload_after_s
        }
        if idle:
            self._serve({**self._tenants, **idle})
            give_back()

    def _load_ahead(self) -> None:
        """Have the contexts of open mode's one tenant loaded before its first request comes."""
        if self._config.tenancy.mode == "open" and self.lacks_contexts(DEFAULT_TENANT):
            self.loader.ask(DEFAULT_TENANT)

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _version_of(snapshot: TenantSnapshot) -> TenantVersion:
    return TenantVersion(snapshot.tenant_id, snapshot.learning, snapshot.generation, snapshot.nlu_version)


def _refit_search(snapshot: TenantSnapshot, known: RefitSearch | None) -> RefitSearch | None:
    """Return the search over the tenant's own vectors once most entries have them; *known* is the one before."""
    table = snapshot.refit
    threshold = None if table is None else snapshot.thresholds.get(table.name)
    if table is None or threshold is None:
        return None
    found_with = _search_beside(snapshot, snapshot.refit_contexts, threshold, known.found_with if known else None)
    return None if found_with is None else RefitSearch(found_with, table)


def _search_beside(
    snapshot: TenantSnapshot, contexts: ServedContexts | None, threshold: float, known: RemoteSearch | None
) -> RemoteSearch | None:
    """Return the search over *contexts*, which have vectors of another model beside the local ones.

    All entries are compared, however many: 100,000 take about 2 ms, packed.
    """
    local = snapshot.contexts
    if contexts is None or local is None or not len(contexts) or len(contexts) < MOST * len(local):
        return None
    search = ContextSearch(contexts).packed_like(known.search if known else None)
    unmade = frozenset(local.ids).difference(contexts.ids) if len(contexts) < len(local) else frozenset[str]()
    return RemoteSearch(search, unmade, threshold)


def _without_contexts(tenant: ServedTenant) -> ServedTenant:
    """Return *tenant* without what is loaded for the tenants in use alone."""
    snapshot = replace(
        tenant.snapshot,
        contexts=None,
        remote_contexts=None,
        refit=None,
        refit_contexts=None,
        classifier=None,
        classifier_refit=None,
        classifier_problem=None,
    )
    return replace(tenant, snapshot=snapshot, search=None, remote=None, refit=None)


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
        """Close the connection, on the event loop's thread: in the middle of a look-up SQLite would crash."""
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
