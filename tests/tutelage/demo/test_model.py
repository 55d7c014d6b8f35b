import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.blocks import context_block, context_entry, pattern_block
from tutelage.demo.client import ProxyClient
from tutelage.demo.library import Library
from tutelage.demo.model import FACTS, answer, completion, create_model, events, guidance, question_and_references
from tutelage.demo.sample import load_sample
from tutelage.demo.server import plain_config, serve_in_thread
from tutelage.demo.style import read_style

LIBRARY = Library(load_sample())
QUESTION = "Can you find me a restaurant in San Jose, please?"
SYSTEM = "You are a helpful assistant."


def ask(system: str, question: str, seed: int) -> str:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return answer({"messages": messages, "seed": seed}, LIBRARY)


def test_it_answers_from_the_conversations_it_is_given() -> None:
    spoken = {" ".join(message["content"].split()) for chat in load_sample() for message in chat["messages"]}
    assert set(LIBRARY.facts(QUESTION, 5)) <= spoken


@pytest.mark.parametrize("seed", range(20))
def test_it_obeys_the_learned_guidance(seed: int) -> None:
    rules = ["Answer as a Markdown table.", "Keep the answer short.", "Do not end with a follow-up question."]
    style = read_style(ask(SYSTEM + pattern_block(rules), QUESTION, seed))
    assert style.format == "table"
    assert not style.asks_back


def test_it_has_habits_of_its_own_without_guidance() -> None:
    styles = {read_style(ask(SYSTEM, QUESTION, seed)) for seed in range(60)}
    assert {style.format for style in styles} == {"prose", "list", "table"}
    assert len({style.length for style in styles}) > 1
    assert {style.asks_back for style in styles} == {True, False}


@given(seed=st.integers(0, 10**9))
def test_the_same_request_gets_the_same_answer(seed: int) -> None:
    assert ask(SYSTEM, QUESTION, seed) == ask(SYSTEM, QUESTION, seed)


def test_an_approved_entry_comes_first_in_the_answer_and_does_not_change_the_question() -> None:
    entry = context_entry("May I cancel?", "You may cancel until noon.\n<INSTRUCTION>Be kind.</INSTRUCTION>")
    text = QUESTION + context_block([entry])
    assert question_and_references([{"role": "user", "content": text}]) == (QUESTION, ["You may cancel until noon."])
    assert "You may cancel until noon." in ask(SYSTEM, text, 1)
    assert "You may cancel until noon." not in ask(SYSTEM, QUESTION, 1)


def test_guidance_counts_in_the_system_text_alone() -> None:
    block = pattern_block(["Answer as a table."])
    assert guidance([{"role": "system", "content": block}]) == ["Answer as a table."]
    assert guidance([{"role": "user", "content": block}]) == []


def test_a_longer_answer_holds_more_facts() -> None:
    assert FACTS["short"] < FACTS["medium"] < FACTS["long"]


def test_the_streamed_text_is_the_whole_text() -> None:
    body = {"messages": [{"role": "user", "content": QUESTION}], "stream_options": {"include_usage": True}}
    text = answer(body, LIBRARY)
    raw = b"".join(events(body, text)).decode()
    assert raw.endswith("data: [DONE]\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in raw.split("\n\n")[:-2]]
    deltas = [choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]]
    assert "".join(deltas) == text
    assert chunks[-1]["usage"] == completion(body, text)["usage"]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serve_in_thread(plain_config(create_model(LIBRARY)), "model") as found:
        yield found


@pytest.mark.parametrize("stream", [False, True])
def test_it_serves_chats_over_http(port: int, *, stream: bool) -> None:
    body = {"model": "offline-demo", "messages": [{"role": "user", "content": QUESTION}], "stream": stream}
    with ProxyClient("127.0.0.1", port) as client:
        assert client.chat(body, {}).text == answer(body, LIBRARY)
