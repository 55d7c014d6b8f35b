"""The randomised evidence of every key, kept as sums: contrasts, their variance by user, recent harm, side effects.

For a row on which the coin of the column's dimension fell on the column or on none,
``psi = (treated - p_v / (p_v + p_0)) * weight * residual``: its expectation is 0 when the instruction does nothing.
The residual is what the other dimensions' predicted effects leave. Source: PATTERNS, sections 4.6 and 4.7.
"""

from typing import ClassVar, Final

import numpy as np

from learner.patterns.axes import MAX_TYPES, N_BUCKETS, N_SCOPES, n_users
from learner.patterns.changes import WATCHED_DAYS, Days
from learner.patterns.coded import Coded
from learner.patterns.evidence import Contrast, Squares
from learner.patterns.normal import Floats
from learner.patterns.observations import FAMILIES, Booleans, Integers
from learner.patterns.residuals import RATING, Residuals
from learner.patterns.sums import Shape, Sums
from store.clock import DAY_S

SCORE: Final = 0  # place of the decision score among the outcomes that are contrasted; the guardrails follow
GUARDRAILS: Final = {
    "rating": RATING,
    "follow_up": FAMILIES.index("follow_up"),
    "regenerate": FAMILIES.index("regenerate"),
}
N_CONTRASTED: Final = 1 + len(GUARDRAILS)
HARM_HALF_LIFE_DAYS: Final = 3.0  # Source: PATTERNS, section 4.7
CROWDED: Final = 2.0  # times the variance from which accounts on it are dependent; less is chance among few accounts
MOMENTS: Final = ("since_s", "as_of_s", "newest_day")  # that are no sums


