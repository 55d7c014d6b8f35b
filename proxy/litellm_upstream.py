"""Providers with another wire format, through litellm: chat completions in OpenAI's shape, streamed or not.

The only import of litellm on this side. It takes seconds, a call milliseconds and a piece of a stream another one. So
all of it happens in a thread with an event loop of its own, and only where such an upstream is configured.
"""

import asyncio
import concurrent.futures
import importlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Final

import orjson

from proxy.dialect import CHAT_PATH
from proxy.errors import (
    JSON_TYPE,
    ApiError,
    ClientGoneError,
    Header,
    ProxyError,
    UpstreamCutError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
    only_chat,
)
from proxy.headers import find
from proxy.stepping import Wakeup
from proxy.upstream import UpstreamRequest
from store.config import UpstreamSection
from store.logs import tame_litellm

logger = logging.getLogger(__name__)

# Of a client's body. What is not here stays out: litellm's own keywords (api_base, api_key, mock_response, callbacks)
# would let a client redirect the upstream's key.
FIELDS: Final = frozenset(
    (
        *("messages", "functions", "function_call", "tools", "tool_choice", "parallel_tool_calls", "response_format"),
        *("temperature", "top_p", "top_k", "n", "seed", "stop", "presence_penalty", "frequency_penalty", "logit_bias"),
        *("max_tokens", "max_completion_tokens", "modalities", "prediction", "audio", "logprobs", "top_logprobs"),
        *("stream", "stream_options", "reasoning_effort", "verbosity", "thinking", "web_search_options"),
        *("user", "safety_identifier", "service_tier", "prompt_cache_key"),
    )
)
QUEUED_PIECES: Final = 64  # of a stream that the client has not taken yet
STOP_S: Final = 5.0  # that its thread gets to end

# Read by litellm at import: nothing is downloaded, no .env file is loaded.
_OFFLINE: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_MODE": "PRODUCTION",
}
_EVENT_STREAM: Final = (b"content-type", b"text/event-stream; charset=utf-8")


def load_litellm() -> Any:
    """Return the module, made quiet and offline; takes seconds the first time."""
    os.environ.update(_OFFLINE)
    litellm: Any = importlib.import_module("litellm")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    tame_litellm()
    return litellm


class LitellmThread:
    """A thread whose event loop runs everything of litellm's; ``module`` is litellm once it is imported."""

    def __init__(self) -> None:
        self.module: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.loop = self._runner.get_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="litellm", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, None]) -> "concurrent.futures.Future[None]":
        """Run *coroutine* there; cancelling what comes back cancels it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def stop(self) -> None:
        """Cancel what still runs there and end the loop."""
        self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_S)

    def _run(self) -> None:
        try:
            self.module.set_result(load_litellm())
        except Exception as exc:  # whoever waits for the module is told
            logger.exception("litellm cannot be imported")
            self.module.set_exception(exc)
        with self._runner as runner:
            runner.run(self._work())

    async def _work(self) -> None:
        await self._stopping.wait()
        if self.module.exception() is None:
            await self.module.result().close_litellm_async_clients()


class LitellmUpstream:
    """Chat completions of one provider."""

    is_learned_only = True

    def __init__(self, section: UpstreamSection, key: str) -> None:
        """Take settings and the provider's *key*; empty: each client's own."""
        self.name = section.name
        self._provider = section.provider
        self._base_url = section.base_url
        self._key = key
        self._timeout_s = section.first_byte_timeout_s or None
        self._total_timeout_s = section.total_timeout_s or None
        self._thread: LitellmThread | None = None

    def start(self) -> None:
        """Begin to load litellm, off the event loop; requests wait for it."""
        if self._thread is None:
            self._thread = LitellmThread()
            self._thread.start()

    async def send(self, request: UpstreamRequest) -> "LitellmResponse":
        path = "/v1" + request.target.partition(b"?")[0].decode("latin-1")
        if request.method != "POST" or path != CHAT_PATH:
            raise only_chat(self.name, path)
        self.start()
        assert self._thread is not None
        arguments = self._arguments(request)
        response = LitellmResponse(self._thread, is_stream=bool(arguments.get("stream")))
        response.start(self._complete(self._thread, arguments), self._total_timeout_s)
        request.cancellation.listen(response.cancel)
        await response.begun()
        return response

    async def close(self) -> None:
        if self._thread is not None:
            await asyncio.to_thread(self._thread.stop)

    def _arguments(self, request: UpstreamRequest) -> dict[str, Any]:
        body = _object(request.body or b"{}")
        model = str(body.get("model") or "")
        prefix = self._provider + "/"
        arguments = {name: value for name, value in body.items() if name in FIELDS}
        unknown = sorted(body.keys() - FIELDS - {"model"})
        if unknown:
            logger.debug("upstream %r: fields that litellm is not given: %s", self.name, ", ".join(unknown))
        arguments["model"] = model if model.startswith(prefix) else prefix + model
        arguments["api_key"] = self._key or _bearer(request) or None
        if self._base_url:
            arguments["api_base"] = self._base_url
        arguments["max_retries"] = 0
        # Else every request with tools imports litellm's MCP gateway, whose package is not installed; and a client's
        # tools could reach that gateway.
        arguments["_skip_mcp_handler"] = True
        return arguments

    async def _complete(self, thread: LitellmThread, arguments: dict[str, Any]) -> Any:
        """Return litellm's answer; runs in its thread."""
        litellm = await asyncio.wrap_future(thread.module)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await litellm.acompletion(**arguments)
        except TimeoutError as exc:
            raise UpstreamTimeoutError(f"no answer within {self._timeout_s:g} s") from exc
        except Exception as exc:  # litellm's errors have no common base of its own
            raise translate(exc) from exc


