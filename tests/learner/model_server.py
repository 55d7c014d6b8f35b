"""A model behind HTTP that answers from a script and can misbehave in every way that real ones do."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Request = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What the server sends: a status, headers and a body, after a delay."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    is_dropped: bool = False  # the connection ends without a word
    n_missing: int = 0  # bytes of the body that are announced and never come


def text_reply(text: str | None, *, prompt_tokens: int = 100, completion_tokens: int = 10) -> Reply:
    return _reply({"role": "assistant", "content": text}, prompt_tokens, completion_tokens)


def tool_reply(name: str, arguments: str, *, prompt_tokens: int = 100, completion_tokens: int = 10) -> Reply:
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return _reply(message, prompt_tokens, completion_tokens)


def error_reply(status: int, message: str = "no", **headers: str) -> Reply:
    body = json.dumps({"error": {"message": message, "type": "x", "param": None, "code": None}}).encode()
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


def _reply(message: dict[str, Any], prompt_tokens: int, completion_tokens: int) -> Reply:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }
    return Reply(body=json.dumps(body).encode())


class ModelServer:
    """Answers each chat request with the next reply of a script, or with what a function of the request returns."""

    def __init__(self, script: Sequence[Reply] | Callable[[Request], Reply]) -> None:
        self.requests: list[Request] = []
        self._script = script if callable(script) else None
        self._replies = [] if callable(script) else list(script)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        if self._script is not None:
            return self._script(request)
        return self._replies.pop(0) if self._replies else error_reply(400, "the script is at its end")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                reply = server.answer(json.loads(body))
                time.sleep(reply.delay_s)
                if reply.is_dropped:
                    self.close_connection = True
                    return
                with suppress(ConnectionError):  # a client that was told to wait too long has left
                    self.send_reply(reply)

            def send_reply(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in {"content-type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(reply.body) + reply.n_missing))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
