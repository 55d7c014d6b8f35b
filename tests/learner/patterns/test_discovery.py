"""What stands out in the records, and what does not."""

import numpy as np
from numpy.typing import NDArray

from learner.patterns.characteristics import Membership
from learner.patterns.discovery import Records, benjamini_hochberg, compare, is_duplicate, screen


def world(
    n: int, seed: int, effects: dict[str, float], *, n_users: int = 40, moods: float = 0.0
) -> tuple[Records, list[Membership]]:
    """Return n rated responses of the question types in *effects*: a table adds that much to the mean vote."""
    rng = np.random.default_rng(seed)
    names = sorted(effects)
    stratum = rng.integers(len(names), size=n)
    is_table = rng.random(n) < 0.5
    cluster = rng.integers(n_users, size=n)
    mood = rng.normal(0, moods, n_users) if moods else np.zeros(n_users)
    mean = np.array([effects[name] for name in names])[stratum] * is_table + mood[cluster]
    earned = np.where(rng.random(n) < 0.5 + mean / 2, 1.0, -1.0)
    records = Records(earned, np.ones(n), np.ones(n, np.bool_), cluster, stratum, names, {})
    return records, [
        Membership("response_format", "response_format", "table", is_table, ~is_table),
        Membership("response_format", "response_format", "prose", ~is_table, is_table),
    ]


def kept(records: Records, members: list[Membership], q: float = 0.05) -> list[tuple[str, str | None]]:
    return [(one.value, one.question_type) for one in screen(compare(records, members), min_signals=10, q=q)]


def test_a_value_that_helps_one_question_type_is_found_for_that_type() -> None:
    assert kept(*world(600, 1, {"compare": 0.6, "greet": 0.0})) == [("table", "compare")]


def test_a_value_that_helps_everywhere_is_found_once_for_all() -> None:
    assert kept(*world(900, 1, {"compare": 0.5, "greet": 0.5, "refund": 0.5})) == [("table", None)]


def test_unknown_questions_are_a_type_like_any_other() -> None:
    assert kept(*world(300, 1, {"unknown": 0.6})) == [("table", "unknown")]


def test_too_few_signals_say_nothing() -> None:
    assert kept(*world(12, 1, {"compare": 0.9}), q=0.9) == []


def test_two_accounts_cannot_make_a_candidate() -> None:
    assert kept(*world(600, 1, {"compare": 0.8}, n_users=2)) == []


def test_what_was_instructed_is_not_compared() -> None:
    records, members = world(600, 1, {"compare": 0.8})
    all_instructed = Records(
        records.earned,
        records.weight,
        records.is_rated,
        records.cluster,
        records.stratum,
        records.question_types,
        {"response_format": np.ones(600, np.bool_)},
    )

    assert compare(all_instructed, members) == []


def test_noise_rarely_passes_a_strict_screen() -> None:
    passed = [kept(*world(300, seed, {"a": 0.0, "b": 0.0, "c": 0.0}, moods=0.3)) for seed in range(100)]

    assert sum(bool(one) for one in passed) <= 10


def test_a_cluster_is_shrunk_towards_its_question_types_mean() -> None:
    (small, *_), (large, *_) = (compare(*world(n, 5, {"a": 0.9})) for n in (16, 4000))

    assert abs(small.cluster.difference) < 0.9
    assert large.cluster.difference > 0.85
    assert small.z < large.z


def test_a_perfect_split_is_not_infinitely_sure() -> None:
    is_table: NDArray[np.bool_] = np.arange(24) % 2 == 0
    records = Records(
        np.where(is_table, 1.0, -1.0),
        np.ones(24),
        np.ones(24, np.bool_),
        np.arange(24),
        np.zeros(24, np.int64),
        ["q"],
        {},
    )
    (found,) = compare(records, [Membership("response_format", "response_format", "table", is_table, ~is_table)])

    assert 2 < found.z < 6


def test_benjamini_hochberg_counts_the_tests() -> None:
    assert benjamini_hochberg([], 0.5) == []
    assert benjamini_hochberg([1.7], 0.05) == [True]
    assert benjamini_hochberg([1.7, *[0.0] * 9], 0.05) == [False] * 10


def test_characteristics_that_always_come_together_are_one() -> None:
    rng = np.random.default_rng(0)
    a = rng.random(200) < 0.5
    b = a.copy()
    b[:3] = ~b[:3]
    scope = np.ones(200, np.bool_)

    assert is_duplicate(a, b, scope)
    assert not is_duplicate(a, ~b, scope)
    assert not is_duplicate(a, rng.random(200) < 0.5, scope)
    assert not is_duplicate(scope, a, scope)


def test_weak_effects_everywhere_are_found_by_all_types_together() -> None:
    found = [kept(*world(1200, seed, dict.fromkeys("abcdef", 0.25))) for seed in range(10)]

    assert sum(("table", None) in one for one in found) >= 7