class LitellmResponse:
    """A reply of litellm as the bytes that an OpenAI-compatible server would have sent.

    Made and read on the server's event loop, filled from litellm's.
    """

    def __init__(self, thread: LitellmThread, *, is_stream: bool) -> None:
        self.status = 200
        self.headers: list[Header] = [_EVENT_STREAM if is_stream else JSON_TYPE]
        self._is_stream = is_stream
        self._thread = thread
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._changed = Wakeup()
        self._room = asyncio.Semaphore(QUEUED_PIECES)  # of litellm's loop
        self._work: concurrent.futures.Future[None] | None = None
        self._has_begun = False
        self._is_received = False
        self._error: Exception | None = None

    @property
    def is_complete(self) -> bool:
        return self._is_received and not self._pieces

    def start(self, completion: Coroutine[Any, Any, Any], timeout_s: float | None) -> None:
        """Await *completion* and collect what it says, all of it within *timeout_s*."""
        self._work = self._thread.submit(self._collect_in_time(completion, timeout_s))

    async def begun(self) -> None:
        """Return once the provider answers; raises what ``Upstream.send`` raises."""
        while not self._has_begun:
            if self._error is not None:
                raise self._error
            await self._changed

    async def read(self) -> bytes:
        while not self._pieces and not self._is_received:
            if self._error is not None:
                raise self._error
            await self._changed
        if isinstance(self._error, ClientGoneError):
            raise self._error
        n_pieces, data = len(self._pieces), b"".join(self._pieces)
        self._pieces.clear()
        self._thread.loop.call_soon_threadsafe(self._make_room, n_pieces)
        return data

    def cancel(self) -> None:
        if self._is_received or self._error is not None:
            return
        self._fail(ClientGoneError("the request was cancelled"))
        if self._work is not None:
            self._work.cancel()

    def _begin(self) -> None:
        self._has_begun = True
        self._changed.wake()

    def _add(self, piece: bytes, is_last: bool) -> None:
        self._pieces.append(piece)
        self._is_received = is_last
        self._changed.wake()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
            self._changed.wake()

    # In litellm's thread.

    async def _collect_in_time(self, completion: Coroutine[Any, Any, Any], timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._collect(completion)
        except TimeoutError:
            kind = UpstreamCutError if self._has_begun else UpstreamTimeoutError
            self._tell(self._fail, kind(f"its reply was not complete within {timeout_s:g} s"))

    async def _collect(self, completion: Coroutine[Any, Any, Any]) -> None:
        try:
            answer = await completion
        except Exception as exc:  # whatever it is, somebody waits for it
            self._tell(self._fail, exc)
            return
        self._tell(self._begin)
        try:
            if self._is_stream:
                await self._collect_stream(answer)
            else:
                body = orjson.dumps(shape_completion(answer.model_dump(mode="json", exclude_none=True)))
                await self._put(body, is_last=True)
        except Exception as exc:  # the provider's stream broke, in whatever way
            logger.warning("a stream broke: %s", exc)
            self._tell(self._fail, UpstreamCutError(str(exc)))

    async def _collect_stream(self, chunks: AsyncIterator[Any]) -> None:
        async for chunk in chunks:
            shaped = shape_chunk(chunk.model_dump(mode="json", exclude_none=True))
            await self._put(b"data: " + orjson.dumps(shaped) + b"\n\n")
        await self._put(b"data: [DONE]\n\n", is_last=True)

    async def _put(self, piece: bytes, *, is_last: bool = False) -> None:
        await self._room.acquire()
        self._tell(self._add, piece, is_last)

    def _tell(self, change: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(change, *arguments)
        except RuntimeError:  # the server's loop was closed: nobody waits any more
            logger.warning("an answer came after the proxy had stopped")

    def _make_room(self, n_pieces: int) -> None:
        for _ in range(n_pieces):
            self._room.release()


def shape_completion(completion: dict[str, Any]) -> dict[str, Any]:
    """Return a completion with the nulls that OpenAI's clients expect and without the provider's own fields."""
    for choice in completion.get("choices", ()):
        message = choice.get("message", {})
        message.pop("provider_specific_fields", None)
        message.setdefault("content", None)
        for call in message.get("tool_calls", ()):
            call.pop("index", None)
    return completion


def shape_chunk(chunk: dict[str, Any]) -> dict[str, Any]:
    """Return a chunk of a stream as OpenAI sends it: ``finish_reason`` always there, no choices beside the usage."""
    for choice in chunk.get("choices", ()):
        choice.setdefault("finish_reason", None)
        choice.get("delta", {}).pop("provider_specific_fields", None)
    if "usage" in chunk and not any(choice["finish_reason"] or choice.get("delta") for choice in chunk["choices"]):
        chunk["choices"] = []
    return chunk


def translate(error: Exception) -> ProxyError:
    """Return *error* of litellm as one of ours: the provider's status where it gave one."""
    kind = type(error).__name__
    status = getattr(error, "status_code", None)
    # The first line says it; tracebacks and links to litellm's issue form follow.
    message = str(getattr(error, "message", "") or error).partition("\n")[0]
    if kind == "Timeout":
        return UpstreamTimeoutError(message)
    if kind == "APIConnectionError" or "Cannot connect to host" in message:
        return UpstreamUnreachableError(message)
    if not isinstance(status, int) or not 400 <= status < 600:
        return UpstreamUnreachableError(f"{kind}: {message}")
    code = getattr(error, "code", None)
    return ApiError(
        status,
        message,
        type="invalid_request_error" if status < 500 else "upstream_error",
        param=getattr(error, "param", None),
        code=code if isinstance(code, str) else None,
        headers=_passed_headers(error),
    )


def _passed_headers(error: Exception) -> list[Header]:
    headers: Mapping[str, str] = getattr(error, "litellm_response_headers", None) or {}
    return [
        (name.encode(), headers[name].encode("latin-1"))
        for name in ("retry-after", "retry-after-ms", "x-should-retry")
        if name in headers
    ]


def _object(body: bytes) -> dict[str, Any]:
    """Return the request; raises ApiError for what was not read before it came here, or was read more kindly."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise ApiError(400, f"The request body is not valid JSON: {exc}", code="invalid_json") from exc
    if not isinstance(value, dict):
        raise ApiError(400, "The request body must be a JSON object.")
    return value


def _bearer(request: UpstreamRequest) -> str:
    scheme, _, key = (find(request.headers, b"authorization") or b"").partition(b" ")
    return key.decode("latin-1") if scheme.lower() == b"bearer" else ""
