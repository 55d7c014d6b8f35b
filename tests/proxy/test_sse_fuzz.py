"""Streams as servers really send them, cut anywhere: no byte changes on its way, nor what is read of them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from queue import Queue
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from proxy.dialect import CHAT_PATH, LEARNED, MESSAGES_PATH, RESPONSES_PATH
from proxy.reply import Reply
from proxy.reply_collector import PARSE_BYTES
from store.config import Config
from tests.flow.dialects import MESSAGES, RESPONSES, Dialect
from tests.proxy.wire import STREAM_HEAD, Client, FakeLearning, Peer, RawUpstream, Stack, chunked, section

CHAT = b"/v1/chat/completions"
BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
MAX_CHARS = 256_000
BOM = "\ufeff".encode()
WAIT_S = 10.0

# What a stream says


@dataclass
class Said:
    """A stream's chunks in order, and what they say to one who reads the first choice."""

    chunks: list[dict[str, Any]] = field(default_factory=list)
    content: str = ""
    refusal: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    usage: tuple[int, int, int] | None = None


texts = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from('\u2028\u2029\x85\x0b\x0c\x1c\ufeff\r\n"\\{}[]:é😀👩\u200d👧ß'),
    ),
    max_size=12,
) | st.sampled_from(["data: [DONE]\n\n", "\ndata: [DONE]", "[DONE]", ": ping", "event: error", "\r\n\r\n"])
unknown_fields = st.dictionaries(
    st.sampled_from(["x_provider", "system_fingerprint", "service_tier", "obfuscation", "timings"]),
    st.one_of(st.none(), st.integers(), texts, st.lists(texts, max_size=2), st.dictionaries(texts, texts, max_size=2)),
    max_size=2,
)


def chunk(delta: dict[str, Any], index: int = 0, reason: str | None = None) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}


@st.composite
def calls_said(draw: st.DrawFn, said: Said) -> None:
    """Say some tool calls: one after the other or woven together, with what each style of server leaves out."""
    n_calls = draw(st.integers(1, 3))
    style = draw(st.sampled_from(["index", "index and id", "neither after the first"]))
    pieces: list[list[dict[str, Any]]] = []
    for number in range(n_calls):
        arguments = json.dumps({"text": draw(texts)}, ensure_ascii=draw(st.booleans()))
        cut = draw(st.integers(0, len(arguments)))
        call_id, name = f"call_{number}", f"tool_{number}"
        said.calls.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}})
        place = {} if style == "neither after the first" else {"index": number}
        repeated = {"id": call_id} if style == "index and id" else {}
        head = {**place, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments[:cut]}}
        pieces.append([head, {**place, **repeated, "function": {"arguments": arguments[cut:]}}])
    if style != "neither after the first" and draw(st.booleans()):  # in parallel
        order = [[call[0] for call in pieces], *([call[1]] for call in draw(st.permutations(pieces)))]
    else:
        order = [[piece] for call in pieces for piece in call]
    said.chunks += [chunk({"tool_calls": deltas}) for deltas in order]


@st.composite
def sayings(draw: st.DrawFn) -> Said:
    first = draw(st.sampled_from([None, "", "First"]))
    said = Said([chunk({"role": "assistant", "content": first})], content=first or "")
    n_choices = draw(st.integers(1, 3))
    kinds = ["text", "text", "other choice", "refusal", "logprobs", "empty", "null"]
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=8)):
        text = draw(texts)
        if kind in ("text", "logprobs"):
            said.chunks.append(chunk({"content": text}))
            if kind == "logprobs":
                logprobs = {"content": [{"token": text, "logprob": -0.1, "bytes": [1], "top_logprobs": []}]}
                said.chunks[-1]["choices"][0]["logprobs"] = logprobs
            said.content += text
        elif kind == "refusal":
            said.chunks.append(chunk({"refusal": text}))
            said.refusal += text
        elif kind == "other choice" and n_choices > 1:
            said.chunks.append(chunk({"content": text}, index=n_choices - 1))
        elif kind == "empty":
            said.chunks.append({"id": "chatcmpl-1", "choices": [], "prompt_filter_results": []})
        else:
            said.chunks.append(chunk({"content": None, "tool_calls": None, "function_call": None}))
    if draw(st.booleans()):
        draw(calls_said(said))
    said.chunks += [chunk({}, index, "stop") for index in range(n_choices)]
    if draw(st.booleans()):
        said.usage = (draw(st.integers(0, 2**40)), draw(st.integers(0, 2**40)), draw(st.integers(0, 2**40)))
        details = {"cached_tokens": said.usage[2], "audio_tokens": 0}
        usage = {"prompt_tokens": said.usage[0], "completion_tokens": said.usage[1], "prompt_tokens_details": details}
        said.chunks.append({"id": "chatcmpl-1", "choices": [], "usage": usage})
    said.chunks = [{**one, **draw(unknown_fields)} for one in said.chunks]
    return said


