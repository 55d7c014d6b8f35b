"""The sums that the learner keeps: additive, exact about what was drawn, and never one account's word."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from learner.patterns.beliefs import Beliefs, Key, Scope
from learner.patterns.observations import Observations
from learner.patterns.statistics import Statistics
from store.config import load_config
from tests.learner.patterns.observed import COLUMNS, DAY_S, START_S, Truth, observe, part, with_signals

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
    assert left.tallies.keys() == right.tallies.keys()
    for name, tally in left.tallies.items():
        assert tally.score == pytest.approx(right.tallies[name].score, abs=1e-12)
        assert replace(tally, score=0.0) == replace(right.tallies[name], score=0.0)
    for name in ("cell_mean", "cell_sd", "key_mean", "key_sd", "log_e", "harm_z", "n_treated", "natural", "traffic"):
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=1e-9, atol=1e-12, err_msg=name)


def key(column: int, scope: Scope | None = None) -> Key:
    return Key(scope or Scope(), COLUMNS[column])


@pytest.mark.parametrize("weights", [{"thumbs_up": 1.0, "thumbs_down": -1.0, "copy": 0.3}, {"copy": 0.3}])
def test_weights_under_other_names_than_families_are_refused_not_taken_for_none(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="weights of thumb"):
        Statistics(SETTINGS, weights, "segment")


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


def test_batches_that_end_where_chunks_do_add_up_to_one_batch() -> None:
    whole = observe(400, 1)
    halves = part(whole, np.arange(200)), part(whole, np.arange(200, 400))

    same(absorbed(*halves).refit(END_S), absorbed(whole).refit(END_S))


def test_it_hardly_matters_how_records_are_cut() -> None:
    whole = observe(3000, 1, Truth(effects=(0.0, 0.0, 0.4, 0.0)))
    cuts = [0, 17, 100, 777, 1500, 2999, 3000]
    parts = [part(whole, np.arange(start, end)) for start, end in pairwise(cuts)]
    cut, one = absorbed(*parts).refit(END_S), absorbed(whole).refit(END_S)

    assert cut.n_treated[0].tolist() == one.n_treated[0].tolist()
    assert np.abs((cut.key_mean - one.key_mean)[0] / one.key_sd[0]).max() < 0.3
    assert cut.log_e[0, TABLE] == pytest.approx(one.log_e[0, TABLE], rel=0.15)


def test_the_trial_finds_the_effect_that_the_records_confound() -> None:
    statistics = empty()
    for seed in range(4):
        statistics.absorb(observe(2500, seed, Truth(confounding=1.0, effects=(0.4, 0.0, 0.0, 0.0))))
        beliefs = statistics.refit(END_S)
    place = {column: index for index, column in enumerate(beliefs.columns)}
    table, short = beliefs.contrasts[key(TABLE)].lift, beliefs.contrasts[key(SHORT)].lift

    # A lift of 0.4 in a thumb that half of the responses get, and a little of the other families.
    assert short == pytest.approx(0.4 * 0.5 + 0.04 * 0.5, abs=0.06)
    assert table == pytest.approx(0.0, abs=0.04)
    assert beliefs.confidence()[0, place[COLUMNS[SHORT]]] > 0.999
    assert abs(beliefs.key_mean[0, place[COLUMNS[TABLE]]]) < 0.03


def test_without_a_trial_confounded_records_convince_nobody() -> None:
    statistics = empty()
    for seed in range(3):
        whole = observe(2000, seed, Truth(confounding=1.0, shares=(0.0, 0.0, 0.0, 0.0)))
        statistics.absorb(whole)
        beliefs = statistics.refit(END_S)

    assert not beliefs.contrasts
    assert (beliefs.log_e == -np.inf).all()
    assert beliefs.confidence().max() < 0.975


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("effect", [-0.3, 0.3])
@pytest.mark.parametrize("is_praised", [True, False])
def test_belief_and_randomised_evidence_agree_whatever_the_records_say(
    seed: int, effect: float, is_praised: bool
) -> None:
    """The records praise tables, or blame them, and replies have ever fewer of their own accord."""
    trial = Truth(effects=(0.0, 0.0, effect, 0.0), confounding=3.0, shares=(0.3, 0.2, 0.8, 0.4), rating=1.0)
    before = replace(trial, shares=(0.0, 0.0, 0.0, 0.0))
    statistics = absorbed(with_tables(observe(400, seed, before), is_praised=is_praised, every=1))
    statistics.refit(START_S)
    for run in range(4):
        statistics.absorb(with_tables(observe(300, 100 * seed + run, trial), is_praised=is_praised, every=4))
        beliefs = statistics.refit(END_S)
    table = beliefs.columns.index(COLUMNS[TABLE])
    confidence, log_e = float(beliefs.confidence()[0, table]), float(beliefs.log_e[0, table])
    found = beliefs.contrasts[key(TABLE)]

    assert beliefs.seen_score is not None
    assert (float(beliefs.seen_score[:, :, table].sum()) > 0) == is_praised
    assert log_e < math.log(20) or confidence > 0.8
    assert found.score > -3 * math.sqrt(found.variance()) or confidence < 0.25


def with_tables(observations: Observations, *, is_praised: bool, every: int) -> Observations:
    """Return *observations* in which the content have tables (or have none), kept in every so many replies."""
    natural = observations.natural
    has = natural.has.copy()
    has[:, TABLE] = (has[:, TABLE] == is_praised) & (np.arange(len(has)) % every == 0)
    return replace(observations, natural=replace(natural, has=has))


def test_looking_at_every_batch_rarely_takes_nothing_for_something() -> None:
    n_false = 0
    for seed in range(20):
        statistics = empty()
        for batch in range(4):
            statistics.absorb(observe(150, 100 * seed + batch))
            beliefs = statistics.refit(END_S)
            active = (beliefs.log_e >= math.log(20)) & (beliefs.confidence() >= 0.975)
            n_false += int(active.any())

    assert n_false <= 2  # of 80 looks at 20 hypotheses each


@pytest.mark.parametrize("seed", range(6))
def test_a_small_tenant_proves_a_huge_effect_within_66_treated_signals(seed: int) -> None:
    statistics = empty()
    whole = observe(150, seed, Truth(n_users=40, n_types=1, n_groups=1, shares=(0.0, 0.0, 0.5, 0.0), holdout=0.0))
    table = whole.exposures.treated.reshape(-1, len(COLUMNS))[:, TABLE]
    thumbs = np.where(table, 1.0, -1.0) * (whole.signals[:, 0] != 0)
    whole = with_signals(whole, thumbs[:, None] * np.eye(7)[0])
    statistics.absorb(part(whole, np.arange(75)))
    statistics.refit(END_S)
    statistics.absorb(part(whole, np.arange(75, 150)))
    beliefs = statistics.refit(END_S)
    place = beliefs.columns.index(COLUMNS[TABLE])

    assert beliefs.n_treated[0, place] <= 66
    assert beliefs.log_e[0, place] >= math.log(20)
    assert beliefs.confidence()[0, place] >= 0.975


def test_evidence_begins_anew_after_a_reset() -> None:
    first = observe(600, 1, Truth(effects=(0.0, 0.0, 0.9, 0.0)))
    later = replace(observe(600, 2), created_s=first.created_s + 31 * DAY_S)
    statistics = absorbed(first)
    at_s = START_S + 30 * DAY_S
    statistics.reset(key(TABLE), at_s)
    statistics.absorb(first)  # of the time before, told again: nothing of it counts
    began = statistics.refit(END_S)
    statistics.absorb(later)
    after = statistics.refit(END_S + 31 * DAY_S)
    table = began.columns.index(COLUMNS[TABLE])

    assert began.n_treated[0, table] == 0
    assert key(TABLE) not in began.contrasts
    assert key(FORMAL) in began.contrasts
    assert key(TABLE, Scope(question_type="type-0")) in began.contrasts
    assert 0 < after.n_treated[0, table] < 600
    assert after.contrasts[key(TABLE)].lift == pytest.approx(0.0, abs=0.2)


def test_what_turned_out_to_have_changed_is_believed_less() -> None:
    statistics = absorbed(observe(3000, 1, Truth(effects=(0.0, 0.0, 0.4, 0.0))))
    before = statistics.refit(END_S)
    statistics.discount(key(TABLE), 0.2)
    after = statistics.refit(END_S)
    table, short = (before.columns.index(COLUMNS[column]) for column in (TABLE, SHORT))

    assert after.key_mean[0, table] < 0.8 * before.key_mean[0, table]
    assert after.key_sd[0, table] > 1.1 * before.key_sd[0, table]
    assert after.key_sd[0, short] == pytest.approx(before.key_sd[0, short], rel=0.1)


def test_late_signals_count_nearly_as_if_they_had_come_at_once() -> None:
    whole = observe(3000, 3, Truth(effects=(0.0, 0.0, 0.4, 0.0)))
    is_late = np.random.default_rng(1).random(3000) < 0.2
    early = np.where(is_late[:, None], 0.0, whole.signals)
    statistics = absorbed(with_signals(whole, early))
    late = part(with_signals(whole, whole.signals - early), np.flatnonzero(is_late))
    statistics.absorb(late, is_late=True)
    found, exact = statistics.refit(END_S), absorbed(whole).refit(END_S)
    table = exact.columns.index(COLUMNS[TABLE])
    got, wanted = found.contrasts[key(TABLE)], exact.contrasts[key(TABLE)]

    assert got.information == pytest.approx(wanted.information, rel=0.02)
    assert got.lift == pytest.approx(wanted.lift, abs=0.01)
    assert abs(found.key_mean[0, table] - exact.key_mean[0, table]) < exact.key_sd[0, table] / 2
    assert found.tallies["pattern-table"].n_used == exact.tallies["pattern-table"].n_used


def test_a_flooder_cannot_decide() -> None:
    whole = observe(2000, 4)
    flood = observe(2000, 5, Truth(rating=1.0))
    table = flood.exposures.treated.reshape(-1, len(COLUMNS))[:, TABLE]
    loud = with_signals(flood, np.where(table[:, None], 1.0, -1.0) * np.eye(7)[0])
    loud = replace(loud, users=["flooder"] * 2000, thumb_voters=["flooder"] * 2000)
    beliefs = absorbed(whole, loud).refit(END_S)

    found = beliefs.contrasts[key(TABLE)]
    column = beliefs.columns.index(COLUMNS[TABLE])
    assert found.score <= 3 * math.sqrt(found.variance())
    assert beliefs.log_e[0, column] < math.log(20)
    assert beliefs.confidence()[0, column] < 0.975


def test_two_instructions_that_spoil_each_other_are_told_apart_from_good_ones() -> None:
    truth = Truth(shares=(0.5, 0.0, 0.5, 0.5), effects=(0.3, 0.0, 0.3, 0.3), clash=-0.9, rating=1.0)
    beliefs = absorbed(*(observe(2000, seed, truth) for seed in range(3))).refit(END_S)
    pairs = [
        {beliefs.columns[i].value, beliefs.columns[j].value} for i, j in np.argwhere(np.triu(beliefs.clashes)).tolist()
    ]

    assert pairs == [{"short", "table"}]


def test_fewer_ratings_show_in_the_guardrail() -> None:
    whole = observe(4000, 7, Truth(rating=0.8))
    treated = whole.exposures.treated.reshape(-1, len(COLUMNS))[:, TABLE]
    silent = treated & (np.random.default_rng(3).random(4000) < 0.5)
    signals = np.where(silent[:, None] & (np.arange(7) == 0), 0.0, whole.signals)
    beliefs = absorbed(with_signals(whole, signals)).refit(END_S)
    table, formal = beliefs.columns.index(COLUMNS[TABLE]), beliefs.columns.index(COLUMNS[FORMAL])

    assert beliefs.guardrails.difference["rating"][0, table] == pytest.approx(-0.4, abs=0.06)
    assert beliefs.guardrails.log_e_worse["rating"][0, table] > math.log(100)
    assert beliefs.guardrails.log_e_worse["rating"][0, formal] < math.log(20)
    assert beliefs.guardrails.log_e_worse["follow_up"][0, table] < math.log(20)


def test_recent_harm_shows_though_the_past_was_good() -> None:
    good = observe(2000, 1, Truth(effects=(0.0, 0.0, 0.4, 0.0)))
    bad = observe(600, 2, Truth(effects=(0.0, 0.0, -0.5, 0.0), days=5))
    bad = replace(bad, created_s=bad.created_s + 30 * DAY_S)
    beliefs = absorbed(good, bad).refit(END_S + 5 * DAY_S)
    table = beliefs.columns.index(COLUMNS[TABLE])

    assert beliefs.harm_z[0, table] < -2.5
    assert np.abs(beliefs.harm_z[0, beliefs.columns.index(COLUMNS[FORMAL])]) < 3


def test_the_copy_that_saw_more_lends_its_fit_but_none_of_its_sums() -> None:
    settled = absorbed(observe(1000, 1))
    tail = settled.copy()
    tail.absorb(observe(500, 2, Truth(n_types=3)))
    tail.refit(END_S)
    settled.adopt(tail)
    beliefs = settled.refit(END_S)

    assert (
        beliefs.tallies["pattern-table"].n_used
        == absorbed(observe(1000, 1)).refit(END_S).tallies["pattern-table"].n_used
    )
    assert set(beliefs.strata.question_types) == {"type-0", "type-1", "type-2"}


def test_the_tally_counts_uses_signals_and_people_exactly() -> None:
    whole = observe(700, 8)
    beliefs = absorbed(part(whole, np.arange(300)), part(whole, np.arange(300, 700))).refit(END_S)
    treated = whole.exposures.treated.reshape(-1, len(COLUMNS))[:, TABLE]
    rated = treated & whole.is_rated
    tally = beliefs.tallies["pattern-table"]

    assert tally.n_used == treated.sum()
    assert tally.n_signals == rated.sum()
    assert tally.n_users == len({whole.users[i] for i in np.flatnonzero(rated).tolist()})
    assert tally.last_used_s == whole.created_s[treated].max()


def test_nothing_at_all_and_one_of_everything_are_fine() -> None:
    nothing = empty().refit(END_S)
    one = Truth(n_users=1, n_types=1, n_groups=1, rating=0.0)
    single = observe(30, 1, one)
    silent = absorbed(with_signals(single, np.zeros_like(single.signals))).refit(END_S)

    assert nothing.key_mean.shape == (1, 0)
    assert nothing.n_signals == 0
    assert silent.strata.groups == [""]
    assert silent.n_signals == 0
    assert np.isfinite(silent.key_sd).all()
    np.testing.assert_allclose(silent.confidence(), 0.5, atol=0.2)


def test_more_strata_and_columns_than_there_is_room_for_share_a_place() -> None:
    many = observe(2000, 1, Truth(n_types=30, n_groups=20))
    beliefs = absorbed(many, observe(500, 2, Truth(n_types=40, n_groups=25))).refit(END_S)

    assert len(beliefs.strata.question_types) == 12
    assert "" in beliefs.strata.question_types
    assert len(beliefs.strata.groups) == 6
    assert "" in beliefs.strata.groups
    assert beliefs.traffic.sum() == pytest.approx(1.0)


def test_a_response_in_the_holdout_tossed_no_coin() -> None:
    held = observe(500, 1, Truth(holdout=1.0))

    assert not absorbed(held).refit(END_S).contrasts


def test_the_weight_of_a_family_follows_what_goes_with_thumbs() -> None:
    informative = absorbed(*(observe(3000, seed, Truth(effects=(0.9, -0.9, 0.9, -0.9))) for seed in range(2)))
    weights = informative.refit(END_S).weights

    assert weights["thumb"] == 1.0
    assert weights["copy"] > 0
    assert weights["follow_up"] < 0
    assert weights["dwell_time"] == -0.1  # never seen: as configured


def test_what_clusters_rest_on_is_known_with_its_users_and_rates() -> None:
    whole = observe(2000, 3, Truth(n_users=20, holdout=0.0))
    beliefs = absorbed(whole).refit(END_S)
    table = beliefs.columns.index(COLUMNS[TABLE])
    free = ~whole.exposures.treated.reshape(-1, len(COLUMNS))[:, TABLE]
    assert beliefs.observed_users is not None
    assert beliefs.together is not None

    assert beliefs.n_observed[:, :, table].sum() == (free & whole.natural.has[:, TABLE] & whole.is_rated).sum()
    assert beliefs.observed_users[0, table] == pytest.approx(20, abs=3)
    assert beliefs.observed_users[-1, table] == pytest.approx(10, abs=2)
    np.testing.assert_allclose(np.diag(beliefs.together), 1.0)
    assert np.abs(beliefs.together - np.eye(4)).max() < 0.2
    assert beliefs.guardrails.rates["rating"] == pytest.approx(0.5, abs=0.05)


def test_a_run_for_a_time_long_ago_or_far_ahead_ends() -> None:
    statistics = absorbed(observe(600, 1))
    ahead = statistics.refit(END_S + 3650 * DAY_S)
    back = statistics.refit(START_S)

    assert np.isfinite(ahead.key_mean).all()
    assert ahead.n_signals == 0
    assert np.isfinite(back.key_mean).all()
