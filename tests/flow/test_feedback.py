"""The feedback contract (DESIGN section 4), signal by signal, over HTTP."""

import threading
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.flow.product import Product
from tests.upstream import Upstream, chat_reply

WEIGHTS = {
    "thumbs_up": 1.0,
    "thumbs_down": -1.0,
    "copy": 0.3,
    "follow_up": -0.2,
    "insight_ack": 0.2,
    "regenerate": -0.3,
    "correction": -0.5,
}


def ask(serving: Product) -> str:
    response_id: str = serving.chat().headers["x-tutelage-response-id"]
    return response_id


def stored(serving: Product, response_id: str) -> list[tuple[str, str, float]]:
    """Return (signal, user, weight) of what is kept for a response."""
    rows = serving.rows("SELECT * FROM response_feedback WHERE response_id = :id ORDER BY seq", id=response_id)
    return [(row["signal_type"], row["user_id"], row["weight"]) for row in rows]


@pytest.mark.parametrize(("signal", "weight"), WEIGHTS.items())
def test_a_signal_is_answered_with_its_weight_and_is_committed_by_then(
    signal: str, weight: float, serving: Product
) -> None:
    response_id = ask(serving)
    answer = serving.feedback(
        {"response_id": response_id, "signal": signal, "user": "u-42", "value": None, "comment": None, "metadata": {}}
    )
    kept = stored(serving, response_id)
    assert answer.status_code == 201
    body = answer.json()
    assert body == {"id": body["id"], "response_id": response_id, "signal": signal, "weight": weight}
    assert kept == [(signal, "u-42", weight)]


def test_reading_long_counts_above_sixty_seconds_on_a_short_answer_only(
    serving: Product, shared_upstream: Upstream
) -> None:
    weights = []
    for text, seconds in (("Short.", 61), ("Short.", 60), ("Short.", 5), ("Long answer. " * 300, 61)):
        shared_upstream.script = lambda request, text=text: chat_reply(request, text)  # type: ignore[misc]
        answer = serving.feedback({"response_id": ask(serving), "signal": "dwell_time", "value": seconds, "user": "u"})
        weights.append(answer.json()["weight"])
    shared_upstream.script = chat_reply
    assert weights == [-0.1, 0, 0, 0]


def test_a_later_vote_of_the_same_user_replaces_the_earlier_one(serving: Product) -> None:
    response_id = ask(serving)
    for signal, user in (("thumbs_up", "a"), ("copy", "a"), ("thumbs_up", "b"), ("thumbs_down", "a")):
        answer = serving.feedback({"response_id": response_id, "signal": signal, "user": user})
        assert answer.status_code == 201
    assert sorted(stored(serving, response_id)) == [
        ("copy", "a", 0.3),
        ("thumbs_down", "a", -1.0),
        ("thumbs_up", "b", 1.0),
    ]


def test_an_id_seen_before_changes_nothing_and_is_answered_the_same(serving: Product) -> None:
    response_id, other = ask(serving), ask(serving)
    signal_id = f"mine-{uuid4()}"
    first = serving.feedback({"response_id": response_id, "signal": "thumbs_up", "user": "u", "id": signal_id})
    again = serving.feedback({"response_id": other, "signal": "thumbs_down", "user": "u", "id": signal_id})
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert first.json()["id"] == signal_id
    assert stored(serving, response_id) == [("thumbs_up", "u", 1.0)]
    assert stored(serving, other) == []


def test_an_old_id_sent_again_does_not_undo_a_later_vote(serving: Product) -> None:
    response_id = ask(serving)
    early = {"response_id": response_id, "signal": "thumbs_up", "user": "u", "id": f"early-{uuid4()}"}
    first = serving.feedback(early)
    serving.feedback({"response_id": response_id, "signal": "thumbs_down", "user": "u"})
    assert serving.feedback(early).json() == first.json()
    assert stored(serving, response_id) == [("thumbs_down", "u", -1.0)]


