"""Weeks of simulated conversations, sent through the proxy in the order of simulated time."""

import heapq
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from store.clock import ManualClock
from tutelage.demo.client import ChatReply
from tutelage.demo.model import MODEL_NAME
from tutelage.demo.users import Visit, react

SYSTEM_TEXT = "You are the assistant of a company for travel, leisure and banking. Answer the customer's question."
MAX_TURNS = 4  # of one conversation
STREAM_SHARE = 0.2  # of the requests ask for a stream
BATCH = 500  # signals sent at once


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """One request that is due; turns sort by time."""

    at_s: float
    visit_number: int
    number: int
    question: str = field(compare=False)
    history: tuple[Mapping[str, str], ...] = field(compare=False, default=())
    visit: Visit = field(compare=False, kw_only=True)


class Proxy(Protocol):
    """What the replay needs of the proxy; ``client.ProxyClient`` is the real one."""

    def chat(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> ChatReply: ...

    def feedback(self, signals: Sequence[Mapping[str, Any]]) -> None: ...


class Replay:
    """The traffic that is still to come, and the signals that wait to be sent."""

    def __init__(
        self,
        client: Proxy,
        clock: ManualClock,
        visits: Iterable[Visit],
        pool: Mapping[str, Sequence[str]],
        *,
        start_s: float,
        seed: int,
    ) -> None:
        self.n_requests = 0
        self.n_signals = 0
        self._client = client
        self._clock = clock
        self._pool = pool
        self._seed = seed
        self._signals: list[dict[str, Any]] = []
        self._turns = [Turn(start_s + visit.at_s, visit.number, 0, visit.question, visit=visit) for visit in visits]
        heapq.heapify(self._turns)

    def run_until(self, moment_s: float) -> None:
        """Send every request that is due before *moment_s* and leave the clock there; signals are kept.

        Raises:
            DemoError: the proxy did not answer as it should.
        """
        while self._turns and self._turns[0].at_s < moment_s:
            turn = heapq.heappop(self._turns)
            self._clock.move_to(turn.at_s)
            following = self._take(turn)
            if following is not None:
                heapq.heappush(self._turns, following)
        self._clock.move_to(moment_s)

    def send_signals(self) -> None:
        """Send the signals that wait. Their responses should be in the database: the proxy waits for each at most 1 s.

        Raises:
            DemoError: the proxy did not take them.
        """
        for start in range(0, len(self._signals), BATCH):
            self._client.feedback(self._signals[start : start + BATCH])
        self.n_signals += len(self._signals)
        self._signals.clear()

    def _take(self, turn: Turn) -> Turn | None:
        """Send one request, let its user react, and return the request that follows in the conversation."""
        visit = turn.visit
        draw = random.Random(f"{self._seed} {visit.number} {turn.number}")  # noqa: S311 - repeatable, not secret
        asked = {"role": "user", "content": turn.question}
        body = {
            "model": MODEL_NAME,
            "messages": [{"role": "system", "content": SYSTEM_TEXT}, *turn.history, asked],
            "user": visit.user.id,
            "seed": draw.randrange(2**31),
            "stream": draw.random() < STREAM_SHARE,
        }
        headers = {
            "x-tutelage-conversation": f"demo-{visit.number:05d}",
            "x-tutelage-question-type": visit.question_type,
            "x-tutelage-tags": visit.question_type,
        }
        reply = self._client.chat(body, headers)
        self.n_requests += 1
        reaction = react(visit.user, visit.question_type, turn.question, reply.text, draw)
        self._signals += reaction.signals(reply.response_id, visit.user.id)
        if reaction.next_step == "leave" or turn.number + 1 >= MAX_TURNS:
            return None
        if reaction.next_step == "regenerate":
            wait_s, question, history = draw.uniform(5, 40), turn.question, turn.history
        else:
            # Within 30 s of the reply counts as "it did not answer my question".
            wait_s = draw.uniform(4, 25) if reaction.next_step == "ask_again" else draw.uniform(60, 400)
            question = draw.choice(self._pool[visit.question_type])
            history = (*turn.history, asked, {"role": "assistant", "content": reply.text})
        return Turn(turn.at_s + wait_s, visit.number, turn.number + 1, question, history, visit=visit)
