"""Recorded conversations, turn by turn, as apps send them: each request's own bytes, and what it was answered."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SYSTEM_END, USER_END = "END-OF-SYSTEM", "??"  # stand once in what they end
SYSTEM = f'You are the assistant of "Example & Co".\n\tPrices in €; never guess. \\ {SYSTEM_END}'
LONG_SYSTEM = "\n".join(f'Rule {number}: quote "§{number}" and the path C:\\rules\\{number}.' for number in range(900))
RESET = f"How do I reset my password{USER_END}"
CHANGE = f"Where can I change my password{USER_END}"
JOKE = f"Tell me a joke about tables, will you{USER_END}"
THANKS = f"Thanks! And which plan is cheaper, A or B{USER_END}"


@dataclass(frozen=True)
class Call:
    """One call of a tool and its result."""

    id: str
    arguments: Mapping[str, Any]
    result: str

    @property
    def json(self) -> str:
        return json.dumps(self.arguments)


@dataclass(frozen=True)
class Said:
    """One step of a conversation: the user asks, or the assistant answers or calls tools."""

    role: str
    text: str = ""
    calls: Sequence[Call] = ()


def user(text: str) -> Said:
    return Said("user", text)


def assistant(text: str = "", *calls: Call) -> Said:
    return Said("assistant", text, calls)


LOOKUP = Call("call_1", {"user": "u-1", "fields": ["plan", "émail"]}, '{"plan": "legacy"}')
PRICES = Call("call_2", {"plans": ["A", "B"]}, "A: 10 €\nB: 12 €")
AGAIN = Call("call_3", {"user": "u-1"}, "still legacy")

TRACES: Mapping[str, tuple[str, Sequence[Said]]] = {
    "plain chat": (
        SYSTEM,
        (
            user(RESET),
            assistant("Open *Settings*."),
            user(JOKE),
            assistant("No."),
            user(CHANGE),
            assistant("There."),
            user(THANKS),
            assistant("A."),
        ),
    ),
    "tool loop": (
        SYSTEM,
        (
            user(RESET),
            assistant("", LOOKUP, PRICES),
            assistant("Let me look again.", AGAIN),
            assistant("Done."),
            user(CHANGE),
            assistant("", LOOKUP),
            assistant("Under Security."),
            user(THANKS),
            assistant("A."),
        ),
    ),
    "long system text": (
        f"{LONG_SYSTEM}\n{SYSTEM_END}",
        (user(RESET), assistant("Open Settings."), user(THANKS), assistant("A."), user(RESET), assistant("As above.")),
    ),
}


@dataclass(frozen=True)
class Turn:
    """One request of a trace and what it was answered."""

    request: bytes
    reply: Mapping[str, Any]
    question: str  # the last user text


class Api:
    """How one API writes a trace down."""

    path: str

    def step(self, said: Said) -> list[Any]:
        """Return what a step adds to the history: a message, and the results of its calls."""
        raise NotImplementedError

    def body(self, system: str, history: Sequence[Any]) -> Mapping[str, Any]:
        raise NotImplementedError

    def reply(self, said: Said, number: int) -> Mapping[str, Any]:
        raise NotImplementedError

    def turns(self, system: str, steps: Sequence[Said]) -> Iterator[Turn]:
        """Yield a request for everything that the assistant says, its history as the app keeps it."""
        history: list[Any] = []
        question = ""
        for number, said in enumerate(steps):
            if said.role == "assistant":
                request = json.dumps(self.body(system, history), ensure_ascii=False).encode()
                yield Turn(request, self.reply(said, number), question)
            else:
                question = said.text
            history += self.step(said)


class ChatApi(Api):
    path = "/v1/chat/completions"

    def _message(self, said: Said) -> dict[str, Any]:
        message: dict[str, Any] = {"role": said.role, "content": said.text or None}
        if said.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": "look", "arguments": call.json},
                }
                for call in said.calls
            ]
        return message

    def step(self, said: Said) -> list[Any]:
        results = [{"role": "tool", "tool_call_id": call.id, "content": call.result} for call in said.calls]
        return [self._message(said), *results]

    def body(self, system: str, history: Sequence[Any]) -> Mapping[str, Any]:
        function = {"name": "look", "parameters": {"type": "object", "properties": {}}}
        return {
            "model": "m",
            "tools": [{"type": "function", "function": function}],
            "messages": [{"role": "system", "content": system}, *history],
            "temperature": 0.0,
            "x_unknown": {"kept": [1.0, None, "é"]},
        }

    def reply(self, said: Said, number: int) -> Mapping[str, Any]:
        choice = {"index": 0, "message": self._message(said), "finish_reason": "tool_calls" if said.calls else "stop"}
        return {"id": f"chatcmpl-{number}", "object": "chat.completion", "choices": [choice]}


class ResponsesApi(Api):
    path = "/v1/responses"

    def _output(self, said: Said) -> list[Any]:
        text = {"type": "output_text", "text": said.text, "annotations": []}
        message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
        calls = [
            {
                "type": "function_call",
                "id": f"fc_{call.id}",
                "call_id": call.id,
                "name": "look",
                "arguments": call.json,
            }
            for call in said.calls
        ]
        return [message] * bool(said.text) + calls

    def step(self, said: Said) -> list[Any]:
        if said.role == "user":
            return [{"role": "user", "content": said.text}]
        results = [{"type": "function_call_output", "call_id": call.id, "output": call.result} for call in said.calls]
        return [*self._output(said), *results]

    def body(self, system: str, history: Sequence[Any]) -> Mapping[str, Any]:
        tool = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
        return {"model": "m", "instructions": system, "tools": [tool], "input": history, "store": False}

    def reply(self, said: Said, number: int) -> Mapping[str, Any]:
        return {"id": f"resp_{number}", "object": "response", "status": "completed", "output": self._output(said)}


class MessagesApi(Api):
    path = "/v1/messages"

    def _content(self, said: Said) -> list[Any]:
        calls = [{"type": "tool_use", "id": call.id, "name": "look", "input": call.arguments} for call in said.calls]
        return [{"type": "text", "text": said.text}] * bool(said.text) + calls

    def step(self, said: Said) -> list[Any]:
        message = {"role": said.role, "content": said.text if said.role == "user" else self._content(said)}
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": call.result} for call in said.calls]
        return [message, *[{"role": "user", "content": results}] * bool(results)]

    def body(self, system: str, history: Sequence[Any]) -> Mapping[str, Any]:
        tool = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
        return {"model": "m", "max_tokens": 100, "tools": [tool], "system": system, "messages": history}

    def reply(self, said: Said, number: int) -> Mapping[str, Any]:
        stop = "tool_use" if said.calls else "end_turn"
        reply = {"id": f"msg_{number}", "type": "message", "role": "assistant", "content": self._content(said)}
        return {**reply, "stop_reason": stop, "usage": {"input_tokens": 9, "output_tokens": 4}}
