"""How the simulated users reach the proxy: plain HTTP over one kept connection."""

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

TIMEOUT_S = 30.0  # seconds; everything is on this machine, so that only a hang takes this long


class DemoError(Exception):
    """The replay cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class ChatReply:
    response_id: str
    text: str


class ProxyClient:
    """One keep-alive connection to the proxy."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)

    def chat(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> ChatReply:
        """Return the assistant's text and the response's id, streamed or not.

        Raises:
            DemoError: the proxy answered with anything but 200.
        """
        answer, response_id = self._post("/v1/chat/completions", body, headers, expected=200)
        text = _streamed_text(answer) if body.get("stream") else json.loads(answer)["choices"][0]["message"]["content"]
        return ChatReply(response_id, text)

    def feedback(self, signals: Sequence[Mapping[str, Any]]) -> None:
        """Send signals as one list.

        Raises:
            DemoError: the proxy did not take them all.
        """
        if signals:
            self._post("/v1/feedback", signals, {}, expected=201)

    def _post(self, path: str, value: Any, headers: Mapping[str, str], *, expected: int) -> tuple[bytes, str]:
        sent = {"content-type": "application/json", "authorization": "Bearer demo", **headers}
        try:
            self._connection.request("POST", path, json.dumps(value).encode(), sent)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as exc:
            raise DemoError(f"POST {path}: {exc!r}") from exc
        if response.status != expected:
            raise DemoError(f"POST {path} answered {response.status}: {answer[:500]!r}")
        return answer, response.getheader("x-tutelage-response-id", "")

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _streamed_text(answer: bytes) -> str:
    lines = [line.removeprefix(b"data: ") for line in answer.split(b"\n") if line.startswith(b"data: {")]
    deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)