# How it is put into bytes


@st.composite
def events(draw: st.DrawFn, data: str, line_end: str) -> str:
    """Return one event: its data on one line or several, other fields and comments around it."""
    space = draw(st.sampled_from([" ", " ", ""]))
    lines = [f"data:{space}{line}" for line in data.split("\n")]
    fields = ["event: message", "id: 7", "id", "retry: 3000", ": ping", ":", "event:chunk", "x-unknown: data: {}"]
    for line in draw(st.lists(st.sampled_from(fields), max_size=2)):
        lines.insert(draw(st.integers(0, len(lines))), line)
    return line_end.join([*lines, "", ""])


@st.composite
def streams(draw: st.DrawFn) -> tuple[Said, bytes]:
    """Return what a stream says, and its bytes."""
    said = draw(sayings())
    line_ends = st.sampled_from(draw(st.sampled_from([["\n"], ["\r\n"], ["\r"], ["\n", "\r\n", "\r"]])))
    line_end = draw(line_ends)
    parts = []
    for one in said.chunks:
        indent = draw(st.sampled_from([None, None, None, 1]))  # data of several lines
        text = json.dumps(one, ensure_ascii=draw(st.booleans()), indent=indent)
        parts.append(draw(events(text, draw(line_ends))))
        if draw(st.integers(0, 9)) == 0:
            parts.append(f": ping{line_end}{line_end}")
    parts.append(draw(st.sampled_from(["data: [DONE]", "data:[DONE]"])))
    parts.append(draw(st.sampled_from(["", line_end, line_end * 2, f"{line_end}{line_end}: bye{line_end}{line_end}"])))
    return said, "".join(parts).encode()


cuts = st.lists(st.integers(0, 2**20), max_size=30)


