"""Which contexts a request gets: the entries nearest to its question, pure functions of a snapshot.

Up to ``[contexts] exact_up_to`` entries, the question is compared with all of them. Beyond, a graph finds the nearest
ones of those that it covers; what came after it was made is compared one by one, and what is gone is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from proxy.context_graph import ContextGraph, row_keys
from proxy.packed_vectors import PackedVectors
from proxy.selection import JOIN_TOKENS, NOTHING, Selection, uniforms
from store.blocks import context_block
from store.config import ContextsSection
from store.records import InjectionRecord
from store.served_contexts import ContextRows, ServedContexts

CONTEXT_FRAME_TOKENS: Final = 54  # of store.blocks' header and footer, cl100k_base; a test holds them equal
MAX_SORTED: Final = 64  # the best rows, put in order first; more only when these are too long for the budget
SMALLEST_ROOM: Final = 1e-6  # between a threshold and 1
NEAREST: Final = 32  # that a graph is asked for: some of them may not fit into the budget
# What a shared word adds to a similarity, see store.entry_words; it decides about the order of what is near, not about
# what is near. Chosen on half of the questions of BANKING77 and CLINC150; 0.006 to 0.018 are within .003 of it.
WORD_WEIGHT: Final = 0.012
# What being in a crowd takes off, see store.crowding; of the order alone, too. Chosen on CLINC150 and conversations of
# services, where 0.25 to 0.5 are within .003 of it; BANKING77 was asked once, then.
CROWD_WEIGHT: Final = 0.3

Vectors = NDArray[np.float32]
RowNumbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cover:
    """A graph laid over the rows of a tenant, as they were at one moment."""

    graph: ContextGraph
    rows: RowNumbers
    """(nodes,), the row of each node; -1: it is gone."""
    n_lost: int
    """Nodes without a row."""
    rest: RowNumbers
    """Rows that the graph does not know ..."""
    rest_vectors: Vectors
    """... and their vectors, contiguous."""
    n_rows: int
    """Rows that there were; later ones are not covered."""
    n_gone: int
    """Rows that were gone by then; later ones may still be found by the graph."""

    def n_changed(self, contexts: ServedContexts) -> int:
        """Return how many nodes and rows have nothing to do with each other by now."""
        return self.n_missing(contexts) + len(self.rest) + len(contexts.vectors) - self.n_rows

    def n_missing(self, contexts: ServedContexts) -> int:
        """Return at most how many nodes are not served any more."""
        return self.n_lost + max(0, len(contexts.gone) - self.n_gone)


@dataclass(frozen=True, slots=True)
class Lot:
    """What decides which of the found entries a conversation gets."""

    seed: bytes
    now_s: float


@dataclass(slots=True)
class CoverSlot:
    """Where the cover of some rows is put when it is ready; requests read it while it is replaced."""

    rows: ContextRows
    cover: Cover | None = None


@dataclass(frozen=True, slots=True)
class ContextSearch:
    """What a tenant's contexts are found with."""

    contexts: ServedContexts
    slot: CoverSlot | None = None
    """None: so few that all are compared."""
    packed: PackedVectors | None = None
    """Of the first rows; None: of no row."""

    def packed_like(self, earlier: "ContextSearch | None") -> Self:
        """Return the same with its rows packed, as far as they need that; taken from *earlier* where it has them."""
        if self.slot is not None and self.slot.cover is not None:
            return self
        is_same_table = earlier is not None and earlier.contexts.rows is self.contexts.rows
        known = earlier.packed if earlier is not None and is_same_table else None
        return replace(self, packed=PackedVectors.of(self.contexts.vectors, known))

    def near(self, question: Vectors, threshold: float, at_most: int) -> list[tuple[float, int]]:
        """Return (similarity, row) of rows at least *threshold* similar to *question* (256,), in no order.

        About the *at_most* best of all of them; with a graph, of those that it finds and of all that it does not
        cover. Rows that are gone may be among them.
        """
        rows = self._rows(question, threshold)
        if not rows.size:
            return []
        similarities = self.contexts.vectors.take(rows, axis=0).dot(question)
        if rows.size > at_most:
            is_best = similarities >= np.partition(similarities, -at_most)[-at_most]
            rows, similarities = rows[is_best], similarities[is_best]
        return [item for item in zip(similarities.tolist(), rows.tolist(), strict=True) if item[0] >= threshold]

    def _rows(self, question: Vectors, threshold: float) -> RowNumbers:
        """Return every row that may be near."""
        cover = self.slot.cover if self.slot is not None else None
        vectors = self.contexts.vectors
        if cover is not None and cover.n_rows <= len(vectors):  # else it is laid over what is about to be served
            return self._found(cover, question, threshold)
        packed = self.packed
        if packed is None:
            return (vectors @ question >= threshold).nonzero()[0]
        rows = packed.candidates(question, threshold)
        return rows if packed.n_rows == len(vectors) else np.concatenate([rows, np.arange(packed.n_rows, len(vectors))])

    def _found(self, cover: Cover, question: Vectors, threshold: float) -> RowNumbers:
        """Return the nearest rows that the graph finds, and all near ones that it does not cover."""
        vectors = self.contexts.vectors
        nodes = cover.graph.nearest(question, NEAREST + cover.n_missing(self.contexts))
        found = cover.rows[nodes]
        parts = [found[found >= 0]]
        if len(cover.rest):
            parts.append(cover.rest[cover.rest_vectors @ question >= threshold])
        if len(vectors) > cover.n_rows:
            parts.append((vectors[cover.n_rows :] @ question >= threshold).nonzero()[0] + cover.n_rows)
        return np.concatenate(parts)


