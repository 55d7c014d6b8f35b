"""The search for cycles is put off for a while, and is on again afterwards, whatever happened."""

import gc

import pytest

from learner.cycles import without_cycle_search


def test_it_is_off_inside_and_on_again_after_a_failure() -> None:
    def failing() -> None:
        with without_cycle_search():
            assert not gc.isenabled()
            raise LookupError

    with pytest.raises(LookupError):
        failing()

    assert gc.isenabled()


def test_who_had_switched_it_off_keeps_it_off() -> None:
    gc.disable()
    try:
        with without_cycle_search():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
