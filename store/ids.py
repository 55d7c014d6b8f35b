"""Ids that are never reused and sort by the time they were made."""

import os
from collections.abc import Callable
from typing import Final

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing that reads like something else
PAIRS: Final = tuple(first + second for first in ALPHABET for second in ALPHABET)
_CHANCE: Final = bytes(ord(ALPHABET[byte % 32]) for byte in range(256))  # 5 of a random byte's 8 bits


def new_id(prefix: str, now_s: float, chance: Callable[[int], bytes] = os.urandom) -> str:
    """Return ``<prefix>_<9 characters of time><16 of chance>``: 80 random bits, in order of milliseconds.

    *chance* returns so many random bytes; a seeded one makes the ids repeatable.

    >>> new_id("resp", 0.0)[:14]
    'resp_000000000'
    """
    ms = int(now_s * 1000)
    time = (
        f"{ALPHABET[ms >> 40 & 31]}{PAIRS[ms >> 30 & 1023]}{PAIRS[ms >> 20 & 1023]}{PAIRS[ms >> 10 & 1023]}"
        f"{PAIRS[ms & 1023]}"
    )
    return f"{prefix}_{time}{chance(16).translate(_CHANCE).decode()}"
