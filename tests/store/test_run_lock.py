"""One run of a tenant at a time."""

from pathlib import Path

import pytest

from store.errors import ConflictError
from store.run_lock import run_lock


def test_the_second_waits_its_time_and_gives_up(tmp_path: Path) -> None:
    with (
        run_lock(tmp_path / "t.db", "a/b", wait_s=0),
        pytest.raises(ConflictError, match="a/b"),
        run_lock(tmp_path / "t.db", "a/b", wait_s=0.1),
    ):
        pass


def test_tenants_do_not_wait_for_each_other_and_a_lock_ends_with_its_run(tmp_path: Path) -> None:
    with run_lock(tmp_path / "t.db", "a", wait_s=0), run_lock(tmp_path / "t.db", "b", wait_s=0):
        pass
    with run_lock(tmp_path / "t.db", "a", wait_s=0):
        pass
