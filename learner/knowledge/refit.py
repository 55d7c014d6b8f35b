"""The local table fitted to a teacher's vectors, and the check that says whether entries are found better by it. Pure.

The teacher's space is turned to the local one (orthogonal Procrustes: no cosine changes). What its vector of a text has
besides the direction of the local one is what the text lacks; ridge regression shares that out among the tenant's
tokens, as their offsets, as far as texts that it is not fitted to bear it out. So a word that the tenant never uses
stays where it was, as do the similarities of questions that have nothing to do with the tenant: a map of the whole
space found entries better, and everything else, too.

Checked on what the fit never saw: each phrasing of an entry must find the entry that its other phrasings make, among
all entries, and pass the threshold that the product would find for the table.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from store.embedding import Vector
from store.refit_table import RefitTable
from store.vectors import DIMENSIONS

# Of a token that is a text by itself: that one is taken with which every fifth text, left out, is foretold best. Of
# what the local vectors lack, words foretell .53 and .41 with all-MiniLM-L6-v2 as the teacher (halves of BANKING77 and
# CLINC150), by the same ridges by which entries are found best; of a teacher whose vectors have little to do with words
# they foretell nothing, and only a large ridge keeps the fit from learning noise.
RIDGES: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
HELD_OUT: Final = 5
MIN_TOKEN_TEXTS: Final = 3  # of a token with an offset ...
MIN_TOKEN_VOICES: Final = 2  # ... by so many people: nobody's own words make vectors for others
MIN_CHECKED: Final = 30  # entries with two phrasings or more
BOUND: Final = 1.645  # standard errors below the mean: 95 %, one-sided
MAX_STRANGE_GAIN: Final = 0.03  # in the share of everyday questions that find anything: six of those that are shipped

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Text:
    """One text that the teacher was asked about."""

    token_ids: Sequence[int]
    voices: frozenset[str]
    """Who said it; two at most are of interest."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What a check found: of the reciprocal rank, the mean gain over entries and its 95 % lower bound.

    *strange_gain*: in the share of everyday questions that find anything.
    """

    n_entries: int
    gain: float
    gain_low: float
    strange_gain: float

    @property
    def is_won(self) -> bool:
        """Whether entries are found better, and everyday questions left alone about as well."""
        return self.n_entries >= MIN_CHECKED and self.gain_low > 0 and self.strange_gain <= MAX_STRANGE_GAIN


@dataclass(frozen=True, slots=True)
class Seen:
    """The vectors of one table: of entries' phrasings (m, 256) and everyday questions (k, 256), unit rows."""

    phrasings: Vector
    everyday: Vector


def fit(texts: Sequence[Text], table: Vector, targets: Vector, *, name: str, max_tokens: int) -> RefitTable:
    """Return the refit of *table* (vocabulary, 256) that brings *texts* near to *targets* (n, 256), unit rows."""
    used = [row for row, text in enumerate(texts) if text.token_ids]
    ids = [np.array(texts[row].token_ids) for row in used]
    means = np.stack([table.take(text_ids, axis=0).mean(axis=0) for text_ids in ids]).astype(np.float64)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    directions = means / np.where(lengths > 0, lengths, 1)
    wanted = _turned(targets[used].astype(np.float64), directions)
    shared = np.einsum("nd,nd->n", wanted, directions)[:, None]
    tokens = _tokens_with_offsets([texts[row] for row in used], max_tokens)
    offsets = _offsets(ids, tokens, lengths * (wanted - shared * directions))
    return RefitTable(name, tokens.astype(np.int32), offsets.astype(np.float32))


def _turned(vectors: Floats, towards: Floats) -> Floats:
    """Return *vectors* in the turn in which they are nearest to *towards*. Source: Schoenemann 1966, Psychometrika."""
    left, _, right = np.linalg.svd(vectors.T @ towards)
    turned: Floats = vectors @ (left @ right)
    return turned


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


