"""What workers tell each other arrives in order, is bounded, and never holds a request up or makes it fail."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.selection import Facts
from proxy.siblings import MAX_HEARD, MAX_MESSAGE_BYTES, Said, Sockets, TakenUp, TurnEnded, decode, encode

texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)
facts = st.builds(Facts, texts, texts, texts, texts)
ids = st.lists(texts, max_size=3).map(tuple)
ends = st.builds(TurnEnded, texts, texts, st.none() | facts, texts, texts, st.none() | st.floats(0, 2e9), ids, texts)


def taken(number: int) -> TakenUp:
    return TakenUp("history", "conv", f"request {number}")


def ended(conversation_id: str) -> TurnEnded:
    return TurnEnded("default", conversation_id, None, "history", "request", None, (), "resp_1")


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets(3)
    yield made
    made.close()


@given(ends | st.builds(TakenUp, texts, texts, texts))
def test_what_is_said_is_what_is_heard(said: Said) -> None:
    data = encode(said)
    assert data is not None
    assert decode(data) == said


def test_what_does_not_fit_into_a_datagram_or_has_no_bytes_is_not_said(sockets: Sockets) -> None:
    assert encode(ended("x" * MAX_MESSAGE_BYTES)) is None
    assert encode(ended("\ud800")) is None
    speaker = sockets.of(0)
    speaker.tell(ended("\ud800"))
    assert speaker.n_dropped == 2
    assert list(sockets.of(1).heard()) == []


def test_all_others_hear_it_in_order_and_once_and_nobody_himself(sockets: Sockets) -> None:
    workers = [sockets.of(number) for number in range(3)]
    for number in range(5):
        workers[number % 2].tell(taken(number))
    assert list(workers[2].heard()) == [taken(number) for number in range(5)]
    assert list(workers[0].heard()) == [taken(1), taken(3)]
    assert list(workers[1].heard()) == [taken(0), taken(2), taken(4)]
    assert [list(worker.heard()) for worker in workers] == [[], [], []]


def test_no_more_is_heard_at_once_than_was_asked_for(sockets: Sockets) -> None:
    speaker, listener = sockets.of(0), sockets.of(1)
    for number in range(5):
        speaker.tell(taken(number))
    assert [len(list(listener.heard(limit))) for limit in (2, 2, 2)] == [2, 2, 1]


def test_a_worker_that_does_not_listen_holds_nobody_up_and_hears_what_came_first(sockets: Sockets) -> None:
    speaker = sockets.of(0)
    for number in range(MAX_HEARD):
        speaker.tell(taken(number))
        list(sockets.of(2).heard())
    assert speaker.n_dropped > 0
    heard = list(sockets.of(1).heard())
    assert heard == [taken(number) for number in range(MAX_HEARD - speaker.n_dropped)]
    assert len(heard) > 100  # some time's worth of turns
    speaker.tell(taken(-1))
    assert list(sockets.of(1).heard()) == [taken(-1)]


def test_a_worker_that_is_started_again_hears_what_was_said_meanwhile(sockets: Sockets) -> None:
    sockets.of(0).tell(taken(1))
    again = sockets.of(1)
    assert list(again.heard()) == [taken(1)]
    again.tell(taken(2))
    assert list(sockets.of(0).heard()) == [taken(2)]


def test_broken_sockets_are_no_error() -> None:
    sockets = Sockets(2)
    speaker, listener = sockets.of(0), sockets.of(1)
    sockets.close()
    speaker.tell(taken(1))
    assert speaker.n_dropped == 1
    assert list(listener.heard()) == []
