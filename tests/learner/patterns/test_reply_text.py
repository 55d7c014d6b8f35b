"""A reply that is one text and nothing else is read by a shorter way, to the same result."""

import json

from hypothesis import given
from hypothesis import strategies as st

from learner.patterns.reply_text import _CODE, Reply, reply_of
from learner.patterns.reply_text import read as read_text

TEXTS = st.one_of(st.text(max_size=20), st.sampled_from(["SELECT 1 FROM t", "```sql\n", "caf\u00e9 \U0001f600"]))
FUNCTIONS = st.one_of(
    st.fixed_dictionaries({"name": TEXTS}, optional={"arguments": TEXTS}),
    st.sampled_from([None, "search", {}, {"name": 5}]),
)
CALLS = st.fixed_dictionaries({}, optional={"id": TEXTS, "function": FUNCTIONS, "custom": FUNCTIONS})
CONTENTS = st.one_of(
    TEXTS, st.none(), st.integers(), st.lists(st.fixed_dictionaries({"text": TEXTS}, optional={"type": TEXTS}))
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "role": TEXTS,
        "content": CONTENTS,
        "tool_calls": st.one_of(st.none(), TEXTS, st.lists(CALLS, max_size=3)),
        "function_call": FUNCTIONS,
        "refusal": st.one_of(st.none(), TEXTS),
    },
)


def read(reply_json: str, messages_json: str) -> Reply:
    return reply_of(reply_json, messages_json, format="prose", length_band="short", offers_tools=False)


@given(MESSAGES)
def test_a_reply_is_the_same_whether_nothing_was_told_of_its_turn_or_that_it_added_nothing(
    message: dict[str, object],
) -> None:
    text = json.dumps(message)

    assert read(text, "") == read(text, "[]")


@given(MESSAGES, st.integers(min_value=1, max_value=20))
def test_what_is_no_json_is_an_empty_reply_either_way(message: dict[str, object], cut: int) -> None:
    text = json.dumps(message)[:-cut]

    assert read(text, "") == read(text, "[]") == read("", "")


def test_a_lone_function_call_is_a_call_of_a_reply_with_a_text() -> None:
    message = {"role": "assistant", "content": "One moment.", "function_call": {"name": "search", "arguments": "{}"}}

    assert read(json.dumps(message), "").tools == ("search",)


LINES = st.lists(st.sampled_from(["```", "`", "~~~", "\n", "sql", " ", "select 1", "````", "\r\n"]), max_size=14)


@given(LINES.map("".join))
def test_blocks_of_code_are_those_that_the_pattern_for_all_fences_finds(text: str) -> None:
    facts = read_text(Reply(text, "prose", "short", offers_tools=False, tools=()))

    assert facts.blocks == tuple((match[1].strip(), match[2]) for match in _CODE.finditer(text))
    assert facts.prose == (_CODE.sub("\n", text) if facts.blocks else text)
