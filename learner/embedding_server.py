"""The configured embedding server, asked from the background: in batches, with retries; never for a request."""

import http.client
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Final

from learner.errors import ModelError
from store.config import EmbeddingSection
from store.remote_embedding import TARGET, Embedded, EmbeddingReplyError, decode_reply, encode_request, model_name

TRIES: Final = 3
BACKOFF_S: Final = 0.5  # before the second try; doubles
MAX_WAIT_S: Final = 30.0  # that a retry-after is kept to; a longer one ends the tries
MAX_REPLY_BYTES: Final = 100_000_000  # 64 entries of 20 phrasings at 3,072 components take 80 million
RETRIED: Final = frozenset({408, 409, 429})  # and everything from 500 on

log = logging.getLogger(__name__)


class RefusedError(ModelError):
    """The server will not embed these texts: asking again is of no use."""


class EmbeddingServer:
    """Asks the server of ``[embedding]``; ``stop`` ends a wait between two tries.

    Args:
        section: the model and its bounds.
        key: sent as a bearer token; empty: none is.
        backoff_s: before the second try.
    """

    def __init__(self, section: EmbeddingSection, key: str, *, backoff_s: float = BACKOFF_S) -> None:
        self.name = model_name(section)
        self._section = section
        self._url = section.base_url.rstrip("/") + TARGET
        self._headers = {"content-type": "application/json", "accept": "application/json", "user-agent": "tutelage"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._backoff_s = backoff_s
        self._stop = threading.Event()

    def stop(self) -> None:
        """Let no further try begin."""
        self._stop.set()

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Return the vectors of *texts*, none of them blank.

        Raises:
            RefusedError: the server refuses these texts.
            ModelError: it cannot be reached, is too busy, or answers what is no embedding.
        """
        body = encode_request(self._section, texts)
        wait_s, problem = self._backoff_s, ""
        for left in range(TRIES - 1, -1, -1):
            problem, asked_s = "", 0.0
            try:
                return decode_reply(self._post(body), len(texts))
            except urllib.error.HTTPError as exc:
                problem, asked_s = f"status {exc.code}", _retry_after_s(exc)
                exc.close()
                if exc.code not in RETRIED and exc.code < http.client.INTERNAL_SERVER_ERROR:
                    raise RefusedError(f"the embedding server answers {problem}") from exc
            except EmbeddingReplyError as exc:
                raise ModelError(f"the embedding server answers {exc}") from exc
            except (OSError, http.client.HTTPException) as exc:
                problem = f"{type(exc).__name__}"
            if not left or asked_s > MAX_WAIT_S or self._stop.wait(max(wait_s, asked_s)):
                break
            wait_s *= 2
        raise ModelError(f"the embedding server failed: {problem}")

    def _post(self, body: bytes) -> bytes:
        request = urllib.request.Request(self._url, data=body, headers=self._headers, method="POST")  # noqa: S310  # config.py checks that it is http(s)
        with urllib.request.urlopen(request, timeout=self._section.batch_timeout_s) as response:  # noqa: S310
            read: bytes = response.read(MAX_REPLY_BYTES)
            return read


def _retry_after_s(error: urllib.error.HTTPError) -> float:
    """Return the seconds that the server asks to wait; 0 when it does not say, or says a date."""
    said = error.headers.get("retry-after") or ""
    try:
        return max(float(said), 0.0)
    except ValueError:
        return 0.0


def make_server(section: EmbeddingSection, environment: Mapping[str, str]) -> EmbeddingServer:
    """Return the configured server, its key out of *environment*."""
    return EmbeddingServer(section, environment.get(section.api_key_env, "") if section.api_key_env else "")
