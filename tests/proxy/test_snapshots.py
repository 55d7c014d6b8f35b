"""Snapshots follow the database within a poll, and keys outlive its loss."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from proxy.context_loader import ContextLoader
from proxy.retrieval import ContextSearch
from proxy.snapshots import Snapshots
from store.config import Config, LimitsSection
from store.database import Database, open_database
from store.generations import publish
from store.plan import EMPTY_PLAN
from store.tenants import (
    LiveKey,
    create_key,
    ensure_default_tenant,
    ensure_tenant,
    hash_key,
    revoke_key,
    set_learning,
    set_limits,
)
from store.usage import MonthUse, insert_usage
from tests.conftest import NOW_S
from tests.proxy.test_retrieval import found, random_vectors
from tests.store.test_snapshot import write_context
from tests.store.test_usage import use


@pytest.fixture
def snapshots(config: Config) -> Iterator[Snapshots]:
    made = Snapshots(config, "local")
    yield made
    made.stop()


def test_a_new_generation_is_served_within_moments(config: Config, db: Database) -> None:
    polled = Snapshots(replace(config, proxy=replace(config.proxy, snapshot_poll_s=0.01)), "local")
    polled.start()
    assert polled.generations() == {"default": 0}
    publish(db, "default", plan=EMPTY_PLAN, actor="test", reason="test", now_s=NOW_S)
    eventually(lambda: polled.generations() == {"default": 1})
    polled.stop()


def eventually(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_keys_and_tenants_made_later_are_known_and_revoked_keys_are_not(snapshots: Snapshots, db: Database) -> None:
    snapshots.refresh()
    assert snapshots.keys() == {}
    ensure_tenant(db, "acme", NOW_S)
    row, key = create_key(db, "acme", name="app", scope="app", now_s=NOW_S)
    snapshots.refresh()
    assert snapshots.keys() == {hash_key(key): LiveKey(row.id, "acme", "app", None)}
    assert snapshots.tenant("acme") is not None
    revoke_key(db, row.id, NOW_S)
    snapshots.refresh()
    assert snapshots.keys() == {}


def test_a_lost_database_takes_the_snapshots_but_not_the_keys_and_is_found_again(
    snapshots: Snapshots, config: Config, db: Database
) -> None:
    row, key = create_key(db, "default", name="app", scope="app", now_s=NOW_S)
    snapshots.refresh()
    assert snapshots.tenant("default") is not None
    db.path.unlink()
    snapshots.refresh()
    assert snapshots.tenant("default") is None
    assert snapshots.keys() == {hash_key(key): LiveKey(row.id, "default", "app", None)}
    assert snapshots.problem is not None
    assert not db.path.exists()
    assert snapshots.history.find_history("default", ["x"]) is None
    with open_database(config.store) as anew:
        ensure_default_tenant(anew, NOW_S)
    snapshots.refresh()
    assert snapshots.generations() == {"default": 0}


def test_a_lost_database_is_said_once_and_in_one_line(
    snapshots: Snapshots, db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    db.path.unlink()
    for _ in range(3):
        snapshots.refresh()
    (said,) = caplog.records
    assert str(db.path) in said.getMessage()
    assert said.exc_info is None


def test_before_the_first_reading_keys_are_unknown_not_wrong(snapshots: Snapshots, db: Database) -> None:
    db.path.unlink()
    snapshots.refresh()
    assert snapshots.keys() is None


def test_a_tenant_that_did_not_change_keeps_its_very_snapshot(snapshots: Snapshots, db: Database) -> None:
    snapshots.refresh()
    before = snapshots.tenant("default")
    ensure_tenant(db, "acme", NOW_S)
    snapshots.refresh()
    assert snapshots.tenant("default") is before


def test_a_keys_limits_and_use_follow_the_database(config: Config, db: Database) -> None:
    snapshots = Snapshots(config, "local", "use_1")
    row, key = create_key(db, "default", name="app", scope="app", now_s=NOW_S, limits={"monthly_tokens": 100})
    snapshots.refresh()
    keys = snapshots.keys()
    assert keys is not None
    assert keys[hash_key(key)].limits == LimitsSection(0, 0, 0.0, 100)
    assert snapshots.uses().by_key == {}
    set_limits(db, row.id, {"monthly_tokens": 200})
    insert_usage(db, [use(1, key_id=row.id), use(2, key_id=row.id)])
    snapshots.refresh()
    keys = snapshots.keys()
    assert keys is not None
    assert keys[hash_key(key)].limits == LimitsSection(0, 0, 0.0, 200)
    assert snapshots.uses().by_key == {row.id: MonthUse(2, 20, 4, 0.5)}
    assert snapshots.uses().n_landed == 2
    db.path.unlink()
    snapshots.refresh()
    assert snapshots.uses().n_landed == 2  # a lost file gives nobody a new budget
    snapshots.stop()


def test_with_a_graph_an_approval_is_served_and_a_retirement_is_not_after_one_look(
    config: Config, db: Database
) -> None:
    n = 30
    vectors = random_vectors(n + 1, seed=1)
    for number in range(n):
        write_context(db, f"ctx_{number:03}", embedding=vectors[number])
    served = Snapshots(replace(config, contexts=replace(config.contexts, exact_up_to=10)), "local")
    served.start()
    eventually(lambda: not served.lacks_contexts("default"))
    first = searched(served)
    assert first.slot is not None
    eventually(lambda: first.slot is not None and first.slot.cover is not None)
    write_context(db, "ctx_new", embedding=vectors[n])
    write_context(db, "ctx_003", is_served=0)
    eventually(lambda: "ctx_new" in searched(served).contexts.ids)
    assert searched(served).slot is first.slot
    assert found(searched(served), vectors[n])[0] == "ctx_new"
    assert found(first, vectors[3])[0] == "ctx_003"
    assert "ctx_003" not in found(searched(served), vectors[3])
    served.stop()


def searched(snapshots: Snapshots, tenant_id: str = "default") -> ContextSearch:
    tenant = snapshots.tenant(tenant_id)
    assert tenant is not None
    assert tenant.search is not None
    return tenant.search


def load_and_refresh(snapshots: Snapshots, *tenant_ids: str) -> None:
    """Look for what changed, once these tenants' contexts are asked for and loaded."""
    snapshots.refresh()
    for tenant_id in filter(snapshots.lacks_contexts, tenant_ids):
        snapshots.loader.ask(tenant_id)
    snapshots.loader.load_asked()
    snapshots.refresh()


