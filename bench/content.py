"""Whether a target really serves: its reply's text must be the mock upstream's, whole or in chunks."""

import http.client
import json
from collections.abc import Sequence
from pathlib import Path

from bench.measurement import Target

WHOLE_START = "First look at the pool size, then at the retry policy."
STREAMED = "First" + " look at the pool size" * 49
TIMEOUT_S = 60.0


def check_reply(target: Target, bodies: Path, headers: Sequence[str]) -> None:
    """Ask *target* the first of *bodies*.

    Raises:
        RuntimeError: it answered something else than the mock upstream did.
    """
    body = bodies.open(encoding="utf-8").readline().strip()
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=TIMEOUT_S)
    sent = {"Content-Type": "application/json"} | dict(header.split(": ", 1) for header in headers)
    connection.request("POST", target.path, body, sent)
    response = connection.getresponse()
    reply = response.read().decode()
    connection.close()
    is_stream = json.loads(body).get("stream", False)
    is_right = response.status == 200 and (
        _streamed_text(reply) == STREAMED if is_stream else _whole_text(reply).startswith(WHOLE_START)
    )
    if not is_right:
        raise RuntimeError(f"{target.name} answered {response.status}: {reply[:500]}")


def _whole_text(reply: str) -> str:
    return str(json.loads(reply)["choices"][0]["message"]["content"])


def _streamed_text(reply: str) -> str:
    events = [line.removeprefix("data:").strip() for line in reply.splitlines() if line.startswith("data:")]
    choices = [choice for event in events if event != "[DONE]" for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
