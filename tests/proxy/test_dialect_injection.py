"""In every API, what is sent upstream is the client's own bytes and our two blocks, each in its place."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialect import CHAT_PATH, LEARNED, MESSAGES_PATH, RESPONSES_PATH
from proxy.parsed_request import ParsedRequest
from proxy.splice import splice

PATTERNS = '\n\n<guide>\n- Say "ü" \\ 😀\n</guide>'
CONTEXTS = "\n\n<reference>\nQ: a\n</reference>"

texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=12)
numbers = st.integers(-(2**80), 2**80) | st.floats(allow_nan=True, allow_infinity=True)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
breakpoints = st.sampled_from([{}, {"cache_control": {"type": "ephemeral"}}])


def parts(text_type: str, *others: dict[str, Any]) -> st.SearchStrategy[Any]:
    text_parts = st.builds(lambda text, extra: {"type": text_type, "text": text, **extra}, texts, breakpoints)
    return texts | st.lists(st.one_of(text_parts, *map(st.just, others)), max_size=3)


RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "42"}]}

items = st.one_of(
    st.builds(
        lambda role, content, extra: {**extra, "role": role, "content": content},
        st.sampled_from(["system", "developer", "user", "assistant"]),
        parts("input_text", {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}),
        st.sampled_from([{}, {"type": "message"}, {"type": None}]),
    ),
    st.sampled_from(
        [
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "42"},
            {"type": "item_reference", "id": "msg_1"},
        ]
    ),
)
responses_bodies = st.fixed_dictionaries(
    {},
    optional={
        "input": texts | st.lists(items, max_size=4) | st.none(),
        "instructions": texts | st.none(),
        "previous_response_id": st.sampled_from([None, "resp_1"]),
        "conversation": st.sampled_from([None, "conv_1", {"id": "conv_1"}]),
    },
)

anthropic_messages = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["user", "assistant"]),
    parts(
        "text",
        RESULT,
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
    ),
)
threads: st.SearchStrategy[Any] = st.sampled_from([None, {"type": "create"}, "continue", 7])
messages_bodies = st.fixed_dictionaries(
    {"messages": st.lists(anthropic_messages, min_size=1, max_size=4)},
    optional={"system": parts("text") | st.none(), "thread": threads},
)

BODIES = {RESPONSES_PATH: responses_bodies, MESSAGES_PATH: messages_bodies}
READ = (
    *("messages", "model", "stream", "input", "instructions", "previous_response_id", "conversation", "system"),
    "thread",
)
unknown_fields = st.dictionaries(texts.filter(lambda name: name not in READ), values, max_size=3)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path and a body for it: of some style, with its fields in any order."""
    path = draw(st.sampled_from(sorted(BODIES)))
    body = {**draw(unknown_fields), **draw(BODIES[path]), "model": "m"}
    shuffled = {name: body[name] for name in draw(st.permutations(sorted(body)))}
    text = json.dumps(shuffled, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1, "\t"])))
    return path, text.encode()


def grown(content: Any, block: str, text_type: str) -> Any:
    """What becomes of the text that *block* belongs to, written independently of the splice."""
    if isinstance(content, str):
        return content + block
    texts = [index for index, part in enumerate(content) if part["type"] == text_type]
    if text_type == "input_text" and texts:
        last = content[texts[-1]]
        return [*content[: texts[-1]], {**last, "text": last["text"] + block}, *content[texts[-1] + 1 :]]
    return [*content, {"type": text_type, "text": block.strip()}]


def expected_response(body: dict[str, Any]) -> dict[str, Any]:
    sent = body.get("input")
    items = [dict(item) for item in sent] if isinstance(sent, list) else []
    users = [item for item in items if item.get("role") == "user"]
    messages = [item for item in items if item.get("type") not in ("reasoning", "item_reference")]
    leading = list(itertools.takewhile(lambda item: item.get("role") in ("system", "developer"), messages))
    for item in users[-1:]:
        item["content"] = grown(item["content"], CONTEXTS, "input_text")
    changed = {**body, "input": sent + CONTEXTS if isinstance(sent, str) else items}
    if sent is None:
        changed = body
    if body.get("instructions") is not None:
        return {**changed, "instructions": body["instructions"] + PATTERNS}
    if not leading:
        return {**changed, "instructions": PATTERNS.strip()}
    leading[-1]["content"] = grown(leading[-1]["content"], PATTERNS, "input_text")
    return changed