def lay(graph: ContextGraph, contexts: ServedContexts, secret: bytes) -> Cover:
    """Return *graph* laid over *contexts*: each node at the row with its id and its very vector."""
    live = contexts.live_rows
    keys = live_keys(contexts, live, secret)
    order = keys.argsort()
    places = np.minimum(np.searchsorted(keys, graph.keys, sorter=order), max(len(keys) - 1, 0))
    rows = np.full(len(graph.keys), -1, np.int64)
    if len(keys):
        found = order[places]
        is_there = keys[found] == graph.keys
        rows[is_there] = live[found[is_there]]
    is_covered = np.zeros(len(contexts.vectors), bool)
    is_covered[rows[rows >= 0]] = True
    rest = live[~is_covered[live]]
    return Cover(
        graph=graph,
        rows=rows,
        n_lost=int((rows < 0).sum()),
        rest=rest,
        rest_vectors=contexts.vectors[rest],
        n_rows=len(contexts.vectors),
        n_gone=len(contexts.gone),
    )


def live_keys(contexts: ServedContexts, live: RowNumbers, secret: bytes) -> NDArray[np.uint64]:
    """Return the keys of the rows *live*, by which a graph knows them."""
    return row_keys([contexts.rows.ids[row] for row in live.tolist()], contexts.vectors[live], secret)


def select_contexts(  # what is asked, where, and how much of it
    search: ContextSearch, question: Vectors, threshold: float, section: ContextsSection, lot: Lot, *, asked: str = ""
) -> Selection:
    """Return the entries most similar to the question, best first, whole ones only; see ``_ranks``.

    In a share ``hold_back`` of conversations an entry that was approved a while ago is found and not injected: its
    place stays empty, so that what the others say does not depend on its draw, and it is logged as in play and
    untreated.

    Args:
        search: over what the tenant approved.
        question: (256,), unit length, or all zero for a question without words.
        threshold: cosine; entries below are not chosen.
        section: number, tokens and the share held back.
        lot: the conversation's; an entry that is held back is so in all of its turns.
        asked: the question's text; empty: similarity alone decides.
    """
    near = search.near(question, threshold, MAX_SORTED)
    chosen = _fill(search.contexts, near, section, asked)
    if len(chosen) < section.max_items and len(near) >= MAX_SORTED:
        all_near = search.near(question, threshold, len(search.contexts.vectors))
        chosen = _fill(search.contexts, all_near, section, asked)
    rows = search.contexts.rows
    found = [(row, rows, similarity) for _, _, row, similarity in chosen]
    return _drawn(found, section, lot)


