"""A reply is read out of its bytes, however they are cut."""

import itertools
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialect import CHAT_PATH, LEARNED
from proxy.reply import Reply
from proxy.reply_collector import PARSE_BYTES, ReplyCollector
from proxy.reply_shape import length_band, response_format

MAX_CHARS = 256_000


def chat_collector(max_chars: int = MAX_CHARS) -> ReplyCollector:
    return LEARNED[CHAT_PATH].collector(max_chars)


def collect(pieces: list[bytes], encoding: str = "", max_chars: int = MAX_CHARS) -> Reply:
    collector = chat_collector(max_chars)
    collector.begin(encoding)
    for piece in pieces:
        collector.feed(piece)
    return collector.reply()


def delta(delta: dict[str, Any], finish_reason: str | None = None, index: int = 0) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "choices": [{"index": index, "delta": delta, "finish_reason": finish_reason}]}


def sse(*chunks: Any, end: str = "\n\n", done: bool = True) -> bytes:
    events = [f"data: {json.dumps(chunk, ensure_ascii=False)}{end}" for chunk in chunks]
    return "".join(events + [f"data: [DONE]{end}"] * done).encode()


STREAM = sse(
    delta({"role": "assistant", "content": ""}),
    delta({"content": "Grüße \u2028 "}),
    delta({"content": "data: [DONE]\n"}),
    delta({"content": "😀"}),
    delta({}, "stop"),
    {
        "id": "chatcmpl-1",
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 8}},
    },
)
MESSAGE = {"role": "assistant", "content": "Grüße \u2028 data: [DONE]\n😀"}
EXPECTED = Reply("chatcmpl-1", MESSAGE, "stop", 9, 4, 8, is_complete=True)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


@given(st.lists(st.integers(0, 10_000), max_size=20), st.sampled_from(["\n\n", "\r\n\r\n", "\r\r"]))
def test_a_stream_reads_the_same_wherever_it_is_cut(places: list[int], end: str) -> None:
    assert collect(cut(STREAM.replace(b"\n\n", end.encode()), places)) == EXPECTED


def test_a_stream_cut_into_single_bytes_is_complete_exactly_with_its_end_mark() -> None:
    collector = chat_collector()
    collector.begin("")
    first = 0
    for position in range(len(STREAM)):
        collector.feed(STREAM[position : position + 1])
        first = first or (collector.is_complete and position)
    assert first == STREAM.rindex(b"]")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@given(places=st.lists(st.integers(0, 10_000), max_size=5))
def test_encoded_streams_are_decoded(encoding: str, places: list[int]) -> None:
    compress = zlib.compressobj(wbits={"gzip": 31, "deflate": 15}[encoding])
    assert collect(cut(compress.compress(STREAM) + compress.flush(), places), encoding) == EXPECTED


def test_an_encoding_that_cannot_be_read_is_marked() -> None:
    reply = collect([b"\x1b\x2f"], "compress")
    assert (reply.is_readable, reply.message) == (False, None)
    assert collect([b"no gzip"], "gzip").is_readable is False


def test_data_over_several_lines_comments_and_unknown_fields_are_read() -> None:
    body = b': ping\n\nevent: x\ndata: {"id": "a", "choices":\ndata: [{"index": 0, "delta": {"content": "hi"}}]}\n\n'
    reply = collect([body])
    assert (reply.upstream_id, reply.message) == ("a", {"role": "assistant", "content": "hi"})
    assert not reply.is_complete


@pytest.mark.parametrize("later", [{"usage": {"prompt_tokens": 9}}, delta({}, "stop", index=1)])
def test_a_long_stream_is_not_complete_before_its_end_mark_wherever_it_is_read(later: dict[str, Any]) -> None:
    collector = chat_collector()
    collector.feed(sse(delta({"content": "x" * PARSE_BYTES}, "stop"), done=False))
    assert not collector.is_complete  # usage follows, or another choice
    collector.feed(sse(later))
    assert collector.is_complete


def test_a_stream_without_an_end_mark_is_complete_once_every_choice_finished() -> None:
    two = [delta({"content": "a"}), delta({"content": "b"}, index=1), delta({}, "stop"), delta({}, "stop", index=1)]
    assert collect([sse(*two, done=False)]).is_complete
    assert not collect([sse(*two[:3], done=False)]).is_complete
    assert collect([sse(*two)]).message == {"role": "assistant", "content": "a"}


