"""The offline model: an OpenAI-compatible upstream that answers from given conversations and obeys its prompt.

``create_model`` returns the ASGI application; what it says is decided by pure functions of the request's body.
"""

import hashlib
import json
import random
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

import orjson

from store.blocks import CONTEXT_FOOTER, PATTERN_FOOTER
from tutelage.demo.library import Library
from tutelage.demo.style import Format, Length, Style, obey

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MODEL_NAME = "offline-demo"
FACTS: Mapping[Length, int] = {"short": 4, "medium": 13, "long": 36}  # answers put together for each length
LEISURE = frozenset(  # topics about which the model has the habit that misleads whoever trusts correlations
    {
        "FindRestaurants",
        "SearchHotel",
        "SearchHouse",
        "FindApartment",
        "FindAttractions",
        "FindProvider",
        "FindMovies",
        "GetTimesForMovie",
        "PlayMovie",
        "PlayMedia",
        "LookupMusic",
        "LookupSong",
    }
)
CHUNK_WORDS = 8  # words of one streamed event
CREATED_S = 1_700_000_000  # "created" of every reply: the same request always gets the same bytes

_GUIDANCE = re.compile(rf"<learned_guidance>\n(.*?){re.escape(PATTERN_FOOTER)}", re.DOTALL)
_REFERENCE = re.compile(rf"\s*<reference_material>\n(.*?){re.escape(CONTEXT_FOOTER)}", re.DOTALL)
_ENTRY_ANSWER = re.compile(r"<entry>\nQ: .*?\nA: (.*?)\n</entry>", re.DOTALL)
_INSTRUCTION = re.compile(r"<INSTRUCTION>.*?</INSTRUCTION>", re.DOTALL)


def message_text(message: Mapping[str, Any]) -> str:
    """Return the text of a message, its parts joined when there are several."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content or () if isinstance(part, dict))


def guidance(messages: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the rules of the learned-guidance blocks in the system text."""
    text = "\n".join(message_text(message) for message in messages if message.get("role") in ("system", "developer"))
    lines = "\n".join(_GUIDANCE.findall(text)).splitlines()
    return [line.removeprefix("- ") for line in lines if line.startswith("- ")]


def question_and_references(messages: Iterable[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """Return the last user message without its reference block, and the answers of that block."""
    texts = [message_text(message) for message in messages if message.get("role") == "user"]
    text = texts[-1] if texts else ""
    answers = [answer for block in _REFERENCE.findall(text) for answer in _ENTRY_ANSWER.findall(block)]
    return _REFERENCE.sub("", text).strip(), [" ".join(_INSTRUCTION.sub("", answer).split()) for answer in answers]


def is_easy(question: str) -> bool:
    """Return the hidden property of a question that moves both the model's habits and its readers' mood.

    A cluster of answers to easy questions looks better than others for a reason that is not in the answers: what
    learning from correlations alone would be fooled by.
    """
    return hashlib.blake2b(question.encode(), digest_size=1).digest()[0] % 2 == 0


def natural_style(question: str, intent: str, draw: random.Random) -> Style:
    """Return how the model answers of its own accord: any way, but easy questions about leisure mostly in lists."""
    lists = 0.3 if intent not in LEISURE else 0.6 if is_easy(question) else 0.1
    shape: Format = "list" if draw.random() < lists else draw.choice(("prose", "prose", "table"))
    length: Length = draw.choice(("short", "short", "medium", "medium", "medium", "long"))
    return Style(shape, length, asks_back=draw.random() < 0.3)


def render(facts: list[str], style: Style) -> str:
    """Return *facts* written in *style*."""
    if style.format == "table":
        rows = "\n".join(f"| {number} | {fact.replace('|', '/')} |" for number, fact in enumerate(facts, 1))
        text = f"| # | Answer |\n| --- | --- |\n{rows}"
    elif style.format == "list":
        text = "\n".join(f"- {fact}" for fact in facts)
    else:
        text = " ".join(facts)
    return f"{text}\n\nIs there anything else you would like to know?" if style.asks_back else _without_question(text)


def _without_question(text: str) -> str:
    return f"{text.rstrip()[:-1]}." if text.rstrip().endswith("?") else text


def answer(body: Mapping[str, Any], library: Library) -> str:
    """Return the reply to a chat request: the same body always gets the same reply.

    The body's ``seed`` (an OpenAI field) varies the natural style, as sampling would.
    """
    messages = body.get("messages", [])
    question, references = question_and_references(messages)
    key = f"{body.get('seed')}\x00{body.get('user')}\x00{question}"
    draw = random.Random(key)  # noqa: S311 - a repeatable draw, nothing secret
    style = obey(natural_style(question, library.intent(question), draw), guidance(messages))
    facts = (references + library.facts(question, FACTS[style.length]))[: FACTS[style.length]]
    return render(facts, style)


def completion(body: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return the whole ``chat.completion`` object."""
    return {
        "id": _completion_id(body),
        "object": "chat.completion",
        "created": CREATED_S,
        "model": body.get("model", MODEL_NAME),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": _usage(body, text),
    }


def events(body: Mapping[str, Any], text: str) -> Iterable[bytes]:
    """Yield the server-sent events of a streamed reply, the last one ``[DONE]``."""
    head = {
        "id": _completion_id(body),
        "object": "chat.completion.chunk",
        "created": CREATED_S,
        "model": body.get("model", MODEL_NAME),
    }
    words = text.split(" ")
    pieces = [" ".join(words[start : start + CHUNK_WORDS]) for start in range(0, len(words), CHUNK_WORDS)]
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece if number == 0 else f" {piece}"} for number, piece in enumerate(pieces)]
    for delta in deltas:
        yield _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield _event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        yield _event({**head, "choices": [], "usage": _usage(body, text)})
    yield b"data: [DONE]\n\n"


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _completion_id(body: Mapping[str, Any]) -> str:
    return f"chatcmpl-{hashlib.blake2b(orjson.dumps(body), digest_size=12).hexdigest()}"


def _usage(body: Mapping[str, Any], text: str) -> dict[str, int]:
    # Words stand for tokens: nobody bills them, and the demo's requests stay fast.
    prompt = sum(len(message_text(message).split()) for message in body.get("messages", []))
    completed = len(text.split())
    return {"prompt_tokens": prompt, "completion_tokens": completed, "total_tokens": prompt + completed}


def create_model(library: Library) -> App:
    """Return the ASGI application: ``POST /v1/chat/completions`` (stream and not) and ``GET /v1/models``."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if (scope["method"], scope["path"]) == ("GET", "/v1/models"):
            await _send_json(send, 200, {"object": "list", "data": [{"id": MODEL_NAME, "object": "model"}]})
            return
        if (scope["method"], scope["path"]) != ("POST", "/v1/chat/completions"):
            await _send_json(send, 404, _error(f"no {scope['method']} {scope['path']} here"))
            return
        try:
            body = json.loads(await _read(receive))
            text = answer(body, library)
        except (ValueError, AttributeError, TypeError) as exc:
            await _send_json(send, 400, _error(f"not a chat request: {exc}"))
            return
        if body.get("stream"):
            await _send_events(send, events(body, text))
        else:
            await _send_json(send, 200, completion(body, text))

    return app


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _send_json(send: Send, status: int, value: Mapping[str, Any]) -> None:
    body = orjson.dumps(value)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send_events(send: Send, chunks: Iterable[bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
