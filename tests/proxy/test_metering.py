"""What a reply says it used, read from bytes that are cut anywhere."""

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.limits import Usage
from proxy.metering import MAX_REPORT_BYTES, MeteredReply, UsageReader

CHAT = (
    b'{"id":"c","choices":[{"message":{"content":"say \\"usage\\": {\\"prompt_tokens\\": 9}"}}],'
    b'"usage": {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}}'
)
CHAT_STREAM = (
    b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}}\n\ndata: [DONE]\n\n'
)
MESSAGES_STREAM = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":5,'
    b'"cache_read_input_tokens":100,"cache_creation_input_tokens":20,"output_tokens":1}}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":40}}\n\n'
)
RESPONSES = (
    b'{"usage":{"input_tokens":7,"input_tokens_details":{"cached_tokens":4},"output_tokens":2,'
    b'"output_tokens_details":{"reasoning_tokens":1}}}'
)
EMBEDDINGS = b'{"data":[{"embedding":[0.1]}],"model":"m","usage":{"prompt_tokens":6,"total_tokens":6}}'

ECHOED_SCHEMA = b'{"tools":[{"parameters":{"usage":{"prompt_tokens":0,"completion_tokens":0}}}],"x":%b}' % RESPONSES
CALL_OF_A_TOOL = (
    b'{"content":[{"type":"tool_use","input":{"usage":{"prompt_tokens":0,"input_tokens":1,"output_tokens":1}}}],'
    b'"usage":{"input_tokens":5,"output_tokens":2}}'
)


class Told:
    """Takes the place of a meter."""

    def __init__(self) -> None:
        self.usages: list[Usage] = []

    def settle(self, usage: Usage) -> None:
        self.usages.append(usage)


@pytest.mark.parametrize(
    ("body", "report"),
    [
        (CHAT, (12, 3, 8)),
        (CHAT_STREAM, (12, 3, None)),
        (MESSAGES_STREAM, (125, 40, 100)),
        (RESPONSES, (7, 2, 4)),
        (EMBEDDINGS, (6, None, None)),
        (ECHOED_SCHEMA, (7, 2, 4)),
        (CALL_OF_A_TOOL, (5, 2, None)),
        (b'{"usage":{"prompt_tokens":"many"}}', (None, None, None)),
        (b'{"usage":[1],"x":{"usage":{"prompt_tokens":1,}}}', (None, None, None)),
        (b'["usage", "usage" ,{"usage" : {"prompt_tokens":1}}]', (1, None, None)),
        (b"<html>", (None, None, None)),
        (b"", (None, None, None)),
    ],
)
@given(data=st.data())
def test_what_a_reply_says_is_read_however_it_is_cut(
    body: bytes, report: tuple[int | None, int | None, int | None], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    reader = UsageReader()
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        reader.feed(body[start:end])

    assert reader.report() == report
    assert reader.n_bytes == len(body)


def test_an_object_without_an_end_is_given_up_and_the_next_one_read() -> None:
    reader = UsageReader()
    for _ in range(100):
        reader.feed(b'"usage":{' + b" " * 1000)
    assert len(reader._rest) <= MAX_REPORT_BYTES
    reader.feed(b"x" * 2 * MAX_REPORT_BYTES)
    reader.feed(b'"usage":{"prompt_tokens":1}')

    assert reader.report() == (1, None, None)


@given(st.binary() | st.builds(lambda text: b'"usage":' + text, st.binary()))
def test_any_bytes_are_taken(data: bytes) -> None:
    UsageReader().feed(data)


def told(
    pieces: list[bytes], *, status: int = 200, encoding: str = "", body: bytes = b"", is_text: bool = True
) -> dict[str, Any]:
    meter = Told()
    reply = MeteredReply(meter, "gpt-5", body, is_text=is_text)
    reply.begin(encoding)
    for piece in pieces:
        reply.feed(piece)
    reply.settle("openai", status)
    (usage,) = meter.usages
    return {
        "prompt": usage.prompt_tokens,
        "completion": usage.completion_tokens,
        "prompt_chars": usage.prompt_chars,
        "completion_chars": usage.completion_chars,
    }


COUNTED = {"prompt": 12, "completion": 3, "prompt_chars": 0, "completion_chars": 0}


def test_a_reply_that_counts_is_not_estimated() -> None:
    assert told([CHAT], body=b"x" * 100) == COUNTED


def test_a_compressed_reply_is_read_all_the_same() -> None:
    squeezed = gzip.compress(CHAT)

    assert told([squeezed[:20], squeezed[20:]], encoding="GZIP") == COUNTED


def test_a_stream_that_nobody_counts_is_estimated_by_its_events_and_the_text_sent() -> None:
    image = b"A" * 5000
    events = [b"data: " + json.dumps({"delta": "word"}).encode() + b"\n\n"] * 10

    assert told(events, body=b'{"m":"' + image + b'"}') == {
        "prompt": None,
        "completion": None,
        "prompt_chars": 8,
        "completion_chars": 40,
    }


@pytest.mark.parametrize("encoding", ["", "gzip", "unheard-of"])
def test_a_body_that_nobody_counts_or_can_read_is_estimated_by_its_length(encoding: str) -> None:
    assert told([b"0123", b"4567"], encoding=encoding)["completion_chars"] == 8


def test_what_is_no_text_is_not_estimated() -> None:
    assert told([b"\xff\xfb" * 1000], body=b"x" * 1000, is_text=False)["completion_chars"] == 0


def test_an_error_used_nothing() -> None:
    assert told([b'{"error":{}}'], status=500, body=b"x" * 100) == {
        "prompt": None,
        "completion": None,
        "prompt_chars": 0,
        "completion_chars": 0,
    }


def test_a_request_that_was_never_answered_used_nothing() -> None:
    meter = Told()
    MeteredReply(meter, "gpt-5", b"x" * 100, is_text=True).settle("", 0)

    assert meter.usages == [Usage(upstream="", model="gpt-5")]
