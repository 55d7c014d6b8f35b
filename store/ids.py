"""Ids that are never reused and sort by the time they were made."""

import os
from typing import Final

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing that reads like something else
PAIRS: Final = tuple(first + second for first in ALPHABET for second in ALPHABET)


def new_id(prefix: str, now_s: float) -> str:
    """Return ``<prefix>_<9 characters of time><16 of chance>``: 80 random bits, in order of milliseconds.

    >>> new_id("resp", 0.0)[:14]
    'resp_000000000'
    """
    value = int.from_bytes(os.urandom(10), "big") | (int(now_s * 1000) << 80)
    pairs = [PAIRS[(value >> shift) & 1023] for shift in range(110, -10, -10)]
    return f"{prefix}_{ALPHABET[(value >> 120) & 31]}{''.join(pairs)}"
