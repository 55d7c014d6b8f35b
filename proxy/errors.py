"""Errors of the request path, and the one place that words them for clients.

ProxyError
├── ApiError                     what a client sees: a status and OpenAI's error body
├── UpstreamError                the upstream did not answer as it should
│   ├── UpstreamUnreachableError     no connection, or it went away before the first byte of the reply
│   ├── UpstreamTimeoutError         no connection or no first byte in the configured time
│   ├── UpstreamCutError             the connection went away in the middle of the reply
│   └── UpstreamRestingError         it failed so often that it is not asked for a while
└── ClientGoneError              nobody waits for the reply any more
"""

import math
from collections.abc import Sequence
from typing import Final

import orjson

Header = tuple[bytes, bytes]

JSON_TYPE: Final = (b"content-type", b"application/json")


class ProxyError(Exception):
    """Base of all errors of the request path."""


class ApiError(ProxyError):
    """An answer of our own with an error status; *message* goes to the client as it stands."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",  # noqa: A002 - the field's name in OpenAI's error body
        param: str | None = None,
        code: str | None = None,
        headers: Sequence[Header] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = tuple(headers)


class UpstreamError(ProxyError):
    """The upstream did not answer as it should."""


class UpstreamUnreachableError(UpstreamError):
    """There is no connection, or it went away before the first byte of the reply."""


class UpstreamTimeoutError(UpstreamError):
    """No connection or no first byte of a reply came in the configured time."""


class UpstreamCutError(UpstreamError):
    """The connection went away in the middle of the reply."""


class UpstreamRestingError(UpstreamError):
    """The upstream failed so often that it is not asked until *retry_after_s* seconds have passed."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("it failed several times in a row and rests")
        self.retry_after_s = retry_after_s


class ClientGoneError(ProxyError):
    """Nobody waits for the reply any more."""


def error_body(error: ApiError) -> bytes:
    """Return the body in OpenAI's shape, all four fields always there.

    >>> error_body(ApiError(404, "no such model", param="model", code="model_not_found")).decode()
    '{"error":{"message":"no such model","type":"invalid_request_error","param":"model","code":"model_not_found"}}'
    """
    fields = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    try:
        return orjson.dumps({"error": fields})
    except orjson.JSONEncodeError:  # a lone surrogate out of the client's JSON stands in the message
        fields["message"] = error.message.encode("utf-8", "replace").decode()
        fields["param"] = error.param and error.param.encode("utf-8", "replace").decode()
        return orjson.dumps({"error": fields})


def invalid_api_key(message: str) -> ApiError:
    """Return the 401 of a missing or wrong key."""
    return ApiError(401, message, code="invalid_api_key", headers=((b"www-authenticate", b"Bearer"),))


def forbidden(message: str) -> ApiError:
    """Return the 403 of a key whose scope does not reach this far."""
    return ApiError(403, message, type="insufficient_permissions", code="insufficient_permissions")


def not_found(path: str) -> ApiError:
    """Return the 404 of a path that nobody serves."""
    return ApiError(404, f"Unknown path: {path}", code="not_found")


def model_not_found(model: str) -> ApiError:
    """Return the 404 of a model that no configured upstream serves."""
    return ApiError(
        404, f"The model `{model}` does not exist or no upstream serves it.", param="model", code="model_not_found"
    )


def body_too_large(max_body_mb: float) -> ApiError:
    """Return the 413 of a chat body beyond the configured size."""
    return ApiError(413, f"The request body is larger than {max_body_mb:g} MB.", code="request_too_large")


def unavailable(message: str, code: str) -> ApiError:
    """Return a 503: nothing is wrong with the request, it may be tried again."""
    return ApiError(503, message, type="server_error", code=code, headers=((b"retry-after", b"1"),))


def upstream_failure(error: UpstreamError, upstream: str) -> ApiError:
    """Return what a client sees when *upstream* failed before its reply began: 502, 504 for a timeout, 503 at rest."""
    if isinstance(error, UpstreamRestingError):
        retry_after = (b"retry-after", b"%d" % max(math.ceil(error.retry_after_s), 1))
        return ApiError(
            503,
            f"Upstream {upstream!r} failed several times in a row; it is not asked for a while.",
            type="upstream_error",
            code="upstream_resting",
            headers=(retry_after,),
        )
    if isinstance(error, UpstreamTimeoutError):
        return ApiError(
            504, f"Upstream {upstream!r} did not answer in time.", type="upstream_error", code="upstream_timeout"
        )
    return ApiError(502, f"Upstream {upstream!r}: {error}", type="upstream_error", code="upstream_unreachable")