@dataclass(frozen=True, slots=True)
class _Sums:
    """What ridge regression needs of texts: products of their words (m, m), and with what they lack (m, 256)."""

    products: Floats
    targets: Floats

    def solved(self, ridge: float) -> Floats:
        """Return the words' offsets (m, 256)."""
        diagonal = np.diag_indices(len(self.products))
        before = self.products[diagonal]
        self.products[diagonal] += ridge
        offsets: Floats = np.linalg.solve(self.products, self.targets).astype(np.float64)
        self.products[diagonal] = before
        return offsets

    def error(self, offsets: Floats) -> float:
        """Return the squared error of *offsets* on these texts, less what no offsets would leave."""
        return float(np.vdot(offsets, self.products @ offsets - 2 * self.targets))


def _offsets(ids: Sequence[NDArray[np.int64]], tokens: NDArray[np.int64], left: Floats) -> Floats:
    """Return (m, 256): what *tokens* add so that the means over texts come near to *left* (n, 256)."""
    if not len(tokens):
        return np.zeros((0, DIMENSIONS))
    is_held_out = np.arange(len(ids)) % HELD_OUT == 0
    held_out = _summed([ids[row] for row in np.flatnonzero(is_held_out).tolist()], tokens, left[is_held_out])
    rest = _summed([ids[row] for row in np.flatnonzero(~is_held_out).tolist()], tokens, left[~is_held_out])
    best = min(RIDGES, key=lambda ridge: held_out.error(rest.solved(ridge)))
    np.add(rest.products, held_out.products, out=rest.products)
    np.add(rest.targets, held_out.targets, out=rest.targets)
    return rest.solved(best)


def _summed(ids: Sequence[NDArray[np.int64]], tokens: NDArray[np.int64], left: Floats) -> _Sums:
    n_tokens = len(tokens)
    products, targets = np.zeros((n_tokens, n_tokens)), np.zeros((n_tokens, DIMENSIONS))
    for text_ids, rest in zip(ids, left, strict=True):
        places = np.minimum(tokens.searchsorted(text_ids), n_tokens - 1)
        places = places[tokens[places] == text_ids]
        weight = 1 / len(text_ids)
        np.add.at(products, (places[:, None], places[None, :]), weight * weight)
        np.add.at(targets, places, weight * rest)
    return _Sums(products, targets)


def judge(before: Seen, after: Seen, owners: NDArray[np.int64], threshold: Callable[[Seen, Vector], float]) -> Judged:
    """Return what the second of two tables gains over the first.

    Args:
        before: what the first table makes of phrasings and everyday questions.
        after: the same of the second.
        owners: (m,), the entry of each phrasing, 0 to n - 1, each with two phrasings or more.
        threshold: returns the similarity under which the product injects nothing, from what a table makes and the
            entries (n, 256).
    """
    ranks_before, strange_before = _found(before, owners, threshold)
    ranks_after, strange_after = _found(after, owners, threshold)
    n_entries = int(owners.max()) + 1
    gains = np.bincount(owners, ranks_after - ranks_before) / np.bincount(owners)
    error = float(gains.std(ddof=1)) / math.sqrt(n_entries) if n_entries > 1 else math.inf
    gain = float(gains.mean())
    return Judged(n_entries, gain, gain - BOUND * error, strange_after - strange_before)


def _found(seen: Seen, owners: NDArray[np.int64], threshold: Callable[[Seen, Vector], float]) -> tuple[Floats, float]:
    """Return each phrasing's reciprocal rank of its entry without it, and the share of everyday questions that find."""
    phrasings = seen.phrasings
    sums = np.zeros((int(owners.max()) + 1, DIMENSIONS), np.float32)
    np.add.at(sums, owners, phrasings)
    entries = _unit(sums)
    least = threshold(seen, entries)
    own = np.einsum("md,md->m", phrasings, _unit(sums[owners] - phrasings))
    to_others = phrasings @ entries.T
    to_others[np.arange(len(owners)), owners] = -np.inf
    ranks = 1 + (to_others >= own[:, None]).sum(axis=1)
    found = np.where(own >= least, 1 / ranks.astype(np.float64), 0.0)
    return found, float(((seen.everyday @ entries.T).max(axis=1) >= least).mean())


def _unit(rows: Vector) -> Vector:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Vector = (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit
