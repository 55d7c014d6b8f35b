"""Tables ``tenants`` and ``api_keys``. Written by the command and, for the default tenant, by whoever starts first."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from store.clock import iso
from store.config import LimitsSection
from store.database import Database, Row
from store.errors import NotFoundError
from store.ids import new_id
from store.vocabulary import DEFAULT_TENANT, Scope

KEY_PREFIX = "tut-"
LIMITS: Final = ("requests_per_minute", "tokens_per_minute", "monthly_budget_usd", "monthly_tokens")


@dataclass(frozen=True, slots=True)
class Tenant:
    id: str
    name: str
    secret: bytes
    learning: bool
    require_trial_approval: bool


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: str
    tenant_id: str
    name: str
    scope: Scope
    prefix: str
    created_at: str
    revoked_at: str | None
    requests_per_minute: int | None = None  # None: as [limits] says; 0: no limit; so the next three
    tokens_per_minute: int | None = None
    monthly_budget_usd: float | None = None
    monthly_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class LiveKey:
    """What the proxy needs of a key."""

    id: str
    tenant_id: str
    scope: Scope
    limits: LimitsSection | None  # None: it has none


def ensure_tenant(db: Database, tenant_id: str, now_s: float, name: str = "", *, secret: bytes | None = None) -> Tenant:
    """Return the tenant, made when it was missing; a given *secret* makes its draws repeatable (demo, simulation)."""
    # Looked up first: that needs no write lock, which another process may hold when this one starts.
    if db.value("SELECT 1 FROM tenants WHERE id = :id", {"id": tenant_id}):
        return get_tenant(db, tenant_id)
    with db.transaction():
        db.execute(
            """
            INSERT INTO tenants (id, name, secret, created_at) VALUES (:id, :name, :secret, :created_at)
            ON CONFLICT (id) DO NOTHING
            """,
            {
                "id": tenant_id,
                "name": name or tenant_id,
                "secret": (secret or secrets.token_bytes(32)).hex(),
                "created_at": iso(now_s),
            },
        )
    return get_tenant(db, tenant_id)


def ensure_default_tenant(db: Database, now_s: float) -> Tenant:
    """Return the tenant of open mode."""
    return ensure_tenant(db, DEFAULT_TENANT, now_s)


def get_tenant(db: Database, tenant_id: str) -> Tenant:
    """Return the tenant.

    Raises:
        NotFoundError: there is none of this id.
    """
    row = db.row("SELECT * FROM tenants WHERE id = :id", {"id": tenant_id})
    if row is None:
        raise NotFoundError(f"no tenant {tenant_id!r}")
    return _tenant(row)


def list_tenants(db: Database) -> list[Tenant]:
    """Return all tenants by id."""
    return [_tenant(row) for row in db.rows("SELECT * FROM tenants ORDER BY id")]


def _tenant(row: Row) -> Tenant:
    return Tenant(
        id=row["id"],
        name=row["name"],
        secret=bytes.fromhex(row["secret"]),
        learning=row["learning"] == "on",
        require_trial_approval=bool(row["require_trial_approval"]),
    )


def set_learning(db: Database, tenant_id: str, *, learning: bool) -> None:
    """Switch a tenant between learning and pure relay.

    Raises:
        NotFoundError: there is none of this id.
    """
    with db.transaction():
        changed = db.execute(
            "UPDATE tenants SET learning = :learning WHERE id = :id",
            {"id": tenant_id, "learning": "on" if learning else "off"},
        )
    if not changed:
        raise NotFoundError(f"no tenant {tenant_id!r}")


def hash_key(key: str) -> str:
    """Return what is stored of a key. SHA-256 without salt or stretching: a key holds 256 random bits."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def create_key(
    db: Database,
    tenant_id: str,
    *,
    name: str,
    scope: Scope,
    now_s: float,
    limits: Mapping[str, float | None] | None = None,
) -> tuple[ApiKey, str]:
    """Return a new key's row and the key itself, which is shown this once; *limits* as for ``set_limits``.

    Raises:
        NotFoundError: there is no such tenant.
    """
    get_tenant(db, tenant_id)
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    key_id = new_id("key", now_s)
    with db.transaction():
        db.execute(
            """
            INSERT INTO api_keys (id, tenant_id, name, scope, key_hash, prefix, created_at)
            VALUES (:id, :tenant_id, :name, :scope, :key_hash, :prefix, :created_at)
            """,
            {
                "id": key_id,
                "tenant_id": tenant_id,
                "name": name,
                "scope": scope,
                "key_hash": hash_key(key),
                "prefix": key[:10],
                "created_at": iso(now_s),
            },
        )
        set_limits(db, key_id, limits or {})
    made = find_key_by_id(db, key_id)
    assert made is not None
    return made, key


