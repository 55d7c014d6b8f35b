"""Who may use the learner's port: keys with a role in keys mode; in open mode this machine's own programs and pages."""

from collections.abc import Mapping

from learner.api_errors import ApiError
from learner.api_request import Principal
from learner.rights import ROLES, Right, may, role_of
from learner.services import Services
from store.config import is_loopback
from store.database import Database
from store.tenants import KEY_PREFIX, ApiKey, ensure_default_tenant, find_key
from store.vocabulary import DEFAULT_TENANT

OPEN_ACTOR = "console"


def check_browser(headers: Mapping[str, str]) -> None:
    """Do nothing when a request in open mode comes from this machine's own programs or pages.

    Without keys the browser of whoever sits here is the only way in: a page of another site could post to
    127.0.0.1, or name it as its own host (DNS rebinding).

    Raises:
        ApiError: the request was addressed to another host, or a page of another origin sent it (403).
    """
    host = headers.get("host", "")
    if not is_loopback(_hostname(host)):
        raise ApiError(403, f"host {host!r} is not this machine: open mode answers to loopback only", code="host")
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{host}".lower():
        raise ApiError(403, f"pages of {origin!r} may not use the learner", code="origin")


def check_site(headers: Mapping[str, str]) -> None:
    """Do nothing when a form comes from a page of this site, or from no page at all.

    A session's token already keeps the forms of other sites out; this keeps them from signing somebody in, too.

    Raises:
        ApiError: the browser says that a page of another site sent it (403).
    """
    site = headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none"):
        raise ApiError(403, f"a form of another site ({site}) may not be sent here", code="origin")


def _hostname(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def principal_of_key(services: Services, db: Database, key: str | None) -> Principal:
    """Return who sent *key* (the ``X-API-KEY`` header; None when there is none).

    Raises:
        ApiError: no key where one is needed or one that is unknown or revoked (401), or one of another scope (403).
    """
    if services.config.tenancy.mode == "open" and not (key or "").startswith(KEY_PREFIX):
        ensure_default_tenant(db, services.clock.now_s())
        return Principal(DEFAULT_TENANT, OPEN_ACTOR, "admin")
    if key is None:
        raise ApiError(401, "an admin key is needed: X-API-KEY: tut-...", code="missing_api_key")
    return principal_of(find_key(db, key))


def principal_of(row: ApiKey | None) -> Principal:
    """Return whom the key *row* stands for.

    Raises:
        ApiError: it is no valid key (401) or one of a scope that does not open the learner's port (403).
    """
    if row is None:
        raise ApiError(401, "this key is unknown or revoked", code="invalid_api_key")
    role = role_of(row.scope)
    if role is None:
        message = f"this key has the scope {row.scope!r}; an {', '.join(ROLES[:-1])} or {ROLES[-1]} key is needed"
        raise ApiError(403, message, code="wrong_scope")
    return Principal(row.tenant_id, row.id, role)


def check_right(principal: Principal, right: Right) -> None:
    """Do nothing when whoever asks has *right*.

    Raises:
        ApiError: they may not (403).
    """
    if not may(principal.role, right):
        able = " or ".join(role for role in ROLES if may(role, right))
        message = f"a {principal.role} key may not do this; it takes an {able} key"
        raise ApiError(403, message, code="missing_right")