def has_text(message: dict[str, Any]) -> bool:
    return isinstance(message["content"], str) or any(block["type"] == "text" for block in message["content"])


def expected_messages(body: dict[str, Any]) -> dict[str, Any]:
    messages = [dict(message) for message in body["messages"]]
    asked = [message for message in messages if message["role"] == "user" and has_text(message)]
    for message in asked[-1:]:
        message["content"] = grown(message["content"], CONTEXTS, "text")
    system = body.get("system")
    text = PATTERNS.strip() if system is None else grown(system, PATTERNS, "text")
    return {**body, "messages": messages, "system": text}


EXPECTED = {RESPONSES_PATH: expected_response, MESSAGES_PATH: expected_messages}


def in_order(body: Any) -> str:
    """*body* as text that is the same for equal values, NaN too, wherever a new field stands."""
    return json.dumps(body, sort_keys=True)


@given(requests())
def test_the_new_body_is_the_old_one_but_for_the_blocks(request: tuple[str, bytes]) -> None:
    path, body = request
    dialect = LEARNED[path]
    new, has_patterns, _ = dialect.inject(dialect.parse(body), PATTERNS, CONTEXTS)
    assert has_patterns
    assert in_order(json.loads(new)) == in_order(EXPECTED[path](json.loads(body)))


@given(requests())
def test_taking_the_piece_out_again_gives_back_the_clients_very_bytes(request: tuple[str, bytes]) -> None:
    path, body = request
    parsed = LEARNED[path].parse(body)
    for edit in (parsed.pattern_edit(PATTERNS), parsed.context_edit(CONTEXTS)):
        start, end, text = edit or (0, 0, b"")
        new = splice(body, [(start, end, text)])
        assert body[start:end] in (b"", b"null")
        assert new[:start] == body[:start]
        assert new[start + len(text) :] == body[end:]
    assert LEARNED[path].inject(parsed, "", "") == (body, False, False)


@given(requests())
def test_what_is_recorded_has_the_form_of_a_chat(request: tuple[str, bytes]) -> None:
    path, body = request
    parsed = LEARNED[path].parse(body)
    recorded = [json.loads(message) for message in parsed.message_bytes(0)]
    assert [message["role"] for message in recorded] == [message.role for message in parsed.messages]
    assert {message["role"] for message in recorded} <= {"system", "developer", "user", "assistant", "tool"}


def injected(path: str, body: Any) -> Any:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    dialect = LEARNED[path]
    new, _, _ = dialect.inject(dialect.parse(sent), PATTERNS, CONTEXTS)
    return json.loads(new)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_responses_instructions_grow_at_their_end_and_a_string_input_too() -> None:
    assert injected(RESPONSES_PATH, {"instructions": "Be kind.", "input": "hi"}) == {
        "instructions": "Be kind." + PATTERNS,
        "input": "hi" + CONTEXTS,
    }


def test_without_instructions_the_last_leading_item_of_the_input_grows() -> None:
    sent = {"input": [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, user("hi")]}
    assert injected(RESPONSES_PATH, sent) == {
        "input": [
            {"role": "system", "content": "a"},
            {"role": "developer", "content": "b" + PATTERNS},
            user("hi" + CONTEXTS),
        ]
    }


@pytest.mark.parametrize("fields", [{}, {"instructions": None}])
def test_a_stored_prompt_keeps_its_own_instructions(fields: dict[str, Any]) -> None:
    """Ours would stand in place of those that the API keeps under the prompt's id."""
    sent = {"prompt": {"id": "pmpt_1"}, "input": "hi", **fields}
    assert injected(RESPONSES_PATH, sent) == {**sent, "input": "hi" + CONTEXTS}


def test_instructions_beside_a_stored_prompt_grow_for_they_are_the_apps_own() -> None:
    sent = {"prompt": {"id": "pmpt_1"}, "instructions": "Be kind.", "input": "hi"}
    assert injected(RESPONSES_PATH, sent) == {
        **sent,
        "instructions": "Be kind." + PATTERNS,
        "input": "hi" + CONTEXTS,
    }


@pytest.mark.parametrize("fields", [{}, {"instructions": None}])
def test_instructions_are_made_where_there_are_none(fields: dict[str, Any]) -> None:
    assert injected(RESPONSES_PATH, {**fields, "input": "hi", "store": False}) == {
        "instructions": PATTERNS.strip(),
        "input": "hi" + CONTEXTS,
        "store": False,
    }


