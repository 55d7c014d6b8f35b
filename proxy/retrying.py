"""Whether a failed try may be made again, and after how long. Pure: headers and a moment in, seconds out."""

import math
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from random import Random
from typing import Final

from proxy.errors import Header

# As OpenAI's and Anthropic's own clients do: a request that timed out (408), that met a lock (409) or a rate limit
# (429), and every failure of the server, Anthropic's 529 (overloaded) and the 52x of the networks before it included.
# Source: openai-python 2.54, openai/_base_client.py, _should_retry.
_RETRIABLE: Final = frozenset((408, 409, 429))
_MAX_DOUBLINGS: Final = 64  # beyond, the wait is retry_max_s whatever the base; keeps 2 ** n a number


def is_retriable(status: int, headers: Sequence[Header] = ()) -> bool:
    """Return whether the same upstream may answer otherwise soon; its own word (``x-should-retry``) goes first.

    >>> [status for status in (200, 400, 401, 404, 408, 409, 422, 429, 500, 502, 503, 504, 529) if is_retriable(status)]
    [408, 409, 429, 500, 502, 503, 504, 529]
    >>> is_retriable(503, [(b"x-should-retry", b"false")]), is_retriable(400, [(b"X-Should-Retry", b"true")])
    (False, True)
    """
    said = _find(headers, b"x-should-retry")
    if said in (b"true", b"false") and status >= 400:
        return said == b"true"
    return status in _RETRIABLE or status >= 500


def retry_after_s(headers: Sequence[Header], now_s: float) -> float | None:
    """Return the seconds that an upstream asks to wait; None when it does not say, or not so that it can be read.

    ``retry-after-ms`` goes before ``retry-after``, which is seconds or a date. Source: RFC 9110, section 10.2.3.

    >>> retry_after_s([(b"Retry-After", b"7")], 0.0), retry_after_s([(b"retry-after-ms", b"250")], 0.0)
    (7.0, 0.25)
    >>> retry_after_s([(b"retry-after", b"Thu, 01 Jan 1970 00:01:00 GMT")], 50.0)
    10.0
    """
    milliseconds = _seconds(_find(headers, b"retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    said = _find(headers, b"retry-after")
    seconds = _seconds(said)
    if seconds is not None or said is None:
        return seconds
    try:
        moment_s = parsedate_to_datetime(said.decode("latin-1")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return max(moment_s - now_s, 0.0)


def backoff_s(n_failed: int, base_s: float, max_s: float, rng: Random) -> float:
    """Return how long to wait after the *n_failed*-th try in a row failed: exponential, with full jitter.

    Many clients that failed together must not come back together. Source: Brooker 2015, "Exponential Backoff And
    Jitter", AWS Architecture Blog.

    >>> 0 <= backoff_s(3, 0.5, 8, Random(1)) <= 2.0
    True
    """
    return rng.uniform(0, min(max_s, base_s * 2.0 ** min(n_failed - 1, _MAX_DOUBLINGS)))


def _find(headers: Sequence[Header], name: bytes) -> bytes | None:
    """Return the first value of *name*; an upstream writes names in any case."""
    return next((value.strip() for key, value in headers if key.lower() == name), None)


def _seconds(value: bytes | None) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
