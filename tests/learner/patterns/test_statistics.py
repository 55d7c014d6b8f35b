"""The sums that the learner keeps: additive, exact about what was drawn, and never one account's word."""

import numpy as np
import pytest

from learner.patterns.beliefs import Beliefs, Key, Scope
from learner.patterns.observations import Observations
from learner.patterns.statistics import Statistics
from store.config import load_config
from tests.learner.patterns.observed import COLUMNS, DAY_S, START_S, observe

SETTINGS = load_config().patterns
WEIGHTS = {"thumb": 1.0, "copy": 0.3, "follow_up": -0.2, "dwell_time": -0.1}
END_S = START_S + 30 * DAY_S
SHORT, LONG, TABLE, FORMAL = range(4)


def empty() -> Statistics:
    return Statistics(SETTINGS, WEIGHTS, "segment")


def absorbed(*batches: Observations) -> Statistics:
    statistics = empty()
    for batch in batches:
        statistics.absorb(batch)
    return statistics


def same(left: Beliefs, right: Beliefs) -> None:
    assert left.columns == right.columns
    assert left.strata == right.strata
    assert left.tallies == right.tallies
    for name in ("cell_mean", "cell_sd", "key_mean", "key_sd", "log_e", "harm_z", "n_treated", "natural", "traffic"):
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=1e-9, atol=1e-12, err_msg=name)


def key(column: int, scope: Scope | None = None) -> Key:
    return Key(scope or Scope(), COLUMNS[column])


def test_a_saved_state_goes_on_as_if_it_had_never_been_saved() -> None:
    first, second = observe(600, 1), observe(400, 2)
    kept = absorbed(first)
    kept.refit(END_S)
    read = Statistics.decode(kept.encode(), SETTINGS, WEIGHTS, "segment")
    kept.absorb(second)
    read.absorb(second)

    same(read.refit(END_S), kept.refit(END_S))


def test_a_copy_takes_in_more_without_changing_its_original() -> None:
    original = absorbed(observe(600, 1))
    before = original.encode()
    twin = original.copy()
    twin.absorb(observe(400, 2))
    twin.reset(key(TABLE), END_S)
    twin.discount(key(TABLE), 0.2)
    twin.refit(END_S)

    assert original.encode() == before


@pytest.mark.parametrize("damage", [b"", b"x", b"xxxx12345"])
def test_a_damaged_state_is_named_so(damage: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        Statistics.decode(damage, SETTINGS, WEIGHTS, "segment")


def test_a_state_for_another_stratum_is_refused() -> None:
    with pytest.raises(ValueError, match="written for"):
        Statistics.decode(absorbed(observe(100, 1)).encode(), SETTINGS, WEIGHTS, "data_source")
