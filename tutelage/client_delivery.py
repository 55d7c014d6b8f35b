"""How the client hands messages over: one POST, and what the server's answer means. Standard library alone."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

PATH = "/api/training/conversations/bulk"
MAX_ANSWER_BYTES = 1_000_000
MAX_WAIT_S = 300.0  # that a server's retry-after may ask for

Outcome = Literal["taken", "too_much", "later"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a delivery: *taken*, *too_much* (or bad: try halves), or to be sent *later*."""

    outcome: Outcome
    n_bad: int = 0  # of a delivery that was taken: items that the server turned down, each with its reason
    reason: str = ""
    wait_s: float | None = None  # as the server asks


class Backend:
    """The server that takes messages in. A connection for each delivery: they are seldom, and none can be stale."""

    def __init__(self, url: str, api_key: str, timeout_s: float) -> None:
        """Keep where it is.

        Raises:
            ValueError: *url* is no http(s) URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the server's URL must begin with http:// or https://, not {url!r}")
        self._is_tls = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/") + PATH
        self._headers = {"content-type": "application/json", **({"x-api-key": api_key} if api_key else {})}
        self._timeout_s = timeout_s

    def post(self, lines: Sequence[bytes]) -> Verdict:
        """Send messages, each a JSON object, and return what became of them; it takes the timeout at most."""
        body = b'{"conversations":[' + b",".join(lines) + b"]}"
        kind = http.client.HTTPSConnection if self._is_tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout_s)
        # A server that sends a byte now and then never runs into the socket's timeout.
        deadline = threading.Timer(self._timeout_s, _cut, [connection])
        deadline.daemon = True
        try:
            connection.connect()
            deadline.start()
            connection.request("POST", self._path, body, {**self._headers, "connection": "close"})
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_BYTES)
            return judge(response.status, response.getheader("retry-after"), answer, len(lines), time.time())
        except (OSError, http.client.HTTPException, ValueError) as exc:
            return Verdict("later", reason=f"{type(exc).__name__}: {exc}")
        finally:
            deadline.cancel()
            connection.close()


def _cut(connection: http.client.HTTPConnection) -> None:
    try:
        connection.sock.shutdown(socket.SHUT_RDWR)
    except (OSError, AttributeError):  # it is closed already
        return


def judge(status: int, retry_after: str | None, body: bytes, n_items: int, now_s: float) -> Verdict:
    """Return what an answer means for the *n_items* that were sent.

    Only an answer that accounts for each of them is one: what a broken server or a proxy in between says is no reason
    to let go of anything.

    >>> judge(200, None, b'{"success": true, "count": 2}', 2, 0.0).outcome
    'taken'
    >>> judge(200, None, b'<html>', 2, 0.0).outcome, judge(413, None, b'', 2, 0.0).outcome
    ('later', 'too_much')
    """
    answer = _decoded(body)
    if status == 200:
        errors = answer.get("errors", [])
        count = answer.get("count")
        is_whole = isinstance(errors, list) and isinstance(count, int) and count + len(errors) == n_items
        if answer.get("success") is True and is_whole:
            first = errors[0] if errors and isinstance(errors[0], dict) else {}
            return Verdict("taken", len(errors), f"{first.get('field')}: {first.get('message')}" if errors else "")
        return Verdict("later", reason="status 200 with an answer that does not say what became of each message")
    error = answer.get("error")
    is_verdict = isinstance(error, dict) and str(error.get("param") or "").startswith("conversations")
    if status == 413 or (status == 400 and is_verdict):
        return Verdict("too_much", reason=str(error.get("message")) if isinstance(error, dict) else f"status {status}")
    return Verdict("later", reason=f"status {status}", wait_s=wait_of(retry_after, now_s))


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def wait_of(retry_after: str | None, now_s: float) -> float | None:
    """Return the seconds that a ``retry-after`` header asks for, up to MAX_WAIT_S; None when it says nothing.

    >>> wait_of("7", 0.0), wait_of("Thu, 01 Jan 1970 00:01:00 GMT", 10.0), wait_of("soon", 0.0), wait_of("1e9", 0.0)
    (7.0, 50.0, None, 300.0)
    """
    if retry_after is None:
        return None
    try:
        wait_s = float(retry_after)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(retry_after).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(wait_s, 0.0), MAX_WAIT_S) if wait_s == wait_s else None  # noqa: PLR0124  # not a number
