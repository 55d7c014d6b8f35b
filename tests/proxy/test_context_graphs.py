"""Graphs come when they are ready, fit what is served, are built once, and cost no request when they fail."""

import fcntl
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from proxy import context_graphs
from proxy.context_graph import ContextGraph
from proxy.context_graphs import ContextGraphs
from proxy.retrieval import ContextSearch, CoverSlot, live_keys
from store.served_contexts import ContextRows, ServedContexts
from tests.proxy.test_retrieval import SECRET, entries, found, random_vectors

EXACT_UP_TO = 50
N = 200
ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "tutelage.db.graphs"


@contextmanager
def worker(directory: Path) -> Iterator[ContextGraphs]:
    graphs = ContextGraphs(directory, EXACT_UP_TO)
    graphs.start()
    try:
        yield graphs
    finally:
        graphs.stop()


def some_contexts(n: int = N, seed: int = 1) -> ServedContexts:
    rows = ContextRows()
    rows.add(entries([f"ctx_{index:04}" for index in range(n)], random_vectors(n, seed=seed)))
    return rows.view()


def slot_of(search: ContextSearch) -> CoverSlot:
    assert search.slot is not None
    return search.slot


def eventually(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def covers(search: ContextSearch) -> bool:
    return slot_of(search).cover is not None


def finds_all(search: ContextSearch) -> bool:
    questions = random_vectors(20, seed=9)
    return all(found(search, question) == found(ContextSearch(search.contexts), question) for question in questions)


def files(directory: Path) -> list[str]:
    return sorted(path.suffix for path in directory.iterdir())


def test_the_package_that_builds_graphs_is_not_loaded_before_one_is_needed() -> None:
    program = "import sys, proxy.serve; sys.exit('usearch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT).returncode == 0


def test_few_contexts_need_no_graph(directory: Path) -> None:
    with worker(directory) as graphs:
        assert graphs.search("acme", SECRET, some_contexts(EXACT_UP_TO)).slot is None
    assert not directory.exists()


def test_all_are_compared_until_the_graph_is_built(directory: Path) -> None:
    graphs = ContextGraphs(directory, EXACT_UP_TO)
    search = graphs.search("acme", SECRET, some_contexts())
    assert not covers(search)
    assert finds_all(search)
    graphs.start()
    eventually(lambda: covers(search))
    assert finds_all(search)
    graphs.stop()


def test_only_the_owner_can_read_what_is_kept(directory: Path) -> None:
    with worker(directory) as graphs:
        graphs.search("acme", SECRET, some_contexts())
        eventually(lambda: any(directory.glob("*.graph")))
    assert files(directory) == [".graph", ".lock"]
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in directory.glob("*.graph")} == {0}


def test_a_restart_and_another_worker_read_the_graph_instead_of_building_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with worker(directory) as first:
        first.search("acme", SECRET, some_contexts())
        eventually(lambda: any(directory.glob("*.graph")))
        monkeypatch.setattr(ContextGraph, "build", None)
        with worker(directory) as second:
            search = second.search("acme", SECRET, some_contexts())
            eventually(lambda: covers(search))
            assert finds_all(search)


def test_while_another_process_builds_all_are_compared_and_its_graph_is_taken(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_graphs, "RETRY_S", 0.01)
    directory.mkdir()
    with (directory / "build.lock").open("ab") as lock, worker(directory) as graphs:
        fcntl.flock(lock, fcntl.LOCK_EX)
        search = graphs.search("acme", SECRET, some_contexts())
        time.sleep(0.1)
        assert not covers(search)
        assert finds_all(search)
        other = ContextGraph.build(search.contexts.vectors, np.arange(N), keys_of(search.contexts), lambda: False)
        graph_path(directory).write_bytes(b"".join(other.encode(SECRET)))
        eventually(lambda: covers(search))


def keys_of(contexts: ServedContexts) -> np.typing.NDArray[np.uint64]:
    return live_keys(contexts, contexts.live_rows, SECRET)


def graph_path(directory: Path) -> Path:
    graphs = ContextGraphs(directory, EXACT_UP_TO)
    graphs.search("acme", SECRET, some_contexts())
    return graphs._path(graphs._tenants["acme"])


