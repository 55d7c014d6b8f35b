"""One conversation in the bodies of each API, and a body as the provider's cache sees it.

A prompt is a list of blocks in the order in which providers cache: system text, then messages. A block ends where the
app set a ``cache_control`` breakpoint, or where its text ends.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Item:
    """One thing in a conversation: what somebody said, a tool call or its result."""

    kind: Literal["user", "assistant", "call", "result"]
    text: str
    call_id: str = ""


@dataclass(frozen=True)
class Block:
    """A piece of a prompt with one role; ``is_breakpoint``: the provider writes its cache up to the end of it."""

    role: str
    text: str
    is_breakpoint: bool = False


Json = dict[str, Any]
Prompt = list[Block]


class Dialect(Protocol):
    """One API: bodies of requests, replies of the upstream, and how a body is read as a prompt."""

    name: str
    path: str

    def body(self, system: str, items: Sequence[Item]) -> Json: ...

    def reply(self, item: Item) -> Json: ...

    def prompt(self, body: Json) -> Prompt: ...


class Chat:
    """OpenAI's Chat Completions."""

    name = "chat"
    path = "/v1/chat/completions"

    def body(self, system: str, items: Sequence[Item]) -> Json:
        return {"model": "m", "messages": [{"role": "system", "content": system}, *map(self._message, items)]}

    def _message(self, item: Item) -> Json:
        if item.kind == "call":
            function = {"name": "look_up", "arguments": json.dumps({"for": item.text})}
            calls = [{"id": item.call_id, "type": "function", "function": function}]
            return {"role": "assistant", "content": None, "tool_calls": calls}
        if item.kind == "result":
            return {"role": "tool", "tool_call_id": item.call_id, "content": item.text}
        return {"role": item.kind, "content": item.text}

    def reply(self, item: Item) -> Json:
        choice = {"index": 0, "message": self._message(item), "finish_reason": "stop"}
        return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}

    def prompt(self, body: Json) -> Prompt:
        return [
            Block(message["role"], f"{message['content'] or ''}{json.dumps(message.get('tool_calls') or '')}")
            for message in body["messages"]
        ]


class Responses:
    """OpenAI's Responses; the app sends the whole conversation each time."""

    name = "responses"
    path = "/v1/responses"

    def body(self, system: str, items: Sequence[Item]) -> Json:
        return {"model": "m", "instructions": system, "input": [self._input(item) for item in items]}

    def _input(self, item: Item) -> Json:
        if item.kind == "call":
            arguments = json.dumps({"for": item.text})
            return {"type": "function_call", "call_id": item.call_id, "name": "look_up", "arguments": arguments}
        if item.kind == "result":
            return {"type": "function_call_output", "call_id": item.call_id, "output": item.text}
        return {"type": "message", "role": item.kind, "content": item.text}

    def reply(self, item: Item) -> Json:
        text = [{"type": "output_text", "text": item.text, "annotations": []}]
        said = {"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": text}
        output = self._input(item) if item.kind == "call" else said
        return {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": [output]}

    def prompt(self, body: Json) -> Prompt:
        blocks = [Block("system", body["instructions"])]
        for item in body["input"]:
            content = item.get("content")
            parts = content if isinstance(content, list) else [{"text": content}] if content else []
            text = "".join(part["text"] for part in parts)
            blocks.append(
                Block(item.get("role", item["type"]), text or item.get("arguments") or item.get("output", ""))
            )
        return blocks


BREAKPOINT = {"cache_control": {"type": "ephemeral"}}


class Messages:
    """Anthropic's Messages, with the two breakpoints that its guide recommends: after the system text, and moving."""

    name = "messages"
    path = "/v1/messages"

    def body(self, system: str, items: Sequence[Item]) -> Json:
        last = max(index for index, item in enumerate(items) if item.kind in ("user", "result"))
        messages = [self._message(item, is_marked=index == last) for index, item in enumerate(items)]
        marked = [{"type": "text", "text": system, **BREAKPOINT}]
        return {"model": "m", "max_tokens": 1024, "system": marked, "messages": messages}

    def _message(self, item: Item, *, is_marked: bool) -> Json:
        marks = BREAKPOINT if is_marked else {}
        if item.kind == "call":
            use = {"type": "tool_use", "id": item.call_id, "name": "look_up", "input": {"for": item.text}}
            return {"role": "assistant", "content": [use]}
        if item.kind == "result":
            result = {"type": "tool_result", "tool_use_id": item.call_id, "content": item.text, **marks}
            return {"role": "user", "content": [result]}
        return {"role": item.kind, "content": [{"type": "text", "text": item.text, **marks}]}

    def reply(self, item: Item) -> Json:
        content = self._message(item, is_marked=False)["content"]
        usage = {"input_tokens": 1, "output_tokens": 1}
        stop = "tool_use" if item.kind == "call" else "end_turn"
        return {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content,
            "stop_reason": stop, "usage": usage,
        }  # fmt: skip

    def prompt(self, body: Json) -> Prompt:
        blocks = [self._block("system", block) for block in body["system"]]
        for message in body["messages"]:
            blocks += [self._block(message["role"], block) for block in message["content"]]
        return blocks

    def _block(self, role: str, block: Json) -> Block:
        text = block.get("text") or block.get("content") or json.dumps(block.get("input"))
        return Block(role if block["type"] == "text" else block["type"], text, "cache_control" in block)


DIALECTS: tuple[Dialect, ...] = (Chat(), Responses(), Messages())
