"""A reply of the Messages API is read out of its bytes, however they are cut."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialect import LEARNED, MESSAGES_PATH
from proxy.reply import Reply
from proxy.reply_collector import ReplyCollector
from tests.upstream_dialects import message_events, message_object, typed_sse

TEXT = "Grüße event: message_stop \u2028 \n\n 😀"
CALL = {"id": "toolu_1", "name": "lookup", "input": {"a": 1}}
SENT = message_object(TEXT, reply_id="msg_1", calls=[CALL])
EVENTS = message_events(SENT)
STREAM = b"".join(typed_sse(EVENTS))
CHAT_CALL = {"id": "toolu_1", "type": "function", "function": {"name": "lookup", "arguments": '{"a": 1}'}}
MESSAGE = {"role": "assistant", "content": TEXT + " ", "tool_calls": [CHAT_CALL]}
EXPECTED = Reply("msg_1", MESSAGE, "tool_calls", 30, 5, 20, is_complete=True)


def collector(max_chars: int = 256_000) -> ReplyCollector:
    return LEARNED[MESSAGES_PATH].collector(max_chars)


def collect(*pieces: bytes, max_chars: int = 256_000) -> Reply:
    collecting = collector(max_chars)
    for piece in pieces:
        collecting.feed(piece)
    return collecting.reply()


@given(st.lists(st.integers(0, len(STREAM)), max_size=8), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_a_stream_reads_the_same_wherever_it_is_cut(places: list[int], line_end: bytes) -> None:
    data = STREAM.replace(b"\n", line_end)
    bounds = [0, *sorted(places), len(data)]
    assert collect(*[data[a:b] for a, b in itertools.pairwise(bounds)]) == EXPECTED


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_a_stream_in_single_bytes_is_complete_exactly_with_its_last(line_end: bytes) -> None:
    data = STREAM.replace(b"\n", line_end)
    collecting = collector()
    complete = []
    for position in range(len(data)):
        collecting.feed(data[position : position + 1])
        complete.append(collecting.is_complete)
    assert complete == [False] * (len(data) - 1) + [True]


def test_a_stream_in_two_pieces_reads_the_same_at_every_place() -> None:
    assert [n for n in range(len(STREAM)) if collect(STREAM[:n], STREAM[n:]) != EXPECTED] == []


def test_a_whole_message_is_read() -> None:
    body = json.dumps(SENT, indent=1).encode()
    collecting = collector()
    collecting.feed(body[:50])
    assert not collecting.is_complete
    collecting.feed(body[50:])
    assert collecting.is_complete
    reply = collecting.reply()
    assert reply.message is not None
    (call,) = reply.message["tool_calls"]
    assert json.loads(call["function"].pop("arguments")) == {"a": 1}
    assert call == {"id": "toolu_1", "type": "function", "function": {"name": "lookup"}}
    assert (reply.message["content"], reply.finish_reason, reply.prompt_tokens) == (TEXT, "tool_calls", 30)


def test_a_tool_without_input_is_called_with_an_empty_object() -> None:
    sent = message_object(None, reply_id="msg_1", calls=[{"id": "t", "name": "now", "input": {}}])
    events = [event for event in message_events(sent) if event.get("delta", {}).get("type") != "input_json_delta"]
    for data in (json.dumps(sent).encode(), b"".join(typed_sse(events))):
        message = collect(data).message
        assert message is not None
        assert message["tool_calls"][0]["function"] == {"name": "now", "arguments": "{}"}


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)
def test_why_a_reply_ended_is_told_in_a_chats_words(stop_reason: str, finish_reason: str) -> None:
    sent = message_object("Hi", reply_id="msg_1", stop_reason=stop_reason)
    assert collect(json.dumps(sent).encode()).finish_reason == finish_reason
    assert collect(*typed_sse(message_events(sent))).finish_reason == finish_reason


def test_a_cut_stream_holds_what_came() -> None:
    deltas = [index for index, event in enumerate(EVENTS) if event.get("delta", {}).get("type") == "text_delta"]
    reply = collect(*typed_sse(EVENTS[: deltas[0] + 1]))
    assert (reply.upstream_id, reply.message) == ("msg_1", {"role": "assistant", "content": "Grüße "})
    assert (reply.is_complete, reply.prompt_tokens, reply.completion_tokens) == (False, 30, 1)


def test_errors_are_seen_in_a_stream_and_in_a_body() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    assert collect(*typed_sse([*EVENTS[:3], error])).has_error
    reply = collect(json.dumps(error).encode())
    assert (reply.has_error, reply.message) == (True, None)


def test_counts_that_come_late_take_the_place_of_the_first() -> None:
    late = {"input_tokens": 100, "cache_read_input_tokens": 0, "output_tokens": 8}
    events = [{**event, "usage": late} if event["type"] == "message_delta" else event for event in EVENTS]
    reply = collect(*typed_sse(events))
    assert (reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens) == (101, 8, 0)


def test_what_is_kept_of_a_long_reply_is_bounded_and_marked() -> None:
    long = message_object("x" * 4999, reply_id="msg_1")
    for data, n_cut in ((json.dumps(long).encode(), 3999), (b"".join(typed_sse(message_events(long))), 4000)):
        reply = collect(data, max_chars=1000)
        assert reply.message == {"role": "assistant", "content": "x" * 1000 + f" [{n_cut} characters cut]"}


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    collect(data)
    collect(b"event: message_stop\ndata: " + data + b"\n\n")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "message", "content", "id", "usage", "stop_reason"]), inner)
        ),
        max_leaves=12,
    ),
    st.sampled_from([event["type"] for event in EVENTS]),
)
def test_events_of_any_form_are_survived(value: Any, kind: str) -> None:
    fields = {"message": value, "content_block": value, "delta": value, "usage": value, "index": 0}
    collect(*typed_sse([{**fields, "type": kind}]))
    collect(json.dumps({**fields, "content": value, "id": value}).encode())