def test_a_list_is_answered_with_a_list_in_the_same_order(serving: Product) -> None:
    ids = [ask(serving) for _ in range(3)]
    answer = serving.feedback([{"response_id": name, "signal": "copy", "user": "u"} for name in ids])
    assert answer.status_code == 201
    assert [item["response_id"] for item in answer.json()] == ids
    assert [item["weight"] for item in answer.json()] == [0.3] * 3


def test_a_list_with_one_bad_signal_stores_none_of_it(serving: Product) -> None:
    response_id = ask(serving)
    answer = serving.feedback(
        [{"response_id": response_id, "signal": "copy"}, {"response_id": response_id, "signal": "?"}]
    )
    assert answer.status_code == 400
    assert "signal" in answer.json()["error"]["param"]
    assert stored(serving, response_id) == []


def test_a_signal_can_be_taken_back_once(serving: Product) -> None:
    response_id = ask(serving)
    signal_id = serving.feedback({"response_id": response_id, "signal": "copy", "user": "u"}).json()["id"]
    gone = serving.client.delete(f"{serving.proxy_url}/v1/feedback/{signal_id}")
    assert gone.status_code in (200, 204)
    assert stored(serving, response_id) == []
    again = serving.client.delete(f"{serving.proxy_url}/v1/feedback/{signal_id}")
    assert again.status_code == 404
    assert set(again.json()["error"]) == {"message", "type", "param", "code"}


def test_an_unknown_response_is_a_404_after_waiting_for_its_record(serving: Product) -> None:
    answer = serving.feedback({"response_id": "resp-nobody", "signal": "thumbs_up"})
    assert answer.status_code == 404
    assert "resp-nobody" in answer.json()["error"]["message"]
    assert answer.elapsed.total_seconds() > 0.8


def test_a_body_id_names_the_newest_response_that_has_it(serving: Product, shared_upstream: Upstream) -> None:
    shared_upstream.script = lambda request: chat_reply(request, reply_id="chatcmpl-twice")
    older, newer = ask(serving), ask(serving)
    shared_upstream.script = chat_reply
    answer = serving.feedback({"response_id": "chatcmpl-twice", "signal": "thumbs_up", "user": "u"})
    assert answer.status_code == 201
    assert answer.json()["response_id"] == "chatcmpl-twice"
    assert (stored(serving, older), stored(serving, newer)) == ([], [("thumbs_up", "u", 1.0)])


def test_a_vote_right_after_the_reply_is_never_too_early(serving: Product) -> None:
    statuses: list[int] = []

    def ask_and_vote() -> None:
        with httpx.Client(timeout=10, headers=serving.client.headers) as client:
            for _ in range(10):
                name = serving.chat(client=client).headers["x-tutelage-response-id"]
                statuses.append(serving.feedback({"response_id": name, "signal": "copy"}, client=client).status_code)

    threads = [threading.Thread(target=ask_and_vote) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [201] * 60


def test_text_of_a_correction_is_kept_as_it_was_written(serving: Product) -> None:
    response_id = ask(serving)
    signal: dict[str, Any] = {
        "response_id": response_id,
        "signal": "correction",
        "user": "u",
        "correction": "Nein: 4 °C\n\u2028",
        "comment": "wrong \U0001f600",
        "metadata": {"page": [1, None]},
    }
    assert serving.feedback(signal).status_code == 201
    row = serving.row("SELECT * FROM response_feedback WHERE response_id = :id", id=response_id)
    assert (row["correction"], row["comment"]) == (signal["correction"], signal["comment"])


def test_a_list_of_a_thousand_signals_is_stored_at_once(serving: Product) -> None:
    response_id = ask(serving)
    signals = [{"response_id": response_id, "signal": "copy", "user": f"u-{number}"} for number in range(1000)]
    answer = serving.feedback(signals)
    assert answer.status_code == 201
    assert len(answer.json()) == len(stored(serving, response_id)) == 1000
    assert serving.feedback([*signals, signals[0]]).status_code == 400
