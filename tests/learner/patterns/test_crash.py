"""A crash is a large fall that chance does not explain; a known one is not told again; learning is blamed or not."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.patterns.crash import find_crash
from learner.patterns.history import BIN_S, KEEP_DAYS, N_ARMS, N_BUCKETS, N_SUMS, RATED, History
from learner.patterns.observations import Booleans, Floats, Integers
from learner.patterns.safety import detail_of, safety_of
from store.alerts import Alert
from store.clock import iso
from store.config import load_config
from store.generations import GenerationRow

PATTERNS = load_config().patterns
DAY_S = 86_400.0
NOW_S = 20_100 * DAY_S + BIN_S - 1  # the end of a bin
FALL_H = 18.0


def voted(created_s: Floats, users: list[str], good: Floats, *, is_holdout: Booleans, is_treated: Booleans) -> History:
    """Return a history of one vote each, *good* (n,) being 1 for those up and 0 for those down."""
    history = History()
    history.add(
        created_s=created_s,
        users=users,
        conversations=users,
        is_holdout=is_holdout,
        is_treated=is_treated,
        n_rated=np.ones(len(good)),
        good=good,
        bad=1 - good,
        n_pleased=good,
        n_displeased=1 - good,
    )
    return history


def history_of(
    before: float,
    now: float,
    *,
    n_a_day: int = 400,
    days: float = 35,
    untreated_now: float | None = None,
    n_users: int = 200,
    seed: int = 0,
    fall_h: float = FALL_H,
) -> History:
    """Return a history in which the share of good votes is *before*, and *now* in the last hours."""
    rng = np.random.default_rng(seed)
    n = int(days * n_a_day)
    created_s = NOW_S - rng.uniform(0, days * DAY_S, n)
    is_now = NOW_S - created_s < fall_h * 3600
    is_treated = rng.random(n) < 0.7
    chance = np.where(is_now, np.where(is_treated, now, now if untreated_now is None else untreated_now), before)
    good = (rng.random(n) < chance).astype(np.float64)
    users = [f"u{number}" for number in rng.integers(n_users, size=n)]
    return voted(created_s, users, good, is_holdout=~is_treated & (rng.random(n) < 0.2), is_treated=is_treated)


def is_crash(history: History) -> bool:
    return find_crash(history, NOW_S, PATTERNS) is not None


def test_a_large_and_sure_fall_is_a_crash_and_is_placed_in_time() -> None:
    found = find_crash(history_of(0.8, 0.4), NOW_S, PATTERNS)

    assert found is not None
    assert found.before == pytest.approx(0.8, abs=0.02)
    assert found.now < 0.5
    assert found.z < -PATTERNS.crash_z
    assert found.began_s == NOW_S + 1 - 3 * BIN_S


def minutes_of(share: float, n: int, *, n_users: int = 40, seed: int = 0) -> History:
    """Return *n* votes, the share of good ones *share*, all within a few minutes."""
    rng = np.random.default_rng(seed)
    good = (rng.random(n) < share).astype(np.float64)
    users = [f"u{number}" for number in rng.integers(n_users, size=n)]
    return voted(
        NOW_S - rng.uniform(0, 300, n),
        users,
        good,
        is_holdout=np.zeros(n, np.bool_),
        is_treated=np.ones(n, np.bool_),
    )


def both(one: History, other: History) -> History:
    return one.without(History().without(other))


@pytest.mark.parametrize("after_s", [0.0, 3 * DAY_S])
def test_what_no_span_can_tell_is_told_by_what_the_runs_read(after_s: float) -> None:
    earlier, fresh = minutes_of(0.8, 300), minutes_of(0.1, 100, seed=1)

    found = find_crash(both(earlier, fresh), NOW_S + after_s, PATTERNS, fresh)

    assert found is not None
    assert found.before == pytest.approx(0.8, abs=0.1)
    assert found.now == pytest.approx(0.1, abs=0.1)
    assert find_crash(both(earlier, fresh), NOW_S + after_s, PATTERNS) is None


def test_runs_that_read_the_same_few_or_nothing_tell_no_crash() -> None:
    earlier = minutes_of(0.8, 300)

    for fresh in (minutes_of(0.78, 100, seed=1), minutes_of(0.0, 9, seed=1), History()):
        assert find_crash(both(earlier, fresh), NOW_S, PATTERNS, fresh) is None
    assert find_crash(earlier, NOW_S, PATTERNS, earlier) is None


def test_where_spans_can_be_judged_runs_are_not() -> None:
    calm, bad = history_of(0.8, 0.8), minutes_of(0.0, 12)

    assert find_crash(both(calm, bad), NOW_S, PATTERNS, bad) is None


def test_a_small_fall_is_none_however_sure() -> None:
    assert not is_crash(history_of(0.8, 0.68, n_a_day=4000))


def test_a_large_fall_among_few_votes_is_none() -> None:
    assert not is_crash(history_of(0.8, 0.2, n_a_day=10))


def test_without_earlier_days_there_is_nothing_to_fall_from() -> None:
    assert not is_crash(history_of(0.8, 0.1, days=0.7))


def test_chance_alone_is_hardly_ever_a_crash() -> None:
    assert sum(is_crash(history_of(0.6, 0.6, n_a_day=130, seed=seed)) for seed in range(100)) == 0


def test_only_bad_votes_after_good_ones_are_a_crash() -> None:
    assert is_crash(history_of(1.0, 0.0, n_a_day=100))


def test_a_single_account_is_never_a_crash_however_much_it_complains() -> None:
    history = history_of(0.8, 0.8)
    history.add(
        created_s=np.full(2000, NOW_S - 60),
        users=["angry"] * 2000,
        conversations=[""] * 2000,
        is_holdout=np.zeros(2000, np.bool_),
        is_treated=np.ones(2000, np.bool_),
        n_rated=np.ones(2000),
        good=np.zeros(2000),
        bad=np.ones(2000),
        n_pleased=np.zeros(2000),
        n_displeased=np.ones(2000),
    )

    assert not is_crash(history)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_one_account_that_floods_the_votes_is_no_crash(share: float) -> None:
    history = history_of(0.7, 0.7)
    n = round(300 * share / (1 - share))
    ones = np.ones(n)
    history.add(
        created_s=np.linspace(NOW_S - FALL_H * 3600, NOW_S, n),
        users=["flooder"] * n,
        conversations=[f"flood-{i}" for i in range(n)],
        is_holdout=ones < 0,
        is_treated=ones > 0,
        n_rated=ones,
        good=0 * ones,
        bad=ones,
        n_pleased=0 * ones,
        n_displeased=ones,
    )

    assert not is_crash(history)


def test_who_looks_every_hour_is_not_alarmed_more_often_than_who_looks_every_six() -> None:
    """Chance alone; a threshold at which even that alarms, so that there is something to count: falls, not looks."""
    nervous = replace(PATTERNS, crash_z=1.5, crash_drop=0.1)
    rare, often = 0, 0
    for seed in range(6):
        history = history_of(0.7, 0.7, n_a_day=130, seed=seed)
        bins = [NOW_S - back * BIN_S for back in range(28)]
        rare += episodes([find_crash(history, end_s, nervous) is not None for end_s in bins])
        hours = [[end_s - hour * 3600 for hour in range(6)] for end_s in bins]
        often += episodes([any(find_crash(history, at_s, nervous) is not None for at_s in day) for day in hours])

    assert rare >= 3
    assert often <= 1.5 * rare


def episodes(alarms: Sequence[bool]) -> int:
    """Return how many runs of alarms there are: the bins of an hour's look are those of the last six hours as well."""
    return sum(now and not before for now, before in pairwise([*alarms, False]))


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_sums_do_not_depend_on_the_order_and_the_parts_in_which_they_came(seed: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    n = 60
    created_s = NOW_S - rng.uniform(0, 100 * DAY_S, n)
    is_holdout, is_treated, is_rated = rng.random((3, n)) < 0.5
    good, bad = rng.integers(0, 8, (2, n)) / 4
    users = [f"u{number}" for number in rng.integers(9, size=n)]

    def add(history: History, rows: Integers) -> None:
        some = [users[row] for row in rows]
        history.add(
            created_s=created_s[rows],
            users=some,
            conversations=some,
            is_holdout=is_holdout[rows],
            is_treated=is_treated[rows],
            n_rated=is_rated[rows].astype(np.float64),
            good=good[rows],
            bad=bad[rows],
            n_pleased=(good > bad)[rows].astype(np.float64),
            n_displeased=(good < bad)[rows].astype(np.float64),
        )

    whole, pieces = History(), History()
    add(whole, np.arange(n))
    for rows in np.array_split(rng.permutation(n), parts):
        add(pieces, rows)
        pieces.trim(NOW_S)
    whole.trim(NOW_S)

    assert pieces.encode() == whole.encode()
    assert History.decode(whole.encode()).encode() == whole.encode()


def test_a_late_vote_is_added_as_a_difference_to_the_copy_alone() -> None:
    history = history_of(0.8, 0.8, n_a_day=20)
    before = history.encode()
    copy = history.copy()
    copy.add(
        created_s=np.array([NOW_S - 3 * DAY_S]),
        users=["u1"],
        conversations=["c"],
        is_holdout=np.zeros(1, np.bool_),
        is_treated=np.ones(1, np.bool_),
        n_rated=np.ones(1),
        good=np.zeros(1),
        bad=np.ones(1),
        n_pleased=np.zeros(1),
        n_displeased=np.ones(1),
    )

    assert history.encode() == before
    assert copy.grid(NOW_S, 20).sum() - history.grid(NOW_S, 20).sum() == 3.0


def test_history_is_bounded() -> None:
    history = history_of(0.8, 0.8, n_a_day=500, days=KEEP_DAYS + 30, n_users=3000)
    history.trim(NOW_S)
    rows = history.grid(NOW_S, 4 * (KEEP_DAYS + 31)).reshape(-1, N_SUMS)

    assert (rows[:, RATED] > 0).sum() < (42 * 4 + 80) * N_ARMS * N_BUCKETS
    assert rows[:, RATED].sum() == pytest.approx(KEEP_DAYS * 500, rel=0.02)


@pytest.mark.parametrize("data", [b"", b"history1", b"history3", b"history3junk", b"other"])
def test_bytes_that_are_no_history_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an encoded history"):
        History.decode(data)


def generations() -> list[GenerationRow]:
    """Return one generation of long ago, one from just before the fall, and one of an hour ago."""
    ages_h = (300.0, 30.0, 18.5, 1.0)
    return [
        GenerationRow(number, True, None, "learner", "", iso(NOW_S - age_h * 3600))
        for number, age_h in enumerate(ages_h, 1)
    ]


def alert(age_h: float, now: float = 0.3, acknowledged_at: str | None = None) -> Alert:
    return Alert(
        "a1", "t", None, "crash", "", {"before": 0.8, "now": now}, iso(NOW_S - age_h * 3600), acknowledged_at, None, 0
    )


def test_when_treated_alone_fell_the_tenant_goes_back_to_before_the_fall_surely_began() -> None:
    history = history_of(0.8, 0.3, untreated_now=0.8)

    safety = safety_of(
        history, [], {"new": NOW_S - 20 * 3600, "old": NOW_S - 20 * DAY_S}, generations(), NOW_S, PATTERNS
    )

    assert safety.crash is not None
    assert (safety.is_frozen, safety.revert_to, safety.suspects) == (True, 2, ("new",))
    assert "treated conversations fell further" in safety.reason


def test_an_outage_that_hits_all_alike_freezes_and_reverts_nothing() -> None:
    safety = safety_of(history_of(0.8, 0.3), [], {}, generations(), NOW_S, PATTERNS)

    assert safety.crash is not None
    assert (safety.is_frozen, safety.revert_to) == (True, None)


def test_a_known_crash_freezes_and_is_not_told_again() -> None:
    safety = safety_of(history_of(0.8, 0.3), [alert(6)], {}, generations(), NOW_S, PATTERNS)

    assert (safety.crash, safety.is_frozen) == (None, True)


def test_a_new_fall_after_a_recovery_is_told() -> None:
    safety = safety_of(history_of(0.8, 0.3), [alert(24 * 5)], {}, generations(), NOW_S, PATTERNS)

    assert safety.crash is not None


def test_a_fall_that_goes_on_as_deep_again_is_told_again() -> None:
    safety = safety_of(history_of(0.8, 0.1), [alert(6, now=0.6)], {}, generations(), NOW_S, PATTERNS)

    assert safety.crash is not None


@pytest.mark.parametrize(
    ("now", "known"),
    [
        (0.3, alert(6, acknowledged_at=iso(NOW_S))),
        (0.3, alert(PATTERNS.freeze_days * 24 + 1)),
        (0.8, alert(6)),
    ],
    ids=["acknowledged", "freeze_days", "recovered"],
)
def test_the_freeze_ends(now: float, known: Alert) -> None:
    history = history_of(0.8, now, fall_h=24 * 9)

    safety = safety_of(history, [known], {}, generations(), NOW_S, PATTERNS)

    assert (safety.crash, safety.is_frozen) == (None, False)


def test_all_is_well_without_a_crash() -> None:
    safety = safety_of(history_of(0.8, 0.8), [], {"p": NOW_S}, generations(), NOW_S, PATTERNS)

    assert (safety.crash, safety.is_frozen, safety.revert_to, safety.suspects, safety.reason) == (
        None,
        False,
        None,
        (),
        "",
    )


def test_an_alerts_detail_lets_the_next_run_know_the_fall() -> None:
    history = history_of(0.8, 0.3)
    found = safety_of(history, [], {}, [], NOW_S, PATTERNS).crash
    assert found is not None
    told = replace(alert(0), detail=dict(detail_of(found)))

    assert safety_of(history, [told], {}, [], NOW_S, PATTERNS).crash is None
