"""A circuit breaker, moment by moment."""

import pytest

from proxy.breaker import Breaker


def failing(breaker: Breaker, n_times: int, now_s: float) -> Breaker:
    for _ in range(n_times):
        breaker.failed(now_s)
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    breaker = failing(Breaker(3, 30), 2, 100.0)
    assert (breaker.state(100.0), breaker.admits(100.0), breaker.problem(100.0)) == ("closed", True, None)

    breaker.failed(100.0)

    assert (breaker.state(100.0), breaker.admits(100.0), breaker.wait_s(110.0)) == ("open", False, 20.0)
    assert breaker.problem(110.0) == "it failed 3 times in a row; tried again in 20 s"


def test_an_answer_in_between_begins_the_row_again() -> None:
    breaker = failing(Breaker(3, 30), 2, 100.0)
    breaker.answered()

    assert failing(breaker, 2, 101.0).state(101.0) == "closed"


def test_after_its_rest_one_request_at_a_time_may_try() -> None:
    breaker = failing(Breaker(1, 30), 1, 100.0)

    assert [breaker.admits(now_s) for now_s in (129.9, 130.0, 130.1)] == [False, True, False]
    assert breaker.state(131.0) == "half_open"


def test_a_probe_that_is_answered_closes_it() -> None:
    breaker = failing(Breaker(3, 30), 3, 100.0)
    breaker.admits(130.0)
    breaker.answered()

    assert (breaker.state(130.0), breaker.admits(130.0), breaker.admits(130.0)) == ("closed", True, True)
    assert failing(breaker, 2, 131.0).state(131.0) == "closed"  # the whole row again, not one more failure


def test_a_probe_that_fails_begins_the_rest_again() -> None:
    breaker = failing(Breaker(1, 30), 1, 100.0)
    breaker.admits(130.0)
    breaker.failed(135.0)

    assert (breaker.admits(164.9), breaker.admits(165.0)) == (False, True)


def test_failures_of_requests_from_before_do_not_prolong_the_rest() -> None:
    breaker = failing(Breaker(1, 30), 1, 100.0)
    breaker.failed(120.0)

    assert breaker.admits(130.0)


def test_a_probe_that_nobody_tells_of_does_not_keep_others_away_for_ever() -> None:
    breaker = failing(Breaker(1, 30), 1, 100.0)
    breaker.admits(130.0)

    assert (breaker.admits(159.9), breaker.admits(160.0)) == (False, True)


def test_a_probe_that_is_given_up_leaves_its_place() -> None:
    breaker = failing(Breaker(1, 30), 1, 100.0)
    breaker.admits(130.0)
    breaker.abandoned()

    assert breaker.admits(130.1)


def test_it_takes_at_least_one_failure() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Breaker(0, 30)
