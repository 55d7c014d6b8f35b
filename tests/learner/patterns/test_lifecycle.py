"""The strict test over everything that was ever tried."""

import math

from learner.patterns.lifecycle import proven


def test_the_strict_test_counts_all_that_were_tried() -> None:
    assert proven([], [], 0.1) == []
    assert proven([math.log(11)], ["type"], 0.1) == [True]
    assert proven([math.log(11), *[0.0] * 9], ["type"] * 10, 0.1) == [False] * 10
    assert proven([math.log(101), *[0.0] * 9], ["type"] * 10, 0.1) == [True] + [False] * 9


def test_families_share_the_budget() -> None:
    # One org-wide hypothesis has 60 of 80 % of the weight; the type's needs three times its e-value.
    assert proven([math.log(14), 0.0], ["org", "type"], 0.1) == [True, False]
    assert proven([0.0, math.log(14)], ["org", "type"], 0.1) == [False, False]
