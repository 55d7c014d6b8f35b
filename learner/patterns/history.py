"""What people thought of the replies over time: sums that are kept between runs, to see a fall and what is to blame."""

import hashlib
import zlib
from collections.abc import Sequence
from typing import Final, Self

import numpy as np

from learner.patterns.observations import Booleans, Floats, Integers

BIN_S: Final = 21_600.0  # seconds of a bin, 6 h: a fall is placed in time so finely
BINS_PER_DAY: Final = 4
FINE_DAYS: Final = 42  # days in bins of 6 h; before them a day's bins are one
KEEP_DAYS: Final = 120
CONTROL, TREATED, HOLDOUT = 0, 1, 2
N_ARMS: Final = 3
N_BUCKETS: Final = 64  # of accounts: their spread is what chance does, whatever the accounts do among themselves
RATED, GOOD, BAD, PLEASED, DISPLEASED = range(5)
N_SUMS: Final = 5
MAGIC: Final = b"history3"


class History:
    """Sums by bin of time, arm and bucket of accounts. All users of one bucket count as one account.

    Everything adds up: what is added in parts, in any order, or taken back (negative values) gives the same sums.
    """

    def __init__(self, keys: Integers | None = None, sums: Floats | None = None) -> None:
        self._keys = np.zeros(0, np.int64) if keys is None else keys  # (m,) ascending
        self._sums = np.zeros((0, N_SUMS)) if sums is None else sums  # (m, N_SUMS)

    def add(
        self,
        *,
        created_s: Floats,
        users: Sequence[str],
        conversations: Sequence[str],
        is_holdout: Booleans,
        is_treated: Booleans,
        n_rated: Floats,
        good: Floats,
        bad: Floats,
        n_pleased: Floats,
        n_displeased: Floats,
    ) -> None:
        """Take in n responses, or what changed about them.

        Args:
            created_s: (n,) when each response was given, seconds since 1970; also for signals that came later.
            users: (n,) who asked; a response of nobody ('') counts to its conversation.
            conversations: (n,) ids.
            is_holdout: (n,) conversations that never get patterns.
            is_treated: (n,) at least one pattern was in the request.
            n_rated: (n,) 1 with signals; as a change: -1, 0 or 1.
            good: (n,) sum of the positive weights.
            bad: (n,) sum of the negative weights, as a positive number.
            n_pleased: (n,) 1 where ``good`` is more than ``bad``; as a change: -1, 0 or 1.
            n_displeased: (n,) 1 where it is less; the same.
        """
        bins = np.floor(created_s / BIN_S).astype(np.int64)
        arms = np.where(is_holdout, HOLDOUT, np.where(is_treated, TREATED, CONTROL))
        buckets = _buckets([user or f"\x00{chat}" for user, chat in zip(users, conversations, strict=True)])
        keys = (bins * N_ARMS + arms) * N_BUCKETS + buckets
        self._merge(keys, np.stack([n_rated, good, bad, n_pleased, n_displeased], axis=1).astype(np.float64))

    def trim(self, now_s: float) -> None:
        """Forget what is older than 120 days and join the bins of older days: the sums stay bounded."""
        bins = self._keys // (N_ARMS * N_BUCKETS)
        is_kept = bins >= np.floor(now_s / BIN_S) - KEEP_DAYS * BINS_PER_DAY
        fine_since = np.floor(now_s / BIN_S) - FINE_DAYS * BINS_PER_DAY
        joined = np.where(bins < fine_since, bins // BINS_PER_DAY * BINS_PER_DAY, bins)
        keys = joined * N_ARMS * N_BUCKETS + self._keys % (N_ARMS * N_BUCKETS)
        sums = self._sums
        self._keys, self._sums = np.zeros(0, np.int64), np.zeros((0, N_SUMS))
        self._merge(keys[is_kept], sums[is_kept])

    def grid(self, now_s: float, n_bins: int) -> Floats:
        """Return the sums of the *n_bins* newest bins up to *now_s*: (n_bins, N_ARMS, N_BUCKETS, N_SUMS), oldest first.

        Bins older than ``FINE_DAYS`` stand in the first bin of their day.
        """
        first = int(np.floor(now_s / BIN_S)) - n_bins + 1
        size = N_ARMS * N_BUCKETS
        low, high = np.searchsorted(self._keys, [first * size, (first + n_bins) * size])
        flat = np.zeros((n_bins * size, N_SUMS))
        flat[self._keys[low:high] - first * size] = self._sums[low:high]
        return flat.reshape(n_bins, N_ARMS, N_BUCKETS, N_SUMS)

    def without(self, other: Self) -> Self:
        """Return the sums that are left when those of *other*, a part of this, are taken off."""
        left = self.copy()
        left._merge(other._keys, -other._sums)  # noqa: SLF001  # of the same class
        return left

    def span_s(self) -> tuple[float, float] | None:
        """Return when the oldest and the newest bin with signals begin, seconds since 1970; None without any."""
        bins = self._keys[self._sums[:, RATED] > 0] // (N_ARMS * N_BUCKETS)
        return (float(bins[0]) * BIN_S, float(bins[-1]) * BIN_S) if len(bins) else None

    def copy(self) -> Self:
        """Return a history that can be added to without changing this one."""
        return type(self)(self._keys.copy(), self._sums.copy())

    def encode(self) -> bytes:
        """Return the history as bytes for a table: at most about 1.6 MB."""
        return MAGIC + zlib.compress(self._keys.astype("<i8").tobytes() + self._sums.astype("<f8").tobytes(), 1)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the history in *data*.

        Raises:
            ValueError: *data* is not an encoded history.
        """
        if data[: len(MAGIC)] != MAGIC:
            raise ValueError(f"not an encoded history: it begins with {data[: len(MAGIC)]!r}")
        try:
            raw = zlib.decompress(data[len(MAGIC) :])
        except zlib.error as exc:
            raise ValueError(f"not an encoded history: {exc}") from exc
        if len(raw) % (8 * (1 + N_SUMS)):
            raise ValueError(f"not an encoded history: {len(raw)} bytes are no whole number of rows")
        m = len(raw) // (8 * (1 + N_SUMS))
        keys = np.frombuffer(raw, "<i8", count=m).astype(np.int64)
        return cls(keys, np.frombuffer(raw, "<f8", offset=8 * m).astype(np.float64).reshape(m, N_SUMS))

    def _merge(self, keys: Integers, sums: Floats) -> None:
        merged, at = np.unique(np.concatenate([self._keys, keys]), return_inverse=True)
        both = np.concatenate([self._sums, sums])
        columns = [np.bincount(at, both[:, column], len(merged)) for column in range(N_SUMS)]
        self._keys = merged
        self._sums = np.stack(columns, axis=1) if len(merged) else np.zeros((0, N_SUMS))


def _buckets(accounts: Sequence[str]) -> Integers:
    known = {account: _bucket(account) for account in set(accounts)}
    return np.array([known[account] for account in accounts], np.int64)


def _bucket(account: str) -> int:
    return hashlib.blake2b(account.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] % N_BUCKETS
