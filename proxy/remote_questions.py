"""Vectors of questions from the configured embedding server: asked for while the request waits, never for long.

Whatever goes wrong, the request goes on with its local vector: slow, unreachable, refused, malformed. A server that
fails several times in a row is not asked for a while, so that no request waits for one that is dead.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, MutableMapping
from typing import Final, Literal

from proxy.breaker import Breaker
from proxy.conversation import Recent
from proxy.errors import JSON_TYPE, ClientGoneError, UpstreamError, UpstreamTimeoutError
from proxy.upstream import Cancellation, Upstream, UpstreamRequest
from store.config import EmbeddingSection, UpstreamSection
from store.embedding import Vector, clipped
from store.remote_embedding import TARGET, EmbeddingReplyError, decode_reply, encode_request, model_name

MAX_REPLY_BYTES: Final = 2_000_000  # one vector of 3,072 components takes 60,000
MAX_CONNECTIONS: Final = 32  # kept open
OK: Final = 200

Outcome = Literal["cached", "made", "timeout", "failed", "resting"]

logger = logging.getLogger(__name__)


class RemoteQuestions:
    """Asks one embedding server and remembers what it said.

    Args:
        section: the model and the bounds.
        upstream: the server.
        key: sent as a bearer token; empty: none is.
        outcomes: counted by what became of each question.
        monotonic_s: by which the server rests.
    """

    def __init__(
        self,
        section: EmbeddingSection,
        upstream: Upstream,
        key: str,
        outcomes: MutableMapping[str, int],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = model_name(section)
        self._section = section
        self._upstream = upstream
        self._headers = [JSON_TYPE, (b"accept", b"application/json"), (b"user-agent", b"tutelage")]
        if key:
            self._headers.append((b"authorization", b"Bearer " + key.encode("utf-8")))
        self._outcomes = outcomes
        self._monotonic_s = monotonic_s
        self._breaker = Breaker(section.breaker_failures, section.breaker_open_s)
        self._known: Recent[bytes, Vector] = Recent(section.question_cache)

    @property
    def problem(self) -> str | None:
        """What ``/healthz`` says of the server; None when all is well."""
        said = self._breaker.problem(self._monotonic_s())
        return f"{said}; questions are compared by their local vectors" if said else None

    def known(self, question: str) -> Vector | None:
        """Return the vector (256,) of a question that was asked for; None: there is none."""
        return self._known.get(_key(question))

    async def ask(self, question: str, cancellation: Cancellation) -> None:
        """Return once the vector of *question* is known, or will not be, after ``[embedding] timeout_s`` at most.

        Raises:
            ClientGoneError: the client left before.
        """
        if not question.strip():
            return
        if self._known.get(_key(question)) is not None:
            self._count("cached")
            return
        if not self._breaker.admits(self._monotonic_s()):
            self._count("resting")
            return
        try:
            vector = await self._vector(question, cancellation)
        except ClientGoneError:
            self._breaker.abandoned()
            raise
        except UpstreamTimeoutError as exc:
            self._fail("timeout", exc)
        except (UpstreamError, EmbeddingReplyError) as exc:
            self._fail("failed", exc)
        else:
            self._breaker.answered()
            self._known.put(_key(question), vector)
            self._count("made")

    async def close(self) -> None:
        """Close idle connections."""
        await self._upstream.close()

    async def _vector(self, question: str, cancellation: Cancellation) -> Vector:
        # Of its own: when time is up the exchange ends, not the request.
        ours = Cancellation()
        timer = asyncio.get_running_loop().call_later(self._section.timeout_s, ours.cancel)
        cancellation.listen(ours.cancel)
        try:
            status, body = await self._exchange(encode_request(self._section, [question]), ours)
        except ClientGoneError:
            if cancellation.is_cancelled:
                raise
            raise UpstreamTimeoutError(f"no vector within {self._section.timeout_s:g} s") from None
        finally:
            timer.cancel()
            cancellation.listen(None)
        if status != OK:
            raise EmbeddingReplyError(f"status {status}")
        vector: Vector = decode_reply(body, 1).vectors[0]
        return vector

    async def _exchange(self, body: bytes, cancellation: Cancellation) -> tuple[int, bytes]:
        request = UpstreamRequest("POST", TARGET.encode(), self._headers, body, cancellation)
        response = await self._upstream.send(request)
        pieces: list[bytes] = []
        size_bytes = 0
        while piece := await response.read():
            pieces.append(piece)
            size_bytes += len(piece)
            if size_bytes > MAX_REPLY_BYTES:
                response.cancel()
                raise EmbeddingReplyError(f"an answer of more than {MAX_REPLY_BYTES} bytes")
        return response.status, b"".join(pieces)

    def _fail(self, outcome: Outcome, exc: Exception) -> None:
        self._breaker.failed(self._monotonic_s())
        self._count(outcome)
        logger.debug("embedding server: %s", exc)

    def _count(self, outcome: Outcome) -> None:
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1


def server_of(section: EmbeddingSection) -> UpstreamSection:
    """Return the embedding server as an upstream; only its address and its bounds matter."""
    return UpstreamSection(
        name="embedding",
        base_url=section.base_url,
        models=(),
        provider="openai",
        api_key_env=section.api_key_env,
        connect_timeout_s=section.timeout_s,
        first_byte_timeout_s=0.0,
        total_timeout_s=section.timeout_s,
        max_idle_connections=MAX_CONNECTIONS,
        retries=0,
        retry_base_s=0.0,
        retry_max_s=0.0,
        fallbacks=(),
        breaker_failures=0,
        breaker_open_s=section.breaker_open_s,
        rename={},
    )


def _key(question: str) -> bytes:
    return hashlib.blake2b(clipped(question).encode("utf-8", "replace"), digest_size=16).digest()
