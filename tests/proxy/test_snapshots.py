"""Snapshots follow the database within a poll, and keys outlive its loss."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from proxy.retrieval import ContextSearch
from proxy.snapshots import Snapshots
from store.config import Config, LimitsSection
from store.database import Database, open_database
from store.generations import publish
from store.plan import EMPTY_PLAN
from store.tenants import LiveKey, create_key, ensure_default_tenant, ensure_tenant, hash_key, revoke_key, set_limits
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


def searched(snapshots: Snapshots) -> ContextSearch:
    tenant = snapshots.tenant("default")
    assert tenant is not None
    return tenant.search
