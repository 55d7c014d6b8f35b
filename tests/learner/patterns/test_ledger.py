"""Evidence by key: the sums say the same as a contrast made from the rows themselves."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.patterns.axes import MAX_TYPES, Axes, bucket_of
from learner.patterns.beliefs import Key, Scope
from learner.patterns.changes import WATCHED_DAYS
from learner.patterns.coded import encode
from learner.patterns.evidence import Rows, contrast, lift_interval, log_e_value
from learner.patterns.ledger import Ledger
from learner.patterns.observations import FAMILIES, Observations
from learner.patterns.readings import Readings
from learner.patterns.residuals import N_OUTCOMES, Residuals
from learner.patterns.statistics import Statistics
from store.config import load_config
from tests.learner.patterns.observed import COLUMNS, DAY_S, START_S, Truth, observe

TABLE = COLUMNS[2]
SHORT = COLUMNS[0]


def filled(n: int, seed: int, truth: Truth | None = None) -> tuple[Axes, Ledger, Rows, Rows]:
    """Return a ledger over n responses, and the rows of (table, everywhere) and (short, in the first type)."""
    observations = observe(n, seed, truth)
    axes = Axes()
    axes.meet(observations)
    coded, _, _ = encode(observations, axes)
    score = observations.signals @ np.array([1.0, 0.3, -0.2, 0, 0, 0, 0])
    outcomes = np.zeros((n, N_OUTCOMES))
    outcomes[:, : len(FAMILIES)] = coded.signals
    weight = np.random.default_rng(seed).uniform(0.2, 1.0, n)
    ledger = Ledger(axes.sizes)
    nothing = np.zeros((axes.sizes["q"], axes.sizes["s"], axes.sizes["f"]))
    ledger.take(coded, Residuals(outcomes, weight, score), nothing)
    treated = observations.exposures.treated.reshape(n, len(COLUMNS))
    cluster = np.array([bucket_of(user) for user in observations.users])
    everything = Rows(
        treated[:, 2], np.full(n, 0.5), score, weight, cluster, observations.created_s, observations.is_rated
    )
    first = np.array([name == axes.question_types[0] for name in observations.question_types])
    short = Rows(
        treated[:, 0], np.full(n, 0.3 / 0.8), score, weight, cluster, observations.created_s, observations.is_rated
    )
    # Rows on which the other length was drawn say nothing about this one.
    return (
        axes,
        ledger,
        everything.only(~observations.is_holdout),
        short.only(~observations.is_holdout & ~treated[:, 1] & first),
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(20, 400), st.integers(0, 50))
def test_the_sums_are_those_of_the_rows(n: int, seed: int) -> None:
    axes, ledger, everywhere, in_type = filled(n, seed)
    for scope, column, rows in ((0, TABLE, everywhere), (1, SHORT, in_type)):
        found, wanted = ledger.contrast(scope, axes.columns.index(column)), contrast(rows)
        assert found is not None
        assert (found.score, found.information) == pytest.approx((wanted.score, wanted.information))
        assert found.variance() == pytest.approx(wanted.variance())
        assert found.variance(0.3) == pytest.approx(wanted.variance(0.3))
        assert found.n_treated_rated == wanted.n_treated_rated
        assert log_e_value(found, 0.2) == pytest.approx(log_e_value(wanted, 0.2))
        assert lift_interval(found, 0.2) == pytest.approx(lift_interval(wanted, 0.2))


def test_few_users_are_counted_nearly_exactly() -> None:
    axes, ledger, everywhere, _ = filled(2000, 1, Truth(n_users=25))
    found = ledger.contrast(0, axes.columns.index(TABLE))

    assert found is not None
    assert found.n_users == pytest.approx(25, abs=3)
    assert contrast(everywhere).n_users <= 25


@settings(max_examples=20, deadline=None)
@given(st.integers(50, 300), st.integers(0, 20))
def test_one_account_never_exceeds_one_standard_error(n: int, seed: int) -> None:
    axes, ledger, _, _ = filled(n, seed, Truth(n_users=1, n_groups=1, effects=(0.0, 0.0, 0.9, 0.0), rating=1.0))
    found = ledger.contrast(0, axes.columns.index(TABLE))

    assert found is not None
    assert abs(found.score) <= math.sqrt(found.variance()) + 1e-9


def test_a_reset_leaves_the_other_scopes_alone() -> None:
    axes, ledger, _, _ = filled(500, 1)
    table = axes.columns.index(TABLE)
    before = ledger.contrast(0, table)
    ledger.reset(1, table, 0.0)

    assert ledger.contrast(1, table) is None
    assert ledger.contrast(0, table) == before
    assert ledger.contrast(2, table) is not None
    assert ledger.contrast(1 + MAX_TYPES, table) is not None


@settings(max_examples=20, deadline=None)
@given(st.integers(50, 400), st.integers(0, 50), st.integers(0, 400))
def test_the_last_days_are_those_of_the_rows_however_they_came(n: int, seed: int, cut: int) -> None:
    observations = observe(n, seed, Truth(days=3 * WATCHED_DAYS))
    axes = Axes()
    axes.meet(observations)
    coded, _, bounds = encode(observations, axes)
    score, outcomes = coded.signals[:, 0], np.zeros((n, N_OUTCOMES))
    nothing = np.zeros((axes.sizes["q"], axes.sizes["s"], axes.sizes["f"]))
    ledger = Ledger(axes.sizes)
    middle = int(bounds[min(cut, len(bounds) - 1)])
    for start, end in ((0, middle), (middle, n)):
        if start < end:
            rows = slice(start, end)
            ledger.take(
                coded.between(start, end), Residuals(outcomes[rows], np.ones(end - start), score[rows]), nothing
            )

    table = axes.columns.index(TABLE)
    days = ledger.days(axes.scope_places).of(0, table)
    coin = np.zeros(n)
    own = coded.draws.column == table
    coin[coded.draws.row[own]] = coded.draws.contrast[own]
    date = coded.created_s // DAY_S
    for values, wanted in ((days.score, coin * score), (days.information, coin**2)):
        by_day = [float(wanted[date == day].sum()) for day in days.day.tolist()]
        np.testing.assert_allclose(values, by_day, atol=1e-12)
    assert days.day[-1] == date.max()
    assert float(days.score_before) == pytest.approx(float((coin * score)[date < days.day[0]].sum()), abs=1e-9)
    whole = ledger.contrast(0, table)
    assert whole is not None
    assert float(days.information_before) + days.information.sum() == pytest.approx(whole.information)


def test_one_account_that_turns_round_is_no_change_of_the_pattern() -> None:
    """Fifty people go on liking tables; one, with half of the last days' votes, begins to hate them."""
    likes = Truth(effects=(0.0, 0.0, 0.4, 0.0), rating=1.0, days=40.0, n_users=50, holdout=0.0)
    hates = replace(likes, effects=(0.0, 0.0, -0.9, 0.0), days=8.0, n_users=1)
    later = replace(likes, days=8.0)

    def shifted(observations: Observations, name: str | None) -> Observations:
        users = [name] * len(observations.users) if name else list(observations.users)
        voters = [user if voter else "" for user, voter in zip(users, observations.thumb_voters, strict=True)]
        moved = observations.created_s + 40 * DAY_S
        return replace(observations, created_s=moved, users=users, thumb_voters=voters)

    section = load_config().patterns
    weights = {"thumb": 1.0, "copy": 0.3, "follow_up": -0.2}
    found = []
    for others in (None, "flooder"):
        statistics = Statistics(section, weights, "segment")
        statistics.absorb(observe(1500, 1, likes))
        statistics.absorb(shifted(observe(300, 2, later), None))
        statistics.absorb(shifted(observe(300, 3, replace(hates, n_users=50 if others is None else 1)), others))
        beliefs = statistics.refit(START_S + 50 * DAY_S)
        found.append(Readings(beliefs, section).worsening(Key(Scope(), TABLE)))

    assert found[0] is not None
    assert found[1] is None
