"""Who asks: a client's key becomes a tenant; and which key goes upstream instead.

Open mode: the client's own key goes upstream and the tenant is ``default``. Keys mode: the client shows a Tutelage
key, which never goes further; the upstream's own key never comes back.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, Protocol

import msgspec

from proxy.errors import Header, forbidden, invalid_api_key, unavailable
from proxy.headers import CREDENTIALS, find
from store.config import LimitsSection
from store.tenants import KEY_PREFIX, LiveKey, hash_key
from store.vocabulary import DEFAULT_TENANT, Scope

Keys = Mapping[str, LiveKey]  # by their hash
Purpose = Literal["request", "feedback"]

_ALLOWED: Final[Mapping[Purpose, tuple[Scope, ...]]] = {
    "request": ("app", "admin"),
    "feedback": ("app", "feedback", "admin"),
}
_OWN_KEY: Final = KEY_PREFIX.encode()
OPEN_KEY_ID: Final = "open"  # all clients of open mode together, as ``key_usage`` names them


class Caller(msgspec.Struct, frozen=True):
    """Whoever asks, as far as the key tells."""

    tenant_id: str
    key_id: str = OPEN_KEY_ID
    limits: LimitsSection | None = None  # None: nothing holds it back
    scope: Scope = "app"


class Authenticator(Protocol):
    """Turns headers into a caller, and into the credentials that go upstream."""

    def authenticate(self, headers: Sequence[Header], purpose: Purpose) -> Caller:
        """Return who asks.

        Raises:
            ApiError: 401 without a valid key, 403 when its scope is another, 503 while the keys are not known yet.
        """
        ...

    def upstream_credentials(self, headers: Sequence[Header], key: bytes) -> Sequence[Header] | None:
        """Return the headers that replace the client's credentials; None leaves them. *key* is the upstream's own."""
        ...


class OpenAuthenticator:
    """Open mode: everybody is the default tenant, and one caller as far as *limits* go."""

    def __init__(self, limits: LimitsSection | None = None) -> None:
        self._caller = Caller(DEFAULT_TENANT, limits=limits)

    def authenticate(self, headers: Sequence[Header], purpose: Purpose) -> Caller:
        return self._caller

    def upstream_credentials(self, headers: Sequence[Header], key: bytes) -> Sequence[Header] | None:
        # A Tutelage key is nobody else's business, even where none is asked for.
        for name, value in headers:
            if name in CREDENTIALS and _OWN_KEY in value:
                return ()
        return None


class KeyAuthenticator:
    """Keys mode: *keys* gives the valid keys of all tenants, None until the database was reached once."""

    def __init__(self, keys: Callable[[], Keys | None]) -> None:
        self._keys = keys

    def authenticate(self, headers: Sequence[Header], purpose: Purpose) -> Caller:
        key = presented_key(headers)
        if key is None:
            raise invalid_api_key(
                "You didn't provide an API key. Send it in an Authorization header: Authorization: Bearer YOUR_KEY."
            )
        keys = self._keys()
        if keys is None:
            raise unavailable("Keys cannot be checked yet; the database was not reached.", "keys_unavailable")
        known = keys.get(hash_key(key.decode("utf-8", "surrogateescape")))
        if known is None:
            raise invalid_api_key("Incorrect API key provided.")
        if known.scope not in _ALLOWED[purpose]:
            raise forbidden(f"This key's scope is {known.scope!r}; it cannot be used for this.")
        return Caller(known.tenant_id, known.id, known.limits, known.scope)

    def upstream_credentials(self, headers: Sequence[Header], key: bytes) -> Sequence[Header] | None:
        return own_credentials(headers, key)


def own_credentials(headers: Sequence[Header], key: bytes) -> Sequence[Header]:
    """Return the upstream's own *key* (b"": it has none) as the headers that replace the client's."""
    if not key:
        return ()
    # The upstream hears it the way the client said it: Anthropic's clients send x-api-key.
    if find(headers, b"authorization") is None and find(headers, b"x-api-key") is not None:
        return ((b"x-api-key", key),)
    return ((b"authorization", b"Bearer " + key),)


def presented_key(headers: Sequence[Header]) -> bytes | None:
    """Return the key in ``Authorization: Bearer`` or ``x-api-key``, or None.

    >>> presented_key([(b"authorization", b"bearer  tut-1")]), presented_key([(b"x-api-key", b"tut-2")])
    (b'tut-1', b'tut-2')
    >>> presented_key([(b"authorization", b"Basic dTpw")])
    """
    authorization = find(headers, b"authorization")
    if authorization is not None:
        scheme, _, key = authorization.partition(b" ")
        key = key.strip()
        if scheme.lower() == b"bearer" and key:
            return key
    return find(headers, b"x-api-key") or None
