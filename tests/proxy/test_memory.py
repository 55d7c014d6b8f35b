"""Freed memory goes back to the system, after a flood of requests too."""

from pathlib import Path

from proxy.memory import Flood, give_back


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def test_what_was_freed_between_pieces_in_use_goes_back() -> None:
    pieces = [bytes(20_000) for _ in range(5_000)]
    kept = pieces[::100]
    held = resident_mb()
    pieces.clear()
    give_back()
    assert len(kept) == 50
    assert resident_mb() < held - 50


def test_a_flood_is_over_once_most_of_it_has_gone_and_small_ones_are_none() -> None:
    flood = Flood()
    seen = [10, 100, 20, 0, 1000, 900, 300, 150, 100, 0, 0, 199, 0, 200, 51, 50]
    assert [number for number, n in enumerate(seen) if flood.is_over(n)] == [7, 15]
