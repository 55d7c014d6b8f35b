"""A request sent until somebody answers, over scripted upstreams."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from prometheus_client import CollectorRegistry

from proxy.breaker import Breaker
from proxy.delivery import Answer, Fail
from proxy.errors import ApiError, ClientGoneError, Header, UpstreamError, UpstreamUnreachableError
from proxy.metrics import Metrics
from proxy.routing import NO_RETRIES, Retries, Route
from proxy.sending import Sender
from proxy.upstream import Cancellation, UpstreamRequest, UpstreamResponse
from proxy.waiting import pause
from store.clock import SystemClock

DOWN = UpstreamUnreachableError("refused")
AT_ONCE = Retries(limit=2, base_s=0.0, max_s=1.0)


@dataclass
class Reply:
    """An upstream's reply, which notes whether it was given up."""

    status: int
    headers: Sequence[Header] = ()
    is_complete: bool = False
    is_cancelled: bool = False

    async def read(self) -> bytes:
        return b"body"

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class Scripted:
    """An upstream that reacts to each send with the next of its outcomes."""

    name: str
    outcomes: list[Reply | Exception]
    is_learned_only: bool = False

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def close(self) -> None:
        raise NotImplementedError


@dataclass
class Desk:
    metrics: Metrics = field(default_factory=lambda: Metrics(CollectorRegistry()))
    cancellation: Cancellation = field(default_factory=Cancellation)
    asked: list[str] = field(default_factory=list)

    async def send(self, *routes: Route) -> Answer[UpstreamResponse | ApiError] | Fail:
        return await Sender(self.metrics, SystemClock(), Random(1)).send(routes, self._request, self.cancellation)

    def _request(self, route: Route) -> UpstreamRequest:
        self.asked.append(route.upstream.name)
        return UpstreamRequest("POST", b"/chat/completions", [], b"{}", self.cancellation)


def route(
    name: str, *outcomes: Reply | Exception, retries: Retries = NO_RETRIES, breaker: Breaker | None = None
) -> Route:
    return Route(Scripted(name, list(outcomes)), ("*",), retries=retries, breaker=breaker)


def test_a_single_upstream_is_asked_once_whatever_it_says() -> None:
    busy, failed = Reply(503), ApiError(400, "no")
    routes = [route("a", outcome) for outcome in (busy, failed, DOWN)]

    ends = [asyncio.run(Desk().send(each)) for each in routes]

    assert ends == [Answer(routes[0], busy), Answer(routes[1], failed), Fail(routes[2], DOWN)]
    assert not busy.is_cancelled


def test_the_reply_of_a_later_try_is_the_clients_and_earlier_ones_are_given_up() -> None:
    desk, busy, good = Desk(), Reply(503), Reply(200)
    first = route("a", busy, DOWN, retries=Retries(1, 0.0, 1.0))
    second = route("b", ApiError(529, "overloaded"), good, retries=AT_ONCE)

    assert asyncio.run(desk.send(first, second)) == Answer(second, good)
    assert desk.asked == ["a", "a", "b", "b"]
    assert (busy.is_cancelled, good.is_cancelled) == (True, False)
    assert (dict(desk.metrics.retries), dict(desk.metrics.fallbacks)) == ({"a": 1, "b": 1}, {"b": 1})


def test_the_last_real_reply_is_kept_for_the_client_and_given_up_when_it_leaves() -> None:
    desk, busy = Desk(), Reply(429)
    first, second = route("a", busy), route("b", DOWN)

    assert asyncio.run(desk.send(first, second)) == Answer(first, busy)
    assert not busy.is_cancelled
    desk.cancellation.cancel()
    assert busy.is_cancelled


def test_a_client_that_leaves_between_tries_ends_them_at_once() -> None:
    desk, busy = Desk(), Reply(503, [(b"retry-after", b"60")])
    waiting = route("a", busy, retries=Retries(1, 0.0, 100.0), breaker=Breaker(5, 30))

    async def leave() -> None:
        asyncio.get_running_loop().call_later(0.01, desk.cancellation.cancel)
        await desk.send(waiting)

    with pytest.raises(ClientGoneError):
        asyncio.run(leave())
    assert busy.is_cancelled
    assert desk.asked == ["a"]


@pytest.mark.parametrize("reason", [ClientGoneError("gone"), RuntimeError("a fault of ours")])
def test_a_probe_that_ends_otherwise_leaves_its_place(reason: Exception) -> None:
    breaker = Breaker(1, 1e-9)
    breaker.failed(0.0)

    with pytest.raises(type(reason)):
        asyncio.run(Desk().send(route("a", reason, breaker=breaker)))
    assert breaker.wait_s(0.0) < 1e-6


def test_an_upstream_at_rest_is_passed_over_and_that_counts_as_a_fallback() -> None:
    desk, resting = Desk(), Breaker(1, 1e9)
    resting.failed(SystemClock().now_s())
    spare = route("b", Reply(200))

    assert asyncio.run(desk.send(route("a", breaker=resting), spare)) == Answer(spare, Reply(200))
    assert (desk.asked, dict(desk.metrics.retries), dict(desk.metrics.fallbacks)) == (["b"], {}, {"b": 1})


def test_each_try_that_failed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[UpstreamError] = [DOWN]
    with caplog.at_level(logging.WARNING):
        asyncio.run(Desk().send(route("a", Reply(500), *errors, retries=Retries(1, 0.0, 1.0)), route("b", Reply(200))))

    assert [record.getMessage() for record in caplog.records] == [
        "upstream 'a': status 500; tried again in 0.00 s",
        "upstream 'a': refused; 'b' is asked",
    ]


def test_a_pause_of_a_client_that_left_already_is_none() -> None:
    cancellation = Cancellation()
    cancellation.cancel()

    with pytest.raises(ClientGoneError):
        asyncio.run(pause(60, cancellation))