def set_limits(db: Database, key_id: str, limits: Mapping[str, float | None]) -> None:
    """Change some of a key's *limits*, by their names; None: as ``[limits]`` says, 0: no limit.

    Raises:
        NotFoundError: there is no such key, or it was revoked.
        ValueError: there is no limit of this name.
    """
    for name in limits:
        if name not in LIMITS:
            raise ValueError(f"no limit {name!r}")
    changes = "".join(f", {name} = :{name}" for name in limits)
    with db.transaction():
        found = db.execute(
            f"UPDATE api_keys SET id = id{changes} WHERE id = :id AND revoked_at IS NULL", {"id": key_id, **limits}
        )
    if not found:
        raise NotFoundError(f"no valid key {key_id!r}")


_KEY_COLUMNS: Final = ", ".join(ApiKey.__slots__)


def list_keys(db: Database, tenant_id: str | None = None) -> list[ApiKey]:
    """Return the keys of one tenant, or of all (for the command line only), newest last."""
    rows = db.rows(
        f"SELECT {_KEY_COLUMNS} FROM api_keys WHERE :tenant_id IS NULL OR tenant_id = :tenant_id ORDER BY id",
        {"tenant_id": tenant_id},
    )
    return [ApiKey(*row) for row in rows]


def revoke_key(db: Database, key_id: str, now_s: float) -> None:
    """Make a key useless from now on.

    Raises:
        NotFoundError: there is no such key, or it was revoked before.
    """
    with db.transaction():
        changed = db.execute(
            "UPDATE api_keys SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL",
            {"id": key_id, "now": iso(now_s)},
        )
    if not changed:
        raise NotFoundError(f"no valid key {key_id!r}")


def find_key(db: Database, key: str) -> ApiKey | None:
    """Return the row of a key, None when it is unknown or revoked."""
    return _live_key(db, "key_hash", hash_key(key))


def find_key_by_id(db: Database, key_id: str) -> ApiKey | None:
    """Return the row of the key with this id, None when it is unknown or revoked."""
    return _live_key(db, "id", key_id)


def _live_key(db: Database, column: str, value: str) -> ApiKey | None:
    row = db.row(
        f"SELECT {_KEY_COLUMNS} FROM api_keys WHERE {column} = :value AND revoked_at IS NULL", {"value": value}
    )
    return None if row is None else ApiKey(*row)


def effective_limits(key: ApiKey, defaults: LimitsSection) -> LimitsSection:
    """Return the limits that hold for *key*: its own, and *defaults* where it has none."""
    own = {name: getattr(key, name) for name in LIMITS}
    return replace(defaults, **{name: limit for name, limit in own.items() if limit is not None})


def live_keys(db: Database, defaults: LimitsSection) -> dict[str, LiveKey]:
    """Return ``{hash: key}`` of all keys that are not revoked; *defaults* fill in the limits that a key has not."""
    rows = db.rows(
        """
        SELECT key_hash, id, tenant_id, scope,
          coalesce(requests_per_minute, :requests_per_minute) AS requests_per_minute,
          coalesce(tokens_per_minute, :tokens_per_minute) AS tokens_per_minute,
          coalesce(monthly_budget_usd, :monthly_budget_usd) AS monthly_budget_usd,
          coalesce(monthly_tokens, :monthly_tokens) AS monthly_tokens
        FROM api_keys WHERE revoked_at IS NULL
        """,
        {name: getattr(defaults, name) for name in LIMITS},
    )
    return {row["key_hash"]: _live(row) for row in rows}


def _live(row: Row) -> LiveKey:
    limits = LimitsSection(*(row[name] for name in LIMITS))
    return LiveKey(row["id"], row["tenant_id"], row["scope"], any_limit(limits))


def any_limit(limits: LimitsSection) -> LimitsSection | None:
    """Return *limits*, or None when they hold nobody back."""
    return limits if any(getattr(limits, name) for name in LIMITS) else None
