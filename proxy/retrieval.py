"""Which contexts a request gets: the entries nearest to its question, pure functions of a snapshot.

Up to ``[contexts] exact_up_to`` entries, the question is compared with all of them. Beyond, a graph finds the nearest
ones of those that it covers; what came after it was made is compared one by one, and what is gone is left out.
"""

from dataclasses import dataclass, replace
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
NEAREST: Final = 32  # that a graph is asked for: some of them may not fit into the budget

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


def select_contexts(search: ContextSearch, question: Vectors, section: ContextsSection, seed: bytes) -> Selection:
    """Return the entries most similar to the question, best first, whole ones only.

    In a share ``hold_back`` of conversations an entry is found and not injected: its place stays empty, so that what
    the others say does not depend on its draw, and it is logged as in play and untreated.

    Args:
        search: over what the tenant approved.
        question: (256,), unit length, or all zero for a question without words.
        section: threshold, number, tokens and the share held back.
        seed: of the conversation; an entry that is held back is so in all of its turns.
    """
    near = search.near(question, section.similarity_threshold, MAX_SORTED)
    chosen = _fill(search.contexts, near, section)
    if len(chosen) < section.max_items and len(near) >= MAX_SORTED:
        all_near = search.near(question, section.similarity_threshold, len(search.contexts.vectors))
        chosen = _fill(search.contexts, all_near, section)
    if not chosen:
        return NOTHING
    texts, tokens = search.contexts.rows.texts, search.contexts.rows.tokens
    draw, share = uniforms(seed), 1.0 - section.hold_back
    injections: list[InjectionRecord] = []
    injected: list[int] = []
    for opposite, context_id, row in chosen:
        treated = not section.hold_back or draw(b"context " + context_id.encode()) < share
        injections.append(
            InjectionRecord("context", context_id, "", share, share, treated, round(-opposite, 6), tokens[row])
        )
        if treated:
            injected.append(row)
    if not injected:
        return Selection(injections=tuple(injections))
    return Selection(
        context_block([texts[row] for row in injected]),
        CONTEXT_FRAME_TOKENS + sum([tokens[row] for row in injected]),
        tuple(injections),
    )


def _fill(
    contexts: ServedContexts, near: list[tuple[float, int]], section: ContextsSection
) -> list[tuple[float, str, int]]:
    """Return what fits of *near*, best first, equally similar ones in order of ids: (-similarity, id, row)."""
    ids, tokens, gone = contexts.rows.ids, contexts.rows.tokens, contexts.gone
    tokens_left = section.max_tokens - CONTEXT_FRAME_TOKENS - JOIN_TOKENS
    chosen: list[tuple[float, str, int]] = []
    for item in sorted([(-similarity, ids[row], row) for similarity, row in near]):
        row = item[2]
        if row not in gone and tokens[row] <= tokens_left:
            chosen.append(item)
            if len(chosen) == section.max_items:
                break
            tokens_left -= tokens[row]
    return chosen
