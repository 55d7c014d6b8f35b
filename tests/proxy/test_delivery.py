"""The tries of one request, outcome by outcome: who is asked next, after how long, and what the client gets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.breaker import Breaker
from proxy.delivery import Answer, Delivery, Fail, Send, Wait
from proxy.errors import (
    Header,
    UpstreamError,
    UpstreamRestingError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
    upstream_failure,
)
from proxy.routing import NO_RETRIES, Retries, Route
from proxy.upstream import UpstreamRequest, UpstreamResponse

TWICE = Retries(limit=2, base_s=0.5, max_s=8)
DOWN = UpstreamUnreachableError("refused")

Step = Send | Wait | Answer["Head"] | Fail


@dataclass(frozen=True)
class Nobody:
    name: str
    is_learned_only: bool = False

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Head:
    status: int
    headers: Sequence[Header] = field(default=())


def route(name: str, retries: Retries = NO_RETRIES, breaker: Breaker | None = None) -> Route:
    return Route(Nobody(name), ("*",), retries=retries, breaker=breaker)


def play(routes: Sequence[Route], outcomes: Sequence[Head | UpstreamError], *, now_s: float = 0.0) -> list[Step]:
    """Return every step of a request to whose sends the upstreams react with *outcomes*, in their order."""
    delivery: Delivery[Head] = Delivery(routes, Random(1))
    step: Step = delivery.begin(now_s)
    steps, left = [step], list(outcomes)
    while not isinstance(step, Answer | Fail):
        match step:
            case Wait(seconds):
                now_s += seconds
                step = delivery.waited(now_s)
            case Send():
                outcome = left.pop(0)
                told = delivery.answered if isinstance(outcome, Head) else delivery.failed
                step = told(outcome, now_s)  # type: ignore[arg-type]
        steps.append(step)
    assert left == []
    return steps


def sends(steps: Sequence[Step]) -> list[str]:
    return [step.route.upstream.name for step in steps if isinstance(step, Send)]


def waits(steps: Sequence[Step]) -> list[float]:
    return [step.seconds for step in steps if isinstance(step, Wait)]


def end(steps: Sequence[Step]) -> tuple[str, Head | UpstreamError]:
    last = steps[-1]
    assert isinstance(last, Answer | Fail)
    return last.route.upstream.name, last.reply if isinstance(last, Answer) else last.error


@pytest.mark.parametrize("status", [200, 201, 400, 401, 404, 422, 429, 500, 503])
def test_without_settings_a_request_is_sent_once_and_its_reply_is_the_answer(status: int) -> None:
    steps = play([route("a")], [Head(status)])

    assert (sends(steps), waits(steps), end(steps)) == (["a"], [], ("a", Head(status)))


def test_without_settings_a_failure_is_the_answer() -> None:
    assert end(play([route("a")], [DOWN])) == ("a", DOWN)


def test_a_failure_is_tried_again_after_a_wait_and_a_success_ends_it() -> None:
    steps = play([route("a", TWICE)], [DOWN, Head(503), Head(200)])

    assert (sends(steps), end(steps)) == (["a", "a", "a"], ("a", Head(200)))
    first_s, second_s = waits(steps)
    assert 0 <= first_s <= 0.5
    assert 0 <= second_s <= 1.0


def test_tries_end_with_the_last_real_reply() -> None:
    last = Head(503, [(b"Retry-After", b"2")])

    assert end(play([route("a", TWICE)], [Head(500), last, DOWN])) == ("a", last)


def test_a_request_that_the_upstream_refused_is_not_sent_again() -> None:
    assert sends(play([route("a", TWICE), route("b")], [Head(400)])) == ["a"]


def test_retry_after_is_waited_for_exactly() -> None:
    steps = play([route("a", TWICE)], [Head(429, [(b"retry-after", b"7")]), Head(200)])

    assert waits(steps) == [7.0]


def test_a_retry_after_beyond_the_longest_wait_is_the_clients_to_wait_for() -> None:
    busy = Head(429, [(b"retry-after", b"9")])

    steps = play([route("a", TWICE)], [busy])

    assert (waits(steps), end(steps)) == ([], ("a", busy))


def test_a_retry_after_beyond_the_longest_wait_gives_the_fallback_its_turn() -> None:
    steps = play([route("a", TWICE), route("b")], [Head(429, [(b"retry-after", b"9")]), Head(200)])

    assert (sends(steps), waits(steps), end(steps)) == (["a", "b"], [], ("b", Head(200)))


def test_an_upstream_that_says_not_to_retry_is_not_asked_again_but_its_fallback_is() -> None:
    refusing = Head(503, [(b"x-should-retry", b"false")])

    assert sends(play([route("a", TWICE), route("b")], [refusing, Head(200)])) == ["a", "b"]


def test_an_upstream_that_says_to_retry_is_asked_again() -> None:
    assert sends(play([route("a", TWICE)], [Head(400, [(b"x-should-retry", b"true")]), Head(200)])) == ["a", "a"]


def test_a_lock_is_tried_again_but_not_elsewhere() -> None:
    steps = play([route("a", Retries(1, 0.5, 8)), route("b")], [Head(409), Head(409)])

    assert (sends(steps), end(steps)) == (["a", "a"], ("a", Head(409)))


@pytest.mark.parametrize("outcome", [DOWN, UpstreamTimeoutError("late"), Head(429), Head(500), Head(529)])
def test_an_upstream_that_fails_for_good_leaves_the_request_to_the_next_in_line(outcome: Head | UpstreamError) -> None:
    steps = play([route("a"), route("b"), route("c")], [outcome, outcome, Head(200)])

    assert (sends(steps), end(steps)) == (["a", "b", "c"], ("c", Head(200)))


def test_each_upstream_has_its_own_retries() -> None:
    steps = play([route("a", TWICE), route("b", Retries(1, 0.5, 8))], [DOWN] * 5)

    assert sends(steps) == ["a", "a", "a", "b", "b"]


def test_when_all_fail_the_client_gets_the_last_real_reply_and_who_gave_it() -> None:
    busy = Head(429, [(b"retry-after", b"3")])

    assert end(play([route("a"), route("b")], [busy, DOWN])) == ("a", busy)
    assert end(play([route("a"), route("b")], [busy, Head(500)])) == ("b", Head(500))


def test_when_nobody_replies_the_client_hears_of_the_last_failure() -> None:
    late = UpstreamTimeoutError("late")

    assert end(play([route("a"), route("b")], [DOWN, late])) == ("b", late)


def opened(now_s: float) -> Breaker:
    breaker = Breaker(1, 30)
    breaker.failed(now_s)
    return breaker


def test_an_upstream_at_rest_is_passed_over() -> None:
    steps = play([route("a", TWICE, opened(100.0)), route("b")], [Head(200)], now_s=101.0)

    assert (sends(steps), end(steps)) == (["b"], ("b", Head(200)))


def test_when_everybody_rests_the_client_hears_when_to_come_back() -> None:
    steps = play([route("a", breaker=opened(100.0)), route("b", breaker=opened(110.0))], [], now_s=111.5)

    name, error = end(steps)
    assert (name, sends(steps)) == ("a", [])
    assert isinstance(error, UpstreamRestingError)
    answer = upstream_failure(error, name)
    assert (answer.status, answer.code, answer.headers) == (503, "upstream_resting", ((b"retry-after", b"19"),))


def test_a_breaker_that_opens_ends_the_tries_on_its_upstream() -> None:
    steps = play([route("a", Retries(5, 0.5, 8), Breaker(2, 30)), route("b")], [DOWN, Head(500), Head(200)])

    assert sends(steps) == ["a", "a", "b"]


def test_a_client_that_left_takes_its_probe_back() -> None:
    breaker = opened(0.0)
    delivery: Delivery[Head] = Delivery([route("a", breaker=breaker)], Random(1))
    delivery.begin(30.0)
    assert not breaker.admits(31.0)

    delivery.abandoned()

    assert breaker.admits(31.0)


def test_steps_out_of_turn_are_refused() -> None:
    delivery: Delivery[Head] = Delivery([route("a")], Random(1))
    with pytest.raises(RuntimeError, match="begin is expected, not outcome"):
        delivery.answered(Head(200), 0.0)
    with pytest.raises(ValueError, match="needs an upstream"):
        Delivery([], Random(1))


heads = st.builds(
    Head,
    st.sampled_from([200, 204, 302, 400, 404, 408, 409, 429, 500, 503, 529]),
    st.sampled_from(
        [
            (),
            ((b"retry-after", b"1"),),
            ((b"retry-after", b"100"),),
            ((b"retry-after", b"soon"),),
            ((b"x-should-retry", b"true"),),
            ((b"x-should-retry", b"false"),),
        ]
    ),
)
outcomes = st.one_of(heads, st.sampled_from([DOWN, UpstreamTimeoutError("late")]))
policies = st.builds(Retries, st.integers(0, 3), st.floats(0, 2), st.floats(0, 10))
breakers = st.one_of(st.none(), st.builds(Breaker, st.integers(1, 3), st.floats(0.1, 60)))


@given(st.lists(st.tuples(policies, breakers), min_size=1, max_size=4), st.data())
def test_whatever_happens_tries_are_bounded_and_nothing_is_sent_after_an_answer(
    upstreams: list[tuple[Retries, Breaker | None]], data: st.DataObject
) -> None:
    routes = [route(str(number), *upstream) for number, upstream in enumerate(upstreams)]
    delivery: Delivery[Head] = Delivery(routes, Random(1))
    asked: list[int] = []
    replies: list[Head] = []
    now_s = 0.0
    step: Step = delivery.begin(now_s)
    for _ in range(2 * sum(policy.limit + 1 for policy, _ in upstreams)):
        match step:
            case Send(to):
                assert not [reply for reply in replies if reply.status < 400]
                asked.append(int(to.upstream.name))
                outcome = data.draw(outcomes)
                now_s += data.draw(st.floats(0, 40))
                match outcome:
                    case Head():
                        replies.append(outcome)
                        step = delivery.answered(outcome, now_s)
                    case _:
                        step = delivery.failed(outcome, now_s)
            case Wait(seconds):
                assert 0 <= seconds <= max(policy.max_s for policy, _ in upstreams)
                now_s += seconds
                step = delivery.waited(now_s)
            case _:
                break

    assert isinstance(step, Answer | Fail)
    assert asked == sorted(asked)  # in line, and nobody is come back to
    assert all(asked.count(number) <= policy.limit + 1 for number, (policy, _) in enumerate(upstreams))
    assert isinstance(step, Fail) is (not replies)
    assert not replies or (isinstance(step, Answer) and step.reply is replies[-1])
