"""A scripted OpenAI-like upstream over real HTTP, in a thread of its own.

It keeps every request exactly as it arrived and answers what a callable says, given the request: whole or streamed,
with any status, slow, stalled, cut or reset.
"""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self

Headers = tuple[tuple[bytes, bytes], ...]
JSON_TYPE = (b"content-type", b"application/json")
STREAM_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")
START_TIMEOUT_S = 5.0
_IDS = count(1)


@dataclass(frozen=True)
class SeenRequest:
    """One request as the upstream received it, byte for byte."""

    method: str
    target: str  # path and query, still percent-encoded
    headers: Headers  # names in lower case, in order
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first header *name*, or None."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key == wanted), None)

    @cached_property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_stream(self) -> bool:
        return bool(self.json.get("stream"))

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.json["messages"]
        return messages

    @property
    def system_text(self) -> str:
        """Return the text of all system and developer messages."""
        return "\n".join(
            text_of(message) for message in self.messages if message.get("role") in ("system", "developer")
        )

    @property
    def last_user_text(self) -> str:
        """Return the text of the last user message, or nothing."""
        return next((text_of(message) for message in reversed(self.messages) if message.get("role") == "user"), "")


def text_of(message: Mapping[str, Any]) -> str:
    """Return a message's text, its parts joined."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


@dataclass(frozen=True)
class Reply:
    """What the upstream answers: ``parts`` one write after the other, ``end`` afterwards.

    ``complete`` ends as HTTP says, ``cut`` closes in the middle, ``reset`` sends a TCP reset, ``stall`` keeps silent.
    """

    parts: tuple[bytes, ...]
    status: int = 200
    headers: Headers = (JSON_TYPE,)
    is_chunked: bool = False
    delay_s: float = 0.0  # before the first byte
    gap_s: float = 0.0  # between parts
    end: Literal["complete", "cut", "reset", "stall"] = "complete"


Script = Callable[[SeenRequest], Reply]


def json_reply(value: object, status: int = 200, headers: Headers = ()) -> Reply:
    """Return a whole JSON answer."""
    return Reply((json.dumps(value).encode(),), status=status, headers=(JSON_TYPE, *headers))


def error_reply(status: int, message: str = "scripted failure", retry_after: str | None = None) -> Reply:
    """Return an error in OpenAI's shape, with ``retry-after`` when given."""
    headers: Headers = ((b"retry-after", retry_after.encode()),) if retry_after else ()
    error = {"message": message, "type": "server_error", "param": None, "code": "scripted"}
    return json_reply({"error": error}, status, headers)


def sse_reply(events: Iterable[object], *, done: bool = True) -> Reply:
    """Return a stream of ``data:`` events, one write each."""
    parts = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return Reply(tuple(parts) + ((b"data: [DONE]\n\n",) if done else ()), headers=(STREAM_TYPE,), is_chunked=True)


