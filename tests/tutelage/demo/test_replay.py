from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from store.clock import ManualClock
from tutelage.demo.client import ChatReply
from tutelage.demo.library import Library
from tutelage.demo.replay import MAX_TURNS, Replay
from tutelage.demo.sample import load_sample
from tutelage.demo.users import make_users, make_visits, question_pool

START = datetime(2026, 11, 2, tzinfo=UTC)
START_S = START.timestamp()
POOL = question_pool(Library(load_sample()).exchanges)
Sent = tuple[float, Mapping[str, Any], Mapping[str, str]]


class FakeProxy:
    """Remembers what was sent, and when by the replay's clock."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.chats: list[Sent] = []
        self.signals: list[Mapping[str, Any]] = []

    def chat(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> ChatReply:
        self.chats.append((self.clock.now_s(), body, headers))
        return ChatReply(f"resp-{len(self.chats)}", "- a\n- b")

    def feedback(self, signals: Sequence[Mapping[str, Any]]) -> None:
        self.signals += signals


def replayed(seed: int = 0) -> tuple[FakeProxy, Replay]:
    clock = ManualClock(START)
    proxy = FakeProxy(clock)
    visits = make_visits(seed, make_users(seed, 20), POOL, count=150, days=3)
    replay = Replay(proxy, clock, visits, POOL, start_s=START_S, seed=seed)
    replay.run_until(START_S + 4 * 86400)
    replay.send_signals()
    return proxy, replay


def conversations(proxy: FakeProxy) -> dict[str, list[Sent]]:
    found: dict[str, list[Sent]] = {}
    for sent in proxy.chats:
        found.setdefault(sent[2]["x-tutelage-conversation"], []).append(sent)
    return found


def test_the_same_seed_sends_the_same_traffic() -> None:
    first, _ = replayed(1)
    second, _ = replayed(1)
    other, _ = replayed(2)
    assert (first.chats, first.signals) == (second.chats, second.signals)
    assert first.chats != other.chats


def test_requests_are_sent_in_the_order_of_time() -> None:
    proxy, replay = replayed()
    moments = [at_s for at_s, _, _ in proxy.chats]
    assert moments == sorted(moments)
    assert replay.n_requests == len(moments) > 150


def test_every_turn_resends_the_conversation_so_far() -> None:
    proxy, _ = replayed()
    for sent in conversations(proxy).values():
        assert len(sent) <= MAX_TURNS
        for (_, earlier, _), (_, later, _) in pairwise(sent):
            asked = earlier["messages"]
            goes_on = later["messages"][: len(asked) + 1] == [*asked, {"role": "assistant", "content": "- a\n- b"}]
            assert goes_on or later["messages"] == asked  # asked again with the same words: regenerated


def test_signals_name_the_response_that_they_are_about() -> None:
    proxy, replay = replayed()
    users = {f"resp-{number}": body["user"] for number, (_, body, _) in enumerate(proxy.chats, 1)}
    assert replay.n_signals == len(proxy.signals) > 50
    assert all(users[signal["response_id"]] == signal["user"] for signal in proxy.signals)


def test_what_is_due_later_is_not_sent_yet() -> None:
    clock = ManualClock(START)
    proxy = FakeProxy(clock)
    visits = make_visits(0, make_users(0, 20), POOL, count=150, days=3)
    replay = Replay(proxy, clock, visits, POOL, start_s=START_S, seed=0)
    replay.run_until(START_S + 86400)
    assert 0 < replay.n_requests < 150
    assert max(at_s for at_s, _, _ in proxy.chats) < START_S + 86400 == clock.now_s()
