"""What is found is what an exact search finds, whatever of it a graph covers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from proxy.context_graph import ContextGraph, GraphError, row_keys
from proxy.retrieval import (
    CONTEXT_FRAME_TOKENS,
    MAX_SORTED,
    ContextSearch,
    CoverSlot,
    Look,
    Lot,
    lay,
    live_keys,
    select_by_both,
    select_contexts,
)
from store import blocks
from store.config import Config, ContextsSection, load_config
from store.served_contexts import ContextRows, Entries, ServedContexts
from store.tokens import load_token_counter
from tests.conftest import NOW_S

SECRET = b"s" * 32
QUESTION = np.eye(1, 256, dtype=np.float32)[0]
LOT = Lot(b"c" * 32, NOW_S)
SECTION = replace(load_config().contexts, hold_back=0.0)


def entries(ids: list[str], vectors: NDArray[np.float32], tokens: list[int] | None = None) -> Entries:
    texts, reviewed_s = [f"<{i}>" for i in ids], [NOW_S - 90_000] * len(ids)
    return Entries(ids, vectors, texts, tokens or [10] * len(ids), reviewed_s, [""] * len(ids))


def served(similarities: list[float], tokens: list[int]) -> ContextSearch:
    vectors = np.zeros((len(similarities), 256), np.float32)
    vectors[:, 0] = similarities
    rows = ContextRows()
    rows.add(entries([f"ctx_{index}" for index in range(len(similarities))], vectors, tokens))
    return ContextSearch(rows.view())


def found(search: ContextSearch, question: NDArray[np.float32], section: ContextsSection = SECTION) -> list[str]:
    found = select_contexts(search, question, section.similarity_threshold, section, LOT)
    return [injection.item_id for injection in found.injections]


def covered(contexts: ServedContexts, covering: ServedContexts | None = None) -> ContextSearch:
    """Return a search over *contexts* with a graph that was built over them, or when there was *covering*."""
    live = (covering or contexts).live_rows
    keys = live_keys(covering or contexts, live, SECRET)
    graph = ContextGraph.build((covering or contexts).vectors, live, keys, lambda: False)
    return ContextSearch(contexts, CoverSlot(contexts.rows, lay(graph, contexts, SECRET)))


def random_vectors(n: int, seed: int) -> NDArray[np.float32]:
    """Return *n* unit rows around a few centres, as texts are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(8, 256))
    vectors = centres[rng.integers(8, size=n)] + rng.normal(size=(n, 256)) * 0.8
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def test_the_frame_costs_what_the_constant_says() -> None:
    counter = load_token_counter()
    assert counter.count(blocks.CONTEXT_HEADER) + counter.count(blocks.CONTEXT_FOOTER) == CONTEXT_FRAME_TOKENS


def test_the_most_similar_contexts_above_the_threshold_come_best_first(config: Config) -> None:
    threshold = config.contexts.similarity_threshold
    search = served([threshold + 0.1, threshold - 0.01, threshold + 0.3, threshold + 0.2, threshold], [10] * 5)
    selection = select_contexts(search, QUESTION, threshold, config.contexts, LOT)
    assert [i.item_id for i in selection.injections] == ["ctx_2", "ctx_3", "ctx_0"]
    assert [i.similarity for i in selection.injections] == [0.8, 0.7, 0.6]
    assert all((i.propensity, i.treated, i.dimension) == (1.0, True, "") for i in selection.injections)
    assert selection.tokens == CONTEXT_FRAME_TOKENS + 30
    assert selection.block == blocks.context_block(["<ctx_2>", "<ctx_3>", "<ctx_0>"])


def test_equally_similar_contexts_come_in_order_of_ids() -> None:
    rows = ContextRows()
    rows.add(entries([f"ctx_{index:03}" for index in range(3 * MAX_SORTED, 0, -1)], np.tile(QUESTION, (192, 1))))
    assert found(ContextSearch(rows.view()), QUESTION) == ["ctx_001", "ctx_002", "ctx_003"]


def test_a_context_that_does_not_fit_is_left_out_whole() -> None:
    selection = select_contexts(served([0.99, 0.9], [5_000, 10]), QUESTION, SECTION.similarity_threshold, SECTION, LOT)
    assert [i.item_id for i in selection.injections] == ["ctx_1"]
    assert selection.tokens <= SECTION.max_tokens


