"""The Anthropic Node SDK, with learned texts in every request."""

import pytest

from tests.flow.compared import Compare
from tests.flow.node import NodeClients, needs_node
from tests.provider.answers import N_COMPLETION, Answer, Call, Failure

pytestmark = needs_node
CALLS = (Call("account_status", {"user": "ann"}), Call("account_status", {"user": "Zoë 🌦"}))
TAUGHT = {"system": "rule", "messages[0].content": "knowledge"}


def test_a_chat_over_two_turns_is_taught_in_both_and_recorded_as_one_conversation(
    node: NodeClients, compare: Compare
) -> None:
    played = compare(node.play("anthropic", "turns"), Answer("Under Security (node claude)."), Answer("There, too."))
    assert played.result == ["Under Security (node claude).", "There, too."]
    first, second = played.injected
    assert sorted(first.values()) == ["knowledge", "rule"]
    assert "rule" in second.values()
    assert played.sent[0].json["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert played.sent[0].body.count(b'"cache_control"') == 1
    played.assert_one_conversation(2)


def test_the_stream_helper_gathers_the_whole_message(node: NodeClients, compare: Compare) -> None:
    played = compare(node.play("anthropic", "stream"), Answer("Open Settings,  then “Security” 🔑."))
    assert "".join(played.result["pieces"]) == played.result["text"] == "Open Settings,  then “Security” 🔑."
    assert played.result["usage"]["output_tokens"] == N_COMPLETION
    assert played.injected == [TAUGHT]
    played.assert_one_conversation(1)


def test_the_sdks_own_tool_runner_comes_to_its_end(node: NodeClients, compare: Compare) -> None:
    played = compare(node.play("anthropic", "tools"), Answer(calls=CALLS), Answer("Not locked: reset it."))
    assert played.result == "Not locked: reset it."
    assert played.injected[0] == TAUGHT
    played.assert_one_conversation(2)


def test_counting_tokens_passes_through_untouched(node: NodeClients, compare: Compare) -> None:
    played = compare(node.play("anthropic", "count"))
    assert played.sent[0].body == played.plain[0].body
    played.records(0)


@pytest.mark.parametrize(("status", "kind"), [(401, "AuthenticationError"), (429, "RateLimitError")])
def test_an_error_of_the_provider_is_the_sdks_own_error(
    status: int, kind: str, node: NodeClients, compare: Compare
) -> None:
    played = compare(node.play("anthropic", "error"), Failure(status, headers=(("retry-after", "17"),)))
    assert played.result[:2] == [kind, status]
    assert played.result[2]["error"]["message"] == "scripted failure"
    assert played.result[3] == "17"
    assert [row["outcome"] for row in played.records(1)] == ["error"]


def test_the_sdk_tries_again_when_the_provider_says_so(node: NodeClients, compare: Compare) -> None:
    busy = Failure(429, headers=(("retry-after-ms", "5"),))
    played = compare(node.play("anthropic", "retry"), busy, busy, Answer("Under Security."))
    assert played.result == "Under Security."
    played.assert_retried(2)


@pytest.mark.parametrize(
    "answer", [Answer("Open Settings.", end="cut"), Answer("Open Settings.", end="error")], ids=["cut", "error"]
)
def test_a_stream_that_breaks_in_the_middle_never_ends_quietly(
    answer: Answer, node: NodeClients, compare: Compare
) -> None:
    played = compare(node.play("anthropic", "broken"), answer)
    assert played.result is True
    assert [row["outcome"] for row in played.records(1)] == ["upstream_error"]
