"""A reply of the Responses API is read out of its bytes, however they are cut."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialect import LEARNED, RESPONSES_PATH
from proxy.reply import Reply
from proxy.reply_collector import ReplyCollector
from tests.upstream_dialects import response_events, response_object, typed_sse

TEXT = "Grüße event: response.completed \u2028 \n\n 😀"
CALL = {"call_id": "call_1", "name": "lookup", "arguments": '{"a": 1}'}
RESPONSE = response_object(TEXT, reply_id="resp_1", calls=[CALL])
EVENTS = response_events(RESPONSE)
STREAM = b"".join(typed_sse(EVENTS))
CHAT_CALL = {"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": '{"a": 1}'}}
MESSAGE = {"role": "assistant", "content": TEXT, "tool_calls": [CHAT_CALL]}
EXPECTED = Reply("resp_1", MESSAGE, "tool_calls", 30, 5, 20, is_complete=True, item_ids=("msg_1", "fc_call_1"))


def collector(max_chars: int = 256_000) -> ReplyCollector:
    return LEARNED[RESPONSES_PATH].collector(max_chars)


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


def test_a_last_event_without_its_name_line_is_one_too() -> None:
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in EVENTS)
    collecting = collector()
    collecting.feed(data[:-1])
    assert not collecting.is_complete
    collecting.feed(data[-1:])
    assert collecting.is_complete
    assert collecting.reply() == EXPECTED


def test_what_deltas_tell_stands_when_the_last_event_does_not_repeat_it() -> None:
    bare = [*EVENTS[:-1], {**EVENTS[-1], "response": {**RESPONSE, "output": []}}]
    reply = collect(*typed_sse(bare))
    assert reply.message == {**MESSAGE, "content": TEXT + " "}
    assert (reply.finish_reason, reply.is_complete, reply.prompt_tokens) == ("tool_calls", True, 30)


def test_a_cut_stream_holds_what_came() -> None:
    deltas = [index for index, event in enumerate(EVENTS) if event["type"] == "response.output_text.delta"]
    reply = collect(*typed_sse(EVENTS[: deltas[0] + 1]))
    assert (reply.upstream_id, reply.message) == ("resp_1", {"role": "assistant", "content": "Grüße "})
    assert not reply.is_complete


def test_a_whole_response_is_read() -> None:
    body = json.dumps(RESPONSE, indent=1).encode()
    collecting = collector()
    collecting.feed(body[:50])
    assert not collecting.is_complete
    collecting.feed(body[50:])
    assert collecting.is_complete
    assert collecting.reply() == EXPECTED


@pytest.mark.parametrize(
    ("fields", "finish_reason", "has_error"),
    [
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length", False),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter", False),
        ({"status": "failed", "error": {"code": "server_error", "message": "x"}}, "failed", True),
        ({"status": "cancelled"}, "cancelled", True),
        ({"status": "queued", "output": []}, "queued", False),
        ({"error": {"message": "x"}}, "tool_calls", True),
    ],
)
def test_why_a_reply_ended_is_told_in_a_chats_words(
    fields: dict[str, Any], finish_reason: str, has_error: bool
) -> None:
    reply = collect(json.dumps({**RESPONSE, **fields}).encode())
    assert (reply.finish_reason, reply.has_error, reply.is_complete) == (finish_reason, has_error, True)


@pytest.mark.parametrize("status", ["failed", "incomplete"])
def test_a_stream_that_failed_or_was_cut_short_ends_with_that_event(status: str) -> None:
    collecting = collector()
    collecting.feed(b"".join(typed_sse(response_events(response_object(TEXT, reply_id="resp_1", status=status)))))
    assert collecting.is_complete
    assert collecting.reply().has_error is (status == "failed")


def test_an_error_event_is_seen() -> None:
    reply = collect(*typed_sse([*EVENTS[:2], {"type": "error", "code": "x", "message": "broke", "param": None}]))
    assert (reply.has_error, reply.is_complete) == (True, False)


def test_refusals_and_calls_of_free_text_are_read() -> None:
    refusal = {"type": "message", "id": "m", "content": [{"type": "refusal", "refusal": "No."}]}
    custom = {"type": "custom_tool_call", "id": "c", "call_id": "call_2", "name": "run", "input": "ls"}
    reply = collect(json.dumps({**RESPONSE, "output": [refusal, custom]}).encode())
    assert reply.message == {
        "role": "assistant",
        "content": None,
        "refusal": "No.",
        "tool_calls": [{"id": "call_2", "type": "custom", "custom": {"name": "run", "input": "ls"}}],
    }


def test_what_is_kept_of_a_long_reply_is_bounded_and_marked() -> None:
    long = response_object("x" * 5000, reply_id="resp_1")
    expected = "x" * 1000 + " [4000 characters cut]"
    for data in (json.dumps(long).encode(), b"".join(typed_sse(response_events(long)))):
        reply = collect(data, max_chars=1000)
        assert reply.message == {"role": "assistant", "content": expected}


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    collect(data)
    collect(b"event: response.completed\ndata: " + data + b"\n\n")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "response", "item", "output", "id", "delta", "content", "usage"]), inner
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from([event["type"] for event in EVENTS]),
)
def test_events_of_any_form_are_survived(value: Any, kind: str) -> None:
    fields = {"response": value, "item": value, "output": value, "delta": value, "output_index": 0}
    collect(*typed_sse([{**fields, "type": kind}]))
    collect(json.dumps({**fields, "id": value}).encode())