def test_a_context_that_fits_is_found_behind_many_that_do_not() -> None:
    many = 2 * MAX_SORTED
    assert found(served([0.99] * many + [0.6], [5_000] * many + [10]), QUESTION) == [f"ctx_{many}"]


def test_a_question_without_words_gets_no_context() -> None:
    assert not select_contexts(
        served([1.0], [10]), np.zeros(256, np.float32), SECTION.similarity_threshold, SECTION, LOT
    ).block
    assert not select_contexts(
        ContextSearch(ServedContexts()), QUESTION, SECTION.similarity_threshold, SECTION, LOT
    ).block


change = st.tuples(st.sampled_from(["add", "reword", "retire"]), st.integers(0, 10_000))


@settings(max_examples=40)
@given(before=st.lists(change, max_size=40), after=st.lists(change, max_size=40), n=st.integers(1, 120))
def test_a_graph_with_what_changed_since_finds_what_a_search_of_all_finds(
    before: list[tuple[str, int]], after: list[tuple[str, int]], n: int
) -> None:
    contexts = changed(ContextRows().view(), [("add", number) for number in range(n)])
    covering = changed(contexts, before)
    latest = changed(covering, after)
    exact, through_graph = ContextSearch(latest), covered(latest, covering)
    grown = replace(through_graph, contexts=changed(latest, before))  # the same cover, more changes
    for question in random_vectors(5, seed=n):
        assert found(through_graph, question) == found(exact, question)
        assert found(grown, question) == found(ContextSearch(grown.contexts), question)
        assert set(found(exact, question)) <= set(latest.ids)


def changed(contexts: ServedContexts, changes: list[tuple[str, int]]) -> ServedContexts:
    for kind, number in changes:
        ids = contexts.ids or ["none"]
        vector = random_vectors(1, seed=len(contexts.vectors) * 10_007 + number)
        new, removed = {
            "add": ([f"ctx_{len(contexts.vectors)}"], []),
            "reword": ([ids[number % len(ids)]], []),
            "retire": ([], [ids[number % len(ids)]]),
        }[kind]
        contexts = contexts.changed(entries(new, vector[: len(new)]), removed)
    return contexts


def test_a_request_that_began_before_a_change_is_served_although_the_cover_is_of_after_it() -> None:
    before = changed(ContextRows().view(), [("add", number) for number in range(60)])
    question = before.vectors[7]
    after = changed(before, [("retire", number) for number in range(50)])
    later = changed(after, [("add", number) for number in range(30)])
    for latest in (after, later):
        slot = covered(latest).slot
        assert set(found(ContextSearch(before, slot), question)) <= set(before.ids)
        assert found(ContextSearch(latest, slot), question) == found(ContextSearch(latest), question)


def test_a_graph_finds_ninety_nine_of_a_hundred_of_the_three_nearest() -> None:
    rows = ContextRows()
    rows.add(entries([f"ctx_{index:05}" for index in range(5_000)], random_vectors(5_000, seed=1)))
    exact, through_graph = ContextSearch(rows.view()), covered(rows.view())
    pairs = [(found(exact, question), found(through_graph, question)) for question in random_vectors(200, seed=2)]
    assert sum(len(right) for right, _ in pairs) > 300
    assert sum(len(set(right) & set(got)) for right, got in pairs) >= 0.99 * sum(len(right) for right, _ in pairs)


def test_retired_entries_never_hide_those_behind_them() -> None:
    n = 200
    near = np.zeros((n + 1, 256), np.float32)
    near[:, 0] = np.linspace(1.0, 0.9, n + 1)
    near[:, 1] = np.sqrt(1.0 - near[:, 0] ** 2)
    rows = ContextRows()
    rows.add(entries([f"ctx_{index:03}" for index in range(n + 1)], near))
    whole = rows.view()
    retired = whole.changed(entries([], np.zeros((0, 256), np.float32)), [f"ctx_{index:03}" for index in range(n)])
    assert found(covered(retired, whole), QUESTION) == [f"ctx_{n:03}"]
    assert found(replace(covered(whole), contexts=retired), QUESTION) == [f"ctx_{n:03}"]


