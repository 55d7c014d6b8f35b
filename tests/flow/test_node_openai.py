"""The openai Node SDK, with learned texts in every request."""

import pytest

from tests.flow.compared import Compare
from tests.flow.node import NodeClients, needs_node
from tests.provider.answers import N_COMPLETION, N_PROMPT, Answer, Call, Failure

pytestmark = needs_node
CALLS = (Call("account_status", {"user": "ann"}), Call("account_status", {"user": "Zoë 🌦"}))
IN_BOTH = {"messages[0].content": "rule", "messages[1].content": "knowledge"}
ADVICE = {"steps": ["Open Settings", "Choose Reset"], "severity": "low"}


def test_a_chat_over_two_turns_is_taught_in_both_and_recorded_as_one_conversation(
    node: NodeClients, compare: Compare
) -> None:
    played = compare(node.play("openai", "turns"), Answer("Under Security (node)."), Answer("There, too."))
    assert played.result == ["Under Security (node).", "There, too."]
    first, second = played.injected
    assert first == IN_BOTH
    assert second["messages[0].content"] == "rule"
    assert played.sent[0].json["x_vendor"] == {"deep": [None]}
    played.assert_one_conversation(2)


def test_a_streamed_chat_arrives_with_its_usage(node: NodeClients, compare: Compare) -> None:
    played = compare(node.play("openai", "stream"), Answer("Open Settings,  then “Security” 🔑."))
    assert played.result["text"] == "Open Settings,  then “Security” 🔑."
    assert played.result["usage"]["total_tokens"] == N_PROMPT + N_COMPLETION
    assert played.injected == [IN_BOTH]
    played.assert_one_conversation(1)


@pytest.mark.parametrize("scenario", ["tools", "streamedTools"])
def test_the_sdks_own_tool_runner_comes_to_its_end(scenario: str, node: NodeClients, compare: Compare) -> None:
    played = compare(node.play("openai", scenario), Answer(calls=CALLS), Answer("Not locked: reset it."))
    assert played.result == [
        "Not locked: reset it.",
        ["system", "user", "assistant", "tool", "tool", "assistant"],
    ]
    assert played.injected == [IN_BOTH, IN_BOTH]
    played.assert_one_conversation(2)


def test_structured_output_is_parsed_into_the_apps_own_schema(node: NodeClients, compare: Compare) -> None:
    played = compare(node.play("openai", "parse"), Answer(Call("advice", ADVICE).arguments_json))
    assert played.result == ADVICE
    assert played.injected == [IN_BOTH]
    played.assert_one_conversation(1)


def test_a_streamed_response_calls_tools_and_goes_on_by_its_id(node: NodeClients, compare: Compare) -> None:
    played = compare(node.play("openai", "responses"), Answer(calls=CALLS), Answer("Not locked: reset it."))
    types, n_results, text = played.result
    assert (types[0], types[-1]) == ("response.created", "response.completed")
    assert types.count("response.function_call_arguments.done") == n_results == 2
    assert text == "Not locked: reset it."
    assert played.injected == [{"instructions": "rule", "input": "knowledge"}, {"instructions": "rule"}]
    played.assert_one_conversation(2)


@pytest.mark.parametrize(("status", "kind"), [(401, "AuthenticationError"), (429, "RateLimitError")])
def test_an_error_of_the_provider_is_the_sdks_own_error(
    status: int, kind: str, node: NodeClients, compare: Compare
) -> None:
    played = compare(node.play("openai", "error"), Failure(status, headers=(("retry-after", "17"),)))
    assert played.result == [kind, status, f"{status} scripted failure", "17", "req_scripted"]
    assert [row["outcome"] for row in played.records(1)] == ["error"]


def test_the_sdk_tries_again_when_the_provider_says_so(node: NodeClients, compare: Compare) -> None:
    busy = Failure(429, headers=(("retry-after-ms", "5"),))
    played = compare(node.play("openai", "retry"), busy, busy, Answer("Under Security."))
    assert played.result == "Under Security."
    played.assert_retried(2)


@pytest.mark.parametrize("scenario", ["broken", "brokenResponse"])
@pytest.mark.parametrize("end", ["cut", "error"])
def test_a_stream_that_breaks_in_the_middle_never_ends_quietly(
    end: str, scenario: str, node: NodeClients, compare: Compare
) -> None:
    answers = {"cut": Answer("Open Settings and Security.", end="cut"), "error": Answer("Open it.", end="error")}
    played = compare(node.play("openai", scenario), answers[end])
    assert played.result is True
    assert [row["outcome"] for row in played.records(1)] == ["upstream_error"]
