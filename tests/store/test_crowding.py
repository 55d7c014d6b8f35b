"""How crowded an entry's place is comes out as if only the rows that are there had ever been."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.crowding import MAX_COMPARED, N_NEAREST, Crowding, Matrix


def unit(n: int, seed: int) -> Matrix:
    rows = np.random.default_rng(seed).normal(size=(n, 8))
    vectors: Matrix = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return vectors


def expected(vectors: Matrix) -> list[float]:
    """Return the means as their definition says."""
    cosines = vectors @ vectors.T
    found = []
    for row in range(len(vectors)):
        others = sorted(np.delete(cosines[row], row).tolist(), reverse=True)[:N_NEAREST]
        found.append(sum(others) / len(others) if others else 0.0)
    return found


@given(data=st.data(), sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_rows_come_and_go_as_the_definition_says(data: st.DataObject, sizes: list[int], seed: int) -> None:
    vectors, crowding, live = unit(sum(sizes), seed), Crowding(), list[int]()
    start = 0
    for size in sizes:
        crowding.add(vectors[: start + size], start)
        live += range(start, start + size)
        start += size
        gone = data.draw(st.lists(st.sampled_from(live), unique=True, max_size=4)) if live else []
        crowding.remove(vectors[:start], gone)
        live = [row for row in live if row not in gone]
    assert crowding.of(live) == pytest.approx(expected(vectors[live]), abs=1e-6)


def test_one_alone_is_in_no_crowd() -> None:
    crowding = Crowding()
    crowding.add(unit(1, 0), 0)
    assert crowding.of([0]) == [0.0]


def test_a_large_tenants_entries_are_compared_with_the_first_ones_and_with_later_ones_for_those_that_go() -> None:
    vectors = unit(MAX_COMPARED + 3, 1)
    crowding = Crowding()
    crowding.add(vectors[: MAX_COMPARED + 2], 0)
    crowding.remove(vectors[: MAX_COMPARED + 2], [0])
    crowding.add(vectors, MAX_COMPARED + 2)
    compared = [*range(1, MAX_COMPARED), MAX_COMPARED + 2]
    nearest = np.sort(vectors[compared] @ vectors[MAX_COMPARED])[-N_NEAREST:]
    assert crowding.of([MAX_COMPARED]) == pytest.approx([float(nearest.mean())], abs=1e-6)
