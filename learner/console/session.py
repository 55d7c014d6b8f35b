"""Who looks at the console: in keys mode somebody who signed in with their key, in open mode whoever sits here.

The cookie holds the key's id and an end, signed with the tenant's secret; the key itself stays with its owner, and a
revoked key ends its sessions. Forms carry a token that another site cannot know.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

import msgspec

from learner.access import OPEN_ACTOR, principal_of
from learner.api_errors import ApiError
from learner.api_request import Principal
from learner.rights import Right, may, role_of
from learner.services import Services
from store.audit import record
from store.database import Database
from store.tenants import ensure_default_tenant, find_key, find_key_by_id, get_tenant
from store.vocabulary import DEFAULT_TENANT

COOKIE: Final = "tutelage_session"
SESSION_S: Final = 12 * 3600.0  # a working day


class SignInNeededError(Exception):
    """Nobody is signed in, or the session is over."""


@dataclass(frozen=True, slots=True)
class Session:
    """One person's access; *csrf_token* must come back with every form."""

    principal: Principal
    csrf_token: str
    is_signed_in: bool  # False in open mode: nothing to sign out of

    def may(self, right: Right) -> bool:
        """Return whether this person has *right*; forms that need it are shown to nobody else."""
        return may(self.principal.role, right)


def sign_in(db: Database, key: str, now_s: float) -> str:
    """Return the cookie for whoever holds *key*, a key with a role.

    Raises:
        ApiError: the key is unknown or revoked (401), or of a scope that does not open the console (403).
    """
    who = principal_of(find_key(db, key.strip()))
    note_session(db, who, "console.sign_in", now_s)
    payload = base64.urlsafe_b64encode(msgspec.json.encode((who.actor, now_s + SESSION_S))).decode()
    return f"{payload}.{_sign(get_tenant(db, who.tenant_id).secret, 'session', payload)}"


def note_session(db: Database, who: Principal, action: str, now_s: float) -> None:
    """Write down that somebody signed in or out."""
    detail = {"role": who.role}
    record(db, who.tenant_id, actor=who.actor, action=action, object_id=who.actor, detail=detail, now_s=now_s)


def open_session(services: Services, db: Database, cookie: str | None) -> Session:
    """Return the session of a request.

    Raises:
        SignInNeededError: keys mode, and the cookie is missing, forged, over, or its key was revoked.
    """
    if services.config.tenancy.mode == "open":
        secret = ensure_default_tenant(db, services.clock.now_s()).secret
        return Session(
            Principal(DEFAULT_TENANT, OPEN_ACTOR, "admin"), _sign(secret, "csrf", "open"), is_signed_in=False
        )
    payload, _, signature = (cookie or "").partition(".")
    try:
        key_id, end_s = msgspec.json.decode(base64.urlsafe_b64decode(payload), type=tuple[str, float])
    except (ValueError, binascii.Error) as exc:
        raise SignInNeededError from exc
    row = find_key_by_id(db, key_id)
    if row is None or role_of(row.scope) is None or end_s < services.clock.now_s():
        raise SignInNeededError
    secret = get_tenant(db, row.tenant_id).secret
    if not hmac.compare_digest(signature.encode(), _sign(secret, "session", payload).encode()):
        raise SignInNeededError
    return Session(principal_of(row), _sign(secret, "csrf", payload), is_signed_in=True)


def check_csrf(session: Session, token: str | None) -> None:
    """Do nothing when a form carries the session's token.

    Raises:
        ApiError: it does not (403).
    """
    if not hmac.compare_digest(session.csrf_token.encode(), (token or "").encode()):
        raise ApiError(403, "this form is out of date: go back, reload the page and try again", code="csrf")


def _sign(secret: bytes, purpose: str, text: str) -> str:
    return hmac.new(secret, f"console\x00{purpose}\x00{text}".encode(), hashlib.sha256).hexdigest()
