"""The similarity above which an entry is worth injecting, found on a tenant's own entries without any label. Pure.

How similar an unrelated question is to the nearest of a tenant's entries depends on how many there are, what they
are about and which model made the vectors. Two things tell it: everyday questions that are shipped with the package
(a shop's entries or a bank's have nothing to do with most of them), and the tenant's own phrasings compared with the
half of the entries that are farthest from their own (the same words and the same language, about something else).

The *median* of the nearest similarities is the baseline: some everyday questions may well be what a tenant's entries
are about, and a high quantile of a few hundred would be made of just these. From there to the similarity that a given
share of unrelated questions exceeds it is a distance that hardly depends on the tenant: over 17 sets of entries
(BANKING77 and CLINC150 and random parts of them, 10 to 150 entries) and CLINC150's 1,200 out-of-scope questions, its
upper quartile was .385 / .315 / .275 / .228 / .160 for 1 / 2 / 3 / 5 / 10 %, and is -0.098 log(share) - 0.07 within
.005. It is measured in units of the model's own scale: the standard deviation of the similarities between the
everyday questions, .081 there.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from store.embedding import Vector

UNRELATED_FILE: Final = Path(__file__).with_name("unrelated_questions.txt")
MIN_ENTRIES: Final = 10  # fewer say too little of what a tenant's entries are like
MAX_PHRASINGS: Final = 2000  # compared with all entries; evenly chosen of more
BASE: Final = -0.86  # distance in scales = BASE + SLOPE log(share)
SLOPE: Final = -1.21
FAR_SHARE: Final = 0.5  # of the entries, the farthest from a phrasing's own
FAR_MARGIN: Final = 1.23  # scales by which a tenant's own far phrasings are nearer than unrelated questions (0.1)


def read_unrelated() -> list[str]:
    """Return the everyday questions that are shipped."""
    return [line for line in UNRELATED_FILE.read_text(encoding="utf-8").splitlines() if line.strip()]


def find_threshold(
    entries: Vector, phrasings: Vector, owners: NDArray[np.int64], unrelated: Vector, *, share: float, least: float
) -> float | None:
    """Return the similarity that about *share* of unrelated questions exceed; None with too few entries to tell.

    Args:
        entries: (n, d), unit rows.
        phrasings: (m, d), unit rows; a phrasing of zeros is left out.
        owners: (m,), the row of each phrasing's entry.
        unrelated: (k, d), the everyday questions, unit rows.
        share: in (0, 1).
        least: the result is at least this, and never more than 1.
    """
    if len(entries) < MIN_ENTRIES:
        return None
    between = unrelated @ unrelated.T
    scale = float(between[np.triu_indices(len(unrelated), 1)].std())
    everyday = float(np.median((unrelated @ entries.T).max(axis=1)))
    baseline = max(everyday, _far_median(entries, phrasings, owners) - FAR_MARGIN * scale)
    return min(max(baseline + scale * (BASE + SLOPE * math.log(share)), least), 1.0)


def _far_median(entries: Vector, phrasings: Vector, owners: NDArray[np.int64]) -> float:
    """Return the median similarity of a phrasing to the nearest of the entries that are far from its own."""
    rows = np.flatnonzero(phrasings.any(axis=1))
    if not rows.size:
        return -1.0
    rows = rows[np.unique(np.linspace(0, rows.size - 1, min(rows.size, MAX_PHRASINGS)).astype(np.int64))]
    n_far = max(1, int(len(entries) * FAR_SHARE))
    nearest = []
    for row in rows.tolist():
        to_own = entries @ entries[owners[row]]
        far = np.argpartition(to_own, n_far - 1)[:n_far]
        nearest.append(float((entries[far] @ phrasings[row]).max()))
    return float(np.median(nearest))


def owners_of(n_phrasings: Sequence[int]) -> NDArray[np.int64]:
    """Return the entry of each phrasing, for entries with so many each.

    >>> owners_of([2, 1])
    array([0, 0, 1])
    """
    return np.repeat(np.arange(len(n_phrasings)), n_phrasings)
