"""Which responses say something about one pattern against none."""

import numpy as np

from learner.patterns.exposure import Exposure, expose, instructed
from learner.patterns.outcomes import Outcomes, codes_of


def plain_outcomes(n: int) -> Outcomes:
    return Outcomes(
        np.zeros(n), np.zeros(n), np.arange(n, dtype=np.float64), np.ones(n), np.ones(n, np.bool_), np.arange(n), 1.0
    )


def exposure(seen: list[tuple[int, str, str, float, bool]], holdout: list[bool]) -> Exposure:
    """Return the exposure of appearances (response, item, dimension, propensity, treated)."""
    items, item = codes_of([one[1] for one in seen])
    return expose(
        response=np.array([one[0] for one in seen], np.int64),
        item=item,
        items=items,
        dimension=codes_of([one[2] for one in seen])[1],
        propensity=np.array([one[3] for one in seen], np.float64),
        treated=np.array([one[4] for one in seen], np.bool_),
        is_holdout=np.array(holdout, np.bool_),
    )


SEEN = [
    (0, "a", "shape", 0.3, True),
    (0, "b", "shape", 0.3, False),
    (1, "a", "shape", 0.3, False),
    (1, "b", "shape", 0.3, True),
    (2, "a", "shape", 0.3, False),
    (2, "b", "shape", 0.3, False),
    (2, "c", "length", 1.0, True),
    (3, "a", "shape", 0.3, False),
    (3, "b", "shape", 0.3, False),
]


def test_rows_are_those_where_the_coin_fell_on_the_pattern_or_on_none() -> None:
    found = exposure(SEEN, [False] * 4).rows("a", plain_outcomes(4), np.arange(4.0), since_s=0.0)

    assert found.residual.tolist() == [0, 2, 3]
    assert found.treated.tolist() == [True, False, False]
    np.testing.assert_allclose(found.propensity, 0.3 / (0.3 + 0.4))


def test_holdout_conversations_never_tossed_the_coin() -> None:
    found = exposure(SEEN, [False, False, False, True]).rows("a", plain_outcomes(4), np.arange(4.0), since_s=0.0)

    assert found.residual.tolist() == [0, 2]


def test_evidence_counts_from_the_trials_beginning() -> None:
    found = exposure(SEEN, [False] * 4).rows("a", plain_outcomes(4), np.arange(4.0), since_s=1.5)

    assert found.residual.tolist() == [2, 3]


def test_a_pinned_pattern_has_no_control() -> None:
    world = exposure(SEEN, [False] * 4)

    assert len(world.rows("c", plain_outcomes(4), np.arange(4.0), since_s=0.0).treated) == 0
    assert world.used("c").tolist() == [2]


def test_an_unknown_pattern_has_no_rows() -> None:
    world = exposure([], [])

    assert len(world.rows("x", plain_outcomes(0), np.zeros(0), since_s=0.0).treated) == 0
    assert len(world.used("x")) == 0


def test_a_response_is_instructed_in_a_dimension_when_one_of_its_patterns_was_in_it() -> None:
    dimensions, dimension = codes_of([one[2] for one in SEEN])
    found = instructed(
        response=np.array([one[0] for one in SEEN]),
        dimension=dimension,
        dimensions=dimensions,
        treated=np.array([one[4] for one in SEEN]),
        n_responses=4,
    )

    assert found["shape"].tolist() == [True, True, False, False]
    assert found["length"].tolist() == [False, False, True, False]