@pytest.mark.parametrize("content", [b"", b"x" * 1000])
def test_a_damaged_file_is_said_and_built_again(
    directory: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    directory.mkdir()
    path = graph_path(directory)
    path.write_bytes(content)
    with caplog.at_level(logging.INFO), worker(directory) as graphs:
        search = graphs.search("acme", SECRET, some_contexts())
        eventually(lambda: path.stat().st_size > 1000)
        assert finds_all(search)
    assert [record.levelname for record in caplog.records if "cannot be used" in record.message][:1] == ["WARNING"]


def test_a_graph_of_another_tenant_is_never_used(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with worker(directory) as graphs:
        graphs.search("other", b"o" * 32, some_contexts())
        eventually(lambda: any(directory.glob("*.graph")))
    (others,) = directory.glob("*.graph")
    others.rename(graph_path(directory))
    monkeypatch.setattr(ContextGraph, "build", None)
    with worker(directory) as graphs:
        search = graphs.search("acme", SECRET, some_contexts())
        eventually(lambda: graphs._tenants["acme"].rest_until_s > 0)
        assert not covers(search)
        assert finds_all(search)


def test_a_build_that_fails_is_logged_and_rests(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory.write_text("in the way")
    monkeypatch.setattr(context_graphs, "RETRY_S", 0.01)
    with worker(directory) as graphs:
        search = graphs.search("acme", SECRET, some_contexts())
        eventually(lambda: graphs._tenants["acme"].rest_until_s > 0)
        time.sleep(0.1)
        assert finds_all(search)
    (said,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "acme" in said.getMessage()


def test_what_changes_after_the_graph_was_built_is_served_at_once(directory: Path) -> None:
    with worker(directory) as graphs:
        contexts = some_contexts()
        search = graphs.search("acme", SECRET, contexts)
        eventually(lambda: covers(search))
        question = random_vectors(1, seed=77)[0]
        contexts = contexts.changed(entries(["ctx_new"], question[None]), [])
        assert found(graphs.search("acme", SECRET, contexts), question)[0] == "ctx_new"
        contexts = contexts.changed(entries([], question[None][:0]), ["ctx_new"])
        assert "ctx_new" not in found(graphs.search("acme", SECRET, contexts), question)


def test_too_many_changes_lead_to_another_graph(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_graphs, "MAX_CHANGED", 20)
    with worker(directory) as graphs:
        contexts = some_contexts()
        first = slot_of(graphs.search("acme", SECRET, contexts))
        eventually(lambda: first.cover is not None)
        contexts = contexts.changed(entries([f"new_{i}" for i in range(21)], random_vectors(21, seed=6)), [])
        search = graphs.search("acme", SECRET, contexts)
        assert finds_all(search)
        eventually(lambda: len(cover_keys(search)) == N + 21)
        assert finds_all(search)


def cover_keys(search: ContextSearch) -> np.typing.NDArray[np.uint64]:
    cover = slot_of(search).cover
    assert cover is not None
    return cover.graph.keys


def test_rows_that_were_loaded_anew_keep_their_graph(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with worker(directory) as graphs:
        before = graphs.search("acme", SECRET, some_contexts())
        eventually(lambda: covers(before))
        monkeypatch.setattr(ContextGraph, "build", None)
        after = graphs.search("acme", SECRET, some_contexts())
        assert slot_of(after) is not slot_of(before)
        eventually(lambda: covers(after))
        assert finds_all(after)


def test_files_of_tenants_that_need_no_graph_any_more_are_deleted(directory: Path) -> None:
    with worker(directory) as graphs:
        graphs.search("acme", SECRET, some_contexts())
        graphs.search("shrunk", b"t" * 32, some_contexts())
        graphs.search("gone", b"u" * 32, some_contexts())
        graphs.retain(["acme", "shrunk", "gone"], {})
        eventually(lambda: len(list(directory.glob("*.graph"))) == 3)
        graphs.search("shrunk", b"t" * 32, some_contexts(3))
        graphs.retain(["acme", "shrunk"], {})
        eventually(lambda: len(list(directory.glob("*.graph"))) == 1)
        assert graph_path(directory).exists()


def test_a_tenant_whose_contexts_are_let_go_keeps_its_file_and_nothing_else(directory: Path) -> None:
    with worker(directory) as graphs:
        before = graphs.search("acme", SECRET, some_contexts())
        eventually(graph_path(directory).exists)
        assert covers(before)
        graphs.retain([], {"acme": SECRET})
        assert graphs._tenants == {}
        eventually(lambda: not graphs._wake.is_set())
        after = graphs.search("acme", SECRET, some_contexts())
        eventually(lambda: covers(after))
    assert graph_path(directory).exists()


def test_files_stay_while_it_is_not_known_which_tenants_there_are(directory: Path) -> None:
    directory.mkdir()
    graph_path(directory).write_bytes(b"x")
    with worker(directory) as graphs:
        graphs._wake.set()
        eventually(lambda: not graphs._wake.is_set())
    assert graph_path(directory).exists()


def test_a_stop_in_the_middle_of_a_build_is_heard(directory: Path) -> None:
    graphs = ContextGraphs(directory, EXACT_UP_TO)
    search = graphs.search("acme", SECRET, some_contexts(5_000))
    graphs.start()
    eventually((directory / "build.lock").exists)
    graphs.stop()
    assert not graphs._thread.is_alive()
    assert not covers(search)