class Seconds:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def keys_config(config: Config) -> Config:
    return replace(config, tenancy=replace(config.tenancy, mode="keys"))


@pytest.fixture
def many(keys_config: Config, db: Database) -> Iterator[Snapshots]:
    """Of two tenants with one entry each, in keys mode; no thread runs."""
    for tenant_id in ("acme", "globex"):
        ensure_tenant(db, tenant_id, NOW_S)
        write_context(db, f"ctx_{tenant_id}", tenant=tenant_id)
    made = Snapshots(keys_config, "local", monotonic_s=Seconds())
    made.refresh()
    yield made
    made.stop()


def test_contexts_are_loaded_for_the_tenant_that_asks_and_for_no_other(many: Snapshots) -> None:
    assert many.lacks_contexts("acme")
    load_and_refresh(many, "acme")
    assert searched(many, "acme").contexts.ids == ["ctx_acme"]
    assert not many.lacks_contexts("acme")
    assert many.lacks_contexts("globex")
    assert many.generations() == {"acme": 1, "default": 0, "globex": 1}


def test_all_who_wait_for_a_load_are_told_once_it_is_served(many: Snapshots) -> None:
    served: list[bool] = []
    for _ in range(3):
        assert many.loader.ask("acme", lambda: served.append(not many.lacks_contexts("acme")))
    many.loader.load_asked()
    assert served == []
    many.refresh()
    assert served == [True] * 3


def test_what_is_approved_while_contexts_load_is_served_with_them(many: Snapshots, db: Database) -> None:
    many.loader.ask("acme")
    many.loader.load_asked()
    write_context(db, "ctx_later", tenant="acme")
    many.refresh()
    assert searched(many, "acme").contexts.ids == ["ctx_acme", "ctx_later"]
    assert many.generations()["acme"] == 2


def test_a_generation_of_contexts_that_are_not_loaded_loads_none_and_of_loaded_ones_is_served(
    many: Snapshots, db: Database
) -> None:
    load_and_refresh(many, "acme")
    for tenant_id in ("acme", "globex"):
        write_context(db, f"ctx_{tenant_id}_2", tenant=tenant_id)
    many.refresh()
    assert searched(many, "acme").contexts.ids == ["ctx_acme", "ctx_acme_2"]
    assert many.lacks_contexts("globex")
    assert many.generations()["globex"] == 2