def test_a_graph_is_read_as_it_was_written() -> None:
    vectors = random_vectors(300, seed=3)
    keys = row_keys([f"ctx_{index}" for index in range(300)], vectors, SECRET)
    graph = ContextGraph.build(vectors, np.arange(300), keys, lambda: False)
    again = ContextGraph.decode(b"".join(graph.encode(SECRET)), SECRET)
    assert np.array_equal(again.keys, keys)
    for question in random_vectors(20, seed=4):
        assert again.nearest(question, 10).tolist() == graph.nearest(question, 10).tolist()


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_graph_is_refused_whatever_the_damage(data: st.DataObject) -> None:
    vectors = random_vectors(20, seed=5)
    keys = row_keys([f"ctx_{index}" for index in range(20)], vectors, SECRET)
    content = b"".join(ContextGraph.build(vectors, np.arange(20), keys, lambda: False).encode(SECRET))
    at = data.draw(st.integers(0, len(content) - 1))
    cut, flipped = content[:at], content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :]
    for damaged in (cut, flipped, content + b"x"):
        with pytest.raises(GraphError):
            ContextGraph.decode(damaged, SECRET)
    with pytest.raises(GraphError):
        ContextGraph.decode(content, b"t" * 32)


def test_about_the_share_of_conversations_that_is_held_back_gets_an_entry_not_and_says_so() -> None:
    section = replace(SECTION, hold_back=0.2)
    search = served([0.9, 0.8], [10, 20])
    selections = [
        select_contexts(search, QUESTION, section.similarity_threshold, section, Lot(number.to_bytes(32, "big"), NOW_S))
        for number in range(4_000)
    ]

    for selection in selections:
        assert [(i.item_id, i.propensity, i.share) for i in selection.injections] == [
            ("ctx_0", 0.8, 0.8),
            ("ctx_1", 0.8, 0.8),
        ]
        treated = [i for i in selection.injections if i.treated]
        assert selection.block == blocks.context_block([f"<{i.item_id}>" for i in treated])
        assert selection.tokens == sum(i.tokens for i in treated) + CONTEXT_FRAME_TOKENS * bool(treated)
    arms = np.array([[i.treated for i in selection.injections] for selection in selections])
    assert np.abs(arms.mean(axis=0) - 0.8).max() < 0.02
    assert abs(float(np.corrcoef(arms.T)[0, 1])) < 0.05  # each entry has a draw of its own


def test_the_place_of_an_entry_that_is_held_back_stays_empty() -> None:
    section = replace(SECTION, hold_back=1.0)
    selection = select_contexts(served([0.9] * 5, [10] * 5), QUESTION, section.similarity_threshold, section, LOT)
    assert (selection.block, selection.tokens) == ("", 0)
    assert [(i.item_id, i.treated) for i in selection.injections] == [(f"ctx_{n}", False) for n in range(3)]


def test_an_entry_that_was_approved_a_day_ago_at_most_is_never_held_back() -> None:
    section = replace(SECTION, hold_back=1.0)
    lot = Lot(LOT.seed, NOW_S - 3_601)  # as of then, the entries are less than 24 hours old
    selection = select_contexts(served([0.9] * 2, [10] * 2), QUESTION, section.similarity_threshold, section, lot)
    assert [(i.item_id, i.propensity, i.treated) for i in selection.injections] == [
        ("ctx_0", 1.0, True),
        ("ctx_1", 1.0, True),
    ]


def named(similarities: dict[str, float], tokens: int = 10) -> ContextSearch:
    """Return a search over entries that are so similar to QUESTION."""
    vectors = np.zeros((len(similarities), 256), np.float32)
    vectors[:, 0] = list(similarities.values())
    rows = ContextRows()
    rows.add(entries(list(similarities), vectors, [tokens] * len(similarities)))
    return ContextSearch(rows.view())


def test_by_both_an_entry_without_a_remote_vector_is_found_by_its_local_one() -> None:
    remote = Look(named({"a": 0.6, "b": 0.3}), QUESTION, 0.4)
    local = Look(named({"a": 0.1, "b": 0.99, "new": 0.9, "far": 0.2}), QUESTION, 0.5)

    selection = select_by_both(remote, local, frozenset({"new", "far"}), SECTION, LOT)

    assert [(item.item_id, item.similarity) for item in selection.injections] == [("new", 0.9), ("a", 0.6)]
    assert selection.tokens == CONTEXT_FRAME_TOKENS + 20