def pieces_of(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def collected(pieces: Sequence[bytes], path: str = CHAT_PATH) -> Reply:
    collector = LEARNED[path].collector(MAX_CHARS)
    collector.begin("")
    for piece in pieces:
        collector.feed(piece)
    return collector.reply()


OTHERS: dict[str, Dialect] = {RESPONSES_PATH: RESPONSES, MESSAGES_PATH: MESSAGES}
hostile_texts = texts | st.sampled_from(
    [
        '{"type":"response.completed"}',
        'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        "event: response.failed",
    ]
)


@st.composite
def other_streams(draw: st.DrawFn, path: str) -> tuple[str, list[bytes]]:
    """Return the text of a streamed reply of the Responses or the Messages API, and its events."""
    words = draw(st.lists(hostile_texts, min_size=1, max_size=5))
    line_end = draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    is_ascii = draw(st.booleans())
    framed = []
    for event in OTHERS[path].events("reply-1", words):
        name, data = event.strip().split(b"\n")
        text = json.dumps(json.loads(data.removeprefix(b"data: ")), ensure_ascii=is_ascii).encode()
        ping = draw(
            st.sampled_from(
                [
                    b"",
                    b"",
                    b": ping" + line_end * 2,
                    b"event: ping" + line_end + b'data: {"type":"ping"}' + line_end * 2,
                ]
            )
        )
        framed.append(ping + name + line_end + b"data: " + text + line_end * 2)
    return "".join(words), framed


# What holds


@pytest.mark.parametrize("path", OTHERS)
@settings(max_examples=60)
@given(data=st.data(), places=cuts)
def test_a_stream_of_the_other_apis_is_read_the_same_wherever_it_is_cut(
    path: str, data: st.DataObject, places: list[int]
) -> None:
    text, events = data.draw(other_streams(path))
    body = b"".join(events)
    reply = collected(pieces_of(body, places), path)
    assert reply == collected([body], path)
    assert (reply.message or {}).get("content") == (text or None)
    assert (reply.upstream_id, reply.is_complete, reply.has_error) == ("reply-1", True, False)
    assert (reply.prompt_tokens, reply.completion_tokens) == (9, 4)


@pytest.mark.parametrize("path", OTHERS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_reply_is_whole_with_its_last_event_and_not_before(path: str, data: st.DataObject) -> None:
    _, events = data.draw(other_streams(path))
    body = b"".join(events)
    collector = LEARNED[path].collector(MAX_CHARS)
    collector.begin("")
    is_whole = []
    for position in range(len(body)):
        collector.feed(body[position : position + 1])
        is_whole.append(collector.is_complete)
    last_event = len(b"".join(events[:-1])) + len(events[-1].rstrip()) - 1
    assert not any(is_whole[:last_event])
    assert is_whole[-1]


@settings(max_examples=120)
@given(stream=streams(), places=cuts)
def test_what_is_read_of_a_stream_is_what_it_says_wherever_it_is_cut(
    stream: tuple[Said, bytes], places: list[int]
) -> None:
    said, body = stream
    reply = collected(pieces_of(body, places))
    assert reply == collected([body])
    assert reply == collected([body[position : position + 1] for position in range(len(body))])
    assert_says(reply, said)


@settings(max_examples=60)
@given(stream=streams(), n_before=st.integers(0, 2000), places=cuts)
def test_a_long_stream_that_is_read_bit_by_bit_says_the_same(
    stream: tuple[Said, bytes], n_before: int, places: list[int]
) -> None:
    said, body = stream
    padding = b": %b\n\n" % (b"x" * (PARSE_BYTES - n_before))  # so that reading begins somewhere in what follows
    assert_says(collected([padding, *pieces_of(body, places)]), said)


@settings(max_examples=50)
@given(stream=streams(), places=cuts)
def test_a_byte_order_mark_takes_nothing_away(stream: tuple[Said, bytes], places: list[int]) -> None:
    said, body = stream  # https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
    assert_says(collected(pieces_of(BOM + body, places)), said)


def assert_says(reply: Reply, said: Said) -> None:
    message = reply.message or {}
    assert message.get("content") == (said.content or None)
    assert message.get("refusal", "") == said.refusal
    assert message.get("tool_calls", []) == said.calls
    assert (reply.upstream_id, reply.finish_reason, reply.is_complete) == ("chatcmpl-1", "stop", True)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens) == (said.usage or (None, None, None))
    assert (reply.is_readable, reply.has_error) == (True, False)


@settings(max_examples=80)
@given(body=st.binary(max_size=200), places=cuts)
@example(body=b"\xef\xbb\xbf", places=[1, 2])
@example(body=b"data: [DONE]", places=[7])
@example(body=b"\r\n\r\ndata: {}\r\r\n\ndata", places=[1, 3, 14])
def test_no_bytes_are_too_odd_to_be_read_and_a_cut_changes_nothing(body: bytes, places: list[int]) -> None:
    assert collected(pieces_of(body, places)) == collected([body])


@settings(max_examples=80)
@given(stream=streams(), place=st.integers(0, 2**20), junk=st.binary(max_size=30), places=cuts)
def test_a_stream_with_junk_in_it_is_read_the_same_wherever_it_is_cut(
    stream: tuple[Said, bytes], place: int, junk: bytes, places: list[int]
) -> None:
    _, body = stream
    place %= len(body) + 1
    spoilt = body[:place] + junk + body[place:]
    assert collected(pieces_of(spoilt, places)) == collected([spoilt])


@dataclass
class Relay:
    """A proxy over real sockets whose upstream sends what ``parts`` says next."""

    client: Client
    parts: "Queue[list[bytes]]"
    learning: FakeLearning


@pytest.fixture
def relay(config: Config) -> Iterator[Relay]:
    parts: Queue[list[bytes]] = Queue()

    def script(peer: Peer) -> None:
        while True:
            peer.read_request()
            for part in parts.get(timeout=WAIT_S):
                peer.send(part)

    learning = FakeLearning()
    with (
        RawUpstream(script) as upstream,
        Stack(config, [section(upstream, config)], learning).running() as port,
        Client(port) as client,
    ):
        yield Relay(client, parts, learning)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prefix=st.sampled_from([b"", BOM, b"\n", b": hello\r\r"]),
    stream=streams(),
    sizes=st.lists(st.integers(1, 60), max_size=20),
    places=cuts,
)
def test_a_stream_arrives_byte_for_byte_wherever_it_is_cut(
    relay: Relay, prefix: bytes, stream: tuple[Said, bytes], sizes: list[int], places: list[int]
) -> None:
    body = prefix + stream[1]
    starts = [0]
    for size in sizes:
        starts.append(min(starts[-1] + size, len(body)))
    chunks = [body[start:end] for start, end in pairwise([*starts, len(body)]) if start < end]
    relay.parts.put([part for part in pieces_of(STREAM_HEAD + chunked(*chunks) + b"0\r\n\r\n", places) if part])
    answer = relay.client.ask(b"POST", CHAT, BODY)
    assert answer.body == body
    assert relay.learning.turns[-1].fed == body
    assert relay.learning.turns[-1].outcome()[0] == "ok"
