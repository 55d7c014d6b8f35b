"""The tries of one request: which upstream is asked next, and after how long. A state machine without I/O or clock.

::

    begin ──> Send ──answered──> Answer                     the client gets this reply, whatever its status
               ^  └──failed or a reply that may be tried again──> Wait ──waited──> Send
               └──────────── the next upstream in line ──────────────┘
                                                         └──> Answer or Fail: nobody is left

A reply that is no failure ends it, so nothing is ever sent again after the first byte of a reply reached the client.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Generic, Literal, Protocol, TypeVar

from proxy.errors import Header, UpstreamError, UpstreamRestingError
from proxy.retrying import backoff_s, is_retriable, retry_after_s
from proxy.routing import Route


class ReplyHead(Protocol):
    """What is looked at of a reply: an ``UpstreamResponse``, or the ``ApiError`` that an upstream raised instead."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Sequence[Header]: ...


Reply = TypeVar("Reply", bound=ReplyHead)


@dataclass(frozen=True, slots=True)
class Send:
    """Send the request to *route* now."""

    route: Route


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait, then ask again."""

    seconds: float


@dataclass(slots=True)  # not frozen: one is made for every request, and that takes a third of the time
class Answer(Generic[Reply]):
    """Over: the client gets this reply of this upstream."""

    route: Route
    reply: Reply


@dataclass(frozen=True, slots=True)
class Fail:
    """Over: no upstream replied; this is the last reason."""

    route: Route
    error: UpstreamError


class Delivery(Generic[Reply]):
    """The tries of one request."""

    def __init__(self, routes: Sequence[Route], rng: Random) -> None:
        """Take the upstreams in line, each at most once, and what waits are drawn with."""
        if not routes:
            raise ValueError("a request needs an upstream")
        self._routes = routes
        self._rng = rng
        self._index = 0
        self._n_tries = 0  # of the upstream at the index
        self._reply: Answer[Reply] | None = None
        self._failure: Fail | None = None
        self._expected: Literal["begin", "outcome", "waited", "nothing"] = "begin"

    @property
    def route(self) -> Route:
        """The upstream that was asked last."""
        return self._routes[self._index]

    def begin(self, now_s: float) -> Send | Answer[Reply] | Fail:
        """Return the first step."""
        self._expect("begin")
        return self._send(now_s)

    def waited(self, now_s: float) -> Send | Answer[Reply] | Fail:
        """Return what follows once a ``Wait`` is over."""
        self._expect("waited")
        return self._send(now_s)

    def answered(self, reply: Reply, now_s: float) -> Send | Wait | Answer[Reply] | Fail:
        """Return what follows on the head of a reply to the last ``Send``."""
        self._expect("outcome")
        route, status = self.route, reply.status
        if route.breaker is not None:
            if status >= 500:
                route.breaker.failed(now_s)
            else:
                route.breaker.answered()
        self._reply = Answer(route, reply)
        if is_retriable(status, reply.headers) and self._has_tries_left:
            asked_s = retry_after_s(reply.headers, now_s)
            if asked_s is None or asked_s <= route.retries.max_s:
                return self._wait(asked_s)
        return self._next(now_s) if status == 429 or status >= 500 else self._over()

    def failed(self, error: UpstreamError, now_s: float) -> Send | Wait | Answer[Reply] | Fail:
        """Return what follows when the last ``Send`` brought no reply."""
        self._expect("outcome")
        if self.route.breaker is not None:
            self.route.breaker.failed(now_s)
        self._failure = Fail(self.route, error)
        return self._wait(None) if self._has_tries_left else self._next(now_s)

    def abandoned(self) -> None:
        """End it without an outcome: the client left."""
        if self._expected == "outcome" and self.route.breaker is not None:
            self.route.breaker.abandoned()
        self._expected = "nothing"

    @property
    def _has_tries_left(self) -> bool:
        return self._n_tries <= self.route.retries.limit

    def _wait(self, asked_s: float | None) -> Wait:
        self._expected = "waited"
        policy = self.route.retries
        return Wait(backoff_s(self._n_tries, policy.base_s, policy.max_s, self._rng) if asked_s is None else asked_s)

    def _next(self, now_s: float) -> Send | Answer[Reply] | Fail:
        self._n_tries = 0
        if self._index + 1 == len(self._routes):
            return self._over()
        self._index += 1
        return self._send(now_s)

    def _send(self, now_s: float) -> Send | Answer[Reply] | Fail:
        """Ask the upstream at the index, or the first behind it whose breaker lets requests through."""
        while True:
            breaker = self.route.breaker
            if breaker is None or breaker.admits(now_s):
                self._n_tries += 1
                self._expected = "outcome"
                return Send(self.route)
            if self._failure is None:
                self._failure = Fail(self.route, UpstreamRestingError(breaker.wait_s(now_s)))
            if self._index + 1 == len(self._routes):
                return self._over()
            self._index += 1
            self._n_tries = 0

    def _over(self) -> Answer[Reply] | Fail:
        """End it with the last real reply, if there was one: it says more than a failure to connect."""
        self._expected = "nothing"
        if self._reply is not None:
            return self._reply
        assert self._failure is not None
        return self._failure

    def _expect(self, step: str) -> None:
        if self._expected != step:
            raise RuntimeError(f"{self._expected} is expected, not {step}")
        self._expected = "nothing"
