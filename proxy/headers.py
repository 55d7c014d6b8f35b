"""Which headers go on, in both directions. Values are bytes and stay as they are, non-ASCII ones too."""

from collections.abc import Sequence
from typing import Final

from proxy.errors import ApiError, Header

OWN_PREFIX: Final = b"x-tutelage-"
RESPONSE_ID: Final = b"x-tutelage-response-id"
CREDENTIALS: Final = frozenset((b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"))
"""Where clients put keys: OpenAI's, Anthropic's, Azure's, Google's."""

# RFC 9110 section 7.6.1, and what older software still sends.
_HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    )
)
# Set anew for the upstream. `expect` was answered by our own server.
_REQUEST_DROPPED: Final = _HOP_BY_HOP | {b"host", b"content-length", b"expect"}
_REQUEST_AND_KEYS_DROPPED: Final = _REQUEST_DROPPED | CREDENTIALS
_PLAIN_CONNECTION: Final = frozenset((b"", b"keep-alive", b"close"))


def find(headers: Sequence[Header], name: bytes) -> bytes | None:
    """Return the first value of *name* (lower case), or None; names in *headers* are lower case."""
    for candidate, value in headers:
        if candidate == name:
            return value
    return None


def content_length(headers: Sequence[Header]) -> int | None:
    """Return the announced length of a body in bytes, None without one (no body, or chunks).

    Raises:
        ApiError: 400, it is not a number.
    """
    value = find(headers, b"content-length")
    if value is None:
        return None
    if not value.isdigit():
        raise ApiError(400, "The content-length header is not a number.")
    return int(value)


def request_headers(headers: Sequence[Header], credentials: Sequence[Header] | None) -> list[Header]:
    """Return the client's *headers* (lower-case names) as they go upstream.

    Dropped: what belongs to this connection, ``host``, ``content-length`` and ``expect`` (set anew), and everything
    that is ours. *credentials* replace the client's own; None leaves those.
    """
    dropped = _REQUEST_DROPPED if credentials is None else _REQUEST_AND_KEYS_DROPPED
    named = _named_by_connection(headers)
    if named:
        dropped = dropped | named
    kept = [header for header in headers if header[0] not in dropped and not header[0].startswith(OWN_PREFIX)]
    if credentials:
        kept += credentials
    return kept


def response_headers(headers: Sequence[Header], status: int) -> list[Header]:
    """Return the upstream's *headers* (names in any case) as they go to the client, names in lower case."""
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = _HOP_BY_HOP
    named = _named_by_connection(lowered)
    if named:
        dropped = dropped | named
    if status == 304:
        # Its length is that of a body that does not follow; our server would wait for one.
        dropped = dropped | {b"content-length"}
    return [header for header in lowered if header[0] not in dropped and header[0] != RESPONSE_ID]


def _named_by_connection(headers: Sequence[Header]) -> frozenset[bytes]:
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name == b"connection" and value.lower() not in _PLAIN_CONNECTION:
            named |= {token.strip().lower() for token in value.split(b",")}
    return named