def test_knowledge_goes_after_the_last_text_of_the_last_user_item() -> None:
    image = {"type": "input_image", "image_url": "https://a/b.png"}
    sent = {"input": [user("first"), user([{"type": "input_text", "text": "hi"}, image])]}
    assert injected(RESPONSES_PATH, sent)["input"] == [
        user("first"),
        user([{"type": "input_text", "text": "hi" + CONTEXTS}, image]),
    ]
    assert injected(RESPONSES_PATH, {"input": [user([image])]})["input"] == [
        user([image, {"type": "input_text", "text": CONTEXTS.strip()}])
    ]


def test_results_of_tools_alone_get_no_knowledge() -> None:
    output = {"type": "function_call_output", "call_id": "c", "output": "42"}
    sent = {"previous_response_id": "resp_1", "input": [output]}
    assert injected(RESPONSES_PATH, sent) == {"instructions": PATTERNS.strip(), **sent}


def test_a_system_string_grows_and_a_list_of_blocks_gets_one_more() -> None:
    cached = {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}
    messages = [user("hi")]
    assert injected(MESSAGES_PATH, {"system": "Be kind.", "messages": messages})["system"] == "Be kind." + PATTERNS
    assert injected(MESSAGES_PATH, {"system": [cached], "messages": messages})["system"] == [
        cached,
        {"type": "text", "text": PATTERNS.strip()},
    ]


@pytest.mark.parametrize("fields", [{}, {"system": None}, {"system": []}])
def test_a_system_text_is_made_where_there_is_none_and_never_a_message(fields: dict[str, Any]) -> None:
    new = injected(MESSAGES_PATH, {**fields, "messages": [user("hi")]})
    assert new["system"] in (PATTERNS.strip(), [{"type": "text", "text": PATTERNS.strip()}])
    assert new["messages"] == [user("hi" + CONTEXTS)]


@pytest.mark.parametrize("fields", [{}, {"system": None}, {"system": "Be kind."}, {"previous_message_id": 7}])
def test_what_continues_a_thread_gets_no_system_text_but_knowledge(fields: dict[str, Any]) -> None:
    thread = {"type": "continue", "previous_message_id": "msg_1"}
    body = {"thread": {**thread, **fields}, **fields, "messages": [user("hi")]}
    assert injected(MESSAGES_PATH, body) == {**body, "messages": [user("hi" + CONTEXTS)]}
    results = {"thread": thread, "messages": [user([RESULT])]}
    assert injected(MESSAGES_PATH, results) == results


@pytest.mark.parametrize(
    ("thread", "previous_id"),
    [
        ({"type": "continue", "previous_message_id": "msg_1"}, "msg_1"),
        ({"type": "continue", "previous_message_id": None}, ""),
        ({"type": "create", "previous_message_id": "msg_1"}, ""),
        ({"type": "create"}, ""),
        (None, ""),
        (["continue"], ""),
    ],
)
def test_a_thread_goes_on_from_the_message_that_it_names(thread: Any, previous_id: str) -> None:
    parsed = LEARNED[MESSAGES_PATH].parse(json.dumps({"thread": thread, "messages": [user("hi")]}).encode())
    assert (parsed.previous_id, parsed.has_held_history) == (previous_id, bool(previous_id))


def test_knowledge_is_a_block_of_its_own_after_the_last_one() -> None:
    cached = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    ours = {"type": "text", "text": CONTEXTS.strip()}
    loop = [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        user([RESULT]),
    ]
    assert injected(MESSAGES_PATH, {"messages": [user([cached])]})["messages"] == [user([cached, ours])]
    assert injected(MESSAGES_PATH, {"messages": [user([cached]), *loop]})["messages"] == [user([cached, ours]), *loop]
    new_question = user([RESULT, {"type": "text", "text": "And now?"}])
    assert injected(MESSAGES_PATH, {"messages": [user("hi"), loop[0], new_question]})["messages"] == [
        user("hi"),
        loop[0],
        user([*new_question["content"], ours]),
    ]