def _drawn(found: Sequence[tuple[int, ContextRows, float]], section: ContextsSection, lot: Lot) -> Selection:
    """Return the selection of *found* (row, rows, similarity), those left out that are held back."""
    if not found:
        return NOTHING
    draw = uniforms(lot.seed)
    measured_since_s = lot.now_s - section.hold_back_after_h * 3600
    injections: list[InjectionRecord] = []
    texts: list[str] = []
    n_tokens = CONTEXT_FRAME_TOKENS
    for row, rows, similarity in found:
        context_id, tokens = rows.ids[row], rows.tokens[row]
        # Whoever just approved an entry wants to see it at work.
        share = 1.0 - section.hold_back if rows.reviewed_s[row] <= measured_since_s else 1.0
        treated = share == 1.0 or draw(b"context " + context_id.encode()) < share
        injections.append(
            InjectionRecord("context", context_id, "", share, share, treated, round(similarity, 6), tokens)
        )
        if treated:
            texts.append(rows.texts[row])
            n_tokens += tokens
    if not texts:
        return Selection(injections=tuple(injections))
    return Selection(context_block(texts), n_tokens, tuple(injections))


@dataclass(frozen=True, slots=True)
class Look:
    """One way to look for entries: a search, the question in the vectors of its model, and the model's threshold."""

    search: ContextSearch
    question: Vectors
    threshold: float


def select_by_both(  # two ways to look, and how much of what they find
    remote: Look, local: Look, unmade: frozenset[str], section: ContextsSection, lot: Lot, *, asked: str = ""
) -> Selection:
    """Return the entries nearest by the remote vectors; those in *unmade*, which have none yet, by their local ones.

    *asked* as of ``select_contexts``, while none is unmade. Cosines of two models cannot be compared: entries are
    ordered by how far they are on the way from their model's threshold to 1.
    """
    if not unmade:
        return select_contexts(remote.search, remote.question, remote.threshold, section, lot, asked=asked)
    ranked = [*_ranked(remote), *(item for item in _ranked(local) if item[1] in unmade)]
    tokens_left = section.max_tokens - CONTEXT_FRAME_TOKENS - JOIN_TOKENS
    found: list[tuple[int, ContextRows, float]] = []
    for _, _, similarity, row, rows in sorted(ranked, key=itemgetter(0, 1)):
        tokens = rows.tokens[row]
        if len(found) == section.max_items or tokens > tokens_left:
            continue
        tokens_left -= tokens
        found.append((row, rows, similarity))
    return _drawn(found, section, lot)


def _ranked(look: Look) -> list[tuple[float, str, float, int, ContextRows]]:
    """Return what is near, unsorted: (1 - margin, id, similarity, row, rows)."""
    contexts = look.search.contexts
    near = look.search.near(look.question, look.threshold, len(contexts.vectors))
    room = max(1.0 - look.threshold, SMALLEST_ROOM)
    return [
        ((1.0 - similarity) / room, contexts.rows.ids[row], similarity, row, contexts.rows)
        for similarity, row in near
        if row not in contexts.gone
    ]


def _fill(
    contexts: ServedContexts, near: list[tuple[float, int]], section: ContextsSection, asked: str
) -> list[tuple[float, str, int, float]]:
    """Return what fits of *near*, best first, equally good ones in order of ids: (-rank, id, row, similarity)."""
    ids, tokens, gone = contexts.rows.ids, contexts.rows.tokens, contexts.gone
    tokens_left = section.max_tokens - CONTEXT_FRAME_TOKENS - JOIN_TOKENS
    chosen: list[tuple[float, str, int, float]] = []
    ranked = [
        (-rank, ids[row], row, similarity)
        for (similarity, row), rank in zip(near, _ranks(contexts.rows, near, asked), strict=True)
    ]
    for item in sorted(ranked):
        row = item[2]
        if row not in gone and tokens[row] <= tokens_left:
            chosen.append(item)
            if len(chosen) == section.max_items:
                break
            tokens_left -= tokens[row]
    return chosen


def _ranks(rows: ContextRows, near: list[tuple[float, int]], asked: str) -> list[float]:
    """Return what *near* is put in order by: similarity, more for rare words in common, less for a crowd."""
    if not asked or len(near) == 1:  # one alone has its place, whatever words it has
        return [similarity for similarity, _ in near]
    numbers = [row for _, row in near]
    return [
        similarity + WORD_WEIGHT * share - CROWD_WEIGHT * crowd
        for (similarity, _), share, crowd in zip(
            near, rows.words.shares(asked, numbers), rows.crowding.of(numbers), strict=True
        )
    ]
