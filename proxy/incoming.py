"""One learned request as it arrived, body and all."""

import msgspec

from proxy.errors import Header


class IncomingRequest(msgspec.Struct, frozen=True, gc=False):
    """What learning is told of a request.

    Attributes:
        endpoint: such as ``/v1/chat/completions``.
        headers: the client's, names in lower case, values as bytes.
        body: as the client sent it.
        received_s: when its body was complete, seconds of the system's clock.
    """

    endpoint: str
    headers: list[Header]
    body: bytes
    received_s: float
