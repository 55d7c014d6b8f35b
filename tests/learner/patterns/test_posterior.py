"""What is believed of an effect before and after its trial."""

import pytest

from learner.patterns.evidence import Contrast, Squares
from learner.patterns.posterior import Belief, Cluster, believe, pooled_scales

NOTHING = Contrast(0.0, 0.0, Squares(0.0, 0.0, 0.0), Squares(0.0, 0.0, 0.0), 0, 0)


def trial(lift: float, n: int) -> Contrast:
    """Return the contrast of *n* rows at even odds with unit variance."""
    squares = Squares((1 + lift**2 / 4) * n / 4, lift * n / 16, n / 16)
    return Contrast(lift * n / 4, n / 4, squares, squares, n // 2, n)


def belief(contrast: Contrast, cluster: Cluster | None = None, *, is_org_wide: bool = True) -> Belief:
    return believe(contrast=contrast, cluster=cluster, variance=1.0, is_org_wide=is_org_wide)


def test_without_anything_seen_nothing_is_known() -> None:
    assert belief(NOTHING) == Belief(0.0, pytest.approx(0.05))  # type: ignore[arg-type]
    assert belief(NOTHING).confidence == 0.5


def test_a_cluster_is_believed_less_than_half() -> None:
    seen = belief(NOTHING, Cluster(0.05, 0.001))

    assert 0 < seen.mean < 0.025
    assert 0.5 < seen.confidence < 0.85
    assert seen.sd < 0.05


def test_the_clearest_cluster_makes_it_likely_and_no_more() -> None:
    assert belief(NOTHING, Cluster(1.5, 0.001)).confidence < 0.85
    assert belief(NOTHING, Cluster(-1.5, 0.001)).confidence > 0.15


def test_a_vague_cluster_says_little() -> None:
    assert belief(NOTHING, Cluster(0.4, 1.0)).confidence < 0.55


def test_a_long_trial_overrules_the_cluster() -> None:
    found = belief(trial(-0.1, 100_000), Cluster(0.4, 0.02))

    assert found.mean == pytest.approx(-0.1, abs=0.03)
    assert found.confidence < 0.01


def test_a_short_trial_is_shrunk() -> None:
    assert belief(trial(0.5, 40)).mean < 0.05
    assert belief(trial(0.5, 40)).confidence < 0.975


def test_patterns_of_one_question_type_may_do_more() -> None:
    assert belief(NOTHING, is_org_wide=False).sd > belief(NOTHING).sd


def test_a_type_whose_patterns_work_is_believed_more() -> None:
    strong = [Belief(0.2, 0.02)] * 10
    weak = [Belief(0.0, 0.02)] * 10

    scales = pooled_scales(strong + weak, ["a"] * 10 + ["b"] * 10, variance=1.0)

    assert scales["a"] > 1.5
    assert scales["b"] < 1.0


def test_one_strong_pattern_does_not_widen_the_prior_of_all() -> None:
    assert pooled_scales([Belief(2.0, 0.02)], ["a"], variance=1.0)["a"] < 2.0
