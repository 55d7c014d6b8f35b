"""What happened to each pattern so far: how often it was used, by how many people, and the score that people see."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from learner.patterns.beliefs import Tally
from learner.patterns.coded import Coded, Uses
from learner.patterns.ema import Ema, extend
from learner.patterns.observations import Booleans
from learner.patterns.saved import SavedAccount
from store.config import PatternsSection


@dataclass(slots=True)
class Account:
    """The tally of one pattern in the making."""

    n_used: int = 0
    last_used_s: float | None = None
    ema: Ema = field(default_factory=Ema)
    users: Booleans = field(default_factory=lambda: np.zeros(0, np.bool_))  # by place on the user axis

    def read(self) -> Tally:
        """Return the tally."""
        return Tally(self.n_used, self.ema.n_signals, int(self.users.sum()), self.last_used_s, self.ema.score)

    def saved(self, pattern_id: str) -> SavedAccount:
        """Return what is kept of the account, its users aside."""
        ema = self.ema
        return SavedAccount(
            pattern_id, self.n_used, self.last_used_s, ema.score, ema.remaining, ema.n_signals, len(self.users)
        )

    @classmethod
    def of(cls, saved: SavedAccount, packed_users: NDArray[np.uint8]) -> Self:
        """Return the account that was saved, with its users as bits."""
        users = np.unpackbits(packed_users, count=saved.n_places).astype(np.bool_)
        return cls(saved.n_used, saved.last_used_s, Ema(saved.score, saved.remaining, saved.n_signals), users)


def count_uses(
    accounts: dict[str, Account],
    batch: Coded,
    uses: Uses,
    pattern_ids: Sequence[str],
    settings: PatternsSection,
) -> None:
    """Add the *uses* of patterns in *batch* to *accounts*."""
    order = np.lexsort((batch.created_s[uses.row], uses.pattern))
    pattern, row = uses.pattern[order], uses.row[order]
    bounds = np.searchsorted(pattern, np.arange(len(pattern_ids) + 1))
    for code in np.flatnonzero(np.diff(bounds)).tolist():
        rows = row[bounds[code] : bounds[code + 1]]
        rated = rows[batch.is_rated[rows]]
        account = accounts.setdefault(pattern_ids[code], Account())
        latest_s = float(batch.created_s[rows].max())
        account.n_used += len(rows)
        account.last_used_s = max(latest_s, account.last_used_s) if account.last_used_s is not None else latest_s
        account.ema = extend(
            account.ema,
            batch.satisfaction[rated],
            start=settings.ema_alpha_start,
            end=settings.ema_alpha_end,
            over=settings.ema_alpha_signals,
        )
        users = np.zeros(max(len(account.users), int(batch.user.max()) + 1), np.bool_)
        users[: len(account.users)] = account.users
        users[batch.user[rated]] = True
        account.users = users


def copied(accounts: dict[str, Account]) -> dict[str, Account]:
    """Return the same accounts, to be added to apart: their arrays are replaced, never changed."""
    return {pattern_id: replace(account) for pattern_id, account in accounts.items()}