def test_by_both_with_all_remote_vectors_the_local_ones_say_nothing() -> None:
    remote = Look(named({"a": 0.6, "b": 0.3}), QUESTION, 0.4)
    local = Look(named({"b": 0.99}), QUESTION, 0.5)

    assert [item.item_id for item in select_by_both(remote, local, frozenset(), SECTION, LOT).injections] == ["a"]


def test_by_both_the_budget_and_the_number_hold_and_nothing_near_is_nothing() -> None:
    names = {f"r{number}": 0.9 - number / 100 for number in range(5)}
    remote, local = Look(named(names), QUESTION, 0.4), Look(named({"new": 0.95}, 100_000), QUESTION, 0.5)

    selection = select_by_both(remote, local, frozenset({"new"}), SECTION, LOT)

    assert [item.item_id for item in selection.injections] == ["r0", "r1", "r2"]
    far = Look(named({"a": 0.1}), QUESTION, 0.4)
    assert not select_by_both(far, far, frozenset({"a"}), SECTION, LOT).block


def test_of_entries_about_as_near_the_one_with_the_questions_rare_word_comes_first() -> None:
    rows = ContextRows()
    ids = ["ctx_a", "ctx_b", "ctx_c"]
    vectors = np.zeros((3, 256), np.float32)
    vectors[:, 0] = [0.805, 0.8, 0.6]
    asked = ["How do I pay by card?", "How do I pay by SEPA transfer?", "SEPA transfer, how?"]
    rows.add(replace(entries(ids, vectors), asked=asked))
    search = ContextSearch(rows.view())
    selection = select_contexts(search, QUESTION, 0.5, SECTION, LOT, asked="pay by sepa transfers")
    assert [injection.item_id for injection in selection.injections] == ["ctx_b", "ctx_a", "ctx_c"]
    assert [injection.similarity for injection in selection.injections] == [0.8, 0.805, 0.6]


def test_shared_words_bring_in_nothing_that_is_not_near() -> None:
    rows = ContextRows()
    vectors = np.zeros((2, 256), np.float32)
    vectors[:, 0] = [0.6, 0.49]
    rows.add(replace(entries(["ctx_a", "ctx_b"], vectors), asked=["one", "SEPA transfer"]))
    selection = select_contexts(ContextSearch(rows.view()), QUESTION, 0.5, SECTION, LOT, asked="SEPA transfer")
    assert [injection.item_id for injection in selection.injections] == ["ctx_a"]


def test_of_entries_about_as_near_the_one_outside_of_a_crowd_comes_first() -> None:
    vectors = np.zeros((8, 256), np.float32)
    vectors[:, 0] = 0.8
    vectors[0, 1] = 0.6  # alone; the others are much the same, and one of them is a little nearer to the question
    vectors[1:, 2] = 0.6
    question = np.array([0.8, 0.35, 0.36, *[0.0] * 253], np.float32)
    question /= np.linalg.norm(question)
    rows = ContextRows()
    rows.add(entries([f"ctx_{number}" for number in range(8)], vectors))
    search = ContextSearch(rows.view())
    by_similarity = select_contexts(search, question, 0.5, SECTION, LOT)
    assert by_similarity.injections[0].item_id == "ctx_1"
    in_order = select_contexts(search, question, 0.5, SECTION, LOT, asked="anything")
    assert [one.item_id for one in in_order.injections] == ["ctx_0", "ctx_1", "ctx_2"]
    similarities = [one.similarity or 0.0 for one in in_order.injections]
    assert similarities[0] < similarities[1]  # as measured, whatever the order


def test_an_entrys_earlier_wording_makes_no_crowd_of_it() -> None:
    rows, anew = ContextRows(), ContextRows()
    vectors = np.eye(3, 256, dtype=np.float32) + np.float32(0.1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows.add(entries(["ctx_0", "ctx_1", "ctx_2"], vectors))
    rows.add(entries(["ctx_0"], vectors[:1]))
    anew.add(entries(["ctx_1", "ctx_2", "ctx_0"], vectors[[1, 2, 0]]))
    assert rows.crowding.of([1, 2, 3]) == pytest.approx(anew.crowding.of([0, 1, 2]))