@pytest.mark.parametrize("path", [RESPONSES_PATH, MESSAGES_PATH])
def test_the_last_of_two_equal_keys_is_the_one_that_counts(path: str) -> None:
    body = {
        RESPONSES_PATH: b'{"input":"a","instructions":"x","instructions":"y","input":"b"}',
        MESSAGES_PATH: b'{"system":"x","messages":[{"role":"user","content":"a"}],"system":"y",'
        b'"messages":[{"role":"user","content":"b"}]}',
    }[path]
    text = json.dumps(injected(path, body), ensure_ascii=False)
    assert text.index('"y\\n\\n<guide>') >= 0
    assert text.index('"b\\n\\n<reference>') >= 0


@pytest.mark.parametrize("path", [RESPONSES_PATH, MESSAGES_PATH])
def test_lone_surrogates_and_nan_survive_an_injection(path: str) -> None:
    body = {
        RESPONSES_PATH: rb'{"x": NaN, "y": "\ud800", "input": "cut \ud83d"}',
        MESSAGES_PATH: rb'{"x": NaN, "y": "\ud800", "messages": [{"role": "user", "content": "cut \ud83d"}]}',
    }[path]
    dialect = LEARNED[path]
    parsed = dialect.parse(body)
    new, _, _ = dialect.inject(parsed, "", CONTEXTS)
    assert new == body.replace(rb"cut \ud83d", rb"cut \ud83d" + json.dumps(CONTEXTS)[1:-1].encode())
    assert parsed.question == "cut \ufffd"


def recorded(path: str, body: dict[str, Any]) -> list[Any]:
    parsed: ParsedRequest = LEARNED[path].parse(json.dumps(body).encode())
    return [json.loads(message) for message in parsed.message_bytes(0)]


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def test_items_of_responses_are_recorded_as_a_chats_messages() -> None:
    body = {
        "instructions": "Be kind.",
        "input": [
            user([{"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": "https://a/b.png"}]),
            {"type": "reasoning", "id": "rs", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait."}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": 1}'},
            {"type": "custom_tool_call", "call_id": "d", "name": "run", "input": "ls"},
            {"type": "function_call_output", "call_id": "c", "output": "42"},
            {"type": "custom_tool_call_output", "call_id": "d", "output": [{"type": "input_text", "text": "x"}]},
            {"role": "assistant", "content": "Done."},
        ],
    }
    custom = {"id": "d", "type": "custom", "custom": {"name": "run", "input": "ls"}}
    assert recorded(RESPONSES_PATH, body) == [
        {"role": "system", "content": "Be kind."},
        user([{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "https://a/b.png"}}]),
        {"role": "assistant", "content": "Wait.", "tool_calls": [CALL, custom]},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
        {"role": "tool", "tool_call_id": "d", "content": [{"type": "text", "text": "x"}]},
        {"role": "assistant", "content": "Done."},
    ]


def test_blocks_of_anthropic_are_recorded_as_a_chats_messages() -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    source = {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}
    document = {"type": "document", "source": source, "title": "Terms"}
    body = {
        "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            user([{"type": "text", "text": "hi"}, picture, document]),
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "text", "text": "Wait."},
                    {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
                ],
            },
            user([{"type": "tool_result", "tool_use_id": "c", "content": "42"}, {"type": "text", "text": "Well?"}]),
        ],
    }
    data_url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    pdf = {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}
    assert recorded(MESSAGES_PATH, body) == [
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
        user([{"type": "text", "text": "hi"}, data_url, pdf]),
        {"role": "assistant", "content": "Wait.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
        user([{"type": "text", "text": "Well?"}]),
    ]


def test_who_asks_and_which_tools_are_offered_is_read_in_each_apis_way() -> None:
    def parse(path: str, body: dict[str, Any]) -> ParsedRequest:
        return LEARNED[path].parse(json.dumps(body).encode())

    chat = parse(CHAT_PATH, {"messages": [user("a")], "user": "u", "tools": [{"function": {"name": "f"}}]})
    responses = parse(
        RESPONSES_PATH,
        {"input": "a", "safety_identifier": "u", "tools": [{"type": "web_search"}, {"type": "function", "name": "f"}]},
    )
    messages = parse(MESSAGES_PATH, {"messages": [user("a")], "metadata": {"user_id": "u"}, "tools": [{"name": "f"}]})
    assert [request.user() for request in (chat, responses, messages)] == ["u"] * 3
    assert [request.tool_names() for request in (chat, responses, messages)] == [["f"], ["f", "web_search"], ["f"]]
