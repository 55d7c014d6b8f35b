"""A bad body is the client's error, with the name of the field; what only the upstream can judge is let through."""

from typing import Any

import pytest

from proxy.dialect import LEARNED, MESSAGES_PATH, RESPONSES_PATH
from proxy.errors import ApiError

DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (RESPONSES_PATH, b"{", None),
        (RESPONSES_PATH, b"[]", None),
        (RESPONSES_PATH, b'{"input": "\xff"}', None),
        (RESPONSES_PATH, b'{"input": ' + DEEP, None),
        (RESPONSES_PATH, b'{"input": 5}', "input"),
        (RESPONSES_PATH, b'{"input": ["hi"]}', "input[0]"),
        (RESPONSES_PATH, b'{"input": [{"role": "user"}, {"type": 5}]}', "input[1].type"),
        (RESPONSES_PATH, b'{"input": [{"role": []}]}', "input[0].role"),
        (RESPONSES_PATH, b'{"input": "a", "model": 5}', "model"),
        (RESPONSES_PATH, b'{"input": "a", "stream": "yes"}', "stream"),
        (RESPONSES_PATH, b'{"input": "a", "previous_response_id": 5}', "previous_response_id"),
        (RESPONSES_PATH, b'{"input": "' + rb"\"" * 1_000_000, None),
        (MESSAGES_PATH, b"{", None),
        (MESSAGES_PATH, b'"text"', None),
        (MESSAGES_PATH, b'{"model": "m"}', "messages"),
        (MESSAGES_PATH, b'{"messages": []}', "messages"),
        (MESSAGES_PATH, b'{"messages": "hi"}', "messages"),
        (MESSAGES_PATH, b'{"messages": ["hi"]}', "messages[0]"),
        (MESSAGES_PATH, b'{"messages": [{"role": "user"}, {"role": null}]}', "messages[1].role"),
        (MESSAGES_PATH, b'{"messages": [{"role": "user"}], "stream": 1}', "stream"),
    ],
)
def test_a_bad_body_is_a_400_that_names_the_field(path: str, body: bytes, param: str | None) -> None:
    with pytest.raises(ApiError) as raised:
        LEARNED[path].parse(body)
    assert (raised.value.status, raised.value.param) == (400, param)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RESPONSES_PATH, b'{"prompt": {"id": "p"}}'),
        (RESPONSES_PATH, b'{"input": [{"id": "msg_1"}], "instructions": ["not text"]}'),
        (RESPONSES_PATH, b'{"input": [{"type": "message", "role": "user", "content": 5}], "conversation": 5}'),
        (MESSAGES_PATH, b'{"messages": [{"role": "user", "content": null}], "system": 5}'),
        (MESSAGES_PATH, b'{"messages": [{"role": "user", "content": ["x", 5]}], "metadata": []}'),
        (MESSAGES_PATH, b'{"messages": [{"role": "assistant", "content": [{"type": []}]}], "tools": 5}'),
    ],
)
def test_what_the_proxy_does_not_read_is_the_upstreams_to_judge(path: str, body: bytes) -> None:
    dialect = LEARNED[path]
    parsed = dialect.parse(body)
    observed: list[Any] = [parsed.user(), parsed.tool_names(), parsed.message_bytes(0), parsed.conversation_id]
    assert observed
    assert dialect.inject(parsed, "", "") == (body, False, False)
    dialect.inject(parsed, "\n\na", "\n\nb")
