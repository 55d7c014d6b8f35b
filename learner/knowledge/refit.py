"""The local table fitted to a teacher's vectors, and the check that says whether entries are found better by it. Pure.

Fitted by ridge regression in two steps: a map of the mean of a text's token vectors to the teacher's vector, then an
offset for each token that the tenant's texts use, to what the map leaves. Checked on what the fit never saw: each
phrasing of an entry must find the entry that its other phrasings make, among all entries.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from store.embedding import Vector
from store.refit_table import RefitTable
from store.vectors import DIMENSIONS

# In units of the mean eigenvalue of what is inverted, and of a token that is a text by itself. Chosen on half of the
# questions of BANKING77 and CLINC150; a third or thrice of either costs up to a point of recall@1.
MAP_RIDGE: Final = 0.3
OFFSET_RIDGE: Final = 0.1
MIN_TOKEN_TEXTS: Final = 3  # of a token with an offset ...
MIN_TOKEN_VOICES: Final = 2  # ... by so many people: nobody's own words make vectors for others
MIN_CHECKED: Final = 30  # entries with two phrasings or more
BOUND: Final = 1.645  # standard errors below the mean: 95 %, one-sided
MAX_AUC_LOSS: Final = 0.02  # of telling a tenant's own questions from everyday ones

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Text:
    """One text that the teacher was asked about."""

    token_ids: Sequence[int]
    voices: frozenset[str]
    """Who said it; two at most are of interest."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a check found: of the reciprocal rank, the mean gain over entries and its 95 % lower bound."""

    n_entries: int
    gain: float
    gain_low: float
    auc_gain: float

    @property
    def is_won(self) -> bool:
        """Whether entries are found better, and everyday questions told from the tenant's about as well."""
        return self.n_entries >= MIN_CHECKED and self.gain_low > 0 and self.auc_gain >= -MAX_AUC_LOSS


def fit(texts: Sequence[Text], table: Vector, targets: Vector, *, name: str, max_tokens: int) -> RefitTable:
    """Return the refit of *table* (vocabulary, 256) that brings *texts* near to *targets* (n, 256), unit rows."""
    used = [row for row, text in enumerate(texts) if text.token_ids]
    ids = [np.array(texts[row].token_ids) for row in used]
    wanted = targets[used].astype(np.float64)
    means = np.stack([table.take(text_ids, axis=0).mean(axis=0) for text_ids in ids]).astype(np.float64)
    gram = means.T @ means
    ridge = MAP_RIDGE * max(float(np.trace(gram)) / DIMENSIONS, np.finfo(np.float64).tiny)
    table_map = np.linalg.solve(gram + ridge * np.eye(DIMENSIONS), means.T @ wanted)
    tokens = _tokens_with_offsets([texts[row] for row in used], max_tokens)
    offsets = _offsets(ids, tokens, wanted - means @ table_map)
    return RefitTable(name, table_map.astype(np.float32), tokens.astype(np.int32), offsets.astype(np.float32))


def _tokens_with_offsets(texts: Sequence[Text], max_tokens: int) -> NDArray[np.int64]:
    """Return the commonest tokens that several people used, ascending."""
    counts: dict[int, int] = {}
    voices: dict[int, frozenset[str]] = {}
    for text in texts:
        for token in set(text.token_ids):
            counts[token] = counts.get(token, 0) + 1
            said = voices.get(token, frozenset())
            if len(said) < MIN_TOKEN_VOICES:
                voices[token] = said | text.voices
    common = [
        (-count, token)
        for token, count in counts.items()
        if count >= MIN_TOKEN_TEXTS and len(voices[token]) >= MIN_TOKEN_VOICES
    ]
    return np.array(sorted(token for _, token in sorted(common)[:max_tokens]), np.int64)


def _offsets(ids: Sequence[NDArray[np.int64]], tokens: NDArray[np.int64], left: Floats) -> Floats:
    """Return (m, 256): what *tokens* add so that the means over texts come near to *left* (n, 256)."""
    n_tokens = len(tokens)
    products, sums = np.zeros((n_tokens, n_tokens)), np.zeros((n_tokens, DIMENSIONS))
    if not n_tokens:
        return sums
    for text_ids, rest in zip(ids, left, strict=True):
        places = np.minimum(tokens.searchsorted(text_ids), n_tokens - 1)
        places = places[tokens[places] == text_ids]
        weight = 1 / len(text_ids)
        np.add.at(products, (places[:, None], places[None, :]), weight * weight)
        np.add.at(sums, places, weight * rest)
    products[np.diag_indices(n_tokens)] += OFFSET_RIDGE
    solved: Floats = np.linalg.solve(products, sums).astype(np.float64)
    return solved


def judge(before: tuple[Vector, Vector], after: tuple[Vector, Vector], owners: NDArray[np.int64]) -> Judged:
    """Return what the second of two tables gains over the first.

    Args:
        before: the phrasings (m, 256) of the first table, unit rows, and everyday questions (k, 256).
        after: the same of the second.
        owners: (m,), the entry of each phrasing, 0 to n - 1, each with two phrasings or more.
    """
    ranks_before, auc_before = _found(*before, owners)
    ranks_after, auc_after = _found(*after, owners)
    n_entries = int(owners.max()) + 1
    gains = np.bincount(owners, ranks_after - ranks_before) / np.bincount(owners)
    error = float(gains.std(ddof=1)) / math.sqrt(n_entries) if n_entries > 1 else math.inf
    gain = float(gains.mean())
    return Judged(n_entries, gain, gain - BOUND * error, auc_after - auc_before)


def _found(phrasings: Vector, everyday: Vector, owners: NDArray[np.int64]) -> tuple[Floats, float]:
    """Return each phrasing's reciprocal rank of its entry without it, and how surely everyday questions are told."""
    sums = np.zeros((int(owners.max()) + 1, DIMENSIONS), np.float32)
    np.add.at(sums, owners, phrasings)
    entries = _unit(sums)
    own = np.einsum("md,md->m", phrasings, _unit(sums[owners] - phrasings))
    to_others = phrasings @ entries.T
    to_others[np.arange(len(owners)), owners] = -np.inf
    ranks = 1 + (to_others >= own[:, None]).sum(axis=1)
    nearest = np.sort(np.maximum(own, to_others.max(axis=1)))
    strange = (everyday @ entries.T).max(axis=1)
    below = np.searchsorted(nearest, strange, "left") + np.searchsorted(nearest, strange, "right")
    return 1 / ranks.astype(np.float64), float(1 - below.mean() / 2 / len(nearest))


def _unit(rows: Vector) -> Vector:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Vector = (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit
