"""The Vercel AI SDK with its OpenAI and its OpenAI-compatible provider, with learned texts in every request."""

import json

import pytest

from tests.flow.compared import Compare, Compared
from tests.flow.node import NodeClients, needs_node
from tests.provider.answers import N_PROMPT, Answer, Call, Failure

pytestmark = needs_node
CALLS = (Call("account_status", {"user": "ann"}), Call("account_status", {"user": "Zoë 🌦"}))
ADVICE = {"steps": ["Open Settings", "Choose Reset"], "severity": "low"}
KINDS = pytest.mark.parametrize("kind", ["chat", "compatible", "responses"])


def assert_taught(played: Compared) -> None:
    """Assert that every request got both texts, the app's own before them."""
    for injected in played.injected:
        assert sorted(injected.values()) == ["knowledge", "rule"]


@pytest.mark.parametrize("kind", ["chat", "compatible", "responses"])
def test_a_chat_over_two_turns_is_taught_in_both_and_recorded_as_one_conversation(
    kind: str, node: NodeClients, compare: Compare
) -> None:
    answers = Answer(f"Under Security ({kind})."), Answer("There, too.")
    played = compare(node.play("vercel", "turns", kind=kind), *answers)
    assert played.result == [f"Under Security ({kind}).", "There, too.", N_PROMPT]
    assert_taught(played)
    played.assert_one_conversation(2)


@KINDS
def test_generate_text_runs_its_tools_over_several_steps(kind: str, node: NodeClients, compare: Compare) -> None:
    played = compare(node.play("vercel", "tools", kind=kind), Answer(calls=CALLS), Answer("Not locked: reset it."))
    assert played.result == ["Not locked: reset it.", [["ann: not locked", "Zoë 🌦: not locked"], []]]
    assert_taught(played)
    assert played.injected[0] == played.injected[1]
    played.assert_one_conversation(2)


@KINDS
def test_stream_text_streams_over_several_steps(kind: str, node: NodeClients, compare: Compare) -> None:
    answers = Answer(calls=CALLS), Answer("Not locked:  “reset” it 🔑.")
    played = compare(node.play("vercel", "stream", kind=kind), *answers)
    assert "".join(played.result["pieces"]) == "Not locked:  “reset” it 🔑."
    assert played.result["finishReason"] == "stop"
    assert played.result["usage"]["inputTokens"] == 2 * N_PROMPT
    assert_taught(played)
    played.assert_one_conversation(2)


@KINDS
def test_generate_object_fits_the_apps_own_schema(kind: str, node: NodeClients, compare: Compare) -> None:
    played = compare(node.play("vercel", "object", kind=kind), Answer(json.dumps(ADVICE)))
    assert played.result == ADVICE
    assert_taught(played)
    played.assert_one_conversation(1)


@KINDS
@pytest.mark.parametrize(("status", "is_retryable"), [(401, False), (429, True)])
def test_an_error_of_the_provider_is_an_api_call_error(
    status: int, is_retryable: bool, kind: str, node: NodeClients, compare: Compare
) -> None:
    played = compare(node.play("vercel", "error", kind=kind), Failure(status, headers=(("retry-after", "17"),)))
    assert played.result == [True, status, is_retryable, "17"]
    assert [row["outcome"] for row in played.records(1)] == ["error"]


@KINDS
def test_the_sdk_tries_again_when_the_provider_says_so(kind: str, node: NodeClients, compare: Compare) -> None:
    busy = Failure(429, headers=(("retry-after-ms", "5"),))
    played = compare(node.play("vercel", "retry", kind=kind), busy, Answer("Under Security."))
    assert played.result == "Under Security."
    played.assert_retried(1)


@KINDS
@pytest.mark.parametrize(
    "answer", [Answer("Open Settings.", end="cut"), Answer("Open Settings.", end="error")], ids=["cut", "error"]
)
def test_a_stream_that_breaks_in_the_middle_never_ends_quietly(
    answer: Answer, kind: str, node: NodeClients, compare: Compare
) -> None:
    played = compare(node.play("vercel", "broken", kind=kind), answer)
    assert played.result is True
    assert [row["outcome"] for row in played.records(1)] == ["upstream_error"]
