"""The seam to whoever answers: a request goes in, a reply comes out piece by piece, and either side may give up.

``upstream_pool.HttpUpstream`` speaks HTTP to any OpenAI-compatible server, ``litellm_upstream.LitellmUpstream``
reaches the other providers.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.errors import Header


class Cancellation:
    """Tells at most one listener, at once, that nobody waits for the reply any more."""

    __slots__ = ("_listener", "is_cancelled")

    def __init__(self) -> None:
        self.is_cancelled = False
        self._listener: Callable[[], object] | None = None

    def cancel(self) -> None:
        """Say it; a second time does nothing."""
        if self.is_cancelled:
            return
        self.is_cancelled = True
        listener, self._listener = self._listener, None
        if listener is not None:
            listener()

    def listen(self, listener: Callable[[], object] | None) -> None:
        """Call *listener* on cancellation, at once when it has happened; replaces the earlier listener."""
        if self.is_cancelled and listener is not None:
            listener()
        else:
            self._listener = listener


@dataclass(slots=True)
class UpstreamRequest:
    """One request as it goes upstream.

    Attributes:
        method: such as ``POST``.
        target: path below the upstream's ``base_url`` with its query, percent-encoding as the client wrote it.
        headers: complete but for ``host``, ``content-length`` and ``transfer-encoding``.
        body: the whole body; None when there is none or *body_stream* gives it.
        body_stream: pieces of a body that is not held in memory.
        content_length: of *body_stream*, in bytes; None sends it chunked.
        cancellation: closes the connection when the client leaves.
    """

    method: str
    target: bytes
    headers: Sequence[Header]
    body: bytes | None
    cancellation: Cancellation
    body_stream: AsyncGenerator[bytes] | None = None
    content_length: int | None = None


class UpstreamResponse(Protocol):
    """A reply whose head has arrived."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Sequence[Header]: ...

    @property
    def is_complete(self) -> bool:
        """Whether all of the body was read; true together with the last piece where the wire shows it in time."""
        ...

    async def read(self) -> bytes:
        """Return what has arrived since the last call, waiting for it; empty only at the end.

        Raises:
            UpstreamCutError: the connection went away before the end; what had arrived was returned before.
            ClientGoneError: the request was cancelled.
        """
        ...

    def cancel(self) -> None:
        """Give up: close the connection at once. Nothing happens after the end."""
        ...


class Upstream(Protocol):
    """Whoever answers requests."""

    @property
    def name(self) -> str: ...

    @property
    def is_learned_only(self) -> bool:
        """Whether it serves the learned endpoints alone, so that nothing can be passed through."""
        ...

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Return the reply once its head has arrived.

        Raises:
            UpstreamUnreachableError: no connection, or it went away before the reply.
            UpstreamTimeoutError: the connection or the reply's head took too long.
            ClientGoneError: the request was cancelled.
            ApiError: this upstream does not serve such requests.
        """
        ...

    async def close(self) -> None:
        """Close idle connections; running ones end with their requests."""
        ...
