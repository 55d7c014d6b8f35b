"""Instructor as its users write it, with learned texts in every request."""

from typing import Any

import instructor
import pytest
from anthropic import Anthropic
from instructor.core import InstructorRetryException
from openai import OpenAI
from pydantic import BaseModel, field_validator

from tests.flow.compared import QUESTION, Compare, Endpoint
from tests.flow.product import CLIENT_S
from tests.provider.answers import Answer, Call, Failure

MESSAGES: Any = [
    {"role": "system", "content": "You are the help desk of Example Ltd."},
    {"role": "user", "content": QUESTION},
]
IN_BOTH = {"messages[0].content": "rule", "messages[1].content": "knowledge"}


class Advice(BaseModel):
    """Advice to a user."""

    steps: list[str]
    severity: str

    @field_validator("severity")
    @classmethod
    def is_known(cls, value: str) -> str:
        if value not in ("low", "high"):
            raise ValueError(f"{value!r} is neither low nor high")
        return value


ADVICE = Advice(steps=["Open Settings", "Choose Reset"], severity="low")
WRONG = {"steps": ["Open Settings"], "severity": "medium"}


def client_of(endpoint: Endpoint, mode: instructor.Mode) -> instructor.Instructor:
    client = OpenAI(api_key=endpoint.api_key, base_url=endpoint.base_url, timeout=CLIENT_S, max_retries=0)
    return instructor.from_openai(client, mode=mode)


def as_mode(mode: instructor.Mode, value: dict[str, Any]) -> Answer:
    """Return *value* as the model sends it in *mode*."""
    as_call = Answer(calls=(Call("Advice", value),))
    as_text = Answer(Call("Advice", value).arguments_json)
    return {instructor.Mode.TOOLS: as_call, instructor.Mode.JSON_SCHEMA: as_text}[mode]


MODES = pytest.mark.parametrize("mode", [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA])


@MODES
def test_what_does_not_validate_is_asked_for_again_with_the_error(mode: instructor.Mode, compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> Advice:
        advice: Advice = client_of(endpoint, mode).chat.completions.create(
            model=endpoint.gpt, messages=MESSAGES, response_model=Advice, max_retries=2
        )
        return Advice(**advice.model_dump())

    played = compare(ask, as_mode(mode, WRONG), as_mode(mode, ADVICE.model_dump()))
    assert played.result == ADVICE
    assert b"is neither low nor high" in played.sent[1].body
    first, second = played.injected
    assert first == IN_BOTH
    assert second["messages[0].content"] == "rule"
    played.assert_one_conversation(2)


@MODES
def test_a_partial_result_grows_while_it_streams(mode: instructor.Mode, compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> list[dict[str, Any]]:
        partials = client_of(endpoint, mode).chat.completions.create_partial(
            model=endpoint.gpt, messages=MESSAGES, response_model=Advice
        )
        return [partial.model_dump() for partial in partials]

    played = compare(ask, as_mode(mode, ADVICE.model_dump()))
    assert played.result[-1] == ADVICE.model_dump()
    assert played.injected == [IN_BOTH]
    played.assert_one_conversation(1)


def test_claude_extracts_through_the_messages_api(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> Advice:
        client = instructor.from_anthropic(
            Anthropic(api_key=endpoint.api_key, base_url=endpoint.root, timeout=CLIENT_S, max_retries=0)
        )
        advice: Advice = client.chat.completions.create(
            model=endpoint.claude, max_tokens=64, messages=MESSAGES, response_model=Advice, max_retries=2
        )
        return Advice(**advice.model_dump())

    answers = [Answer(calls=(Call("Advice", value),)) for value in (WRONG, ADVICE.model_dump())]
    played = compare(ask, *answers)
    assert played.result == ADVICE
    assert sorted(played.injected[0].values()) == ["knowledge", "rule"]
    assert "rule" in played.injected[1].values()
    played.assert_one_conversation(2)


@pytest.mark.parametrize("status", [401, 429])
def test_an_error_of_the_provider_is_named_by_instructors_own_error(status: int, compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> str:
        with pytest.raises(InstructorRetryException) as caught:
            client_of(endpoint, instructor.Mode.TOOLS).chat.completions.create(
                model=endpoint.gpt, messages=MESSAGES, response_model=Advice, max_retries=0
            )
        return str(caught.value)

    played = compare(ask, Failure(status, headers=(("retry-after", "17"),)))
    assert str(status) in played.result
    assert [row["outcome"] for row in played.records(1)] == ["error"]


def test_a_stream_that_is_cut_never_ends_quietly(compare: Compare) -> None:
    def ask(endpoint: Endpoint) -> None:
        client = client_of(endpoint, instructor.Mode.TOOLS)
        with pytest.raises(InstructorRetryException):
            list(
                client.chat.completions.create_partial(
                    model=endpoint.gpt, messages=MESSAGES, response_model=Advice, max_retries=0
                )
            )

    played = compare(ask, Answer(calls=(Call("Advice", ADVICE.model_dump()),), end="cut"))
    assert [row["outcome"] for row in played.records(1)] == ["upstream_error"]