def test_a_last_event_without_an_empty_line_counts() -> None:
    assert collect([sse(delta({"content": "a"}, "stop"), done=False).rstrip()]).is_complete


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
SECOND = {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}}


@pytest.mark.parametrize(
    "deltas",
    [
        [
            {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}},
            {"index": 0, "function": {"arguments": '{"a"'}},
            {"index": 1, **SECOND},
            {"index": 0, "function": {"arguments": ": 1}"}},
        ],
        [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a"'}},
            {"function": {"arguments": ": 1}"}},
            SECOND,
        ],
    ],
)
def test_tool_call_deltas_join_by_index_by_id_or_by_order(deltas: list[dict[str, Any]]) -> None:
    reply = collect([sse(*[delta({"tool_calls": [call]}) for call in deltas], delta({}, "tool_calls"))])
    assert reply.message == {"role": "assistant", "content": None, "tool_calls": [CALL, SECOND]}


def test_a_whole_body_is_read_and_complete() -> None:
    message = {"role": "assistant", "content": "hi", "tool_calls": [CALL, SECOND], "refusal": None}
    body = json.dumps({"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}, indent=1)
    collector = chat_collector()
    collector.begin("")
    collector.feed(body[:40].encode())
    assert not collector.is_complete
    collector.feed(body[40:].encode())
    assert collector.is_complete
    reply = collector.reply()
    assert reply.is_complete
    assert reply.message == {"role": "assistant", "content": "hi", "tool_calls": [CALL, SECOND]}


def test_a_cut_body_is_not_complete() -> None:
    assert collect([b'{"id": "x", "choices": [{"index": 0, "mess']) == Reply()
    assert collect([b""]) == Reply()


@pytest.mark.parametrize("n_after", range(8))
def test_an_end_mark_inside_a_text_ends_nothing_wherever_the_text_is_cut(n_after: int) -> None:
    stream = sse(delta({"content": "data: [DONE] and more"}), done=False)
    place = stream.index(b"[DONE]") + len(b"[DONE]") + n_after
    collector = chat_collector()
    collector.feed(stream[:place])
    collector.feed(stream[place:])
    assert not collector.is_complete


def test_a_whole_body_without_a_finish_reason_is_complete() -> None:
    body = {"id": "c", "choices": [{"index": 0, "message": {"content": "All."}, "finish_reason": None}]}
    reply = collect([json.dumps(body).encode()])
    assert (reply.is_complete, reply.finish_reason) == (True, "stop")


def test_an_error_inside_a_stream_is_seen() -> None:
    reply = collect([sse(delta({"content": "a"}), {"error": {"message": "overloaded"}}, done=False)])
    assert reply.has_error
    assert not reply.is_complete


def test_what_is_kept_of_a_long_reply_is_bounded_and_marked() -> None:
    chunks = sse(*[delta({"content": "x" * 100}) for _ in range(5 * PARSE_BYTES // 100)], delta({}, "stop"))
    reply = collect([chunks[i : i + 7000] for i in range(0, len(chunks), 7000)], max_chars=1000)
    assert reply.is_complete
    assert reply.message == {
        "role": "assistant",
        "content": "x" * 1000 + f" [{5 * PARSE_BYTES // 100 * 100 - 1000} characters cut]",
    }


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    collect([data])
    collect([b"data: " + data + b"\n\n"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("| a | b |\n|:--|--:|\n| 1 | 2 |", "table"),
        ("Run:\n```sh\nls\n```", "code"),
        ("1. a\n2. b", "list"),
        ("- only one", "prose"),
        ("[1, 2]", "json"),
        ("[not json]", "prose"),
        ("Hello - there", "prose"),
        ("", ""),
    ],
)
def test_the_format_of_a_reply_is_told(text: str, expected: str) -> None:
    assert response_format({"role": "assistant", "content": text}) == expected


def test_the_length_band_follows_the_text() -> None:
    bands = [length_band({"content": "x" * n}) for n in (0, 1, 600, 601, 2000, 2001)]
    assert bands == ["", "short", "short", "medium", "medium", "long"]
    assert length_band(None) == response_format(None) == ""