def chat_reply(
    request: SeenRequest,
    text: str | None = "Hello from upstream.",
    *,
    reply_id: str | None = None,
    tool_calls: Sequence[Mapping[str, Any]] = (),
    usage: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Reply:
    """Return a chat completion with *text*, streamed word by word when the request asked for a stream.

    Args:
        request: decides between stream and not, and names the model.
        text: the content; None with tool calls alone.
        reply_id: the body's ``id``; a new one when not given.
        tool_calls: whole tool calls.
        usage: given back as it is; streams send it when ``stream_options.include_usage`` asks.
        extra: further top-level fields of the reply.
    """
    head = {
        "id": reply_id or f"chatcmpl-up-{next(_IDS)}",
        "created": 1760000000,
        "model": request.json.get("model", ""),
        "system_fingerprint": "fp_scripted",
        **(extra or {}),
    }
    tokens = dict(usage or {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18})
    finish = "tool_calls" if tool_calls else "stop"
    if request.is_stream:
        return sse_reply(_stream_events(request, head, text, tool_calls, tokens, finish))
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if tool_calls:
        message["tool_calls"] = list(tool_calls)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return json_reply({**head, "object": "chat.completion", "choices": [choice], "usage": tokens})


def _stream_events(
    request: SeenRequest,
    head: Mapping[str, Any],
    text: str | None,
    tool_calls: Sequence[Mapping[str, Any]],
    usage: Mapping[str, Any],
    finish: str,
) -> Iterator[dict[str, Any]]:
    def event(delta: Mapping[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**head, "object": "chat.completion.chunk", "choices": [choice]}

    yield event({"role": "assistant", "content": "" if text is not None else None})
    for word in (text or "").split(" "):
        yield event({"content": word + " "})
    for index, call in enumerate(tool_calls):
        function = call["function"]
        yield event({"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]})
        yield event({"tool_calls": [{"index": index, "function": {"arguments": function["arguments"]}}]})
    yield event({}, finish)
    if (request.json.get("stream_options") or {}).get("include_usage"):
        yield {**head, "object": "chat.completion.chunk", "choices": [], "usage": usage}


@dataclass
class Upstream:
    """The server: ``with Upstream() as upstream`` runs it; set ``script`` to change what it answers."""

    script: Script = chat_reply
    requests: list[SeenRequest] = field(default_factory=list)
    n_disconnects: int = 0  # clients that left before their answer was complete
    port: int = 0

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        if not started.wait(START_TIMEOUT_S):
            raise TimeoutError("the scripted upstream did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_TIMEOUT_S)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def last(self) -> SeenRequest:
        return self.requests[-1]

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**26, backlog=512)
        )
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._answer_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            self.n_disconnects += 1
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = await read_request(reader)
        if request is None:
            return False
        self.requests.append(request)
        reply = self.script(request)
        if reply.delay_s and await _hung_up(reader, reply.delay_s):
            self.n_disconnects += 1
            return False
        if reply.end == "reset" and not reply.parts:
            writer.transport.abort()
            return False
        await _write(writer, reply)
        if reply.end == "complete":
            return True
        if reply.end == "stall":
            await reader.read(1)  # until the other side gives up
            self.n_disconnects += 1
        if reply.end == "reset":
            writer.transport.abort()
        return False


async def _hung_up(reader: asyncio.StreamReader, delay_s: float) -> bool:
    try:
        return not await asyncio.wait_for(reader.read(1), delay_s)
    except TimeoutError:
        return False


async def _write(writer: asyncio.StreamWriter, reply: Reply) -> None:
    framing = (
        (b"transfer-encoding", b"chunked")
        if reply.is_chunked
        else (b"content-length", b"%d" % (sum(map(len, reply.parts)) + (reply.end != "complete")))
    )
    lines = b"".join(b"%s: %s\r\n" % header for header in (*reply.headers, framing))
    writer.write(b"HTTP/1.1 %d Scripted\r\n%s\r\n" % (reply.status, lines))
    for part in reply.parts:
        writer.write(b"%x\r\n%s\r\n" % (len(part), part) if reply.is_chunked else part)
        await writer.drain()
        if reply.gap_s:
            await asyncio.sleep(reply.gap_s)
    if reply.is_chunked and reply.end == "complete":
        writer.write(b"0\r\n\r\n")
    await writer.drain()


async def read_request(reader: asyncio.StreamReader) -> SeenRequest | None:
    """Return the next request of a connection, None when it was closed between two."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as exc:
        if exc.partial:
            raise
        return None
    first, *lines = head[:-4].split(b"\r\n")
    method, target, _ = first.split(b" ", 2)
    headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines))
    by_name = dict(headers)
    if b"chunked" in by_name.get(b"transfer-encoding", b""):
        body = b"".join([part async for part in _chunks(reader)])
    else:
        body = await reader.readexactly(int(by_name.get(b"content-length", b"0")))
    return SeenRequest(method.decode(), target.decode("latin-1"), headers, body)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        data = await reader.readexactly(size + 2)
        if not size:
            return
        yield data[:-2]
