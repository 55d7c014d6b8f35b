"""Keyed hashes that stand for people: the same person is recognised again, the number itself is not kept."""

import hashlib
import hmac
import re

_SEPARATORS = re.compile(r"[\s().\-/]+")


def hash_phone(secret: bytes, phone_number: str) -> str:
    """Return the tenant's name for a phone number: 32 hex characters of an HMAC; spelling with spaces is the same.

    A plain hash would not do: all numbers of a country are tried in seconds.

    >>> hash_phone(b"k", "+91 98765-43210") == hash_phone(b"k", "+919876543210")
    True
    >>> hash_phone(b"k", "+919876543210") == hash_phone(b"other", "+919876543210")
    False
    """
    digits = _SEPARATORS.sub("", phone_number)
    return hmac.new(secret, b"phone\x00" + digits.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]


def hash_user(secret: bytes, name: str) -> str:
    """Return what stands for a person or conversation that was forgotten: 32 hex characters of an HMAC.

    >>> hash_user(b"k", "ann") == hash_user(b"k", "ann"), hash_user(b"k", "ann") == hash_user(b"k", "bob")
    (True, False)
    """
    return hmac.new(secret, b"forgotten\x00" + name.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]
