"""Tenants and keys: a key is shown once, belongs to one tenant, and can be revoked."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database as Tool

from store.config import Config, LimitsSection
from store.database import Database, migrate
from store.errors import NotFoundError
from store.migrations import MIGRATIONS
from store.tenants import (
    LiveKey,
    create_key,
    ensure_default_tenant,
    ensure_tenant,
    find_key,
    get_tenant,
    hash_key,
    list_keys,
    list_tenants,
    live_keys,
    revoke_key,
    set_learning,
    set_limits,
)
from tests.conftest import NOW_S

UNLIMITED = LimitsSection(0, 0, 0.0, 0)


def test_a_tenant_is_made_once_and_keeps_its_secret(db: Database) -> None:
    first = ensure_tenant(db, "acme", NOW_S, name="Acme Ltd")
    again = ensure_tenant(db, "acme", NOW_S + 1, name="Other")

    assert again == first
    assert (first.name, len(first.secret), first.learning, first.require_trial_approval) == (
        "Acme Ltd",
        32,
        True,
        False,
    )


def test_every_tenant_has_a_secret_of_its_own(db: Database) -> None:
    ensure_tenant(db, "acme", NOW_S)

    assert len({tenant.secret for tenant in list_tenants(db)}) == 2


def test_the_default_tenant_serves_open_mode(db: Database) -> None:
    assert ensure_default_tenant(db, NOW_S).id == "default"
    assert [tenant.id for tenant in list_tenants(db)] == ["default"]


def test_learning_can_be_switched_off_and_on(db: Database) -> None:
    set_learning(db, "default", learning=False)
    is_off = get_tenant(db, "default").learning
    set_learning(db, "default", learning=True)

    assert (is_off, get_tenant(db, "default").learning) == (False, True)


def test_a_tenant_that_does_not_exist_is_never_made_by_the_way(db: Database) -> None:
    with pytest.raises(NotFoundError, match="no tenant 'nobody'"):
        get_tenant(db, "nobody")
    with pytest.raises(NotFoundError, match="no tenant 'nobody'"):
        set_learning(db, "nobody", learning=False)
    with pytest.raises(NotFoundError, match="no tenant 'nobody'"):
        create_key(db, "nobody", name="app", scope="app", now_s=NOW_S)
    assert [tenant.id for tenant in list_tenants(db)] == ["default"]


def test_a_key_is_stored_as_its_hash_alone(db: Database) -> None:
    row, key = create_key(db, "default", name="app", scope="app", now_s=NOW_S)

    assert key.startswith("tut-")
    assert row.prefix == key[:10]
    assert live_keys(db, UNLIMITED) == {hash_key(key): LiveKey(row.id, "default", "app", None)}
    assert key not in "\n".join(db.connection.iterdump())


def test_a_key_belongs_to_one_tenant(db: Database) -> None:
    ensure_tenant(db, "acme", NOW_S)
    ours, _ = create_key(db, "default", name="ours", scope="admin", now_s=NOW_S)
    theirs, _ = create_key(db, "acme", name="theirs", scope="feedback", now_s=NOW_S + 1)

    assert list_keys(db, "default") == [ours]
    assert list_keys(db, "acme") == [theirs]
    assert list_keys(db) == [ours, theirs]


def test_a_revoked_key_is_listed_but_not_live(db: Database) -> None:
    row, _ = create_key(db, "default", name="app", scope="app", now_s=NOW_S)

    revoke_key(db, row.id, NOW_S + 60)

    assert live_keys(db, UNLIMITED) == {}
    assert [key.revoked_at for key in list_keys(db, "default")] == ["2026-11-21T12:01:00.000Z"]


def test_a_key_is_revoked_once(db: Database) -> None:
    row, _ = create_key(db, "default", name="app", scope="app", now_s=NOW_S)
    revoke_key(db, row.id, NOW_S)

    with pytest.raises(NotFoundError, match=f"no valid key '{row.id}'"):
        revoke_key(db, row.id, NOW_S + 1)
    with pytest.raises(NotFoundError, match="no valid key 'key_none'"):
        revoke_key(db, "key_none", NOW_S)


def test_a_key_with_bytes_that_are_no_text_has_a_hash() -> None:
    assert hash_key(b"\xff".decode("utf-8", "surrogateescape")) != hash_key("\xff")


def test_a_key_has_the_limits_it_was_made_with_and_the_configured_ones_for_the_rest(db: Database) -> None:
    defaults = LimitsSection(
        requests_per_minute=60, tokens_per_minute=0, monthly_budget_usd=5.0, monthly_tokens=1_000_000
    )
    limits = {"tokens_per_minute": 900, "monthly_budget_usd": 0.25, "monthly_tokens": 0}
    row, key = create_key(db, "default", name="app", scope="app", now_s=NOW_S, limits=limits)

    assert (row.requests_per_minute, row.tokens_per_minute) == (None, 900)
    assert (row.monthly_budget_usd, row.monthly_tokens) == (0.25, 0)
    assert live_keys(db, defaults)[hash_key(key)].limits == LimitsSection(60, 900, 0.25, 0)


def test_limits_are_changed_one_by_one_and_given_back_to_the_defaults(db: Database) -> None:
    row, key = create_key(db, "default", name="app", scope="app", now_s=NOW_S, limits={"requests_per_minute": 5})

    set_limits(db, row.id, {"monthly_tokens": 7})
    assert live_keys(db, UNLIMITED)[hash_key(key)].limits == LimitsSection(5, 0, 0.0, 7)
    set_limits(db, row.id, {"requests_per_minute": None, "monthly_tokens": 0})
    assert live_keys(db, UNLIMITED)[hash_key(key)].limits is None


def test_limits_of_a_key_that_is_not_valid_or_of_an_unknown_name_are_refused(db: Database, config: Config) -> None:
    row, _ = create_key(db, "default", name="app", scope="app", now_s=NOW_S)
    with pytest.raises(ValueError, match="no limit 'id'"):
        set_limits(db, row.id, {"id": 1})
    revoke_key(db, row.id, NOW_S)
    with pytest.raises(NotFoundError, match=f"no valid key '{row.id}'"):
        set_limits(db, row.id, {"monthly_tokens": 1})
    assert live_keys(db, config.limits) == {}


def test_keys_keep_all_they_had_when_scopes_are_added(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        MIGRATIONS.apply(Tool(connection), stop_before="m021_roles")
        db = Database(connection, tmp_path / "old.db")
        ensure_tenant(db, "acme", NOW_S)
        made = [
            create_key(db, "acme", name=scope, scope=scope, now_s=NOW_S, limits={"monthly_budget_usd": 2.5})
            for scope in ("app", "admin", "feedback")
        ]
        revoke_key(db, made[0][0].id, NOW_S)
        before = [tuple(row) for row in db.rows("SELECT * FROM api_keys ORDER BY id")]

        migrate(db)

        assert [tuple(row) for row in db.rows("SELECT * FROM api_keys ORDER BY id")] == before
        assert find_key(db, made[1][1]) == made[1][0]
        assert create_key(db, "acme", name="ann", scope="reviewer", now_s=NOW_S)[0].scope == "reviewer"