def test_contexts_that_nobody_used_for_long_are_let_go_and_come_back(keys_config: Config, db: Database) -> None:
    for tenant_id in ("acme", "globex"):
        ensure_tenant(db, tenant_id, NOW_S)
        write_context(db, f"ctx_{tenant_id}", tenant=tenant_id)
    clock = Seconds()
    snapshots = Snapshots(keys_config, "local", monotonic_s=clock)
    load_and_refresh(snapshots, "acme", "globex")
    clock.now_s += keys_config.contexts.unload_after_s - 1
    used = snapshots.tenant("acme")
    assert used is not None
    used.use.is_marked = True
    snapshots.refresh()
    clock.now_s += 1
    snapshots.refresh()
    assert not snapshots.lacks_contexts("acme")
    assert snapshots.lacks_contexts("globex")
    load_and_refresh(snapshots, "globex")
    assert searched(snapshots, "globex").contexts.ids == ["ctx_globex"]
    snapshots.stop()


def test_with_0_seconds_contexts_are_never_let_go(keys_config: Config, db: Database) -> None:
    write_context(db, "ctx_1")
    clock = Seconds()
    settings = replace(keys_config, contexts=replace(keys_config.contexts, unload_after_s=0))
    snapshots = Snapshots(settings, "local", monotonic_s=clock)
    load_and_refresh(snapshots, "default")
    clock.now_s += 1e9
    snapshots.refresh()
    assert not snapshots.lacks_contexts("default")
    snapshots.stop()


def test_the_tenant_of_open_mode_is_loaded_before_it_asks_and_stays(config: Config, db: Database) -> None:
    write_context(db, "ctx_1")
    clock = Seconds()
    snapshots = Snapshots(config, "local", monotonic_s=clock)
    snapshots.start()
    eventually(lambda: not snapshots.lacks_contexts("default"))
    clock.now_s += 1e9
    snapshots.refresh()
    assert searched(snapshots).contexts.ids == ["ctx_1"]
    snapshots.stop()


@pytest.mark.parametrize(("learning", "enabled"), [(False, True), (True, False)])
def test_where_no_contexts_are_injected_none_are_missed(
    config: Config, db: Database, *, learning: bool, enabled: bool
) -> None:
    set_learning(db, "default", learning=learning)
    snapshots = Snapshots(replace(config, contexts=replace(config.contexts, enabled=enabled)), "local")
    load_and_refresh(snapshots)
    assert not snapshots.lacks_contexts("default")
    served = snapshots.tenant("default")
    assert served is not None
    assert served.search is None
    snapshots.stop()


def test_a_load_that_fails_is_said_once_lets_those_who_wait_go_on_and_is_tried_again(
    keys_config: Config, db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    write_context(db, "ctx_1")
    db.execute("ALTER TABLE ai_contexts RENAME TO elsewhere")
    retried: list[str] = []
    loader = ContextLoader(keys_config.store, "local", lambda: None, retry_s=0.0)
    for _ in range(2):
        assert loader.ask("default", lambda: retried.append("told"))
        loader.load_asked()
    assert retried == ["told", "told"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    db.execute("ALTER TABLE elsewhere RENAME TO ai_contexts")
    loader.ask("default")
    loader.load_asked()
    assert loader.take().keys() == {"default"}


def test_soon_after_a_load_that_failed_nobody_waits_for_the_next(keys_config: Config, db: Database) -> None:
    db.path.unlink()
    loader = ContextLoader(keys_config.store, "local", lambda: None)
    assert loader.ask("default")
    loader.load_asked()
    assert not loader.ask("default")
    loader.load_asked()
    assert loader.take() == {}


def test_a_tenant_that_is_gone_makes_nobody_wait(many: Snapshots) -> None:
    told: list[str] = []
    many.loader.ask("nobody", lambda: told.append("told"))
    many.loader.load_asked()
    assert told == ["told"]


def test_what_was_loaded_of_a_lost_database_is_not_served(many: Snapshots, db: Database) -> None:
    told: list[str] = []
    many.loader.ask("acme", lambda: told.append("told"))
    many.loader.load_asked()
    db.path.unlink()
    many.refresh()
    assert told == ["told"]
    assert many.tenant("acme") is None
    assert many.loader.take() == {}


def test_loads_and_looks_run_in_threads_that_end(keys_config: Config, db: Database) -> None:
    write_context(db, "ctx_1")
    polled = Snapshots(replace(keys_config, proxy=replace(keys_config.proxy, snapshot_poll_s=60)), "local")
    polled.start()
    told = threading.Event()
    assert polled.loader.ask("default", told.set)
    assert told.wait(10)  # a load that is ready does not wait for the next poll
    assert searched(polled).contexts.ids == ["ctx_1"]
    polled.stop()
    assert not any(thread.name.startswith("context-loader") for thread in threading.enumerate())
