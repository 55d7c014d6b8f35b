"""One request sent until somebody answers it: what ``delivery`` decides, done."""

import logging
from collections.abc import Callable, Sequence
from random import Random

from proxy.delivery import Answer, Delivery, Fail, Send, Wait
from proxy.errors import ApiError, UpstreamError
from proxy.metrics import Metrics
from proxy.routing import Route
from proxy.upstream import Cancellation, UpstreamRequest, UpstreamResponse
from proxy.waiting import pause
from store.clock import Clock

Reply = UpstreamResponse | ApiError

logger = logging.getLogger(__name__)


class Sender:
    """Sends requests, again and elsewhere where the operator configured that."""

    def __init__(self, metrics: Metrics, clock: Clock, rng: Random) -> None:
        """Take what counts, what tells the time and what waits are drawn with."""
        self._metrics = metrics
        self._clock = clock
        self._rng = rng

    async def send(
        self, routes: Sequence[Route], request: Callable[[Route], UpstreamRequest], cancellation: Cancellation
    ) -> Answer[Reply] | Fail:
        """Return how it ended: the reply that the client gets, or why there is none.

        Args:
            routes: who is asked, in this order.
            request: makes the request as it goes to one of them.
            cancellation: told when the client leaves.

        Raises:
            ClientGoneError: the client left.
        """
        if len(routes) == 1 and routes[0].is_tried_once:
            return await self.send_once(routes[0], request)
        delivery: Delivery[Reply] = Delivery(routes, self._rng)
        held: Reply | None = None  # the last reply, unread: the client gets it when nobody does better
        asked: Route | None = None
        step: Send | Wait | Answer[Reply] | Fail = delivery.begin(self._clock.now_s())
        try:
            while isinstance(step, Send | Wait):
                if isinstance(step, Wait):
                    await pause(step.seconds, cancellation)
                    step = delivery.waited(self._clock.now_s())
                    continue
                self._count(step.route, asked, routes[0])
                asked = step.route
                outcome = await self.send_once(asked, request)
                if isinstance(outcome, Fail):
                    step = delivery.failed(outcome.error, self._clock.now_s())
                else:
                    _discard(held)
                    held = outcome.reply
                    step = delivery.answered(held, self._clock.now_s())
                _tell(outcome, step)
        except BaseException:
            delivery.abandoned()
            _discard(held)
            raise
        if isinstance(step, Answer) and not isinstance(step.reply, ApiError):
            cancellation.listen(step.reply.cancel)  # later tries listened too
        return step

    async def send_once(self, route: Route, request: Callable[[Route], UpstreamRequest]) -> Answer[Reply] | Fail:
        """Return how sending it to *route* ended, whatever is configured.

        Raises:
            ClientGoneError: the client left.
        """
        try:
            return Answer(route, await route.upstream.send(request(route)))
        except ApiError as exc:  # the answer of an upstream that is reached through a library
            return Answer(route, exc)
        except UpstreamError as exc:
            return Fail(route, exc)

    def _count(self, route: Route, asked: Route | None, first: Route) -> None:
        if route is asked:
            self._metrics.retries[route.upstream.name] += 1
        elif route is not first:
            self._metrics.fallbacks[route.upstream.name] += 1


def _tell(outcome: Answer[Reply] | Fail, step: Send | Wait | Answer[Reply] | Fail) -> None:
    """Log a try that failed and what follows on it; whoever answers the client logs the last."""
    name = outcome.route.upstream.name
    reason = outcome.error if isinstance(outcome, Fail) else f"status {outcome.reply.status}"
    match step:
        case Wait(seconds):
            logger.warning("upstream %r: %s; tried again in %.2f s", name, reason, seconds)
        case Send(fallback):
            logger.warning("upstream %r: %s; %r is asked", name, reason, fallback.upstream.name)


def reply_of(end: Answer[Reply] | Fail) -> UpstreamResponse:
    """Return the reply that the client gets.

    Raises:
        UpstreamError: nobody replied.
        ApiError: the answer of an upstream that is reached through a library.
    """
    if isinstance(end, Fail):
        raise end.error
    if isinstance(end.reply, ApiError):
        raise end.reply
    return end.reply


def _discard(reply: Reply | None) -> None:
    if reply is not None and not isinstance(reply, ApiError):
        reply.cancel()
