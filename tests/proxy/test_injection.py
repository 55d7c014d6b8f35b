"""Learned text is spliced into the client's own bytes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chat_request import parse_chat_request
from proxy.errors import ApiError
from proxy.injection import inject
from proxy.splice import splice

PATTERNS = '\n\n<guide>\n- Say "ü" \\ 😀\n</guide>'
CONTEXTS = "\n\n<reference>\nQ: a\n</reference>"

texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
text_parts = st.builds(
    lambda text, extra: {"type": "text", "text": text, **extra},
    texts,
    st.sampled_from([{}, {"cache_control": {"type": "ephemeral"}}]),
)
image_parts = st.just({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})
contents = texts | st.lists(text_parts | image_parts, max_size=3)
messages = st.builds(
    lambda role, content, extra: {**extra, "role": role, "content": content},
    st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
    contents,
    st.dictionaries(st.sampled_from(["name", "x", "tool_call_id", "é"]), json_values, max_size=2),
)
unknown_fields = st.dictionaries(
    texts.filter(lambda key: key not in ("messages", "model", "stream")), json_values, max_size=3
)
bodies = st.builds(
    lambda fields, messages, order: dict(
        order.sample([*fields.items(), ("messages", messages), ("model", "m")], len(fields) + 2)
    ),
    unknown_fields,
    st.lists(messages, min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)


def expected(body: dict[str, Any], patterns: str, contexts: str) -> dict[str, Any]:
    """The same insertion on the parsed body, written independently of the splice."""
    body = json.loads(json.dumps(body))
    messages = body["messages"]
    n_leading = next((i for i, m in enumerate(messages) if m["role"] not in ("system", "developer")), len(messages))
    users = [m for m in messages if m["role"] == "user"]
    lengthen(users[-1:], contexts)
    lengthen(messages[:n_leading][-1:], patterns)
    return {
        **body,
        "messages": [{"role": "system", "content": patterns.lstrip("\n")}][n_leading:] * (n_leading == 0) + messages,
    }


def lengthen(found: list[dict[str, Any]], text: str) -> None:
    for message in found:
        if isinstance(message["content"], str):
            message["content"] += text
            continue
        parts = [part for part in message["content"] if part["type"] == "text"]
        if parts:
            parts[-1]["text"] += text
        else:
            message["content"].append({"type": "text", "text": text.lstrip("\n")})


@given(bodies, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_the_new_body_is_the_old_one_but_for_the_insertions(
    body: dict[str, Any], ascii_only: bool, indent: Any
) -> None:
    old = json.dumps(body, ensure_ascii=ascii_only, indent=indent).encode()
    new, has_patterns, _ = inject(parse_chat_request(old), PATTERNS, CONTEXTS)
    assert has_patterns
    assert json.loads(new) == expected(body, PATTERNS, CONTEXTS)


@given(bodies)
def test_every_byte_before_the_first_insertion_is_the_clients(body: dict[str, Any]) -> None:
    old = json.dumps(body).encode()
    request = parse_chat_request(old)
    for patterns, contexts in ((PATTERNS, ""), ("", CONTEXTS)):
        new, _, _ = inject(request, patterns, contexts)
        n_equal = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(old))
        tail = old[n_equal:]
        assert new.endswith(tail[1:])
        assert new.startswith(old[:n_equal])


def test_nothing_to_inject_leaves_the_very_bytes() -> None:
    body = b'{"messages" : [{"role":"user","content":"hi"}]}'
    assert inject(parse_chat_request(body), "", "") == (body, False, False)


def test_a_tool_result_stays_beside_its_call() -> None:
    body = json.dumps(
        {
            "messages": [
                {"role": "user", "content": "weather?"},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "w"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "sunny"},
            ]
        }
    ).encode()
    new, _, _ = inject(parse_chat_request(body), PATTERNS, CONTEXTS)
    assert [message["role"] for message in json.loads(new)["messages"]] == ["system", "user", "assistant", "tool"]
    assert json.loads(new)["messages"][1]["content"] == "weather?" + CONTEXTS


def test_lone_surrogates_and_nan_survive_an_injection() -> None:
    body = rb'{"temperature": NaN, "x": "\ud800", "messages": [{"role": "user", "content": "cut \ud83d"}]}'
    request = parse_chat_request(body)
    new, _, _ = inject(request, "", CONTEXTS)
    assert new == body.replace(rb"cut \ud83d", rb"cut \ud83d" + json.dumps(CONTEXTS)[1:-1].encode())
    assert request.messages[0].text == "cut \ufffd"


def test_the_last_of_two_equal_keys_is_the_one_that_counts() -> None:
    body = b'{"messages":[{"role":"user","content":"a"}],"messages":[{"role":"user","content":"b","content":"c"}]}'
    new, _, _ = inject(parse_chat_request(body), "", CONTEXTS)
    assert json.loads(new)["messages"] == [{"role": "user", "content": "c" + CONTEXTS}]
    assert new.startswith(body[: body.index(b'c"}') + 1])


def test_content_that_is_neither_text_nor_parts_is_left_alone() -> None:
    body = b'{"messages":[{"role":"system","content":5},{"role":"user","content":null}]}'
    assert inject(parse_chat_request(body), PATTERNS, CONTEXTS) == (body, False, False)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b"", None),
        (b'{"messages": [], }', None),
        (b'"text"', None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
        (b'{"messages": [5], "x": ', None),
        (b'{"messages": [{"role": "user", "content": "\xff"}]}', None),
        (b'{"model": 5, "messages": [{"role": "user", "content": "a"}]}', "model"),
        (b'{"model": "m"}', "messages"),
        (b'{"messages": []}', "messages"),
        (b'{"messages": "hi"}', "messages"),
        (b'{"messages": ["hi"]}', "messages[0]"),
        (b'{"messages": [{"role": "user"}, {"role": null}]}', "messages[1].role"),
        (b'{"messages": [{"content": "a"}]}', "messages[0].role"),
        (b'{"messages": [{"role": "user"}], "stream": "yes"}', "stream"),
        (b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    ],
)
def test_a_bad_body_is_a_400_that_names_the_field(body: bytes, param: str | None) -> None:
    with pytest.raises(ApiError) as raised:
        parse_chat_request(body)
    assert (raised.value.status, raised.value.param) == (400, param)


def test_insertions_at_several_places_keep_their_order() -> None:
    assert splice(b"abc", [(3, 3, b"3"), (0, 0, b"0"), (1, 1, b"1")]) == b"0a1bc3"
