"""What a response earned: one voice per user, and nothing that was to be expected."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from learner.patterns.outcomes import Outcomes, baselines, outcomes, user_weights


def judged(users: list[str], signals: list[tuple[int, float, str, str]]) -> Outcomes:
    """Return the outcomes of one response per user and conversation; a signal is (response, weight, family, user)."""
    return outcomes(
        users=users,
        conversations=[f"c{i}" for i in range(len(users))],
        question_types=["q"] * len(users),
        signal_response=np.array([signal[0] for signal in signals], np.int64),
        signal_weight=np.array([signal[1] for signal in signals], np.float64),
        signal_families=[signal[2] for signal in signals],
        signal_users=[signal[3] for signal in signals],
    )


def test_satisfaction_is_the_sum_of_weights_within_bounds() -> None:
    found = judged(["a", "b", "c"], [(0, 1.0, "thumb", "a"), (0, 0.3, "copy", "a"), (1, -0.2, "follow_up", "b")])

    assert found.satisfaction.tolist() == [1.0, -0.2, 0.0]
    assert found.is_rated.tolist() == [True, True, False]


def test_no_records_have_no_outcomes() -> None:
    assert len(judged([], []).residual) == 0


def test_a_thumb_of_someone_who_rates_everything_counts_less() -> None:
    users = ["eager"] * 40 + [f"u{i % 50}" for i in range(400)]
    signals = [(i, 1.0, "thumb", "eager") for i in range(40)] + [(40 + i, 1.0, "thumb", f"u{i}") for i in range(20)]

    found = judged(users, signals)

    assert found.earned[0] < 0.75
    assert found.earned[45] == 1.0
    assert found.satisfaction[0] == 1.0


def test_a_voter_who_never_asked_counts_less_too() -> None:
    users = [f"u{i % 50}" for i in range(400)]
    signals = [(i, 1.0, "thumb", "stranger") for i in range(60)]

    assert judged(users, signals).earned[0] < 0.4


def test_a_response_of_nobody_known_belongs_to_its_only_voter() -> None:
    found = judged(["", "", ""], [(0, 1.0, "thumb", "v"), (1, 1.0, "thumb", "v")])

    assert found.cluster[0] == found.cluster[1] != found.cluster[2]


def test_no_user_weighs_more_than_the_cap() -> None:
    residual = np.concatenate([np.ones(500), np.ones(500)])
    cluster = np.concatenate([np.zeros(500, np.int64), np.arange(1, 501)])

    weight = user_weights(residual, cluster)

    assert (weight[:500] * residual[:500] ** 2).sum() == pytest.approx(0.02 * 1000)
    assert weight[500:].tolist() == [1.0] * 500


@given(st.integers(0, 199), st.floats(-1, 1), st.integers(0, 2**32 - 1))
def test_a_baseline_depends_on_earlier_conversations_alone(changed: int, value: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 200
    stratum, cluster = rng.integers(3, size=n), rng.integers(10, size=n)
    conversation = np.sort(rng.integers(80, size=n))
    earned = rng.uniform(-1, 1, n)
    other = earned.copy()
    other[changed] = value

    def expected(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return baselines(values, stratum=stratum, cluster=cluster, conversation=conversation)

    same = conversation <= conversation[changed]
    np.testing.assert_allclose(expected(earned)[same], expected(other)[same])


def test_a_grumpy_user_and_a_bad_stratum_are_expected_in_time() -> None:
    n = 2000
    rng = np.random.default_rng(1)
    stratum, cluster = rng.integers(2, size=n), rng.integers(10, size=n)
    earned = np.where(stratum == 1, -0.4, 0.2) + np.where(cluster == 3, -0.5, 0.0)

    expected = baselines(earned, stratum=stratum, cluster=cluster, conversation=np.arange(n))

    assert np.abs((earned - expected)[-200:]).max() < 0.2
    assert np.abs(earned - earned.mean())[-200:].max() > 0.5
