"""In which order examples wait for a person."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from learner.review_order import QueuedExample, choose, interleaved
from store.datasets import ExampleRow

MARGINS = st.lists(st.integers(0, 100).map(lambda number: number / 100), max_size=12)


def queued(name: str) -> QueuedExample:
    row = ExampleRow(
        seq=1, id=name, dataset_id="d", type="nlu", input=name, intent="i", confidence=0.5, tags=(), needs_review=True,
        current_step=None, user_hash="", conversation_id=None, occurred_at="", created_at="", runner_up=None,
        margin=0.0, is_audit=False, former_intent=None, reviewed_by=None, reviewed_at=None, fingerprint="",
    )  # fmt: skip
    return QueuedExample(row, "unsure", "")


@given(MARGINS, st.integers(0, 15), st.integers(0, 2**32 - 1))
def test_each_is_chosen_once_and_the_narrowest_margin_first(margins: list[float], k: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(len(margins), 4)).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    chosen = choose(margins, vectors, k)
    assert len(chosen) == len(set(chosen)) == min(k, len(margins))
    assert not chosen or margins[chosen[0]] == min(margins)


@given(st.integers(1, 20), st.integers(1, 5))
def test_copies_of_one_message_wait_behind_every_other(n_copies: int, n_others: int) -> None:
    vectors = np.eye(n_others + 1, dtype=np.float32)
    rows = np.concatenate([np.repeat(vectors[:1], n_copies, axis=0), vectors[1:]])
    chosen = choose([0.0] * n_copies + [0.6] * n_others, rows, n_copies + n_others)
    assert chosen[0] == 0
    assert set(chosen[1 : 1 + n_others]) == set(range(n_copies, n_copies + n_others))


@given(st.integers(0, 20), st.integers(0, 5))
def test_sure_ones_lie_among_the_others_and_nobody_is_left_out(n_unsure: int, n_audits: int) -> None:
    unsure, audits = [queued(f"u{n}") for n in range(n_unsure)], [queued(f"a{n}") for n in range(n_audits)]
    queue = interleaved(unsure, audits)
    assert [one for one in queue if one in unsure] == unsure
    assert [one for one in queue if one in audits] == audits
    assert len(queue) == n_unsure + n_audits