class Ledger(Sums):
    """Sums by key (scope, column); users in buckets, so that a user's rows are one block of the variance."""

    AXES: ClassVar[dict[str, Shape]] = {
        "psi": (N_CONTRASTED, N_SCOPES, N_BUCKETS, "f"),
        "information": (N_SCOPES, N_BUCKETS, "f"),
        "psi_squares": (N_CONTRASTED, N_SCOPES, "f"),
        "cross_squares": (N_SCOPES, "f"),
        "information_squares": (N_SCOPES, "f"),
        "rated": (N_SCOPES, N_BUCKETS, "f"),
        "n_treated": (N_SCOPES, "f"),
        "recent_psi": (N_SCOPES, N_BUCKETS, "f"),
        "recent_squares": (N_SCOPES, "f"),
        "day_psi": (N_SCOPES, WATCHED_DAYS, "f"),
        "day_information": (N_SCOPES, WATCHED_DAYS, "f"),
        "day_squares": (N_SCOPES, WATCHED_DAYS, "f"),
        "newest_day": (1,),
        "since_s": (N_SCOPES, "f"),
        "as_of_s": (1,),
    }
    psi: Floats
    information: Floats
    psi_squares: Floats
    cross_squares: Floats
    information_squares: Floats
    rated: Floats
    n_treated: Floats
    recent_psi: Floats
    recent_squares: Floats
    day_psi: Floats  # of the last days; a day's place is what is left of it divided by ``WATCHED_DAYS``
    day_information: Floats
    day_squares: Floats
    newest_day: Floats  # since 1970
    since_s: Floats  # rows before count for nothing
    as_of_s: Floats  # the moment at which a row counts fully as recent

    def take(self, chunk: Coded, found: Residuals, fit: Floats, *, is_late: bool = False) -> None:
        """Add *chunk*; *fit* (q, s, f) are the predicted effects. Late signals add to scores, not to information."""
        if not is_late:
            self._age(float(chunk.created_s.max()))
        draws = chunk.draws
        live = np.flatnonzero(draws.contrast)
        if not len(live):
            return
        row, column, coin = draws.row[live], draws.column[live], draws.contrast[live]
        left = found.score[row] if is_late else _unexplained(chunk, found.score, fit)[live]
        weighted = coin * found.weight[row]
        contrasted = [found.outcomes[row, outcome] for outcome in GUARDRAILS.values()]
        psi = [weighted * left, *(weighted * outcome for outcome in contrasted)]
        information = coin * weighted
        treated = (draws.treated[live] & chunk.is_rated[row]).astype(np.float64)
        age_days = np.maximum(self.as_of_s[0] - chunk.created_s, 0.0) / DAY_S
        recent = psi[SCORE] * (0.5 ** (age_days / HARM_HALF_LIFE_DAYS))[row]
        day = (chunk.created_s[row] // DAY_S).astype(np.int64)
        is_watched = day > self.newest_day[0] - WATCHED_DAYS
        scopes = (np.zeros_like(row), 1 + chunk.question_type[row], 1 + MAX_TYPES + chunk.group[row])
        has_reset = bool(self.since_s.any())
        for scope in scopes:
            is_kept = chunk.created_s[row] >= self.since_s[scope, column]
            kept: Integers | slice = np.flatnonzero(is_kept) if has_reset else slice(None)
            watched = np.flatnonzero(is_kept & is_watched)
            key = (scope * self.n_treated.shape[1] + column)[kept]
            block = ((scope * N_BUCKETS + chunk.bucket[row]) * self.n_treated.shape[1] + column)[kept]
            for outcome, terms in enumerate(psi):
                _add(self.psi[outcome], block, terms[kept])
                _add(self.psi_squares[outcome], key, terms[kept] ** 2)
            dated = ((scope * WATCHED_DAYS + day % WATCHED_DAYS) * self.n_treated.shape[1] + column)[watched]
            _add(self.day_psi, dated, psi[SCORE][watched])
            _add(self.day_squares, dated, psi[SCORE][watched] ** 2)
            _add(self.recent_psi, block, recent[kept])
            _add(self.recent_squares, key, recent[kept] ** 2)
            if is_late:
                _add(self.cross_squares, key, (psi[SCORE] * information)[kept])
                continue
            _add(self.day_information, dated, information[watched])
            _add(self.information, block, information[kept])
            _add(self.cross_squares, key, (psi[SCORE] * information)[kept])
            _add(self.information_squares, key, information[kept] ** 2)
            _add(self.rated, block, chunk.is_rated[row][kept])
            _add(self.n_treated, key, treated[kept])

    def reset(self, scope: int, column: int, at_s: float) -> None:
        """Begin the evidence of a key anew: of rows before *at_s* nothing counts for it any more."""
        for name in self.AXES:
            if name not in MOMENTS:
                values: Floats = getattr(self, name)
                if self.AXES[name][0] == N_CONTRASTED:
                    values[:, scope, ..., column] = 0.0
                else:
                    values[scope, ..., column] = 0.0
        self.since_s[scope, column] = max(self.since_s[scope, column], at_s)

    def contrast(self, scope: int, column: int, outcome: int = SCORE) -> Contrast | None:
        """Return the contrast of a key in one outcome, or None without randomised rows."""
        information = self.information[scope, :, column]
        total = float(information.sum())
        if total <= 0:
            return None
        psi = self.psi[outcome, scope, :, column]
        return Contrast(
            score=float(psi.sum()),
            information=total,
            by_row=Squares(
                float(self.psi_squares[outcome, scope, column]),
                float(self.cross_squares[scope, column]) if outcome == SCORE else 0.0,
                float(self.information_squares[scope, column]),
            ),
            by_user=Squares(float(psi @ psi), float(psi @ information), float(information @ information)),
            n_treated_rated=int(self.n_treated[scope, column]),
            n_users=int(n_users(np.asarray(np.count_nonzero(self.rated[scope, :, column]), np.float64))),
        )

    def totals(self, places: Integers, outcome: int) -> tuple[Floats, Floats, Floats]:
        """Return score, information and variance of the score of all keys of the scopes *places* (K, f)."""
        psi = self.psi[outcome][places]
        by_user = np.asarray((psi**2).sum(1), np.float64)
        information = np.asarray(self.information[places].sum(1), np.float64)
        return psi.sum(1), information, np.maximum(by_user, self.psi_squares[outcome][places])

    def crowding(self, places: Integers) -> Floats:
        """Return how many times as large the variance of keys (K, f) is by account as it is by row, around their lift.

        1 where accounts are of one mind only by what the instruction does, and where nothing is known.
        """
        psi, information = self.psi[SCORE][places], self.information[places]
        total = information.sum(1)
        lift = psi.sum(1) / np.where(total > 0, total, 1.0)
        by_user = ((psi - lift[:, None] * information) ** 2).sum(1)
        squares = self.psi_squares[SCORE][places], self.cross_squares[places], self.information_squares[places]
        by_row = squares[0] - 2 * lift * squares[1] + lift**2 * squares[2]
        is_known = (total > 0) & (by_row > 0)
        return np.asarray(np.where(is_known, by_user / np.where(is_known, by_row, 1.0), 1.0), np.float64)

    def harm_z(self, places: Integers) -> Floats:
        """Return the standard errors from 0 of the recent scores of the scopes *places* (K, f); 0 without rows."""
        recent = self.recent_psi[places]
        variance = np.maximum((recent**2).sum(1), self.recent_squares[places])
        return np.asarray(
            np.where(variance > 0, recent.sum(1) / np.sqrt(np.maximum(variance, 1e-300)), 0.0), np.float64
        )

    def days(self, places: Integers) -> Days:
        """Return the evidence of the last days of all keys (K, f) of the scopes *places*."""
        newest = int(self.newest_day[0])
        day = np.arange(newest - WATCHED_DAYS + 1, newest + 1)
        at = (slice(None), day % WATCHED_DAYS)
        score, information, squares = (
            np.swapaxes(sums[places][at], 0, 1) for sums in (self.day_psi, self.day_information, self.day_squares)
        )
        recent = self.recent_psi[places]
        by_row = self.recent_squares[places]
        of_late = np.where(by_row > 0, (recent**2).sum(1) / np.where(by_row > 0, by_row, 1.0), 1.0)
        crowding = np.maximum(of_late, self.crowding(places))
        return Days(
            day=day,
            score=score,
            information=information,
            variance=squares * np.where(crowding > CROWDED, crowding, 1.0),
            score_before=self.psi[SCORE][places].sum(1) - score.sum(0),
            information_before=self.information[places].sum(1) - information.sum(0),
        )

    def _age(self, moment_s: float) -> None:
        newest = moment_s // DAY_S
        if newest > self.newest_day[0]:
            n_new = int(min(newest - self.newest_day[0], WATCHED_DAYS))
            begun = (int(newest) - np.arange(n_new)) % WATCHED_DAYS
            for sums in (self.day_psi, self.day_information, self.day_squares):
                sums[:, begun] = 0.0
            self.newest_day[0] = newest
        if moment_s <= self.as_of_s[0]:
            return
        factor = 0.5 ** ((moment_s - self.as_of_s[0]) / DAY_S / HARM_HALF_LIFE_DAYS)
        self.recent_psi *= factor
        self.recent_squares *= factor**2
        self.as_of_s[0] = moment_s


def _unexplained(chunk: Coded, score: Floats, fit: Floats) -> Floats:
    """Return for each coin (k,) the row's residual minus the predicted effects of all other dimensions."""
    draws = chunk.draws
    explained = draws.coin * fit[chunk.question_type[draws.row], chunk.group[draws.row], draws.column]
    n_dimensions = int(draws.dimension.max()) + 1
    place = draws.row * n_dimensions + draws.dimension
    own = np.bincount(place, explained)
    return np.asarray((score - np.bincount(draws.row, explained, len(chunk)))[draws.row] + own[place], np.float64)


def _add(sums: Floats, place: Integers, values: Floats | Booleans) -> None:
    sums += np.bincount(place, values, sums.size).reshape(sums.shape)
